//! Many strangers at a time.

use std::{io, sync::Arc, time::Duration};

use tokio::{io::AsyncReadExt as _, net::tcp::OwnedReadHalf, task::JoinSet, time::sleep};

use super::{order::Order, tally::Tally};

/// Before a connection that was ended is opened again: what is measured is what connections hold, not how many two cores can
/// open.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Has `order.count` strangers at a time. Each does `live` on a connection, and again when that has ended.
pub(super) async fn crowd<F, L>(order: Arc<Order>, tally: Tally, live: F)
where
    F: Fn(Arc<Order>, Tally, usize) -> L + Send + Sync + 'static,
    L: Future<Output = io::Result<()>> + Send + 'static,
{
    crowd_of(order.count, order, tally, live).await;
}

/// The same with so many of them.
pub(super) async fn crowd_of<F, L>(count: usize, order: Arc<Order>, tally: Tally, live: F)
where
    F: Fn(Arc<Order>, Tally, usize) -> L + Send + Sync + 'static,
    L: Future<Output = io::Result<()>> + Send + 'static,
{
    let live = Arc::new(live);
    let mut tasks = JoinSet::new();
    for index in 0..count {
        let (live, order, tally) = (Arc::clone(&live), Arc::clone(&order), tally.clone());
        tasks.spawn(async move {
            loop {
                let lived = live(Arc::clone(&order), tally.clone(), index).await;
                tally.one(if lived.is_ok() { "ended" } else { "broken" });
                sleep(BACK_OFF).await;
            }
        });
        // A thousand connections at once would not fit the queue that the kernel keeps for a listener.
        if index % 50 == 49 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    tasks.join_all().await;
}

/// Reads and forgets.
pub(super) async fn discard(mut from: OwnedReadHalf) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    while from.read(&mut buffer).await? > 0 {}
    Ok(())
}
