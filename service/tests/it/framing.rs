//! What holds of the frame decoder for any bytes, however they are cut: it says what tungstenite says of them, which is the
//! oracle.

use std::io::{self, Cursor, Read, Write};

use daisi_ws_websocket::{
    Message, ProtocolError,
    decode::Decoder,
    deflate::{self, Deflater, Inflater, MAX_WINDOW_BITS, MIN_WINDOW_BITS},
};
use proptest::{collection::vec, prelude::*, sample::Index};
use tokio_tungstenite::tungstenite::{
    self, WebSocket,
    error::Error,
    protocol::{Role, WebSocketConfig},
};

/// Bytes of a message, so few that they are often too many.
const LIMIT: usize = 300;
/// Longer than any frame within the limit: behind some bytes, it ends whatever frame they begin.
const PADDING: [u8; LIMIT + 14] = [0; LIMIT + 14];

// ---- what is sent
// ----------------------------------------------------------------------------------------------------------------

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const CONTINUE: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A client's frame; `first` is its first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match u8::try_from(payload.len()) {
        Ok(length @ ..=125) => bytes.push(0x80 | length),
        _ => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A message in as many frames as the cuts make of it, with a control frame after each but the last.
fn message(first: u8, payload: &[u8], cuts: &[Index], between: &[u8]) -> Vec<u8> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
    ends.push(payload.len());
    ends.sort_unstable();
    let (mut bytes, mut begin) = (Vec::new(), 0);
    for (number, end) in ends.iter().enumerate() {
        let opcode = if number == 0 { first } else { CONTINUE };
        let is_last = number == ends.len() - 1;
        bytes.extend(frame(opcode | if is_last { FIN } else { 0 }, &payload[begin..*end]));
        if !is_last {
            bytes.extend(between);
        }
        begin = *end;
    }
    bytes
}

fn control() -> impl Strategy<Value = Vec<u8>> {
    (prop_oneof![Just(PING), Just(PONG)], vec(any::<u8>(), 0..=125)).prop_map(|(opcode, payload)| frame(FIN | opcode, &payload))
}

/// One whole thing that a client may say.
fn saying() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        "[ -~äß€𝄞]{0,60}".prop_map(|text| (TEXT, text.into_bytes())),
        vec(any::<u8>(), 0..LIMIT).prop_map(|bytes| (BINARY, bytes)),
    ];
    prop_oneof![
        4 => (payload, vec(any::<Index>(), 0..4), prop_oneof![Just(Vec::new()), control()])
            .prop_map(|((first, payload), cuts, between)| message(first, &payload, &cuts, &between)),
        1 => control(),
    ]
}

