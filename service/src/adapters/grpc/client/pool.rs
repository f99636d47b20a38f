//! The channels to peers: one a pod, made on use, closed when idle, unhealthy, replaced or forgotten.
//!
//! Closing a channel takes it out of the pool; calls that are under way on it end in peace.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use daisi_ws_domain::{ids::PodId, peer::PodRecord};
use tokio::time::Instant;
use tonic::transport::Error;

use super::link::Link;
use crate::{
    adapters::grpc::tls::Tls,
    metrics::{Metrics, labels::PoolClosed as Closed},
};

/// The most channels that are kept: more peers than any fleet has. Past it the one unused for longest is closed, as if it were
/// idle.
const MAX_CHANNELS: usize = 1024;

#[derive(Debug)]
struct Pooled {
    peer: PodRecord,
    link: Link,
    last_used: Instant,
}

impl Pooled {
    fn is_of(&self, peer: &PodRecord) -> bool {
        self.peer == *peer
    }
}

/// The channels of one pod. Nothing awaits while its lock is held.
#[derive(Debug)]
pub(crate) struct Pool {
    channels: Mutex<HashMap<PodId, Pooled>>,
    tls: Option<Tls>,
    metrics: Arc<Metrics>,
}

impl Pool {
    pub(crate) fn new(tls: Option<Tls>, metrics: Arc<Metrics>) -> Self {
        Self { channels: Mutex::default(), tls, metrics }
    }

