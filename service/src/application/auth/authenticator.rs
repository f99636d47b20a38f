//! Who may come in: API keys, and raw tokens to claims. Making tokens is [`mint`](super::mint)'s part.

use std::{fmt, sync::Arc, time::Duration};

use daisi_ws_domain::{
    claims::{AdminClaims, Claims, ClaimsError, UserClaims},
    close::ErrorCode,
    frame::ErrorBody,
    session::SessionKind,
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;

use super::{
    token::{KeyError, OpenError, TokenKey},
    token_sharing::TokenSharing,
};
use crate::{
    config::{Auth, Config, Secret},
    metrics::{
        Metrics,
        labels::{AuthFailure, Login},
    },
    ports::TokenCache,
};

/// How much longer than `auth.max_token_ttl_seconds` a token may live on: the clocks of who makes tokens and who opens them
/// differ.
const CLOCK_MARGIN: Duration = Duration::from_secs(60);

/// Tells the time since the Unix epoch; `crate::runtime::clock::now` but in tests.
pub type Clock = fn() -> Duration;

/// Why somebody may not come in. Never shows a key or token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No API key, or not the browsers' key.
    #[error("the API key is missing or wrong")]
    ApiKey,
    /// No API key, or not the key of the minter of tokens.
    #[error("the key of the token API is missing or wrong")]
    MintKey,
    /// No token.
    #[error("a token is required")]
    Missing,
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It opens, but gives no claims.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
    /// It would live on for longer than any token may, no matter who made it.
    #[error("the token lives for longer than tokens may here")]
    TooLongLived,
    /// A user's token for another company or agent than the path names.
    #[error("the token is not for this company and agent")]
    OtherPath,
}

impl AuthError {
    /// The error code of the answer (`docs/protocol.md`).
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::ApiKey | Self::MintKey => ErrorCode::InvalidAPIKey,
            Self::Missing | Self::Open(_) | Self::Claims(_) | Self::TooLongLived | Self::OtherPath => ErrorCode::InvalidToken,
        }
    }

    /// Could it have been a guess? A token that opens is genuine, whatever else is wrong with it.
    #[must_use]
    pub(crate) fn is_a_guess(&self) -> bool {
        matches!(self, Self::ApiKey | Self::MintKey | Self::Missing | Self::Open(_))
    }

    /// What the client is told.
    #[must_use]
    pub fn body(&self) -> ErrorBody {
        ErrorBody::new(self.code(), self.to_string())
    }

    fn reason(&self) -> AuthFailure {
        match self {
            Self::ApiKey => AuthFailure::ApiKey,
            Self::MintKey => AuthFailure::MintKey,
            Self::Missing => AuthFailure::Missing,
            Self::Open(OpenError::Malformed) => AuthFailure::Malformed,
            Self::Open(OpenError::WrongKey) => AuthFailure::WrongKey,
            Self::Claims(ClaimsError::Expired) => AuthFailure::Expired,
            Self::Claims(ClaimsError::BeyondRestriction) => AuthFailure::BeyondRestriction,
            Self::Claims(ClaimsError::Malformed | ClaimsError::Id(_)) => AuthFailure::BadClaims,
            Self::TooLongLived => AuthFailure::TooLongLived,
            Self::OtherPath => AuthFailure::OtherPath,
        }
    }
}

/// The keys of both kinds of token.
#[derive(Debug, Clone)]
pub struct TokenKeys {
    user: Arc<TokenKey>,
    admin: Arc<TokenKey>,
}

impl TokenKeys {
    /// Reads both keys.
    ///
    /// # Errors
    /// When one is no AES-256 key.
    pub fn parse(auth: &Auth) -> Result<Self, KeyError> {
        let parse = |secret| TokenKey::parse(secret).map(Arc::new);
        Ok(Self { user: parse(&auth.token_aes_key)?, admin: parse(&auth.admin_token_aes_key)? })
    }

