//! How often: connects of a session, company and address, and failed authentications of an address. Checked before anything is
//! asked of a store.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use daisi_ws_domain::{
    claims::Claims,
    client_address::{ClientAddress, ClientShare},
    ids::CompanyId,
    rate_table::{Rate, RateTable},
    session::SessionKey,
};
use tokio::{sync::watch, time::Instant};

use crate::{
    config::{Config, Limits},
    metrics::{Metrics, labels::Limit},
};

/// Sessions, and addresses, that may owe something at a time, in each table: some 80 bytes each.
const MANY: usize = 65_536;
/// Companies that may.
const COMPANIES: usize = 8_192;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Where a key or token is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedAt {
    /// The doors of sockets.
    Connect,
    /// The token API.
    Mint,
}

/// Too much was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooOften {
    /// When there is room for one more.
    pub retry_after: Duration,
}

/// Counts what is asked for, within bounded tables. The rates are those in force at each call.
#[derive(Debug)]
pub struct Throttle {
    config: watch::Receiver<Arc<Config>>,
    metrics: Arc<Metrics>,
    sessions: Mutex<RateTable>,
    companies: Mutex<RateTable>,
    addresses: Mutex<RateTable>,
    failed_connects: Mutex<RateTable>,
    failed_mints: Mutex<RateTable>,
}

/// A connect that was counted.
#[derive(Debug)]
pub struct Charge {
    session: SessionKey,
    company: Option<CompanyId>,
    client: Option<ClientShare>,
}

impl Throttle {
    /// Nothing was asked for yet.
    #[must_use]
    pub fn new(config: watch::Receiver<Arc<Config>>, metrics: Arc<Metrics>) -> Self {
        let table = |capacity| Mutex::new(RateTable::new(capacity));
        Self {
            config,
            metrics,
            sessions: table(MANY),
            companies: table(COMPANIES),
            addresses: table(MANY),
            failed_connects: table(MANY),
            failed_mints: table(MANY),
        }
    }

    /// Counts a connect. An address that is a proxy's, for want of a better one, has no limit of its own: it is many clients'.
    ///
    /// # Errors
    /// When the session, the address or the company has connected too often. Then nothing is counted.
    pub fn connect(&self, claims: &Claims, client: ClientAddress) -> Result<Charge, TooOften> {
        let now = Instant::now().into_std();
        let rates = self.rates();
        let company = match claims {
            Claims::User(user) => Some(user.company.clone()),
            Claims::Admin(_) => None,
        };
        let charge = Charge { session: claims.session_key(), company, client: client.share() };
        if let Some(rate) = rates.session {
            let taken = lock(&self.sessions).take(&charge.session, rate, now);
            taken.map_err(|wait| self.refuse(Limit::Session, wait))?;
        }
        let by_address = match (rates.address, charge.client) {
            (Some(rate), Some(client)) => lock(&self.addresses).take(&client, rate, now).map_err(|wait| (Limit::Address, wait)),
            _ => Ok(()),
        };
        let by_company = || match (rates.company, &charge.company) {
            (Some(rate), Some(company)) => lock(&self.companies).take(company, rate, now).map_err(|wait| (Limit::Company, wait)),
            _ => Ok(()),
        };
        if let Err((limit, wait)) = by_address {
            give_back(&self.sessions, Some(&charge.session), rates.session, now);
            return Err(self.refuse(limit, wait));
        }
        if let Err((limit, wait)) = by_company() {
            give_back(&self.sessions, Some(&charge.session), rates.session, now);
            give_back(&self.addresses, charge.client.as_ref(), rates.address, now);
            return Err(self.refuse(limit, wait));
        }
        Ok(charge)
    }

    /// Takes a connect back that failed for a reason of ours: anyone who came while a store was away is not to wait once it is
    /// there again.
    pub fn give_back(&self, charge: &Charge) {
        let (now, rates) = (Instant::now().into_std(), self.rates());
        give_back(&self.sessions, Some(&charge.session), rates.session, now);
        give_back(&self.addresses, charge.client.as_ref(), rates.address, now);
        give_back(&self.companies, charge.company.as_ref(), rates.company, now);
    }

