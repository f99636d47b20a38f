//! Making tokens, for the token API and the command line.

use std::time::Duration;

use daisi_ws_domain::{
    claims::{AdminClaims, ClaimsError, UserClaims},
    ids::{AdminId, AgentId, CompanyId, IdError, UserId},
    session::SessionKind,
};
use serde::Deserialize;

use super::{
    authenticator::{Clock, TokenKeys},
    token::SealError,
};

/// Why no token is made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// An id breaks its rule.
    #[error(transparent)]
    Id(#[from] IdError),
    /// No life, or one beyond `auth.max_token_ttl_seconds`.
    #[error("expires_in_seconds must be between 1 and {limit}")]
    Lifetime {
        /// The longest life, in seconds.
        limit: u64,
    },
    /// The subscription and the restriction can't both hold, or the time is out of range.
    #[error("{0}")]
    Claims(ClaimsError),
    /// Sealing failed: a fault of ours.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl From<ClaimsError> for MintError {
    fn from(error: ClaimsError) -> Self {
        match error {
            ClaimsError::Id(id) => Self::Id(id),
            other => Self::Claims(other),
        }
    }
}

/// What a user token is asked with.
#[derive(Debug, Clone, Deserialize)]
pub struct UserTokenRequest {
    /// Tenant.
    pub company_id: String,
    /// Desk.
    pub agent_id: String,
    /// Operator.
    pub user_id: String,
    /// Life in seconds, more than 0.
    pub expires_in_seconds: i64,
}

/// What an admin token is asked with. Empty and `*` mean all.
#[derive(Debug, Clone, Deserialize)]
pub struct AdminTokenRequest {
    /// Administrator.
    pub admin_id: String,
    /// Life in seconds, more than 0.
    pub expires_in_seconds: i64,
    /// Tenant to see.
    #[serde(default)]
    pub subscribed_company_id: Option<String>,
    /// Desk to see.
    #[serde(default)]
    pub subscribed_agent_id: Option<String>,
    /// The only tenant that may be seen.
    #[serde(default)]
    pub company_id_restriction: Option<String>,
}

/// Makes tokens for the token API, under the keys and limits of the configuration.
#[derive(Debug, Clone)]
pub struct Minter {
    keys: TokenKeys,
    clock: Clock,
}

impl Minter {
    /// Makes them with these keys, to run out by this clock.
    #[must_use]
    pub fn new(keys: TokenKeys, clock: Clock) -> Self {
        Self { keys, clock }
    }

    /// Makes a user token that lives for no longer than `limit`.
    ///
    /// # Errors
    /// When an id or the life breaks its rule, or sealing fails.
    pub fn user(&self, request: &UserTokenRequest, limit: Duration) -> Result<String, MintError> {
        let claims = UserClaims {
            company: CompanyId::parse(&request.company_id)?,
            agent: AgentId::parse(&request.agent_id)?,
            user: UserId::parse(&request.user_id)?,
            expires_at: self.expiry(request.expires_in_seconds, limit)?,
        };
        Ok(self.keys.of(SessionKind::User).seal(&claims.write()?)?)
    }

    /// Makes an admin token that lives for no longer than `limit`.
    ///
    /// # Errors
    /// When an id or the life breaks its rule, the subscription names another company than the restriction, or sealing fails.
    pub fn admin(&self, request: &AdminTokenRequest, limit: Duration) -> Result<String, MintError> {
        let restriction = request.company_id_restriction.as_deref();
        let claims = AdminClaims::new(
            AdminId::parse(&request.admin_id)?,
            request.subscribed_company_id.as_deref(),
            request.subscribed_agent_id.as_deref(),
            restriction,
            self.expiry(request.expires_in_seconds, limit)?,
        )?;
        Ok(self.keys.of(SessionKind::Admin).seal(&claims.write(restriction)?)?)
    }

    fn expiry(&self, seconds: i64, limit: Duration) -> Result<Duration, MintError> {
        let refused = MintError::Lifetime { limit: limit.as_secs() };
        match u64::try_from(seconds).map(Duration::from_secs) {
            Ok(life) if !life.is_zero() && life <= limit => Ok((self.clock)() + life),
            _ => Err(refused),
        }
    }
}
