//! From the stream to everybody who should see it: takes events, finds their targets, and settles each by its outcome.
//!
//! [`pull`] asks the source for no more than may be in flight, and [`deliver`] brings what comes to this pod's sockets at once.
//! Both wait for nobody: not for a
//! socket, not for a peer, and not for the store, which [`lookup`] asks for the other pods; [`resolve`] hands events to their
//! queues. When all targets of an event have spoken, [`settle`] tells the stream. [`health`] watches the stream beside all that.

pub mod deliver;
pub mod health;
pub mod in_flight;
pub mod limits;
pub mod lookup;
mod losses;
pub mod pass_on;
pub mod pull;
pub mod resolve;
pub mod settle;
mod taken;
mod unknown_members;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::{pull::Puller, resolve::Resolver};

/// Takes and dispatches events from when the pod has `joined` until `stop`, then gives back what was fetched and not begun.
pub async fn run(puller: &Puller, resolver: &Resolver, joined: impl Future<Output = ()>, stop: &CancellationToken) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = joined => puller.pass_on.wellness.takes_events(true),
    }
    // Bounded by the permits of what it holds.
    let (taken, to_resolve) = mpsc::unbounded_channel();
    tokio::join!(puller.run(stop, taken), resolver.run(to_resolve));
}
