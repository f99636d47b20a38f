//! Many clients that move when they are asked: each opens a second socket on the pod that has the fewest, as a load balancer
//! would have it.

use std::{collections::BTreeSet, time::Duration};

use daisi_ws_domain::{claims::Claims, resume::Cursor};
use daisi_ws_service::application::admission::connect::{ConnectError, Wishes};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde_json::Value;
use tokio::time::sleep;

use super::{
    client::{Client, Seen},
    fleet::{Fleet, user},
};

/// A client of the crowd, and what became of it.
pub(crate) struct Guest {
    claims: Claims,
    socket: Client,
    stream: String,
    safe: u64,
    /// Sequences of events that it was shown, on whatever socket.
    pub(crate) events: BTreeSet<u64>,
    /// For which reasons it was asked to move.
    pub(crate) asked: Vec<String>,
    /// How its last socket was closed, if it was.
    pub(crate) closed: Option<Option<u16>>,
    /// What it does when it is asked.
    pub(crate) manner: Manner,
}

/// What a client does when it is asked to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It goes where the fewest are.
    Balanced,
    /// Its balancer brings it to this pod, whatever is there.
    Sticky(usize),
    /// Nothing.
    Deaf,
}

/// Opens sessions of so many users on a pod, who can move or can't.
pub(crate) async fn crowd(fleet: &Fleet, pod: usize, guests: usize, can_move: bool) -> Vec<Guest> {
    let mut crowd = Vec::new();
    for guest in 0..guests {
        let claims = user("acme", "a1", &format!("{pod}-{guest}-{can_move}"));
        let wishes = Wishes { moves: can_move, ..Wishes::default() };
        let (socket, ready) = fleet.connect_with(pod, claims.clone(), wishes).await.unwrap();
        let (events, asked, closed, manner) = (BTreeSet::new(), Vec::new(), None, Manner::Balanced);
        let mut guest = Guest { claims, socket, stream: String::new(), safe: 0, events, asked, closed, manner };
        guest.began(&ready);
        crowd.push(guest);
    }
    crowd
}

/// Has them live for so long. It must not end while any of them moves.
pub(crate) async fn live(fleet: &Fleet, crowd: &mut [Guest], time: Duration) {
    let mut all: FuturesUnordered<_> = crowd.iter_mut().map(|guest| guest.live(fleet)).collect();
    tokio::select! {
        () = sleep(time) => {}
        _ = all.next() => {}
    }
}

impl Guest {
    fn began(&mut self, ready: &Value) {
        ready["payload"]["stream"].as_str().unwrap_or_default().clone_into(&mut self.stream);
        self.safe = self.safe.max(ready["payload"]["safe"].as_u64().unwrap_or_default());
    }

    fn note(&mut self, frame: &Value) {
        assert_ne!(frame["type"], "gap", "{frame}");
        self.safe = self.safe.max(frame["safe"].as_u64().unwrap_or_default());
        if frame["type"] == "event" {
            self.events.extend(frame["seq"].as_u64());
        }
    }

    async fn live(&mut self, fleet: &Fleet) {
        loop {
            match self.socket.read().await {
                Seen::Frame(frame, _) if frame["type"] == "move" => {
                    self.asked.push(frame["payload"]["reason"].as_str().unwrap().to_owned());
                    self.go(fleet).await;
                }
                Seen::Frame(frame, _) => self.note(&frame),
                Seen::Closed(code) => {
                    self.closed = Some(code);
                    return std::future::pending().await;
                }
            }
        }
    }

    async fn go(&mut self, fleet: &Fleet) {
        let mut pods: Vec<usize> = match self.manner {
            Manner::Balanced => (0..fleet.pods.len()).collect(),
            Manner::Sticky(pod) => vec![pod],
            Manner::Deaf => Vec::new(),
        };
        pods.sort_by_key(|pod| fleet.pods[*pod].pod.hub().len());
        for pod in pods {
            let resume = Some(Cursor::parse(&format!("{}:{}", self.stream, self.safe)));
            let wishes = Wishes { moves: true, resume, ..Wishes::default() };
            match fleet.connect_with(pod, self.claims.clone(), wishes).await {
                Ok((second, ready)) => return self.change_to(second, &ready).await,
                Err(error) => assert!(matches!(error, ConnectError::Draining), "{error:?}"),
            }
        }
    }

    /// Reads the first socket to its end.
    async fn change_to(&mut self, second: Client, ready: &Value) {
        loop {
            match self.socket.read().await {
                Seen::Frame(frame, _) => self.note(&frame),
                Seen::Closed(code) => {
                    assert_eq!(code, Some(1001));
                    break;
                }
            }
        }
        self.socket = second;
        self.began(ready);
    }
}
