//! People and the tabs of their browsers: who connects, comes back after an end, and gives up.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{ids::ChatId, resume::Cursor};
use daisi_ws_service::application::admission::connect::{Admission, ConnectError, Wishes};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

use super::{World, client::Order, pods::Running};
use crate::{draw::Draw, history::End, tasks::spawn};

/// A request that has no answer by then is given up, and made again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The share of tabs that can move.
const CAN_MOVE: f64 = 0.7;

/// What somebody has before them.
#[derive(Default)]
pub(super) struct Desk {
    /// Tabs that were opened.
    tabs: u64,
    /// Goes up whenever they begin something else: tabs of before do not come back.
    turn: u64,
    /// Tabs that have a socket or want one.
    alive: u64,
    /// Tabs that were closed by who opened them.
    left: u64,
    /// The last tab that got a socket, and the way to it.
    pub(super) last: Option<(u64, mpsc::UnboundedSender<Order>)>,
    /// Ends requests that are under way, if it is dropped.
    requests: Vec<oneshot::Sender<()>>,
}

/// Why there is no socket.
pub(super) enum Refused {
    /// Another tab has the session.
    Replaced,
    /// Trying again may help.
    ForNow,
}

/// A tab.
pub(super) struct Tab {
    pub(super) person: usize,
    /// The turn in which it was opened.
    pub(super) turn: u64,
    pub(super) draw: Draw,
    abandoned: oneshot::Receiver<()>,
    /// Its last socket that was told where it stands.
    pub(super) last: Option<usize>,
    /// It opens a second socket when it is asked to.
    moves: bool,
}

/// A socket that was let in, and the place that it came back with.
pub(super) struct Admitted {
    pub(super) admission: Admission,
    pub(super) cursor: Option<u64>,
}

/// Who is there, as far as they know themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Presence {
    /// Tabs that have a socket or want one.
    pub(crate) alive: u64,
    /// Tabs that were opened.
    pub(crate) tabs: u64,
    /// Tabs that were closed by who opened them.
    pub(crate) left: u64,
}

impl World {
    /// Opens a tab of somebody; it is closed after `patience` if it has no socket by then.
    pub(super) fn open_tab(self: &Arc<Self>, person: usize, slot: usize, patience: Option<Duration>) {
        let (request, abandoned) = oneshot::channel();
        let turn = {
            let mut state = self.lock();
            let Some(desk) = state.people.get_mut(person) else { return };
            desk.tabs += 1;
            desk.turn += 1;
            desk.alive += 1;
            match patience {
                None => desk.requests.push(request),
                Some(patience) => spawn(async move {
                    sleep(patience).await;
                    drop(request);
                }),
            }
            desk.turn
        };
        let draw = Draw::of(&[self.plan.seed, 3, person as u64, turn]);
        let moves = Draw::of(&[self.plan.seed, 10, person as u64, turn]).chance(CAN_MOVE);
        let (world, tab) = (Arc::clone(self), Tab { person, turn, draw, abandoned, last: None, moves });
        spawn(async move {
            let left = world.live(tab, slot).await;
            let mut state = world.lock();
            let desk = &mut state.people[person];
            desk.alive -= 1;
            desk.left += u64::from(left);
        });
    }

    /// The life of a tab. True if who opened it closed it.
    async fn live(self: &Arc<Self>, mut tab: Tab, mut slot: usize) -> bool {
        loop {
            let wishes = self.wishes(&tab);
            let admitted = tokio::select! {
                biased;
                _ = &mut tab.abandoned => {
                    self.record.count("connects given up");
                    return true;
                }
                admitted = self.request(tab.person, slot, wishes) => admitted,
            };
            match admitted {
                Ok((pod, admission)) => match self.serve(&mut tab, &pod, admission).await {
                    End::Left => return true,
                    End::Closed(4402) => return false,
                    End::Closed(_) | End::Broken => self.record.count("reconnects"),
                },
                Err(Refused::Replaced) => return false,
                Err(Refused::ForNow) => {}
            }
            let pause = Duration::from_millis(tab.draw.between(100, 1000));
            tokio::select! {
                biased;
                _ = &mut tab.abandoned => return true,
                () = sleep(pause) => {}
            }
            // Who opened a later tab does not look at this one any more.
            if self.lock().people[tab.person].turn > tab.turn {
                return true;
            }
            slot = usize::try_from(tab.draw.below(self.plan.slots as u64)).unwrap_or_default();
        }
    }