    /// May the address show a key or token? A proxy that names no client counts as one.
    ///
    /// # Errors
    /// When it has failed too often.
    pub(crate) fn check_failures(&self, at: FailedAt, client: ClientAddress) -> Result<(), TooOften> {
        let (Some(rate), Some(client)) = (self.rates().failures, client.origin()) else { return Ok(()) };
        let checked = lock(self.failures(at)).check(&client, rate, Instant::now().into_std());
        checked.map_err(|retry_after| TooOften { retry_after })
    }

    /// Counts a key or token that opened nothing.
    pub fn failed(&self, at: FailedAt, client: ClientAddress) {
        if let (Some(rate), Some(client)) = (self.rates().failures, client.origin()) {
            lock(self.failures(at)).charge(&client, rate, Instant::now().into_std());
        }
    }

    /// Counts a refusal for too many failures.
    pub(crate) fn note_slowed(&self, at: FailedAt) {
        let limit = match at {
            FailedAt::Connect => Limit::FailedConnects,
            FailedAt::Mint => Limit::FailedMints,
        };
        self.metrics.rate_limited_total.with_label_values(&[limit.as_str()]).inc();
    }

    fn failures(&self, at: FailedAt) -> &Mutex<RateTable> {
        match at {
            FailedAt::Connect => &self.failed_connects,
            FailedAt::Mint => &self.failed_mints,
        }
    }

    fn refuse(&self, limit: Limit, retry_after: Duration) -> TooOften {
        self.metrics.rate_limited_total.with_label_values(&[limit.as_str()]).inc();
        TooOften { retry_after }
    }

    fn rates(&self) -> Rates {
        Rates::of(&self.config.borrow().limits)
    }
}

/// The rates in force; none: no limit.
struct Rates {
    session: Option<Rate>,
    company: Option<Rate>,
    address: Option<Rate>,
    failures: Option<Rate>,
}

impl Rates {
    fn of(limits: &Limits) -> Self {
        Self {
            session: Rate::new(limits.connects_per_session_per_minute, MINUTE, limits.connects_per_session_burst),
            company: Rate::new(limits.connects_per_company_per_second, SECOND, limits.connects_per_company_burst),
            address: Rate::new(limits.connects_per_address_per_second, SECOND, limits.connects_per_address_burst),
            failures: Rate::new(limits.failures_per_address_per_minute, MINUTE, limits.failures_per_address_burst),
        }
    }
}

fn lock(table: &Mutex<RateTable>) -> MutexGuard<'_, RateTable> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn give_back(table: &Mutex<RateTable>, key: Option<&impl std::hash::Hash>, rate: Option<Rate>, now: std::time::Instant) {
    if let (Some(key), Some(rate)) = (key, rate) {
        lock(table).give_back(key, rate, now);
    }
}

#[cfg(test)]
mod tests {
    use daisi_ws_domain::{
        claims::UserClaims,
        ids::{AgentId, UserId},
    };

    use super::*;
    use crate::config::testing;

    fn throttle(change: impl FnOnce(&mut Limits)) -> (watch::Sender<Arc<Config>>, Throttle) {
        let mut config = testing::config();
        change(&mut config.limits);
        let (sender, receiver) = watch::channel(Arc::new(config));
        (sender, Throttle::new(receiver, Arc::new(Metrics::new().unwrap())))
    }

    fn claims(company: &str, user: &str) -> Claims {
        Claims::User(UserClaims {
            company: CompanyId::parse(company).unwrap(),
            agent: AgentId::parse("agent").unwrap(),
            user: UserId::parse(user).unwrap(),
            expires_at: Duration::from_secs(4_000_000_000),
        })
    }

