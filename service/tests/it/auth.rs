//! Tokens from minting to claims, with every kind of cache trouble in between.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use daisi_ws_domain::{
    claims::{Claims, ClaimsError},
    close::ErrorCode,
    session::SessionKind,
};
use daisi_ws_service::{
    application::auth::{
        authenticator::{AuthError, Authenticator, Clock, Endpoint},
        mint::{MintError, UserTokenRequest},
        token::{OpenError, TokenKey},
    },
    config::{Config, Secret},
    metrics::Metrics,
    ports::{StoreError, TokenCache},
};
use tokio::{sync::watch, time::Instant};

use crate::support::fixture::{self, API_KEY, MINT_KEY, admin_request, config, minter, user_request};

const DAY: Duration = Duration::from_secs(86_400);
const ACME: Endpoint<'static> = Endpoint::User { company: "acme", agent: "a1" };

fn noon() -> Duration {
    Duration::from_secs(1_700_000_000)
}

fn a_minute_past_noon() -> Duration {
    noon() + Duration::from_secs(60)
}

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Well,
    Failing,
    Hanging,
}

/// A cache in a map that can fail, hang and be written to by anybody.
struct FakeCache {
    entries: Mutex<HashMap<String, (Bytes, Duration)>>,
    mood: Mutex<Mood>,
    calls: Mutex<usize>,
}

impl FakeCache {
    fn new() -> Arc<Self> {
        Arc::new(Self { entries: Mutex::default(), mood: Mutex::new(Mood::Well), calls: Mutex::new(0) })
    }

    async fn called(&self) -> Result<(), StoreError> {
        *self.calls.lock().unwrap() += 1;
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Well => Ok(()),
            Mood::Failing => Err(StoreError::unreachable("on purpose")),
            Mood::Hanging => std::future::pending().await,
        }
    }

    fn only_entry(&self) -> (String, Bytes, Duration) {
        let entries = self.entries.lock().unwrap();
        assert_eq!(entries.len(), 1);
        entries.iter().next().map(|(digest, (entry, ttl))| (digest.clone(), entry.clone(), *ttl)).unwrap()
    }

    fn overwrite(&self, entry: &Bytes) {
        self.entries.lock().unwrap().values_mut().for_each(|kept| kept.0 = entry.clone());
    }
}

#[async_trait]
impl TokenCache for FakeCache {
    async fn put(&self, _kind: SessionKind, digest: &str, entry: Bytes, ttl: Duration) -> Result<(), StoreError> {
        self.called().await?;
        self.entries.lock().unwrap().insert(digest.to_owned(), (entry, ttl));
        Ok(())
    }
}

struct Setup {
    auth: Authenticator,
    metrics: Arc<Metrics>,
    _config: watch::Sender<Arc<Config>>,
}

impl Setup {
    fn new(cache: Option<&Arc<FakeCache>>, clock: Clock) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let (sender, receiver) = watch::channel(Arc::new(config()));
        let cache = cache.map(|cache| Arc::clone(cache) as Arc<dyn TokenCache>);
        let auth = Authenticator::new(receiver, cache, Arc::clone(&metrics), clock).unwrap();
        Self { auth, metrics, _config: sender }
    }

    fn cached(&self, outcome: &str) -> u64 {
        self.metrics.token_cache_total.with_label_values(&[outcome]).get()
    }
}

fn token() -> String {
    minter(noon).user(&user_request("acme", "a1", "sari"), DAY).unwrap()
}

#[tokio::test]
async fn a_minted_user_token_opens_its_own_door_and_no_other() {
    let setup = Setup::new(None, noon);
    let token = token();
    let Ok(Claims::User(claims)) = setup.auth.authenticate(ACME, Some(&token)).await else { panic!("refused") };
    assert_eq!((claims.company.as_str(), claims.agent.as_str(), claims.user.as_str()), ("acme", "a1", "sari"));
    assert_eq!(claims.expires_at, noon() + Duration::from_secs(60));
    for (company, agent) in [("acme", "a2"), ("other", "a1"), ("*", "*"), ("", ""), ("ACME", "a1")] {
        let refused = setup.auth.authenticate(Endpoint::User { company, agent }, Some(&token)).await;
        assert_eq!(refused, Err(AuthError::OtherPath), "{company}/{agent}");
    }
    assert_eq!(setup.auth.authenticate(Endpoint::Admin, Some(&token)).await, Err(OpenError::WrongKey.into()));
    assert_eq!(setup.metrics.auth_success_total.with_label_values(&["company"]).get(), 1);
    assert_eq!(setup.metrics.auth_failure_total.with_label_values(&["company", "other_path"]).get(), 5);
    assert_eq!(setup.metrics.auth_failure_total.with_label_values(&["admin", "wrong_key"]).get(), 1);
}

