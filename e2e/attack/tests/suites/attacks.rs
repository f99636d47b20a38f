//! Attacked from outside, a pod answers its probes and its users get their events.
//!
//! Times are those of a machine that also runs NATS, Redis, the audience and the strangers, on as few as two cores. So this is
//! the rule:
//!
//! - `/health` and `/metrics`, asked every 50 ms on a new connection where probes are served, are each answered within 100 ms;
//!   where the machine has so much else to do that they took more than 50 ms before the attack, within twice that;
//! - no event is lost or doubled, no socket of the audience is closed, and none is told of a gap;
//! - the p99 of events stays within twice what it was just before, where that is more than 50 ms, and else within 100 ms.

use std::{path::PathBuf, time::Duration};

use daisi_ws_attack::{
    catalogue::Attack,
    impact::probe::Answers,
    run::{attack::run, plan::Plan, row::Row},
    table,
};

/// What takes less than this before an attack may take twice this during it: below, everything is noise.
const USUAL: Duration = Duration::from_millis(50);
const DURING: Duration = Duration::from_secs(8);
const MEGABYTES: u64 = 1 << 20;

/// Runs an attack, and shows its row where the test fails.
async fn attacked(name: &str) -> Row {
    let binary = std::env::var_os("DAISI_WS_BINARY").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/quick/daisi-ws-service")),
        PathBuf::from,
    );
    let plan = Plan {
        binary,
        strangers: env!("CARGO_BIN_EXE_daisi-ws-attack").into(),
        pods: 2,
        before: Duration::from_secs(3),
        during: DURING,
        set: Vec::new(),
    };
    let row = run(&plan, Attack::named(name).unwrap()).await.unwrap();
    eprint!("{}{}", table::head(), table::line(&row));
    row
}

fn assert_answered(what: &str, before: &Answers, during: &Answers) {
    assert!(!during.took.is_empty(), "{what} was not asked");
    assert_eq!(during.failed, 0, "{what} is not answered");
    let (usual, now) = (before.took.max(), during.took.max());
    assert!(now <= (2 * usual).max(2 * USUAL), "{what} went from {usual:?} to {now:?}");
}

/// What must hold under each attack.
fn assert_unmoved(row: &Row) {
    assert!(row.alive, "the pod has ended");
    assert_answered("/health", &row.before.health, &row.during.health);
    assert_answered("/metrics", &row.before.metrics, &row.during.metrics);
    assert_eq!((row.during.heard.lost, row.during.heard.doubled), (0, 0), "events lost and doubled");
    assert!(row.closed.is_empty() && row.gaps == 0, "sockets of the audience closed: {:?}, gaps: {}", row.closed, row.gaps);
    let (usual, now) = (row.before.heard.took.per_mille(990), row.during.heard.took.per_mille(990));
    assert!(now <= (2 * usual).max(2 * USUAL), "the p99 of events went from {usual:?} to {now:?}");
}

fn counted(row: &Row, what: &str) -> u64 {
    row.counts.get(what).copied().unwrap_or_default()
}

/// One test an attack, under its name, with what else must hold under it.
macro_rules! unmoved {
    ($($test:ident: $name:literal $(, $more:expr)?;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        #[ignore = "needs the gateway's program, nats-server and redis-server: .ci/e2e"]
        async fn $test() {
            let row = attacked($name).await;
            assert_unmoved(&row);
            $({
                let more: fn(&Row) = $more;
                more(&row);
            })?
        }
    )*};
}

unmoved! {
    everything_at_once_leaves_probes_and_events_alone: "all";
    idle_connections_hold_no_probe: "idle";
    idle_connections_of_many_addresses_hold_no_probe: "idle-spread";
    answers_that_nobody_reads_hold_no_probe: "pipeline";
    answers_that_nobody_at_many_addresses_reads_hold_no_probe: "pipeline-spread";
    headers_without_end_hold_no_probe: "slow-headers";
    another_protocols_greeting_holds_no_probe: "http2-preface";
    a_store_that_hangs_holds_no_probe: "redis-frozen-storm";
    a_log_that_nobody_reads_stops_nothing: "stopped-log-reader";
    refusals_are_sampled: "refusals", |row| assert!(row.during.lines < 200, "{} lines of log a second", row.during.lines);
    pongs_are_charged: "pongs";
    pings_are_charged: "pings";
    binary_messages_are_charged: "binary";
    continuations_are_charged: "continuations";
    a_session_in_a_loop_is_told_to_wait: "connects", |row| assert!(counted(row, "429") > counted(row, "101"), "{:?}", row.counts);
    made_up_tokens_cost_redis_nothing: "made-up-tokens", |row| {
        let (usual, now) = row.before.redis.zip(row.during.redis).unwrap();
        let attempts = counted(row, "attempts") / DURING.as_secs();
        // A tenth of a command each, beside what comes and goes.
        let said = format!("{attempts} attempts a second, {usual} Redis commands before, {now} now");
        assert!(now <= usual + usual / 3 + attempts / 10, "{said}");
    };
    guesses_of_the_minting_key_are_slowed: "key-guessing", |row| assert!(counted(row, "401") < 2000, "{:?}", row.counts);
    only_events_are_published: "publish-subjects", |row| {
        let wrong = |remark: &&String| remark.contains("is published") || remark.contains("gone");
        assert_eq!(row.remarks.iter().find(wrong), None, "{:?}", row.remarks);
    };
    strangers_that_ping_hold_no_port_of_pods: "grpc-pings", |row| {
        assert_eq!(row.during.grpc.failed, 0, "new connections of pods");
    };
    unproved_watches_hold_no_memory: "grpc-watches", |row| {
        assert!(row.during.memory < row.before.memory + 64 * MEGABYTES, "{} MB", row.during.memory / MEGABYTES);
    };
    sockets_that_do_not_read_stay_within_the_budget: "unread-sockets", |row| {
        // The budget of the row is 64 MiB; the rest is the pod's own, and what the allocator keeps.
        assert!(row.during.memory < 160 * MEGABYTES, "{} MB", row.during.memory / MEGABYTES);
    };
    a_pod_that_proves_nothing_is_sent_nothing: "false-pod", |row| {
        assert!(row.remarks.iter().any(|remark| remark.ends_with(" 0 events of others")), "{:?}", row.remarks);
    };
}
