//! A Redis that answers, and refuses what a session needs: the pod is not ready, and says what is missing.

use std::{sync::Arc, time::Duration};

use daisi_ws_service::{
    adapters::redis::RedisStore,
    ports::{KillBus as _, KillSignal},
    readiness::{Dependency, Readiness},
    runtime::lifecycle::Tasks,
};

use super::fleet::signal;
use crate::support::{
    redis::{Options, RedisServer, documented_rules, tasks},
    wait,
};

struct Watched {
    server: RedisServer,
    store: RedisStore,
    readiness: Readiness,
    tasks: Tasks,
}

impl Watched {
    /// A pod whose user may do this.
    async fn start(rules: &[String]) -> Self {
        let server = RedisServer::start_with(Options { restricted: true, ..Options::default() }).await;
        server.allow(rules).await;
        let (tasks, readiness) = (tasks(), Readiness::default());
        for dependency in [Dependency::Nats, Dependency::Redis, Dependency::Grpc] {
            readiness.observe(dependency, true);
        }
        let store = RedisStore::new(&server.config(), tasks.clone()).unwrap();
        store.watch(readiness.clone());
        assert!(!readiness.report(Duration::ZERO).ready, "nothing is known yet");
        Self { server, store, readiness, tasks }
    }

    /// Waits until the pod is ready, or is not and says something with this in it.
    async fn until(&self, problem: Option<&str>) {
        let readiness = &self.readiness;
        let what = format!("{problem:?} of {:?}", readiness.problems());
        wait::until(&what, || async {
            let (ready, problems) = (readiness.report(Duration::ZERO).ready, readiness.problems().join(", "));
            problem.map_or(ready, |problem| !ready && problems.contains(problem))
        })
        .await;
    }
}

#[tokio::test]
async fn what_the_user_lacks_is_named_until_it_is_granted() {
    for (less, problem) in [
        ("-psubscribe", "psubscribe session_kill:*"),
        ("resetchannels", "psubscribe session_kill:*"),
        ("resetchannels", "publish session_kill:*"),
        ("-evalsha", "evalsha"),
        ("-script|load", "script"),
        ("-publish", "publish session_kill:*"),
        ("-set", "set session:*"),
        ("-pexpire", "pexpire route:*"),
        ("-sadd", "sadd route:*"),
        ("-srem", "srem pods"),
        ("-sismember", "sismember pods"),
        ("-sinter", "sinter pods route:*"),
        ("-pttl", "pttl pod:*"),
        ("-getrange", "getrange pod:*"),
    ] {
        let mut rules = documented_rules();
        rules.push(less.to_owned());
        let watched = Watched::start(&rules).await;
        let mut listener = watched.store.listen().await;
        watched.until(Some(problem)).await;
        watched.server.allow(&documented_rules()).await;
        assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);
        watched.until(None).await;
        assert_eq!(watched.readiness.problems(), Vec::<String>::new());
        watched.tasks.shutdown().hard.cancel();
    }
}

#[tokio::test]
async fn a_right_to_subscribe_that_is_taken_away_later_makes_the_pod_unready() {
    let watched = Watched::start(&documented_rules()).await;
    let mut listener = watched.store.listen().await;
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);
    watched.until(None).await;
    let less: Vec<String> = documented_rules().into_iter().filter(|rule| !rule.starts_with('&')).collect();
    watched.server.allow(&less).await;
    watched.until(Some("psubscribe session_kill:*")).await;
    watched.server.allow(&documented_rules()).await;
    watched.until(None).await;
}

#[tokio::test]
async fn a_server_that_may_evict_keys_shows_in_a_metric_and_not_without_a_limit() {
    let watched = Watched::start(&documented_rules()).await;
    let metrics = Arc::clone(watched.tasks.metrics());
    let mut client = watched.server.client().await;
    for (limit, policy, evicts) in
        [("100mb", "volatile-lru", 1), ("0", "volatile-lru", 0), ("100mb", "allkeys-lfu", 1), ("100mb", "noeviction", 0)]
    {
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(limit).exec_async(&mut client).await.unwrap();
        redis::cmd("CONFIG").arg("SET").arg("maxmemory-policy").arg(policy).exec_async(&mut client).await.unwrap();
        wait::until("the policy is seen", || async { metrics.redis_may_evict.get() == evicts }).await;
    }
}

#[test]
fn the_user_of_compose_and_kubernetes_may_do_what_is_documented_and_the_default_user_nothing() {
    // Without "on" and the password.
    let documented = documented_rules().split_off(2);
    for script in [include_str!("../../../../compose/secrets.sh"), include_str!("../../../../k8s/secrets.sh")] {
        let line =
            script.lines().map(str::trim).find(|line| line.starts_with("user daisi-ws on >")).expect("the script makes the user");
        let (_, rules) = line.split_once(" resetkeys ").expect("the password comes first");
        assert_eq!(format!("resetkeys {rules}"), documented.join(" "));
        assert!(script.lines().any(|line| line.trim() == "user default off"));
    }
}