#[tokio::test]
async fn a_minted_admin_token_opens_the_admins_door_only() {
    let setup = Setup::new(None, noon);
    let mut request = admin_request("root@acme.example");
    request.company_id_restriction = Some("acme".into());
    let token = minter(noon).admin(&request, DAY).unwrap();
    let Ok(Claims::Admin(claims)) = setup.auth.authenticate(Endpoint::Admin, Some(&token)).await else { panic!("refused") };
    assert_eq!((claims.company.as_str(), claims.agent.as_str()), ("acme", "*"));
    assert!(setup.auth.authenticate(ACME, Some(&token)).await.is_err());
    assert_eq!(setup.metrics.auth_success_total.with_label_values(&["admin"]).get(), 1);
}

#[tokio::test]
async fn each_bad_token_is_refused_for_its_reason() {
    let setup = Setup::new(None, a_minute_past_noon);
    let foreign = fixture_key("33").seal(b"{}").unwrap();
    let empty = fixture_key("1a").seal(b"{}").unwrap();
    for (token, reason) in [
        (None, AuthError::Missing),
        (Some(""), AuthError::Missing),
        (Some("!"), OpenError::Malformed.into()),
        (Some(foreign.as_str()), OpenError::WrongKey.into()),
        (Some(empty.as_str()), ClaimsError::Malformed.into()),
        (Some(token().as_str()), ClaimsError::Expired.into()),
    ] {
        let refused = setup.auth.authenticate(ACME, token).await.unwrap_err();
        assert_eq!(refused, reason);
        assert_eq!(refused.code(), ErrorCode::InvalidToken);
    }
}

fn fixture_key(byte: &str) -> TokenKey {
    TokenKey::parse(&Secret::new(byte.repeat(32))).unwrap()
}

#[test]
fn the_two_api_keys_do_not_stand_in_for_each_other() {
    let setup = Setup::new(None, noon);
    let kind = SessionKind::User;
    assert!(setup.auth.check_api_key(kind, Some(API_KEY)).is_ok() && setup.auth.check_mint_key(kind, Some(MINT_KEY)).is_ok());
    for given in [None, Some(""), Some(MINT_KEY)] {
        assert_eq!(setup.auth.check_api_key(kind, given), Err(AuthError::ApiKey));
    }
    for given in [None, Some(""), Some(API_KEY)] {
        assert_eq!(setup.auth.check_mint_key(kind, given), Err(AuthError::MintKey));
    }
    assert_eq!(setup.metrics.auth_failure_total.with_label_values(&["company", "mint_key"]).get(), 3);
}

#[test]
fn tokens_are_minted_for_good_ids_and_lives_only() {
    let mint = |seconds, user: &str| {
        let mut request = user_request("acme", "a1", user);
        request.expires_in_seconds = seconds;
        minter(noon).user(&request, DAY)
    };
    assert!(mint(86_400, "u").is_ok());
    for seconds in [0, -1, 86_401, i64::MAX, i64::MIN] {
        assert_eq!(mint(seconds, "u"), Err(MintError::Lifetime { limit: 86_400 }));
    }
    assert!(matches!(mint(60, "a:b"), Err(MintError::Id(_))));
    let mut admin = admin_request("root");
    admin.subscribed_company_id = Some("other".into());
    admin.company_id_restriction = Some("acme".into());
    assert_eq!(minter(noon).admin(&admin, DAY), Err(MintError::Claims(ClaimsError::BeyondRestriction)));
}

#[tokio::test]
async fn no_token_that_opens_nothing_costs_the_store_a_command() {
    let cache = FakeCache::new();
    let setup = Setup::new(Some(&cache), noon);
    let (foreign, empty) = (fixture_key("33").seal(b"{}").unwrap(), fixture_key("1a").seal(b"{}").unwrap());
    let (genuine, made_up) = (token(), "A".repeat(300));
    let expired = minter(|| noon() - 2 * DAY).user(&user_request("acme", "a1", "sari"), DAY).unwrap();
    let lasting = minter(noon)
        .user(&UserTokenRequest { expires_in_seconds: 90_000_000, ..user_request("acme", "a1", "sari") }, 9000 * DAY)
        .unwrap();
    for bad in ["", "!", "x", &made_up, &foreign, &empty, &expired, &lasting, &"A".repeat(5000), &genuine[..genuine.len() - 4]] {
        assert!(setup.auth.authenticate(ACME, Some(bad)).await.is_err(), "{bad}");
    }
    assert!(setup.auth.authenticate(ACME, None).await.is_err());
    assert!(setup.auth.authenticate(Endpoint::Admin, Some(&genuine)).await.is_err());
    assert!(setup.auth.authenticate(Endpoint::User { company: "other", agent: "a1" }, Some(&genuine)).await.is_err());
    assert_eq!(*cache.calls.lock().unwrap(), 0);
    assert!(setup.auth.authenticate(ACME, Some(&genuine)).await.is_ok());
    assert_eq!((*cache.calls.lock().unwrap(), setup.cached("shared")), (1, 1));
}

