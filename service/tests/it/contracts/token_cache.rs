//! Opened tokens: what is left for one is there, for a while, for anyone who of the predecessor looks.

use std::time::Duration;

use bytes::Bytes;
use daisi_ws_domain::session::SessionKind;

use super::{
    fleet::{Fleet, LONG, SHORT},
    on_both,
};
use crate::support::wait;

on_both! {
    an_entry_is_there_byte_for_byte,
    an_entry_runs_out,
    a_later_entry_replaces_an_earlier_one,
}

/// Any bytes: an entry need not be text.
const ENTRY: Bytes = Bytes::from_static(b"\x00\xff\r\n{}");
/// A digest of a user's and of an administrator's token never is the same text.
const USER: &str = "00aa";
const ADMIN: &str = "00bb";

async fn an_entry_is_there_byte_for_byte(fleet: Fleet) {
    let tokens = fleet.pod("a").tokens;
    assert_eq!(fleet.opened_token(USER).await, None);
    tokens.put(SessionKind::User, USER, ENTRY, LONG).await.unwrap();
    tokens.put(SessionKind::Admin, ADMIN, Bytes::new(), LONG).await.unwrap();
    assert_eq!(fleet.opened_token(USER).await, Some(ENTRY));
    assert_eq!(fleet.opened_token(ADMIN).await, Some(Bytes::new()));
}

async fn an_entry_runs_out(fleet: Fleet) {
    fleet.pod("a").tokens.put(SessionKind::User, USER, ENTRY, SHORT).await.unwrap();
    assert_eq!(fleet.opened_token(USER).await, Some(ENTRY));
    wait::until("the entry runs out", || async { fleet.opened_token(USER).await.is_none() }).await;
}

async fn a_later_entry_replaces_an_earlier_one(fleet: Fleet) {
    let tokens = fleet.pod("a").tokens;
    tokens.put(SessionKind::User, USER, Bytes::new(), Duration::from_millis(1)).await.unwrap();
    tokens.put(SessionKind::User, USER, ENTRY, LONG).await.unwrap();
    assert_eq!(fleet.opened_token(USER).await, Some(ENTRY));
}
