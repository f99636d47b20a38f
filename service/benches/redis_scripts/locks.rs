//! The lock scripts.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use daisi_ws_domain::{
    ids::{AgentId, CompanyId, UserId},
    session::{LockOwner, SessionKey},
};
use daisi_ws_service::ports::{Acquire, LockRenewal, Renewal, SessionLocks as _};

use crate::Bench;

const TTL: Duration = Duration::from_secs(600);
/// Locks in one round trip, as renewal and release have it.
const BATCH: usize = 500;

pub(crate) fn bench(criterion: &mut Criterion, Bench { runtime, store }: &Bench) {
    let mut group = criterion.benchmark_group("locks");
    let (mine, theirs) = (LockOwner::parse("pod-a/1").unwrap(), LockOwner::parse("pod-b/1").unwrap());

    // Our own lock is had again, which is the same script as a free one, to its end.
    group.bench_function("acquire", |bencher| {
        let free = key("free", 0);
        bencher.iter(|| runtime.block_on(store.acquire(&free, &mine, TTL)).unwrap());
    });
    group.bench_function("acquire, held by another", |bencher| {
        let held = key("held", 0);
        runtime.block_on(store.acquire(&held, &theirs, TTL)).unwrap();
        bencher.iter(|| {
            let outcome = runtime.block_on(store.acquire(&held, &mine, TTL)).unwrap();
            assert!(matches!(outcome, Acquire::Held(_)));
        });
    });

    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("renew, a batch", |bencher| {
        let renewal = |n| LockRenewal { key: key("renewed", n), owner: mine.clone(), ttl: TTL, chat: None, chat_ttl: TTL };
        let batch: Vec<_> = (0..BATCH).map(renewal).collect();
        runtime.block_on(store.renew(&batch)).unwrap();
        bencher.iter(|| {
            let outcomes = runtime.block_on(store.renew(&batch)).unwrap();
            assert!(outcomes.iter().all(|outcome| *outcome == Renewal::Renewed));
        });
    });
    group.bench_function("release, a batch of locks that have gone", |bencher| {
        let batch: Vec<_> = (0..BATCH).map(|n| (key("gone", n), mine.clone())).collect();
        bencher.iter(|| assert_eq!(runtime.block_on(store.release(&batch)).unwrap(), 0));
    });
    group.finish();
}

fn key(user: &str, number: usize) -> SessionKey {
    SessionKey::User {
        company: CompanyId::parse("acme").unwrap(),
        agent: AgentId::parse("agent-7").unwrap(),
        user: UserId::parse(&format!("{user}-{number}")).unwrap(),
    }
}
