use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::encode;

#[tokio::test]
async fn all_that_is_queued_arrives_in_order_through_a_narrow_stream() {
    let (client, server) = tokio::io::duplex(7);
    let mut socket = WebSocket::new(server.into(), 100, Inflater::Off);
    let frames: Vec<Bytes> = (0..200_u8).map(|n| encode::text(&vec![b'a' + n % 26; usize::from(n)])).collect();
    frames.iter().for_each(|frame| socket.queue(frame.clone()));
    let all = socket.backlog();
    assert!(futures_util::poll!(poll_fn(|cx| socket.poll_flush(cx))).is_pending());
    assert_ne!(socket.backlog(), all);
    let reader = async {
        let (mut client, mut read) = (client, vec![0; frames.iter().map(Bytes::len).sum()]);
        client.read_exact(&mut read).await.unwrap();
        read
    };
    let (flushed, read) = tokio::join!(poll_fn(|cx| socket.poll_flush(cx)), reader);
    flushed.unwrap();
    assert_eq!(read, frames.concat());
    assert!(socket.is_flushed());
}

#[tokio::test]
async fn a_frame_is_written_at_once_or_waits_behind_what_waits() {
    let (mut client, server) = tokio::io::duplex(100);
    let mut socket = WebSocket::new(server.into(), 100, Inflater::Off);
    let frames = ["first", &"x".repeat(100), "last"].map(|text| encode::text(text.as_bytes()));
    for (frame, all_taken) in frames.iter().zip([true, false, false]) {
        poll_fn(|cx| Poll::Ready(socket.write(cx, frame))).await.unwrap();
        assert_eq!(socket.is_flushed(), all_taken);
    }
    let mut read = vec![0; frames.iter().map(Bytes::len).sum()];
    let (flushed, all) = tokio::join!(poll_fn(|cx| socket.poll_flush(cx)), client.read_exact(&mut read));
    flushed.unwrap();
    all.unwrap();
    assert_eq!(read, frames.concat());
    drop(client);
    assert!(poll_fn(|cx| Poll::Ready(socket.write(cx, &frames[0]))).await.is_err());
}

#[tokio::test]
async fn what_was_read_behind_the_request_comes_first() {
    let (mut client, server) = tokio::io::duplex(64);
    let first = [0x81, 0x81, 0, 0, 0, 0, b'a'];
    let mut socket = WebSocket::new(Upgraded { read: Bytes::copy_from_slice(&first), ..server.into() }, 100, Inflater::Off);
    client.write_all(&[0x81, 0x81, 0, 0, 0, 0, b'b']).await.unwrap();
    for expected in ["a", "b"] {
        assert_eq!(poll_fn(|cx| socket.poll_receive(cx)).await.unwrap(), Message::Text(expected.to_owned()));
    }
    drop(client);
    assert!(matches!(poll_fn(|cx| socket.poll_receive(cx)).await, Err(SocketError::Lost(_))));
}

/// A client whose bytes are all there at once, as often as they are read.
struct Endless(Vec<u8>);

impl AsyncRead for Endless {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = buffer.remaining() / self.0.len() * self.0.len();
        buffer.put_slice(&self.0.repeat(room / self.0.len()));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];
const EMPTY_PART: [u8; 6] = [0x00, 0x80, 0, 0, 0, 0];

#[tokio::test]
async fn a_client_that_never_stops_is_taken_in_by_turns() {
    let mut large = vec![0x82, 0xfe, 0x3f, 0x00, 0, 0, 0, 0];
    large.resize(large.len() + 0x3f00, 7);
    for (frame, most) in [(PONG.to_vec(), FRAMES_A_TURN), (large, 5)] {
        let mut socket = WebSocket::new(Endless(frame).into(), 1 << 16, Inflater::Off);
        for _ in 0..3 {
            let mut taken = 0;
            while futures_util::poll!(poll_fn(|cx| socket.poll_receive(cx))).is_ready() {
                taken += 1;
                assert!(taken <= most, "{taken} at once");
            }
            assert!(taken > 0);
        }
    }
    // Of frames that make no message as well.
    let mut socket = WebSocket::new(Endless(EMPTY_PART.to_vec()).into(), 1 << 16, Inflater::Off);
    socket.decoder.push(&[0x01, 0x80, 0, 0, 0, 0]);
    assert!(futures_util::poll!(poll_fn(|cx| socket.poll_receive(cx))).is_pending());
}

#[tokio::test]
async fn what_is_thrown_away_of_a_client_that_never_stops_is_bounded_and_lets_others_run() {
    let mut socket = WebSocket::new(Endless(PONG.to_vec()).into(), 1 << 16, Inflater::Off);
    assert!(futures_util::poll!(std::pin::pin!(socket.discard())).is_pending());
    assert!(socket.discard().await.is_err());
    assert_eq!(socket.held(), 0);
}
