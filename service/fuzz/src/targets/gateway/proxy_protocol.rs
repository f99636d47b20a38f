//! How a stream is cut, then its beginning; or an address, which a proxy writes in both versions.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    pin::Pin,
    task::{Context, Poll},
};

use daisi_ws_service::adapters::http::fuzzing as http;
use tokio::io::{AsyncRead, ReadBuf};

use crate::input::Input;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// What stands behind a header.
const BEHIND: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
/// Longest header of either version.
const LONGEST: usize = 16 + 2048;

/// Gives so many bytes at once, then its end, or nothing.
struct Stream<'a> {
    bytes: &'a [u8],
    size: usize,
    ends: bool,
}

impl AsyncRead for Stream<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() && !self.ends {
            return Poll::Pending;
        }
        let (piece, rest) = self.bytes.split_at(self.bytes.len().min(self.size).min(buffer.remaining()));
        buffer.put_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

/// What is read, as far as errors can be compared, and what is left behind it.
fn read(bytes: &[u8], size: usize, ends: bool) -> (Option<Option<Option<IpAddr>>>, usize) {
    let mut stream = Stream { bytes, size, ends };
    let outcome = http::proxied(&mut stream).map(Result::ok);
    (outcome, stream.bytes.len())
}

pub(in super::super) fn check(input: &[u8]) {
    let mut input = Input::new(input);
    match input.byte() {
        0 => written(input),
        size => given(input.rest(), usize::from(size)),
    }
}

fn given(bytes: &[u8], size: usize) {
    let (outcome, left) = read(bytes, size, true);
    assert_eq!((outcome, left), read(bytes, usize::MAX, true), "how bytes are cut changes what is read");
    let taken = bytes.len() - left;
    assert!(taken <= LONGEST, "{taken} bytes were read");
    // On a stream that does not end, one either knows, or waits for the rest of a header that is within the bounds.
    let (open, _) = read(bytes, size, false);
    assert!(open.is_none() && bytes.len() < LONGEST || open == outcome, "{open:?} and {outcome:?}");
    if let Some(Some(source)) = outcome {
        // The header alone says the same, and nothing behind it is read.
        let alone = &bytes[..taken];
        assert_eq!(read(alone, 1, false), (Some(Some(source)), 0));
        assert_eq!(read(&[alone, BEHIND].concat(), size, true), (Some(Some(source)), BEHIND.len()));
        assert!(source.is_none_or(|source| source == source.to_canonical()));
        assert!(alone.starts_with(SIGNATURE) || alone.starts_with(b"PROXY ") && alone.ends_with(b"\r\n"));
    }
}

fn written(mut input: Input<'_>) {
    let octets: [u8; 16] = std::array::from_fn(|_| input.byte());
    let v4 = Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]);
    let v6 = Ipv6Addr::from(octets);
    let more = input.rest();
    let binary = |family: u8, addresses: &[u8]| {
        let length = u16::try_from(addresses.len()).unwrap_or(u16::MAX).to_be_bytes();
        [SIGNATURE, &[0x21, family], &length, addresses].concat()
    };
    let headers = [
        (format!("PROXY TCP4 {v4} 10.0.0.1 4711 80\r\n").into_bytes(), IpAddr::V4(v4)),
        (format!("PROXY TCP6 {v6} fd00::1 4711 80\r\n").into_bytes(), IpAddr::V6(v6)),
        (binary(0x11, &[&octets[..4], &[0; 8], more].concat()), IpAddr::V4(v4)),
        (binary(0x21, &[&octets[..], &[0; 20], more].concat()), IpAddr::V6(v6)),
    ];
    for (header, source) in headers {
        let outcome = read(&[&header[..], BEHIND].concat(), usize::MAX, true);
        if header.len() <= LONGEST {
            assert_eq!(outcome, (Some(Some(Some(source.to_canonical()))), BEHIND.len()));
        } else {
            assert_eq!(outcome.0, Some(None), "a header of {} bytes", header.len());
        }
    }
}