#[tokio::test]
async fn a_genuine_token_is_left_for_old_pods_as_the_contract_says() {
    let cache = FakeCache::new();
    let setup = Setup::new(Some(&cache), noon);
    let token = token();
    setup.auth.authenticate(ACME, Some(&token)).await.unwrap();
    let (digest, entry, ttl) = cache.only_entry();
    assert_eq!(digest, hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&token)));
    assert_eq!(ttl, Duration::from_secs(30));
    let context: serde_json::Value = serde_json::from_slice(&entry).unwrap();
    assert_eq!(
        (&context["company_id"], &context["agent_id"], &context["user_id"]),
        (&"acme".into(), &"a1".into(), &"sari".into())
    );
    assert_eq!(context["expires_at"], "2023-11-14T22:14:20Z");
}

#[tokio::test]
async fn an_entry_never_outlives_its_token() {
    let cache = FakeCache::new();
    let mut request = user_request("acme", "a1", "sari");
    request.expires_in_seconds = 7;
    let token = minter(noon).user(&request, DAY).unwrap();
    assert!(Setup::new(Some(&cache), noon).auth.authenticate(ACME, Some(&token)).await.is_ok());
    assert_eq!(cache.only_entry().2, Duration::from_secs(7));
}

#[tokio::test]
async fn nothing_in_the_store_opens_a_door() {
    let cache = FakeCache::new();
    let setup = Setup::new(Some(&cache), noon);
    let token = token();
    let claims = setup.auth.authenticate(ACME, Some(&token)).await.unwrap();
    let (_, good, _) = cache.only_entry();
    let forged = String::from_utf8_lossy(&good).replace("sari", "root");
    for entry in [Bytes::new(), Bytes::from(forged), Bytes::from(vec![0; 100_000])] {
        cache.overwrite(&entry);
        assert_eq!(setup.auth.authenticate(ACME, Some(&token)).await, Ok(claims.clone()));
    }
}

#[tokio::test]
async fn a_token_of_whichever_minter_lives_no_longer_than_tokens_may() {
    let setup = Setup::new(None, noon);
    let mint = |seconds| {
        let request = UserTokenRequest { expires_in_seconds: seconds, ..user_request("acme", "a1", "sari") };
        minter(noon).user(&request, 9000 * DAY).unwrap()
    };
    let longest = i64::try_from(config().auth.max_token_ttl.as_secs()).unwrap();
    // Clocks differ by up to a minute.
    for good in [longest, longest + 60] {
        assert!(setup.auth.authenticate(ACME, Some(&mint(good))).await.is_ok(), "{good}");
    }
    let refused = setup.auth.authenticate(ACME, Some(&mint(longest + 61))).await.unwrap_err();
    assert_eq!((&refused, refused.code()), (&AuthError::TooLongLived, ErrorCode::InvalidToken));
    assert_eq!(setup.metrics.auth_failure_total.with_label_values(&["company", "too_long_lived"]).get(), 1);
    let mut admin = admin_request("root");
    admin.expires_in_seconds = longest + 61;
    let admin = minter(noon).admin(&admin, 9000 * DAY).unwrap();
    assert_eq!(setup.auth.authenticate(Endpoint::Admin, Some(&admin)).await, Err(AuthError::TooLongLived));
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_fails_or_hangs_delays_nobody() {
    for mood in [Mood::Failing, Mood::Hanging] {
        let cache = FakeCache::new();
        *cache.mood.lock().unwrap() = mood;
        let setup = Setup::new(Some(&cache), noon);
        let start = Instant::now();
        for _ in 0..100 {
            assert!(setup.auth.authenticate(ACME, Some(&token())).await.is_ok());
        }
        assert!(start.elapsed() <= Duration::from_millis(20), "{:?}", start.elapsed());
        assert_eq!((setup.cached("error"), *cache.calls.lock().unwrap()), (1, 1));
        *cache.mood.lock().unwrap() = Mood::Well;
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(setup.auth.authenticate(ACME, Some(&token())).await.is_ok());
        assert_eq!(setup.cached("shared"), 1);
    }
}

#[test]
fn keys_show_in_no_debug_output() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let shown = format!("{:?} {:?}", fixture::authenticator(config(), &metrics), minter(noon));
    for secret in [API_KEY, MINT_KEY, &fixture::user_key(), &fixture::admin_key()] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