    fn client(text: &str) -> ClientAddress {
        ClientAddress::of_client(text.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn with_the_defaults_one_session_in_a_loop_is_stopped_and_an_office_and_a_storm_are_not() {
        let (_keep, throttle) = throttle(|_| {});
        let office = client("203.0.113.7");
        for user in 0..10_000 {
            assert!(throttle.connect(&claims("acme", &format!("user-{user}")), office).is_ok(), "{user}");
        }
        // As the attack had it: 3,738 attempts in 10 s.
        let mut passed = 0;
        for _ in 0..3738 {
            passed += usize::from(throttle.connect(&claims("acme", "loop"), client("203.0.113.8")).is_ok());
            tokio::time::advance(Duration::from_micros(2675)).await;
        }
        assert!((20..=30).contains(&passed), "{passed}");
        assert_eq!(throttle.metrics.rate_limited_total.with_label_values(&["session"]).get(), 3738 - passed as u64);
        let TooOften { retry_after } = throttle.connect(&claims("acme", "loop"), office).unwrap_err();
        assert!(retry_after <= SECOND, "{retry_after:?}");
        assert!(throttle.connect(&claims("acme", "other"), client("203.0.113.8")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn each_limit_counts_only_what_is_its_own() {
        let (_keep, throttle) = throttle(|limits| {
            (limits.connects_per_address_per_second, limits.connects_per_address_burst) = (1, 3);
            (limits.connects_per_company_per_second, limits.connects_per_company_burst) = (1, 5);
        });
        let refused = |limit: &str| throttle.metrics.rate_limited_total.with_label_values(&[limit]).get();
        let many = |company: &str, address: ClientAddress| {
            (0..10)
                .filter(|user| {
                    throttle
                        .connect(&claims(company, &format!("user-{}-{user}", address.to_string().replace(':', "-"))), address)
                        .is_ok()
                })
                .count()
        };
        assert_eq!(many("acme", client("203.0.113.1")), 3);
        assert_eq!((refused("address"), refused("company")), (7, 0));
        assert_eq!(many("acme", client("203.0.113.2")), 2, "the company has two left");
        // What the company was refused did not cost the address anything.
        assert_eq!(many("globex", client("203.0.113.2")), 1);
        assert_eq!(many("globex", client("2001:db8::1")) + many("globex", client("2001:db8::2")), 3, "one /64");
        let proxy = ClientAddress::of_proxy("10.0.0.1".parse().unwrap());
        assert_eq!(many("initech", proxy), 5, "as the company may: an address of many has no limit");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connect_that_failed_for_us_costs_nothing() {
        let (_keep, throttle) = throttle(|limits| limits.connects_per_session_burst = 2);
        for _ in 0..100 {
            let charge = throttle.connect(&claims("acme", "sari"), client("203.0.113.1")).unwrap();
            throttle.give_back(&charge);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_is_obeyed_at_once() {
        let (sender, throttle) = throttle(|limits| limits.connects_per_session_burst = 1);
        let again = || throttle.connect(&claims("acme", "sari"), client("203.0.113.1")).is_ok();
        assert!(again() && !again());
        let mut config = testing::config();
        config.limits.connects_per_session_per_minute = 0;
        sender.send_replace(Arc::new(config));
        assert!((0..100).all(|_| again()));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_slow_their_address_and_no_other_and_pass() {
        let (_keep, throttle) = throttle(|limits| limits.failures_per_address_burst = 10);
        let (guesser, other) = (client("203.0.113.1"), client("203.0.113.2"));
        let checked = |at, client| throttle.check_failures(at, client).is_ok();
        (0..10).for_each(|_| throttle.failed(FailedAt::Mint, guesser));
        assert!(!checked(FailedAt::Mint, guesser) && checked(FailedAt::Mint, other) && checked(FailedAt::Connect, guesser));
        tokio::time::advance(SECOND).await;
        assert!(checked(FailedAt::Mint, guesser), "one a second, as by default");
        let proxy = ClientAddress::of_proxy("10.0.0.1".parse().unwrap());
        (0..10).for_each(|_| throttle.failed(FailedAt::Mint, proxy));
        assert!(!checked(FailedAt::Mint, proxy), "a proxy that names nobody is no way around");
    }
}