    /// The channel to the peer. Another address or start time than before means another process: its old channel is replaced.
    pub(crate) fn link(&self, peer: &PodRecord) -> Result<Link, Error> {
        let mut channels = self.lock();
        if channels.len() >= MAX_CHANNELS && !channels.contains_key(&peer.id) {
            let oldest = channels.iter().min_by_key(|(_, pooled)| pooled.last_used).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                channels.remove(&oldest);
                self.count(Closed::Idle);
            }
        }
        let open = || {
            let link = Link::open(&peer.address, self.tls.clone())?;
            self.metrics.grpc_pool_connections_created_total.inc();
            self.metrics.grpc_pool_size.inc();
            Ok(Pooled { peer: peer.clone(), link, last_used: Instant::now() })
        };
        let pooled = match channels.entry(peer.id.clone()) {
            Entry::Vacant(vacant) => vacant.insert(open()?),
            Entry::Occupied(occupied) => {
                let pooled = occupied.into_mut();
                if !pooled.is_of(peer) {
                    *pooled = open()?;
                    self.count(Closed::Replaced);
                }
                pooled
            }
        };
        pooled.last_used = Instant::now();
        Ok(pooled.link.clone())
    }

    /// Closes the channel of a peer that is gone.
    pub(crate) fn forget(&self, pod: &PodId) {
        if self.lock().remove(pod).is_some() {
            self.count(Closed::Forgotten);
        }
    }

    /// Closes the channels that no call has used for `timeout`. One that is being dialled is in use.
    pub(crate) fn close_idle(&self, timeout: Duration) {
        self.lock().retain(|pod, pooled| {
            let keep = pooled.last_used.elapsed() < timeout || pooled.link.is_dialling();
            if !keep {
                tracing::debug!(peer.id = %pod, "closed an idle channel");
                self.count(Closed::Idle);
            }
            keep
        });
    }

    /// The channels whose health can be asked: all but those that are being dialled.
    pub(crate) fn settled(&self) -> Vec<(PodRecord, Link)> {
        let channels = self.lock();
        let settled = channels.values().filter(|pooled| !pooled.link.is_dialling());
        settled.map(|pooled| (pooled.peer.clone(), pooled.link.clone())).collect()
    }

    /// Closes a channel that was found unhealthy, unless it has been replaced meanwhile or is being dialled again.
    pub(crate) fn close_unhealthy(&self, pod: &PodId, link: &Link) {
        let mut channels = self.lock();
        let Entry::Occupied(pooled) = channels.entry(pod.clone()) else { return };
        if pooled.get().link.is_same(link) && !link.is_dialling() {
            pooled.remove();
            self.count(Closed::Unhealthy);
            tracing::info!(peer.id = %pod, "closed the channel to an unhealthy peer; the next call dials anew");
        }
    }

    /// Closes a channel at whose end another pod answered than the one it was dialled for: an address may have passed to it for a
    /// moment, and what is open would lead there for as long as that pod lives.
    pub(crate) fn close_astray(&self, peer: &PodRecord) {
        let mut channels = self.lock();
        if channels.get(&peer.id).is_some_and(|pooled| pooled.is_of(peer)) {
            channels.remove(&peer.id);
            self.count(Closed::Unhealthy);
            tracing::info!(
                peer.id = %peer.id,
                "closed the channel to an address at which another pod is; the next call dials anew"
            );
        }
    }

    fn count(&self, reason: Closed) {
        self.metrics.grpc_pool_connections_closed_total.with_label_values(&[reason.as_str()]).inc();
        self.metrics.grpc_pool_size.dec();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PodId, Pooled>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let left = self.lock().len();
        (0..left).for_each(|_| self.count(Closed::Shutdown));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: &str, address: &str, started: u64) -> PodRecord {
        PodRecord { id: PodId::parse(id).unwrap(), address: address.into(), started_at: Duration::from_secs(started) }
    }

    fn pool() -> (Arc<Metrics>, Pool) {
        let metrics = Arc::new(Metrics::new().unwrap());
        (Arc::clone(&metrics), Pool::new(None, metrics))
    }

    fn closed(metrics: &Metrics, reason: Closed) -> u64 {
        metrics.grpc_pool_connections_closed_total.with_label_values(&[reason.as_str()]).get()
    }

    #[tokio::test(start_paused = true)]
    async fn one_channel_a_peer_until_its_address_or_start_changes() {
        let (metrics, pool) = pool();
        for _ in 0..3 {
            pool.link(&peer("a", "10.0.0.1:1", 1)).unwrap();
        }
        assert_eq!(metrics.grpc_pool_connections_created_total.get(), 1);
        pool.link(&peer("a", "10.0.0.2:1", 1)).unwrap();
        pool.link(&peer("a", "10.0.0.2:1", 2)).unwrap();
        assert_eq!((metrics.grpc_pool_connections_created_total.get(), closed(&metrics, Closed::Replaced)), (3, 2));
        assert_eq!(metrics.grpc_pool_size.get(), 1);
        assert!(pool.link(&peer("b", "no address", 1)).is_err());
        drop(pool);
        assert_eq!((metrics.grpc_pool_size.get(), closed(&metrics, Closed::Shutdown)), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn only_idle_channels_are_closed() {
        let (metrics, pool) = pool();
        let timeout = Duration::from_secs(10);
        pool.link(&peer("a", "10.0.0.1:1", 1)).unwrap();
        tokio::time::advance(timeout / 2).await;
        pool.link(&peer("b", "10.0.0.2:1", 1)).unwrap();
        tokio::time::advance(timeout / 2).await;
        pool.close_idle(timeout);
        assert_eq!((closed(&metrics, Closed::Idle), metrics.grpc_pool_size.get()), (1, 1));
        assert_eq!(pool.settled().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_channel_that_was_replaced_is_not_closed_for_its_predecessors_health() {
        let (metrics, pool) = pool();
        pool.link(&peer("a", "10.0.0.1:1", 1)).unwrap();
        let (PodRecord { id, .. }, old) = pool.settled().remove(0);
        pool.link(&peer("a", "10.0.0.1:1", 2)).unwrap();
        pool.close_unhealthy(&id, &old);
        assert_eq!(closed(&metrics, Closed::Unhealthy), 0);
        let (_, current) = pool.settled().remove(0);
        pool.close_unhealthy(&id, &current);
        assert_eq!((closed(&metrics, Closed::Unhealthy), metrics.grpc_pool_size.get()), (1, 0));
    }

    #[tokio::test]
    async fn a_channel_that_is_being_dialled_is_left_alone() {
        let (metrics, pool) = pool();
        // A backlog of one that is full: the connect is neither accepted nor refused.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let fill = || tokio::time::timeout(Duration::from_millis(50), tokio::net::TcpStream::connect(address));
        let _filled = futures_util::future::join_all((0..8).map(|_| fill())).await;

        let mut client = tonic_health::pb::health_client::HealthClient::new(
            pool.link(&peer("a", &address.to_string(), 1)).unwrap().connection().channel(),
        );
        let link = pool.settled().remove(0).1;
        let call = client.check(tonic_health::pb::HealthCheckRequest::default());
        let watch = async {
            while !link.is_dialling() {
                tokio::task::yield_now().await;
            }
            pool.close_idle(Duration::ZERO);
            pool.close_unhealthy(&PodId::parse("a").unwrap(), &link);
            assert!(pool.settled().is_empty());
            assert_eq!(metrics.grpc_pool_size.get(), 1);
        };
        let both = futures_util::future::join(watch, call);
        let (_, ended) = tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
        assert!(ended.is_err() && !link.is_dialling());
    }

    #[tokio::test(start_paused = true)]
    async fn the_pool_is_bounded_and_the_channel_unused_for_longest_goes_first() {
        let (metrics, pool) = pool();
        for number in 0..=MAX_CHANNELS {
            pool.link(&peer(&format!("p{number}"), "10.0.0.1:1", 1)).unwrap();
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!((metrics.grpc_pool_size.get(), closed(&metrics, Closed::Idle)), (MAX_CHANNELS.try_into().unwrap(), 1));
        assert!(!pool.lock().contains_key("p0"));
    }
}
