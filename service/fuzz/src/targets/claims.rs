//! The plaintext of a token, read as a user's and as an administrator's.

use std::time::Duration;

use daisi_ws_domain::{
    claims::{AdminClaims, Claims, ClaimsError, UserClaims},
    route::{RouteKey, Scope},
    session::SessionKey,
};
use serde_json::Value;

/// 2023.
const NOW: Duration = Duration::from_secs(1_700_000_000);
/// The end of the year 9999, and the longest offset: no time beyond can be written.
const LAST: Duration = Duration::from_secs(253_402_300_800 - 86_400);

pub(super) fn check(input: &[u8]) {
    let json: Option<Value> = serde_json::from_slice(input).ok();
    let said = |key: &str| json.as_ref().and_then(|json| json[key].as_str());
    if let Ok(claims) = UserClaims::read(input, NOW) {
        assert_eq!(said("company_id"), Some(claims.company.as_str()));
        assert_eq!(said("agent_id"), Some(claims.agent.as_str()));
        assert_eq!(said("user_id"), Some(claims.user.as_str()));
        lives(claims.expires_at, claims.write(), |text, now| UserClaims::read(text, now) == Ok(claims.clone()));
        assert_eq!(UserClaims::read(input, claims.expires_at), Err(ClaimsError::Expired));
        let (company, agent) = (claims.company.clone(), claims.agent.clone());
        let all = Claims::User(claims);
        assert_eq!(all.base_route(), RouteKey::Chats { company, agent }, "a user sees its company and agent");
        assert!(matches!(all.session_key(), SessionKey::User { .. }));
    }
    if let Ok(claims) = AdminClaims::read(input, NOW) {
        let restriction = said("company_id_restriction");
        if let Some(only) = restriction.filter(|only| !["", "*"].contains(only)) {
            assert!(matches!(&claims.company, Scope::Only(company) if company.as_str() == only), "a restriction is passed over");
        }
        if let Some(wanted) = said("subscribed_company_id").filter(|wanted| !["", "*"].contains(wanted)) {
            assert!(matches!(&claims.company, Scope::Only(company) if company.as_str() == wanted), "a subscription is widened");
        }
        let written = claims.write(restriction);
        lives(claims.expires_at, written, |text, now| AdminClaims::read(text, now) == Ok(claims.clone()));
        assert_eq!(AdminClaims::read(input, claims.expires_at), Err(ClaimsError::Expired));
    }
}

/// What lives is written, and reads the same until just before its end.
fn lives(until: Duration, written: Result<Vec<u8>, ClaimsError>, reads: impl Fn(&[u8], Duration) -> bool) {
    assert!(until > NOW, "it has expired");
    match written {
        Ok(text) => assert!(reads(&text, until - Duration::from_nanos(1)), "what is written reads otherwise"),
        Err(_) => assert!(until >= LAST, "it can't be written"),
    }
}
