//! The sockets of a tab: one, or for a while two, when it is asked to move.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    World,
    client::{self, Client},
    pods::Running,
    tabs::{Admitted, Refused, Tab},
};
use crate::{
    draw::Draw,
    history::{End, Socket},
    tasks::spawn,
};

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A second socket, if it was let in within the time.
type Second = Option<(Arc<Running>, Admitted)>;

/// A socket that is open.
struct Opened {
    /// Its life, until it ends.
    run: BoxFuture<End>,
    /// Its place in the history.
    socket: usize,
    /// Says that it is to move, and within which time.
    asked: mpsc::UnboundedReceiver<Duration>,
}

impl World {
    /// Serves a tab until it has no socket, neither this one nor one that it has moved to; how the last one ended.
    pub(super) async fn serve(self: &Arc<Self>, tab: &mut Tab, pod: &Arc<Running>, admitted: Admitted) -> End {
        let mut first = self.open_socket(tab, pod, admitted);
        let mut second: Option<BoxFuture<Second>> = None;
        let mut ended = None;
        loop {
            let is_moving = second.is_some();
            let moved = async {
                match &mut second {
                    Some(second) => second.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                end = &mut first.run, if ended.is_none() => {
                    self.remember(tab, first.socket);
                    // The session may be the second's by then.
                    if !is_moving || end == End::Left {
                        return end;
                    }
                    ended = Some(end);
                }
                moved = moved => {
                    second = None;
                    match (moved, ended.take()) {
                        (Some((pod, admitted)), before) => {
                            self.record.count("moved");
                            let next = self.open_socket(tab, &pod, admitted);
                            let Opened { run, .. } = std::mem::replace(&mut first, next);
                            if before.is_none() {
                                spawn(async move {
                                    run.await;
                                });
                            }
                        }
                        // It was the service that had the first end.
                        (None, Some(End::Closed(_))) => return End::Broken,
                        (None, Some(end)) => return end,
                        (None, None) => {}
                    }
                }
                Some(within) = first.asked.recv(), if !is_moving && ended.is_none() => {
                    self.record.count("asked to move");
                    self.remember(tab, first.socket);
                    second = Some(self.second(tab, within));
                }
            }
        }
    }

    /// Where it stands, it says when it comes back.
    fn remember(&self, tab: &mut Tab, socket: usize) {
        if !self.record.open().history.sockets[socket].places.is_empty() {
            tab.last = Some(socket);
        }
    }

    /// Tries to get a second socket, here and there, within the time.
    fn second(self: &Arc<Self>, tab: &Tab, within: Duration) -> BoxFuture<Second> {
        let until = Instant::now() + within;
        let (world, person, turn) = (Arc::clone(self), tab.person, tab.turn);
        let mut draw = Draw::of(&[self.plan.seed, 11, person as u64, turn, tab.last.map_or(0, |last| last as u64)]);
        let wishes = self.wishes(tab);
        Box::pin(async move {
            while Instant::now() < until && world.turn_of(person) == turn {
                let slot = usize::try_from(draw.below(world.plan.slots as u64)).unwrap_or_default();
                match world.request(person, slot, wishes.clone()).await {
                    Ok(second) => return Some(second),
                    Err(Refused::Replaced | Refused::ForNow) => world.record.count("second sockets refused"),
                }
                sleep(Duration::from_millis(draw.between(50, 500))).await;
            }
            None
        })
    }

    fn open_socket(self: &Arc<Self>, tab: &Tab, pod: &Arc<Running>, admitted: Admitted) -> Opened {
        let Admitted { admission, cursor } = admitted;
        let person = &self.plan.people[tab.person];
        let of = Socket { person: tab.person, slot: pod.slot, pod: pod.life, cursor, ..Socket::default() };
        let socket = client::admitted(&self.record, of, &admission);
        self.record.count("admitted");
        let (ours, theirs) = tokio::io::duplex(person.pipe);
        let serving = async move {
            admission.serve(theirs.into(), None).await;
        };
        pod.tasks.spawn_many_on(self.workers.first(), "socket", pod.gate.guard(serving));
        let (orders, told) = mpsc::unbounded_channel();
        {
            let last = &mut self.lock().people[tab.person].last;
            if last.as_ref().is_none_or(|(turn, _)| *turn <= tab.turn) {
                *last = Some((tab.turn, orders.clone()));
            }
        }
        let (ask, asked) = mpsc::unbounded_channel();
        let record = Arc::clone(&self.record);
        let client = Client { pipe: ours, orders: told, socket, strict: self.plan.settings.strict, ask, record };
        let record = Arc::clone(&self.record);
        let run = async move {
            let end = client.run().await;
            // Until then, it may be told to do something.
            drop(orders);
            record.count(match end {
                End::Left => "sockets left",
                End::Broken => "sockets broken",
                End::Closed(1001) => "sockets closed: 1001",
                End::Closed(1013) => "sockets closed: 1013",
                End::Closed(4402) => "sockets closed: 4402",
                End::Closed(_) => "sockets closed: other",
            });
            end
        };
        Opened { run: Box::pin(run), socket, asked }
    }
}
