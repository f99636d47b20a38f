//! An input as the parts that a target wants.

/// Bytes that are taken from the front. What is not there reads as zero or empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// As many bytes as the first says.
    pub(crate) fn part(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (part, rest) = self.0.split_at(length);
        self.0 = rest;
        part
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// The text of the bytes; what is none is replaced.
pub(crate) fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// `N` parts between zero bytes; the last is all that is left.
pub(crate) fn split<const N: usize>(bytes: &[u8]) -> [&[u8]; N] {
    let mut parts = bytes.splitn(N, |byte| *byte == 0);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// The bytes in pieces of these sizes in turn, none of them empty.
pub(crate) fn cut<'a>(mut bytes: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    sizes.iter().cycle().map_while(move |size| {
        let (piece, rest) = bytes.split_at(bytes.len().min((*size).max(1)));
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Changes a text by pairs of a place and a byte to put there; only such bytes as make a text of it.
#[cfg(feature = "gateway")]
pub(crate) fn edit(text: &str, edits: &[u8]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for pair in edits.chunks_exact(2).take(8) {
        let place = usize::from(pair[0]) % (bytes.len() + 1);
        match bytes.get_mut(place) {
            // One that is put on its own place cuts the text there.
            Some(byte) if *byte == pair[1] => bytes.truncate(place),
            Some(byte) => *byte = pair[1] & 0x7f,
            None => bytes.push(pair[1] & 0x7f),
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}
