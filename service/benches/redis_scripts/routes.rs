//! Writing and looking up routes.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use daisi_ws_domain::{
    ids::{AgentId, CompanyId, PodId},
    route::RouteKey,
};
use daisi_ws_service::ports::{RouteChange, Routes as _};

use crate::Bench;

const TTL: Duration = Duration::from_secs(600);

pub(crate) fn bench(criterion: &mut Criterion, Bench { runtime, store }: &Bench) {
    let pods = ["pod-a", "pod-b"].map(|id| PodId::parse(id).unwrap());
    let mut group = criterion.benchmark_group("routes");
    // A connect's; a refresh's, as many as go in one write.
    for count in [1, 1000] {
        let changes: Vec<_> = (0..count).map(|n| RouteChange::Add { route: route(n), ttl: TTL }).collect();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("write", count), |bencher| {
            bencher.iter(|| runtime.block_on(store.apply(&pods[0], &changes)).unwrap());
        });
        runtime.block_on(store.apply(&pods[1], &changes)).unwrap();
    }
    // A single event's; a batch's.
    for count in [1, 100] {
        let routes: Vec<_> = (0..count).map(route).collect();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("look up", count), |bencher| {
            bencher.iter(|| {
                let found = runtime.block_on(store.lookup(&PodId::parse("bench-asks").unwrap(), &routes)).unwrap();
                assert_eq!(found.pods.len(), count);
            });
        });
    }
    group.finish();
}

fn route(number: usize) -> RouteKey {
    RouteKey::Chats { company: CompanyId::parse("acme").unwrap(), agent: AgentId::parse(&format!("agent-{number}")).unwrap() }
}
