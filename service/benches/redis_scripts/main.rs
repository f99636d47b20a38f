//! What Redis is asked by a connect, a refresh and a batch of events, on a real one that is started for it: `REDIS_SERVER`, else
//! `target/tools/bin/redis-server`, else the one on PATH. Without one, it says so and measures nothing.
//!
//! ```text
//! cargo bench -p daisi-ws-service --bench redis_scripts
//! cargo bench -p daisi-ws-service --bench redis_scripts -- --quick locks
//! ```
//!
//! A figure is the whole way: client, system, server and back.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench whose server fails has to stop")]

mod locks;
mod routes;
// The server that tests use; of what it can do, a bench needs the start alone.
#[path = "../../tests/it/support/redis.rs"]
#[expect(dead_code, reason = "tests use more of it")]
mod server;
#[path = "../../tests/it/support/wait.rs"]
#[expect(dead_code, reason = "tests use more of it")]
mod wait;

use std::process::{Command, Stdio};

use criterion::Criterion;
use daisi_ws_service::adapters::redis::RedisStore;
use tokio::runtime::Runtime;

/// A pod's store, and where its calls run.
struct Bench {
    runtime: Runtime,
    store: RedisStore,
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let found = Command::new(server::program()).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no redis-server; set REDIS_SERVER to its path, or put it on PATH");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(server::RedisServer::start());
    let store = runtime.block_on(async { server.store() });
    let bench = Bench { runtime, store };
    locks::bench(&mut criterion, &bench);
    routes::bench(&mut criterion, &bench);
    criterion.final_summary();
}
