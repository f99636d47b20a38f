//! G6, G9: a client that sends without end, whatever it sends, is ended, and costs its neighbours nothing.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout},
};

use crate::support::fleet::{Fleet, user};

/// What a test waits for something at the longest.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pipe of a client that floods.
const PIPE: usize = 16 * 1024;
/// A socket may have read so much before it is ended, and so much after that.
const TAKEN: usize = 3 * 1024 * 1024;
/// A frame of the server: closed with 4429.
const CLOSED: [u8; 4] = [0x88, 14, 0x11, 0x4d];

/// A client's frame, with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u8::try_from(payload.len()) {
        Ok(length @ ..=125) => bytes.push(0x80 | length),
        _ => {
            bytes.push(0xfe);
            bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// Sends the beginning, and then the same again and again until the socket is gone. How many bytes it took, and whether it was
/// closed with 4429.
async fn flood(fleet: &Fleet, who: &str, beginning: &[u8], again: &[u8]) -> (usize, bool) {
    let client = fleet.open_raw(0, user("acme", "a1", who), PIPE).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(client);
    let write = async {
        let mut written = 0;
        let mut next = beginning;
        while written < 2 * TAKEN && writer.write_all(next).await.is_ok() {
            written += next.len();
            next = again;
        }
        written
    };
    let read = async {
        let mut all = Vec::new();
        let _ = reader.read_to_end(&mut all).await;
        all.windows(CLOSED.len()).any(|bytes| bytes == CLOSED)
    };
    timeout(PATIENCE, async { tokio::join!(write, read) }).await.expect("the socket is ended")
}

#[tokio::test(start_paused = true)]
async fn g9_whatever_a_client_sends_without_end_its_socket_is_ended_with_4429() {
    let fleet = Fleet::start(1).await;
    let mut neighbour = fleet.connect(0, user("acme", "a1", "neighbour")).await.unwrap();
    let floods: [(&str, Vec<u8>, Vec<u8>); 7] = [
        ("texts", vec![], frame(0x81, br#"{"type":"ready"}"#)),
        ("binaries", vec![], frame(0x82, b"x")),
        ("pings", vec![], frame(0x89, b"x")),
        ("pongs", vec![], frame(0x8a, b"")),
        ("empty-parts", frame(0x01, b""), frame(0x00, b"")),
        ("small-parts", frame(0x01, b""), frame(0x00, b"x")),
        ("bytes", vec![], frame(0x82, &[7; 60_000])),
    ];
    for (who, beginning, again) in floods {
        let (written, closed) = flood(&fleet, who, &beginning, &again).await;
        assert!(closed, "{who}: not closed with 4429 after {written} bytes");
        assert!(written < TAKEN, "{who}: {written} bytes were taken");
        // Its neighbour is served.
        let seq = fleet.publish("wa.acme.a1.chats", "{}");
        assert_eq!(neighbour.expect_event().await.seq, seq);
    }
    assert_eq!(fleet.labelled("dws_connections_closed_total", "rate-limited"), 7.0);
    assert!(fleet.total("dws_client_messages_total") < 100.0, "what comes after 4429 is not looked at");
}

#[tokio::test(start_paused = true)]
async fn g9_a_frame_that_comes_byte_by_byte_is_paid_for_by_the_read() {
    let fleet = Fleet::start(1).await;
    let client = fleet.open_raw(0, user("acme", "a1", "sari"), PIPE).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(client);
    let mut answer = Vec::new();
    let bytes = frame(0x81, &[b'x'; 20_000]);
    let mut sent = 0;
    for byte in &bytes {
        if writer.write_all(&[*byte]).await.is_err() {
            break;
        }
        sent += 1;
        // So that it is read by itself.
        tokio::task::yield_now().await;
    }
    let _ = timeout(PATIENCE, reader.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.windows(CLOSED.len()).any(|bytes| bytes == CLOSED), "after {sent} bytes");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_pings_and_sends_in_parts_within_reason_is_served() {
    let fleet = Fleet::start(1).await;
    let client = fleet.open_raw(0, user("acme", "a1", "sari"), PIPE).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(client);
    let mut message = frame(0x01, &[b' '; 2_000]);
    (0..30).for_each(|_| message.extend(frame(0x00, &[b' '; 2_000])));
    message.extend(frame(0x80, br#"{"type":"ready"}"#));
    let write = async {
        for _ in 0..60 {
            writer.write_all(&frame(0x89, b"proxy")).await.unwrap();
            writer.write_all(&message).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        writer.write_all(&frame(0x88, &[0x03, 0xe8])).await.unwrap();
    };
    let mut all = Vec::new();
    let read = async { reader.read_to_end(&mut all).await.unwrap() };
    tokio::join!(write, read);
    assert_eq!(all.windows(7).filter(|bytes| *bytes == [0x8a, 5, b'p', b'r', b'o', b'x', b'y']).count(), 60);
    assert_eq!(fleet.labelled("dws_client_messages_total", "accepted"), 60.0);
}

#[tokio::test(start_paused = true)]
async fn selecting_chats_in_a_loop_goes_no_faster_than_the_store_should_be_asked() {
    let fleet = Fleet::start(1).await;
    let mut client = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    let started = Instant::now();
    for n in 0..60 {
        client.select_chat(&format!("c{}", n % 2)).await;
    }
    let took = started.elapsed();
    assert!((Duration::from_secs(8)..Duration::from_secs(9)).contains(&took), "{took:?}");
    let seq = fleet.publish("wa.acme.a1.messages.c1", "{}");
    assert_eq!(client.expect_event().await.seq, seq);
}
