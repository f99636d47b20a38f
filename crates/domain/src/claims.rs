//! What a token says, once opened: who may have which session.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    ids::{AdminId, AgentId, CompanyId, IdError, UserId},
    route::{RouteKey, Scope},
    session::SessionKey,
};

/// Why the plaintext of a token gives no claims.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    /// Not the JSON object that a token holds, or a field missing.
    #[error("the token's content is not that of a token")]
    Malformed,
    /// An id breaks its rule.
    #[error("the token has a bad id: {0}")]
    Id(#[from] IdError),
    /// Its `expires_at` has passed.
    #[error("the token has expired")]
    Expired,
    /// The subscription asks for another company than the restriction allows.
    #[error("the token's subscription reaches beyond its company restriction")]
    BeyondRestriction,
}

/// The claims of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserClaims {
    /// The only company whose events the session sees.
    pub company: CompanyId,
    /// The only agent of it whose events the session sees.
    pub agent: AgentId,
    /// With company and agent the key of the session: one live socket has it.
    pub user: UserId,
    /// End of the token's life, since the Unix epoch.
    pub expires_at: Duration,
}

/// The claims of an administrator; the subscription is already narrowed by the restriction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminClaims {
    /// The key of the session: one live socket has it.
    pub admin: AdminId,
    /// Tenants whose agent events it sees.
    pub company: Scope<CompanyId>,
    /// Desks whose agent events it sees.
    pub agent: Scope<AgentId>,
    /// End of the token's life, since the Unix epoch.
    pub expires_at: Duration,
}

/// Either kind, for the one code path that both share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claims {
    /// Sees chats and messages of one agent.
    User(UserClaims),
    /// Sees the events about agents that its restriction covers.
    Admin(AdminClaims),
}

#[derive(Serialize, Deserialize)]
struct UserText {
    company_id: String,
    agent_id: String,
    user_id: String,
    expires_at: String,
}

#[derive(Serialize, Deserialize)]
struct AdminText {
    admin_id: String,
    expires_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subscribed_company_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subscribed_agent_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    company_id_restriction: Option<String>,
}

fn read_time(text: &str) -> Result<Duration, ClaimsError> {
    let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| ClaimsError::Malformed)?;
    Duration::try_from(at - OffsetDateTime::UNIX_EPOCH).map_err(|_| ClaimsError::Expired)
}

fn write_time(since_epoch: Duration) -> Result<String, ClaimsError> {
    let offset = time::Duration::try_from(since_epoch).map_err(|_| ClaimsError::Malformed)?;
    let at = OffsetDateTime::UNIX_EPOCH.checked_add(offset).ok_or(ClaimsError::Malformed)?;
    at.format(&Rfc3339).map_err(|_| ClaimsError::Malformed)
}

fn scope<T>(text: Option<&str>, parse: impl Fn(&str) -> Result<T, IdError>) -> Result<Scope<T>, IdError> {
    match text {
        None | Some("" | "*") => Ok(Scope::Any),
        Some(only) => Ok(Scope::Only(parse(only)?)),
    }
}

impl UserClaims {
    /// Reads a token's plaintext.
    ///
    /// # Errors
    /// When a field is missing or malformed, or the time is over at `now` (since the Unix epoch).
    pub fn read(plaintext: &[u8], now: Duration) -> Result<Self, ClaimsError> {
        let text: UserText = serde_json::from_slice(plaintext).map_err(|_| ClaimsError::Malformed)?;
        let claims = Self {
            company: CompanyId::parse(&text.company_id)?,
            agent: AgentId::parse(&text.agent_id)?,
            user: UserId::parse(&text.user_id)?,
            expires_at: read_time(&text.expires_at)?,
        };
        if claims.expires_at <= now { Err(ClaimsError::Expired) } else { Ok(claims) }
    }

    /// Writes the plaintext that [`UserClaims::read`] reads.
    ///
    /// # Errors
    /// When the expiry is past the year 9999.
    pub fn write(&self) -> Result<Vec<u8>, ClaimsError> {
        let text = UserText {
            company_id: self.company.to_string(),
            agent_id: self.agent.to_string(),
            user_id: self.user.to_string(),
            expires_at: write_time(self.expires_at)?,
        };
        serde_json::to_vec(&text).map_err(|_| ClaimsError::Malformed)
    }
}

impl AdminClaims {
    /// Puts claims together from what an admin asks for and what it is restricted to. Empty or `*` means all.
    ///
    /// # Errors
    /// When an id is bad, or the subscription names another company than the restriction.
    pub fn new(
        admin: AdminId,
        subscribed_company: Option<&str>,
        subscribed_agent: Option<&str>,
        restriction: Option<&str>,
        expires_at: Duration,
    ) -> Result<Self, ClaimsError> {
        let company = match (scope(subscribed_company, CompanyId::parse)?, scope(restriction, CompanyId::parse)?) {
            (wanted, Scope::Any) => wanted,
            (Scope::Any, only) => only,
            (Scope::Only(wanted), Scope::Only(only)) if wanted == only => Scope::Only(only),
            _ => return Err(ClaimsError::BeyondRestriction),
        };
        Ok(Self { admin, company, agent: scope(subscribed_agent, AgentId::parse)?, expires_at })
    }