/// One thing that no client may say, wrong in one way only; or the last that it says.
fn ending() -> impl Strategy<Value = Vec<u8>> {
    let reserved = prop_oneof![3..=7_u8, 11..=15_u8];
    let code = prop_oneof![any::<u16>(), 990..1020_u16, 2990..5010_u16];
    prop_oneof![
        (code, "[ -~ä]{0,20}").prop_map(|(code, reason)| frame(FIN | CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())),
        Just(frame(FIN | CLOSE, &[])),
        any::<u8>().prop_map(|half| frame(FIN | CLOSE, &[half])),
        Just(frame(FIN | CLOSE, &[0x03, 0xe8, 0xff])),
        reserved.prop_map(|opcode| frame(FIN | opcode, b"x")),
        (1..=7_u8).prop_map(|bits| frame(FIN | bits << 4 | TEXT, b"x")),
        (126..LIMIT).prop_map(|length| frame(FIN | PING, &vec![0; length])),
        Just(frame(PING, b"x")),
        Just(frame(FIN | CONTINUE, b"x")),
        Just([frame(TEXT, b"x"), frame(FIN | BINARY, b"x")].concat()),
        Just(vec![FIN | TEXT, 1, b'x']),
        (LIMIT + 1..LIMIT * 2).prop_map(|length| frame(FIN | BINARY, &vec![0; length])),
        (1..LIMIT).prop_map(|over| [frame(BINARY, &[0; LIMIT]), frame(FIN | CONTINUE, &vec![0; over])].concat()),
        Just(vec![FIN | BINARY, 0x80 | 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
        Just(frame(FIN | TEXT, b"abc\xe2\x82")),
        Just(frame(TEXT, b"abc\xff")),
        Just([frame(TEXT, b"\xe2\x82"), frame(FIN | CONTINUE, b"x")].concat()),
    ]
}

fn conversation() -> impl Strategy<Value = Vec<u8>> {
    (vec(saying(), 0..6), ending()).prop_map(|(sayings, ending)| [sayings.concat(), ending].concat())
}

/// Bytes that are nearly a conversation, and bytes that are none.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let spoilt =
        (conversation(), vec((any::<Index>(), any::<u8>()), 0..6), any::<Index>()).prop_map(|(mut bytes, changes, end)| {
            for (place, byte) in changes {
                *place.get_mut(&mut bytes) = byte;
            }
            bytes.truncate(end.index(bytes.len() + 1));
            bytes
        });
    prop_oneof![4 => spoilt, 1 => vec(any::<u8>(), 0..LIMIT * 2)]
}

/// Sizes of the pieces that are read, in turn.
fn pieces() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1..8_usize, 1..700_usize], 1..6)
}

fn cut<'a>(mut bytes: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    sizes.iter().cycle().map_while(move |size| {
        let (piece, rest) = bytes.split_at(bytes.len().min(*size));
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

// ---- what is heard
// ---------------------------------------------------------------------------------------------------------------

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It has not: more may come.
    Open,
    /// The client said goodbye.
    Closed(Option<u16>),
    /// The client broke a rule, and is told by this code.
    Failed(u16),
}

type Heard = (Vec<Message>, End);

fn ours(bytes: &[u8], sizes: &[usize], inflater: Inflater) -> Heard {
    let (mut decoder, mut messages) = (Decoder::new(LIMIT, inflater), Vec::new());
    for piece in cut(bytes, sizes) {
        decoder.push(piece);
        loop {
            match decoder.next_message() {
                Ok(Some(Message::Close(code))) => return (messages, End::Closed(code)),
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, End::Failed(error.code())),
            }
        }
    }
    (messages, End::Open)
}

