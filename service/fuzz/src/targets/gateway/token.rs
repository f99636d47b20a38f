//! A text as a token; changes of a good one; or a request for one, which opens as what was asked for.

use std::{sync::LazyLock, time::Duration};

use daisi_ws_domain::{
    claims::{AdminClaims, UserClaims},
    session::SessionKind,
};
use daisi_ws_service::{
    application::auth::{
        authenticator::TokenKeys,
        mint::{AdminTokenRequest, Minter, UserTokenRequest},
        token::{OpenError, TokenKey},
    },
    config::{Secret, Secrets, Sources},
};

use super::{ADMIN_KEY, NOW, SECRETS, USER_KEY};
use crate::{
    input::{Input, edit, text},
    must,
};

const LIMIT: Duration = Duration::from_secs(86_400);
/// The longest text that is opened.
const MAX_TOKEN: usize = 4096;

static USER: LazyLock<TokenKey> = LazyLock::new(|| must(TokenKey::parse(&Secret::new(USER_KEY)), "a key"));
static ADMIN: LazyLock<TokenKey> = LazyLock::new(|| must(TokenKey::parse(&Secret::new(ADMIN_KEY)), "a key"));
/// Has sealed nothing: libFuzzer finds again what a comparison has seen.
static UNUSED: LazyLock<TokenKey> = LazyLock::new(|| must(TokenKey::parse(&Secret::new("f0".repeat(32))), "a key"));
static MINTER: LazyLock<Minter> = LazyLock::new(|| {
    let environment = SECRETS.map(|(name, value)| (name.into(), value.into()));
    let config = must(Sources::new(Some("/dev/null".into()), environment).load(Secrets::Required), "the defaults");
    Minter::new(must(TokenKeys::parse(&config.auth), "keys"), || NOW)
});

pub(in super::super) fn prepare() {
    LazyLock::force(&MINTER);
}

pub(in super::super) fn check(input: &[u8]) {
    let mut input = Input::new(input);
    match input.byte() % 4 {
        0 => {
            let text = text(input.rest());
            let opened = UNUSED.open(&text);
            assert!(opened.is_err(), "a token is made up");
            assert!(text.len() <= MAX_TOKEN || opened == Err(OpenError::Malformed));
        }
        1 => sealed(input),
        2 => asked_by_user(input.rest()),
        _ => asked_by_admin(input.rest()),
    }
}

fn sealed(mut input: Input<'_>) {
    let plaintext = input.part();
    let sealed = must(USER.seal(plaintext), "a short plaintext");
    assert!(sealed.len() <= MAX_TOKEN && sealed.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=".contains(&b)), "{sealed}");
    assert_eq!(USER.open(&sealed).as_deref(), Ok(plaintext));
    assert_eq!(ADMIN.open(&sealed), Err(OpenError::WrongKey), "the other key opens it");
    let changed = edit(&sealed, input.rest());
    // Padding may be left out; nothing else may be otherwise.
    let bare = sealed.trim_end_matches('=');
    let is_same = changed == sealed || changed == bare;
    if USER.open(&changed).is_ok() {
        assert!(is_same, "{changed} opens, and was {sealed}");
    } else {
        assert!(!is_same, "{changed} does not open, and was {sealed}");
    }
}

fn asked_by_user(body: &[u8]) {
    let Ok(asked) = serde_json::from_slice::<UserTokenRequest>(body) else { return };
    let Ok(token) = MINTER.user(&asked, LIMIT) else { return };
    let plaintext = must(USER.open(&token), "a token that was made");
    let claims = must(UserClaims::read(&plaintext, NOW), "claims that were made");
    assert_eq!(claims.company.as_str(), asked.company_id);
    assert_eq!(claims.agent.as_str(), asked.agent_id);
    assert_eq!(claims.user.as_str(), asked.user_id);
    assert_eq!(claims.expires_at, NOW + Duration::from_secs(asked.expires_in_seconds.unsigned_abs()));
    assert!(claims.expires_at <= NOW + LIMIT, "{:?} lives too long", SessionKind::User);
}

fn asked_by_admin(body: &[u8]) {
    let Ok(asked) = serde_json::from_slice::<AdminTokenRequest>(body) else { return };
    let Ok(token) = MINTER.admin(&asked, LIMIT) else { return };
    let plaintext = must(ADMIN.open(&token), "a token that was made");
    let claims = must(AdminClaims::read(&plaintext, NOW), "claims that were made");
    assert_eq!(claims.admin.as_str(), asked.admin_id);
    assert!(claims.expires_at <= NOW + LIMIT, "{:?} lives too long", SessionKind::Admin);
    let only = asked.company_id_restriction.as_deref().filter(|only| !["", "*"].contains(only));
    assert!(only.is_none_or(|only| claims.company.as_str() == only), "a restriction is passed over");
}
