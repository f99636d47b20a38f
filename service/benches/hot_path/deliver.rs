//! An event into the mailboxes of one pod, whose sockets are on one worker. Nobody waits at these mailboxes: waking the tasks of
//! sockets, and writing, is not in it.

use std::{sync::Arc, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use daisi_ws_domain::{
    claims::{Claims, UserClaims},
    event::Path,
    ids::{AgentId, CompanyId, ConnectionId, PodId, UserId},
};
use daisi_ws_service::{
    application::hub::{
        mailbox::MailboxLimits,
        registry::{Delivered, Hub},
        session::Session,
    },
    config::DropPolicy,
    metrics::Metrics,
    runtime::workers::{Worker, Workers},
};

use crate::samples::{CHATS, event};

/// Events that wait in a mailbox before it is emptied.
const BURST: u64 = 30;

pub(crate) fn bench(criterion: &mut Criterion) {
    // It does not run, so that its worker's queue is worked off here, where it is measured.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _inside = runtime.enter();
    let workers = Workers::of_the_runtime();
    let mut group = criterion.benchmark_group("deliver");
    for sockets in [1, 100, 10_000] {
        let (hub, sessions) = hub(sockets, workers.first());
        let mut seq = 0;
        group.throughput(Throughput::Elements(sockets as u64));
        group.bench_function(BenchmarkId::from_parameter(sockets), |bencher| {
            let next = || {
                // Not measured. The first of a burst finds them full, the others empty.
                sessions.iter().for_each(|session| drop(session.mailbox().take(usize::MAX).items));
                seq += 1;
                event(CHATS, seq)
            };
            let deliver = |event| {
                assert_eq!(hub.deliver([&event], Path::Local), [Delivered::To(sockets)]);
                if sockets > 1 {
                    hub.catch_up(&sessions[0]);
                }
            };
            bencher.iter_batched(next, deliver, BatchSize::NumIterations(BURST));
        });
    }
    group.finish();
}

/// Users of one desk, all on its route.
fn hub(sockets: usize, worker: &Arc<Worker>) -> (Hub, Vec<Arc<Session>>) {
    let hub = Hub::new(Arc::new(Metrics::new().unwrap()));
    let sessions: Vec<_> = (0..sockets).map(|number| session(number, worker)).collect();
    for session in &sessions {
        hub.enter(session, sockets).unwrap();
        assert!(hub.join(session.connection(), &session.claims().base_route()));
    }
    (hub, sessions)
}

fn session(number: usize, worker: &Arc<Worker>) -> Arc<Session> {
    let claims = Claims::User(UserClaims {
        company: CompanyId::parse("acme").unwrap(),
        agent: AgentId::parse("agent-7").unwrap(),
        user: UserId::parse(&format!("user-{number}")).unwrap(),
        expires_at: Duration::MAX,
    });
    let limits = MailboxLimits {
        messages: 100,
        bytes: 1 << 20,
        burst_bytes: 32 << 20,
        held_bytes: 128 << 20,
        policy: DropPolicy::DropOldest,
        overflow_timeout: Duration::from_secs(10),
        repair: 0,
    };
    let connection = ConnectionId::from_random(number as u128);
    Arc::new(Session::new(claims, PodId::parse("pod-a").unwrap(), connection, limits, "bench", worker))
}