/// What is written is nobody's business.
struct Input(Cursor<Vec<u8>>);

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Input {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn oracle(bytes: &[u8]) -> Heard {
    let config = WebSocketConfig::default().max_message_size(Some(LIMIT)).max_frame_size(Some(LIMIT));
    let mut socket = WebSocket::from_raw_socket(Input(Cursor::new(bytes.to_vec())), Role::Server, Some(config));
    let mut messages = Vec::new();
    loop {
        messages.push(match socket.read() {
            Ok(tungstenite::Message::Text(text)) => Message::Text(text.to_string()),
            Ok(tungstenite::Message::Binary(bytes)) => Message::Binary(bytes.to_vec()),
            Ok(tungstenite::Message::Ping(payload)) => Message::Ping(payload.to_vec()),
            Ok(tungstenite::Message::Pong(payload)) => Message::Pong(payload.to_vec()),
            // It answers a code that must not be sent as if it had been sent this one.
            Ok(tungstenite::Message::Close(Some(close))) if close.reason == "Protocol violation" => {
                return (messages, End::Failed(close.code.into()));
            }
            Ok(tungstenite::Message::Close(close)) => return (messages, End::Closed(close.map(|close| close.code.into()))),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return (messages, End::Open),
            Err(Error::Protocol(_)) => return (messages, End::Failed(ProtocolError::Violation("").code())),
            Err(Error::Utf8(_)) => return (messages, End::Failed(ProtocolError::Invalid.code())),
            Err(Error::Capacity(_)) => return (messages, End::Failed(ProtocolError::TooBig.code())),
            other => panic!("nothing that a reading server gives: {other:?}"),
        });
    }
}

proptest! {
    #[test]
    fn a_conversation_is_heard_as_the_oracle_hears_it_and_ends_with_the_same_code(bytes in conversation(), sizes in pieces()) {
        // One that begins a message and never ends it is wrong only once something follows.
        let bytes = [&bytes[..], &PADDING].concat();
        prop_assert_eq!(ours(&bytes, &sizes, Inflater::Off), oracle(&bytes));
    }

    #[test]
    fn any_bytes_are_heard_as_the_oracle_hears_them(bytes in bytes(), sizes in pieces()) {
        let bytes = [&bytes[..], &PADDING].concat();
        let (ours, oracle) = (ours(&bytes, &sizes, Inflater::Off), oracle(&bytes));
        prop_assert_eq!(&ours.0, &oracle.0);
        // Of a frame that is wrong in two ways, either may be named.
        let failed = |end| matches!(end, End::Failed(_));
        prop_assert!(ours.1 == oracle.1 || failed(ours.1) && failed(oracle.1), "{:?}, oracle: {:?}", ours.1, oracle.1);
    }

    #[test]
    fn how_bytes_are_cut_changes_nothing(bytes in bytes(), sizes in pieces()) {
        let heard = ours(&bytes, &sizes, Inflater::Off);
        prop_assert_eq!(&heard, &ours(&bytes, &[1], Inflater::Off));
        prop_assert_eq!(&heard, &ours(&bytes, &[usize::MAX], Inflater::Off));
    }

    #[test]
    fn a_breach_is_found_no_later_than_by_the_oracle(bytes in bytes(), sizes in pieces()) {
        let (ours, oracle) = (ours(&bytes, &sizes, Inflater::Off), oracle(&bytes));
        prop_assert_eq!(ours.0, oracle.0);
        prop_assert!(matches!((ours.1, oracle.1), (_, End::Open) | (End::Failed(_), End::Failed(_))) || ours.1 == oracle.1);
    }

    #[test]
    fn what_is_compressed_comes_out_whole_with_and_without_context(
        messages in vec((any::<bool>(), "[a-cä]{0,80}", vec(any::<Index>(), 0..4)), 1..6),
        window_bits in MIN_WINDOW_BITS..=MAX_WINDOW_BITS,
        sizes in pieces(),
    ) {
        let mut deflater = Deflater::new(window_bits);
        let (mut alone, mut together, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for (is_text, text, cuts) in messages {
            let first = RSV1 | if is_text { TEXT } else { BINARY };
            alone.extend(message(first, &deflate::shared(text.as_bytes(), window_bits), &cuts, &[]));
            together.extend(message(first, &deflater.deflate(text.as_bytes()), &cuts, &[]));
            expected.push(if is_text { Message::Text(text) } else { Message::Binary(text.into_bytes()) });
        }
        let expected = (expected, End::Open);
        prop_assert_eq!(&ours(&alone, &sizes, Inflater::Shared), &expected);
        prop_assert_eq!(&ours(&alone, &sizes, Inflater::Own(None)), &expected);
        prop_assert_eq!(&ours(&together, &sizes, Inflater::Own(None)), &expected);
    }

    #[test]
    fn no_compressed_bytes_panic_or_grow_beyond_the_limit(
        payloads in vec((vec(any::<u8>(), 0..80), any::<bool>()), 1..5),
        repeated in any::<u8>(),
        sizes in pieces(),
    ) {
        let mut bytes = Vec::new();
        for (payload, bomb) in payloads {
            let payload = if bomb { [deflate::shared(&[repeated; LIMIT * 3], 15), payload].concat() } else { payload };
            bytes.extend(frame(FIN | RSV1 | BINARY, &payload));
        }
        for inflater in [Inflater::Shared, Inflater::Own(None)] {
            let (messages, _) = ours(&bytes, &sizes, inflater);
            prop_assert!(messages.iter().all(|message| message.len() <= LIMIT));
        }
    }
}