    /// Reads a token's plaintext.
    ///
    /// # Errors
    /// As [`AdminClaims::new`], or when a field is missing or malformed, or the time is over at `now` (since the Unix epoch).
    pub fn read(plaintext: &[u8], now: Duration) -> Result<Self, ClaimsError> {
        let text: AdminText = serde_json::from_slice(plaintext).map_err(|_| ClaimsError::Malformed)?;
        let claims = Self::new(
            AdminId::parse(&text.admin_id)?,
            text.subscribed_company_id.as_deref(),
            text.subscribed_agent_id.as_deref(),
            text.company_id_restriction.as_deref(),
            read_time(&text.expires_at)?,
        )?;
        if claims.expires_at <= now { Err(ClaimsError::Expired) } else { Ok(claims) }
    }

    /// Writes the plaintext that [`AdminClaims::read`] reads; the narrowed company stands as subscription and as restriction.
    ///
    /// # Errors
    /// When the expiry is past the year 9999.
    pub fn write(&self, restriction: Option<&str>) -> Result<Vec<u8>, ClaimsError> {
        let text = AdminText {
            admin_id: self.admin.to_string(),
            expires_at: write_time(self.expires_at)?,
            subscribed_company_id: Some(self.company.as_str().to_owned()),
            subscribed_agent_id: Some(self.agent.as_str().to_owned()),
            company_id_restriction: restriction.map(str::to_owned),
        };
        serde_json::to_vec(&text).map_err(|_| ClaimsError::Malformed)
    }
}

impl Claims {
    /// The session that the bearer may have.
    #[must_use]
    pub fn session_key(&self) -> SessionKey {
        match self {
            Self::User(c) => SessionKey::User { company: c.company.clone(), agent: c.agent.clone(), user: c.user.clone() },
            Self::Admin(c) => SessionKey::Admin { admin: c.admin.clone() },
        }
    }

    /// The route that the session has from the start.
    #[must_use]
    pub fn base_route(&self) -> RouteKey {
        match self {
            Self::User(c) => RouteKey::Chats { company: c.company.clone(), agent: c.agent.clone() },
            Self::Admin(c) => RouteKey::Agents { company: c.company.clone(), agent: c.agent.clone() },
        }
    }

    /// When the token runs out, since the Unix epoch.
    #[must_use]
    pub fn expires_at(&self) -> Duration {
        match self {
            Self::User(c) => c.expires_at,
            Self::Admin(c) => c.expires_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    #[test]
    fn user_claims_survive_the_round_trip() {
        let claims = UserClaims {
            company: CompanyId::parse("acme").unwrap(),
            agent: AgentId::parse("a1").unwrap(),
            user: UserId::parse("sari@acme.example").unwrap(),
            expires_at: NOW + Duration::from_secs(60),
        };
        assert_eq!(UserClaims::read(&claims.write().unwrap(), NOW), Ok(claims));
    }

    #[test]
    fn a_token_is_good_until_just_before_its_expiry() {
        let text = br#"{"company_id":"a","agent_id":"b","user_id":"u","expires_at":"2023-11-14T22:13:20Z"}"#;
        assert!(UserClaims::read(text, NOW - Duration::from_nanos(1)).is_ok());
        assert_eq!(UserClaims::read(text, NOW), Err(ClaimsError::Expired));
    }

    #[test]
    fn every_user_field_is_required() {
        for text in [
            r#"{"agent_id":"b","user_id":"u","expires_at":"2033-11-14T22:13:20Z"}"#,
            r#"{"company_id":"a","agent_id":"b","user_id":"","expires_at":"2033-11-14T22:13:20Z"}"#,
            r#"{"company_id":"a","agent_id":"b","user_id":"u","expires_at":"tomorrow"}"#,
            r#"{"company_id":"a","agent_id":"b","user_id":"u","expires_at":1700000000}"#,
            "[]",
        ] {
            assert!(UserClaims::read(text.as_bytes(), NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn a_restriction_narrows_and_never_widens() {
        let admin = |company: Option<&str>, restriction: Option<&str>| {
            AdminClaims::new(AdminId::parse("root").unwrap(), company, None, restriction, NOW).map(|c| c.company)
        };
        let acme = Scope::Only(CompanyId::parse("acme").unwrap());
        assert_eq!(admin(None, None), Ok(Scope::Any));
        assert_eq!(admin(Some("*"), Some("acme")), Ok(acme.clone()));
        assert_eq!(admin(Some("acme"), Some("acme")), Ok(acme.clone()));
        assert_eq!(admin(Some("acme"), Some("*")), Ok(acme));
        assert_eq!(admin(Some("other"), Some("acme")), Err(ClaimsError::BeyondRestriction));
    }
}