    /// A tab that comes back says where it stood, and which chat it had.
    pub(super) fn wishes(&self, tab: &Tab) -> Wishes {
        let moves = tab.moves;
        let Some(last) = tab.last else { return Wishes { moves, ..Wishes::default() } };
        let inner = self.record.open();
        let socket = &inner.history.sockets[last];
        let (Some(stream), Some(safe)) = (&socket.stream, socket.places.iter().map(|(_, safe)| *safe).max()) else {
            return Wishes { moves, ..Wishes::default() };
        };
        let chat = socket.chats.last().filter(|selected| selected.until.is_none());
        let chat = chat.and_then(|selected| ChatId::parse(&format!("k.{}:x", selected.chat)).ok());
        Wishes { chat, resume: Some(Cursor::parse(&format!("{stream}:{safe}"))), moves }
    }

    pub(super) async fn request(
        self: &Arc<Self>,
        person: usize,
        slot: usize,
        wishes: Wishes,
    ) -> Result<(Arc<Running>, Admitted), Refused> {
        let Some(pod) = self.running(slot) else {
            self.record.count("connects to nobody");
            return Err(Refused::ForNow);
        };
        self.record.count("connects");
        let Ok(claims) = self.plan.people[person].who.claims() else { return Err(Refused::ForNow) };
        let (connector, worker) = (Arc::clone(pod.pod.connector()), Arc::clone(self.workers.first()));
        let cursor = wishes.resume.as_ref().and_then(|cursor| cursor.as_ref().ok()).map(|cursor| cursor.safe);
        let connecting = async move { connector.connect(claims, wishes, "simulation", &worker).await };
        let hard = pod.tasks.shutdown().hard.clone();
        let answer = tokio::select! {
            biased;
            () = hard.cancelled() => None,
            answer = pod.gate.guard(connecting) => Some(answer),
            () = sleep(REQUEST_TIMEOUT) => None,
        };
        match answer {
            Some(Ok(admission)) => Ok((pod, Admitted { admission, cursor })),
            Some(Err(error)) => {
                self.record.note(format_args!("person {person} is refused by {}: {error}", pod.id));
                self.record.count(refusal(&error));
                Err(if matches!(error, ConnectError::Replaced) { Refused::Replaced } else { Refused::ForNow })
            }
            None => {
                self.record.count("refused: no answer");
                Err(Refused::ForNow)
            }
        }
    }

    /// The turn that somebody is in.
    pub(super) fn turn_of(&self, person: usize) -> u64 {
        self.lock().people[person].turn
    }

    /// Closes what somebody has, and gives up what they want.
    pub(super) fn leave(&self, person: usize, politely: bool) {
        let mut state = self.lock();
        let Some(desk) = state.people.get_mut(person) else { return };
        desk.turn += 1;
        desk.requests.clear();
        if let Some((_, orders)) = desk.last.take() {
            let _ = orders.send(Order::Leave { politely });
        }
    }

    /// Tells the last tab to do something.
    pub(super) fn order(&self, person: usize, order: Order) {
        if let Some((_, orders)) = self.lock().people.get(person).and_then(|desk| desk.last.as_ref()) {
            let _ = orders.send(order);
        }
    }

    pub(super) fn stall(self: &Arc<Self>, person: usize, time: Duration) {
        let Some(orders) = self.lock().people.get(person).and_then(|desk| desk.last.clone()) else { return };
        let _ = orders.1.send(Order::Stall(true));
        spawn(async move {
            sleep(time).await;
            let _ = orders.1.send(Order::Stall(false));
        });
    }

    /// Who is there.
    pub(crate) fn presence(&self) -> Vec<Presence> {
        let presence = |desk: &Desk| Presence { alive: desk.alive, tabs: desk.tabs, left: desk.left };
        self.lock().people.iter().map(presence).collect()
    }
}

fn refusal(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::Full => "refused: full",
        ConnectError::Draining => "refused: draining",
        ConnectError::StoreUnavailable(_) => "refused: store",
        ConnectError::Replaced => "refused: replaced",
        _ => "refused: other",
    }
}
