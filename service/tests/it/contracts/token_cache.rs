//! The token cache: what was put in comes out, for a while.

use std::time::Duration;

use bytes::Bytes;
use daisi_ws_service::{
    adapters::memory::token_cache::MemoryTokenCache, application::ports::TokenCache, domain::session::SessionKind,
};

use super::{
    fleet::{Fleet, LONG, SHORT},
    on_both,
};
use crate::support::wait;

on_both! {
    an_entry_comes_out_byte_for_byte,
    an_entry_runs_out,
    a_later_entry_replaces_an_earlier_one,
    pods_share_their_entries,
}

mod local {
    use super::*;

    fn cache() -> MemoryTokenCache {
        MemoryTokenCache::new(16)
    }

    #[tokio::test]
    async fn an_entry_comes_out_byte_for_byte() {
        comes_out_byte_for_byte(&cache()).await;
    }

    #[tokio::test]
    async fn an_entry_runs_out() {
        runs_out(&cache()).await;
    }

    #[tokio::test]
    async fn a_later_entry_replaces_an_earlier_one() {
        replaces(&cache()).await;
    }
}

/// Any bytes: an entry need not be text.
const ENTRY: Bytes = Bytes::from_static(b"\x00\xff\r\n{}");
/// A digest of a user's and of an administrator's token never is the same text.
const USER: &str = "00aa";
const ADMIN: &str = "00bb";

async fn comes_out_byte_for_byte(tokens: &dyn TokenCache) {
    assert_eq!(tokens.get(SessionKind::User, USER).await.unwrap(), None);
    tokens.put(SessionKind::User, USER, ENTRY, LONG).await.unwrap();
    tokens.put(SessionKind::Admin, ADMIN, Bytes::new(), LONG).await.unwrap();
    assert_eq!(tokens.get(SessionKind::User, USER).await.unwrap(), Some(ENTRY));
    assert_eq!(tokens.get(SessionKind::Admin, ADMIN).await.unwrap(), Some(Bytes::new()));
    assert_eq!(tokens.get(SessionKind::User, "00cc").await.unwrap(), None);
}

async fn runs_out(tokens: &dyn TokenCache) {
    tokens.put(SessionKind::User, USER, ENTRY, SHORT).await.unwrap();
    assert_eq!(tokens.get(SessionKind::User, USER).await.unwrap(), Some(ENTRY));
    wait::until("the entry runs out", || async { tokens.get(SessionKind::User, USER).await.unwrap().is_none() }).await;
}

async fn replaces(tokens: &dyn TokenCache) {
    tokens.put(SessionKind::User, USER, Bytes::new(), Duration::from_millis(1)).await.unwrap();
    tokens.put(SessionKind::User, USER, ENTRY, LONG).await.unwrap();
    assert_eq!(tokens.get(SessionKind::User, USER).await.unwrap(), Some(ENTRY));
}

async fn an_entry_comes_out_byte_for_byte(fleet: Fleet) {
    comes_out_byte_for_byte(&*fleet.pod("a").tokens).await;
}

async fn an_entry_runs_out(fleet: Fleet) {
    runs_out(&*fleet.pod("a").tokens).await;
}

async fn a_later_entry_replaces_an_earlier_one(fleet: Fleet) {
    replaces(&*fleet.pod("a").tokens).await;
}

async fn pods_share_their_entries(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    a.tokens.put(SessionKind::User, USER, ENTRY, LONG).await.unwrap();
    assert_eq!(b.tokens.get(SessionKind::User, USER).await.unwrap(), Some(ENTRY));
}