    /// The key for tokens of a kind.
    #[must_use]
    pub fn of(&self, kind: SessionKind) -> &TokenKey {
        match kind {
            SessionKind::User => &self.user,
            SessionKind::Admin => &self.admin,
        }
    }
}

/// Where a token is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint<'a> {
    /// At a company's and agent's: only a token of just these opens. Raw text, as the path has it.
    User {
        /// Tenant in the path.
        company: &'a str,
        /// Desk in the path.
        agent: &'a str,
    },
    /// At the admins'.
    Admin,
}

impl Endpoint<'_> {
    /// The kind of session behind it.
    #[must_use]
    pub fn kind(&self) -> SessionKind {
        match self {
            Self::User { .. } => SessionKind::User,
            Self::Admin => SessionKind::Admin,
        }
    }
}

/// Checks keys and tokens. Keys are those at the start; times follow the configuration.
pub struct Authenticator {
    keys: TokenKeys,
    api_key: KeyDigest,
    mint_key: KeyDigest,
    config: watch::Receiver<Arc<Config>>,
    sharing: Option<TokenSharing>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Authenticator {
    /// Takes the keys from the configuration. Every token is opened here; a `cache` is told of genuine ones.
    ///
    /// # Errors
    /// When a token key is no AES-256 key.
    pub fn new(
        config: watch::Receiver<Arc<Config>>,
        cache: Option<Arc<dyn TokenCache>>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Result<Self, KeyError> {
        let now = Arc::clone(&config.borrow());
        Ok(Self {
            keys: TokenKeys::parse(&now.auth)?,
            api_key: KeyDigest::of(&now.auth.secret_token),
            mint_key: KeyDigest::of(&now.auth.token_generation_admin_key),
            sharing: cache.map(|cache| TokenSharing::new(cache, Arc::clone(&metrics))),
            config,
            metrics,
            clock,
        })
    }

    /// Checks the API key that browsers hold, in constant time.
    ///
    /// # Errors
    /// [`AuthError::ApiKey`], counted for `kind`.
    pub fn check_api_key(&self, kind: SessionKind, given: Option<&str>) -> Result<(), AuthError> {
        self.check_key(kind, &self.api_key, given, AuthError::ApiKey)
    }

    /// Checks the key of the minter of tokens of `kind`, in constant time. The browsers' key never passes.
    ///
    /// # Errors
    /// [`AuthError::MintKey`], counted for `kind`.
    pub fn check_mint_key(&self, kind: SessionKind, given: Option<&str>) -> Result<(), AuthError> {
        self.check_key(kind, &self.mint_key, given, AuthError::MintKey)
    }

    /// What audit lines call the key of the minter of tokens; none if there is no such key.
    #[must_use]
    pub(crate) fn mint_key_fingerprint(&self) -> Option<String> {
        self.mint_key.fingerprint()
    }

    /// Turns a raw token into the claims that it proves at this endpoint. It is opened here, by this process alone: a made-up
    /// token costs a microsecond and nobody else anything. Only one that opens the endpoint is shared, which costs some 20 ms at
    /// most.
    ///
    /// # Errors
    /// When there is no token, or it does not open, has expired, lives for too long, or is for another endpoint. Counted by
    /// reason.
    pub async fn authenticate(&self, endpoint: Endpoint<'_>, token: Option<&str>) -> Result<Claims, AuthError> {
        let kind = endpoint.kind();
        match self.open(endpoint, token) {
            Ok((claims, plaintext)) => {
                self.metrics.auth_success_total.with_label_values(&[login(kind).as_str()]).inc();
                if let (Some(sharing), Some(token)) = (&self.sharing, token) {
                    let ttl = self.sharing_ttl(kind).min(claims.expires_at().saturating_sub((self.clock)()));
                    sharing.share(kind, token, plaintext, ttl).await;
                }
                Ok(claims)
            }
            Err(error) => {
                self.count_failure(kind, &error);
                Err(error)
            }
        }
    }

    fn open(&self, endpoint: Endpoint<'_>, token: Option<&str>) -> Result<(Claims, Vec<u8>), AuthError> {
        let kind = endpoint.kind();
        let token = token.filter(|token| !token.is_empty()).ok_or(AuthError::Missing)?;
        let plaintext = self.keys.of(kind).open(token)?;
        let claims = fits(endpoint, self.read(kind, &plaintext)?)?;
        let longest = self.config.borrow().auth.max_token_ttl.saturating_add(CLOCK_MARGIN);
        if claims.expires_at().saturating_sub((self.clock)()) > longest {
            return Err(AuthError::TooLongLived);
        }
        Ok((claims, plaintext))
    }

    fn read(&self, kind: SessionKind, plaintext: &[u8]) -> Result<Claims, ClaimsError> {
        let now = (self.clock)();
        match kind {
            SessionKind::User => UserClaims::read(plaintext, now).map(Claims::User),
            SessionKind::Admin => AdminClaims::read(plaintext, now).map(Claims::Admin),
        }
    }

    fn sharing_ttl(&self, kind: SessionKind) -> Duration {
        let auth = &self.config.borrow().auth;
        match kind {
            SessionKind::User => auth.token_cache_ttl,
            SessionKind::Admin => auth.admin_token_cache_ttl,
        }
    }

    fn check_key(&self, kind: SessionKind, key: &KeyDigest, given: Option<&str>, error: AuthError) -> Result<(), AuthError> {
        if given.is_some_and(|given| key.matches(given)) {
            return Ok(());
        }
        self.count_failure(kind, &error);
        Err(error)
    }

    fn count_failure(&self, kind: SessionKind, error: &AuthError) {
        self.metrics.auth_failure_total.with_label_values(&[login(kind).as_str(), error.reason().as_str()]).inc();
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("shares", &self.sharing.is_some()).finish_non_exhaustive()
    }
}

fn fits(endpoint: Endpoint<'_>, claims: Claims) -> Result<Claims, AuthError> {
    match (endpoint, &claims) {
        (Endpoint::User { company, agent }, Claims::User(user))
            if user.company.as_str() == company && user.agent.as_str() == agent =>
        {
            Ok(claims)
        }
        (Endpoint::Admin, Claims::Admin(_)) => Ok(claims),
        _ => Err(AuthError::OtherPath),
    }
}

/// The predecessor's word in the `type` label of `dws_auth_*`: its dashboards stay right.
fn login(kind: SessionKind) -> Login {
    match kind {
        SessionKind::User => Login::Company,
        SessionKind::Admin => Login::Admin,
    }
}

/// The hash of a configured key: comparing hashes takes the same time whatever the given key's length.
struct KeyDigest(Option<[u8; 32]>);

impl KeyDigest {
    fn of(key: &Secret) -> Self {
        // A key that is not configured opens nothing, not even for the empty text.
        Self((!key.is_empty()).then(|| Sha256::digest(key.expose()).into()))
    }

    /// The beginning of the digest, in hexadecimal: it tells keys apart, and 32 bits help nobody to guess one of the length that
    /// the configuration asks for.
    fn fingerprint(&self) -> Option<String> {
        self.0.map(|digest| hex::encode(&digest[..4]))
    }

    fn matches(&self, given: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        self.0.is_some_and(|key| key.ct_eq(&given).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_key_matches_and_no_key_matches_nothing() {
        let key = KeyDigest::of(&Secret::new("right"));
        assert!(key.matches("right"));
        for given in ["", "Right", "right ", "righ", "wrong"] {
            assert!(!key.matches(given), "{given:?}");
        }
        assert!(!KeyDigest::of(&Secret::default()).matches(""));
    }

    #[test]
    fn a_fingerprint_is_the_beginning_of_the_digest() {
        // printf %s test | sha256sum
        assert_eq!(KeyDigest::of(&Secret::new("test")).fingerprint().as_deref(), Some("9f86d081"));
        assert_eq!(KeyDigest::of(&Secret::default()).fingerprint(), None);
    }
}
