use std::mem::offset_of;

use super::*;

/// Bytes that a processor fetches at once.
const LINE: usize = 64;

#[test]
fn what_every_event_touches_of_a_socket_lies_side_by_side_in_few_lines() {
    type Of = Connection<tokio::net::TcpStream>;
    let rare = [
        offset_of!(Of, heard_at),
        offset_of!(Of, ping_at),
        offset_of!(Of, timer),
        offset_of!(Of, _contexts),
        offset_of!(Of, selections),
        offset_of!(Of, config),
    ];
    let first_rare = rare.into_iter().min().unwrap();
    assert!(offset_of!(Of, socket) + size_of::<WebSocket<tokio::net::TcpStream>>() <= first_rare, "{first_rare}");
    assert!(first_rare <= 6 * LINE, "{first_rare}");
}

/// What most sockets never need is in boxes that they do not have.
#[test]
fn an_idle_socket_fits_in_few_lines_and_its_session_with_its_counters_in_nine() {
    let (connection, session) = (size_of::<Connection<tokio::net::TcpStream>>(), size_of::<Session>());
    assert!(connection <= 7 * LINE, "{connection}");
    assert!(session + 2 * size_of::<usize>() <= 9 * LINE, "{session}");
}
