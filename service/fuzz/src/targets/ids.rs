//! A text, read as every kind of id and as the owner of a lock.

use daisi_ws_domain::{
    ids::{AdminId, AgentId, ChatId, CompanyId, ConnectionId, IdError, PodId, UserId},
    session::LockOwner,
};

use crate::input::text;

pub(super) fn check(input: &[u8]) {
    let text = text(input);
    let plain = !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    let fits = |limit: usize, banned: &[char]| plain && text.len() <= limit && !text.contains(banned);
    let token: &[char] = &[':', '.', '*', '>', '/'];
    same(&CompanyId::parse(&text).map(|id| id.to_string()), fits(128, token), &text);
    same(&AgentId::parse(&text).map(|id| id.to_string()), fits(128, token), &text);
    same(&UserId::parse(&text).map(|id| id.to_string()), fits(128, &[':']), &text);
    same(&AdminId::parse(&text).map(|id| id.to_string()), fits(128, &[':']), &text);
    same(&ChatId::parse(&text).map(|id| id.to_string()), fits(256, &['*', '>']), &text);
    same(&PodId::parse(&text).map(|id| id.to_string()), fits(128, &['/']), &text);
    same(&ConnectionId::parse(&text).map(|id| id.to_string()), fits(128, &['/']), &text);
    if let Ok(owner) = LockOwner::parse(&text) {
        // The Lua of the locks compares 257 bytes.
        assert!(text.len() <= 257 && text.matches('/').count() <= 1);
        assert_eq!(owner.to_string(), text, "an owner is written otherwise");
        assert_eq!(owner.connection.is_some(), text.contains('/'));
    }
}

/// An id keeps its rule and its text, and whatever keeps the rule is one.
fn same(parsed: &Result<String, IdError>, fits: bool, text: &str) {
    assert_eq!(parsed.is_ok(), fits, "{text:?}: {parsed:?}");
    assert!(parsed.is_err() || parsed.as_deref() == Ok(text));
}
