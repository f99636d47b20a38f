//! The promises of [`Peers`], kept in memory and over gRPC.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use daisi_ws_domain::{
    gap::{Gap, GapCause},
    ids::{AdminId, AgentId, ChatId, CompanyId, ConnectionId, PodId, UserId},
    peer::PodRecord,
    route::{RouteKey, Scope},
    session::{Kill, KillClaim, LockOwner, SessionKey},
};
use daisi_ws_service::{
    adapters::memory::network::Network,
    ports::{Evicted, Handed, PeerError, Peers, PodLoad, RouteGap},
};
use tokio::time::{Instant, timeout};

use crate::support::peers::{FreezableWire, GrpcCaller, GrpcPod, Recorder, event, pod_id};

/// A fleet whose pods can be started, killed and frozen, seen from pod `caller`.
#[async_trait]
trait Fleet: Send {
    fn peers(&self) -> Arc<dyn Peers>;
    async fn start(&mut self, id: &str, started_at: u64) -> (PodRecord, Arc<Recorder>);
    async fn kill(&mut self, id: &PodId);
    fn freeze(&self, id: &PodId, frozen: bool);
}

#[derive(Default)]
struct MemoryFleet {
    network: Network,
    starts: usize,
}

#[async_trait]
impl Fleet for MemoryFleet {
    fn peers(&self) -> Arc<dyn Peers> {
        Arc::new(self.network.handle(pod_id("caller")))
    }

    async fn start(&mut self, id: &str, started_at: u64) -> (PodRecord, Arc<Recorder>) {
        self.starts += 1;
        let address = format!("{id}:{}", self.starts);
        let record = PodRecord { id: pod_id(id), address, started_at: Duration::from_secs(started_at) };
        let recorder = Arc::<Recorder>::default();
        self.network.register(&record, recorder.clone());
        (record, recorder)
    }

    async fn kill(&mut self, id: &PodId) {
        self.network.kill(id);
    }

    fn freeze(&self, id: &PodId, frozen: bool) {
        self.network.freeze(id, frozen);
    }
}

struct GrpcFleet {
    caller: GrpcCaller,
    pods: HashMap<PodId, (GrpcPod, FreezableWire)>,
}

impl Default for GrpcFleet {
    fn default() -> Self {
        Self { caller: GrpcCaller::new("caller"), pods: HashMap::new() }
    }
}

#[async_trait]
impl Fleet for GrpcFleet {
    fn peers(&self) -> Arc<dyn Peers> {
        self.caller.peers.clone()
    }

    async fn start(&mut self, id: &str, started_at: u64) -> (PodRecord, Arc<Recorder>) {
        let (pod, wire) = GrpcPod::start_behind_wire(id, started_at).await;
        let record = pod.record.clone();
        let recorder = Arc::clone(&pod.recorder);
        self.pods.insert(record.id.clone(), (pod, wire));
        (record, recorder)
    }

    async fn kill(&mut self, id: &PodId) {
        let (pod, _wire) = self.pods.remove(id).unwrap();
        pod.kill().await;
    }

    fn freeze(&self, id: &PodId, frozen: bool) {
        self.pods[id].1.freeze(frozen);
    }
}

/// What a caller counts as quick: well within the time that forwarding may take.
const QUICK: Duration = Duration::from_secs(2);

async fn each_event_is_answered_in_order(fleet: &mut dyn Fleet) {
    let (b, recorder) = fleet.start("b", 1).await;
    let batch = [event("here", "chats", 1, "{}"), event("away", "chats", 2, "{}"), event("here", "messages.c.d", 3, "{}")];
    assert_eq!(fleet.peers().push(&b, &batch).await.unwrap(), vec![Handed::Taken, Handed::Nobody, Handed::Taken]);
    assert_eq!(recorder.sequences(), [1, 2, 3]);
    assert!(recorder.events().iter().all(|(from, _)| *from == pod_id("caller")));
}

async fn an_event_arrives_untouched(fleet: &mut dyn Fleet) {
    let (b, recorder) = fleet.start("b", 1).await;
    let payload = r#"{"z":9007199254740993, "a":1e400,"esc":"é","unknown":{"b":1,"a":[ ]}}"#;
    let sent = event("here", "messages.62811@s.whatsapp.net", u64::MAX, payload);
    fleet.peers().push(&b, std::slice::from_ref(&sent)).await.unwrap();
    let (_, got) = recorder.events().remove(0);
    assert_eq!(got.payload.bytes(), sent.payload.bytes());
    assert_eq!((&got.address, got.stream, got.seq, got.stored_at), (&sent.address, sent.stream, sent.seq, sent.stored_at));
    assert_eq!((&got.request_id, &got.traceparent), (&sent.request_id, &sent.traceparent));
}

async fn a_session_between_two_pods_is_an_answer_of_its_own(fleet: &mut dyn Fleet) {
    let (b, _) = fleet.start("b", 1).await;
    let batch = [event("away", "chats", 1, "{}"), event("between", "chats", 2, "{}"), event("here", "messages.c.d", 3, "{}")];
    assert_eq!(fleet.peers().push(&b, &batch).await.unwrap(), vec![Handed::Nobody, Handed::Between, Handed::Taken]);
}

async fn nobody_there_is_an_answer_not_an_error(fleet: &mut dyn Fleet) {
    let (b, _) = fleet.start("b", 1).await;
    assert_eq!(fleet.peers().push(&b, &[event("away", "agents", 1, "{}")]).await.unwrap(), vec![Handed::Nobody]);
    assert_eq!(fleet.peers().push(&b, &[]).await.unwrap(), []);
}

async fn a_killed_peer_is_unreachable_quickly_and_reached_at_its_new_address(fleet: &mut dyn Fleet) {
    let (b, _) = fleet.start("b", 1).await;
    let peers = fleet.peers();
    let batch = [event("here", "chats", 1, "{}")];
    peers.push(&b, &batch).await.unwrap();
    fleet.kill(&b.id).await;
    for _ in 0..2 {
        let before = Instant::now();
        assert!(matches!(peers.push(&b, &batch).await, Err(PeerError::Unreachable(_))));
        assert!(matches!(peers.probe(&b).await, Err(PeerError::Unreachable(_))));
        assert!(before.elapsed() < QUICK, "{:?}", before.elapsed());
    }
    let (again, recorder) = fleet.start("b", 2).await;
    assert_ne!(again.address, b.address);
    assert_eq!(peers.push(&again, &batch).await.unwrap(), vec![Handed::Taken]);
    assert_eq!(recorder.sequences(), [1]);
}

async fn a_peer_that_hangs_holds_no_caller_for_ever(fleet: &mut dyn Fleet) {
    let (b, _) = fleet.start("b", 1).await;
    let peers = fleet.peers();
    let batch = [event("here", "chats", 1, "{}")];
    peers.push(&b, &batch).await.unwrap();
    fleet.freeze(&b.id, true);
    assert!(timeout(Duration::from_millis(100), peers.push(&b, &batch)).await.is_err(), "the caller bounds the time");
    assert!(matches!(peers.probe(&b).await, Err(PeerError::TimedOut)));
    let before = Instant::now();
    assert!(matches!(peers.push(&b, &batch).await, Err(PeerError::Unreachable(_) | PeerError::TimedOut)));
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    fleet.freeze(&b.id, false);
    let healed = async {
        while peers.push(&b, &batch).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), healed).await.expect("it answers again");
}

async fn gaps_reach_the_route_or_all(fleet: &mut dyn Fleet) {
    let (b, recorder) = fleet.start("b", 1).await;
    let (company, agent) = (CompanyId::parse("here").unwrap(), AgentId::parse("a1").unwrap());
    let routes = [
        None,
        Some(RouteKey::Chats { company: company.clone(), agent: agent.clone() }),
        Some(RouteKey::Messages { company: company.clone(), agent, chat: ChatId::parse("c.d").unwrap() }),
        Some(RouteKey::Agents { company: Scope::Only(company), agent: Scope::Any }),
    ];
    let gaps = [Gap::of(7, GapCause::GivenUp), Gap::unknown(GapCause::PodResumed)];
    let all = routes.iter().flat_map(|route| gaps.map(|gap| RouteGap { route: route.clone(), gap })).collect::<Vec<_>>();
    let (first, rest) = all.split_at(1);
    fleet.peers().announce_gaps(&b, first).await.unwrap();
    fleet.peers().announce_gaps(&b, rest).await.unwrap();
    let expected: Vec<_> = all.into_iter().map(|pending| (pod_id("caller"), pending.route, pending.gap)).collect();
    assert_eq!(recorder.gaps(), expected);
}

async fn a_probe_is_answered_by_that_very_pod_only(fleet: &mut dyn Fleet) {
    let (b, recorder) = fleet.start("b", 1).await;
    fleet.peers().probe(&b).await.unwrap();
    let dead = PodRecord { id: pod_id("dead"), ..b };
    assert!(fleet.peers().probe(&dead).await.is_err_and(|error| error.is_silent()));
    assert!(recorder.events().is_empty());
}

async fn a_peer_says_which_sockets_it_holds_and_nobody_says_it_for_another(fleet: &mut dyn Fleet) {
    let (b, _) = fleet.start("b", 1).await;
    let sockets = ["here-1", "away", "here-2"].map(|id| ConnectionId::parse(id).unwrap());
    assert_eq!(fleet.peers().holds(&b, &sockets).await.unwrap(), vec![true, false, true]);
    assert_eq!(fleet.peers().holds(&b, &[]).await.unwrap(), [] as [bool; 0]);
    let dead = PodRecord { id: pod_id("dead"), ..b.clone() };
    assert!(fleet.peers().holds(&dead, &sockets).await.is_err_and(|error| error.is_silent()), "b has its address");
    fleet.freeze(&b.id, true);
    let asked = timeout(Duration::from_secs(5), fleet.peers().holds(&b, &sockets)).await;
    assert!(asked.expect("it is bounded").is_err());
}

async fn a_peer_is_asked_to_close_one_socket_and_nobody_is_asked_for_another(fleet: &mut dyn Fleet) {
    let (b, recorder) = fleet.start("b", 1).await;
    let kill = |key, claim| Kill {
        key,
        new_pod: pod_id("caller"),
        connection: Some(ConnectionId::parse("new").unwrap()),
        victim: Some(LockOwner::parse("b/old").unwrap()),
        claim,
    };
    let user = SessionKey::User {
        company: CompanyId::parse("acme").unwrap(),
        agent: AgentId::parse("a1").unwrap(),
        user: UserId::parse("sari@acme").unwrap(),
    };
    let admin = SessionKey::Admin { admin: AdminId::parse("root").unwrap() };
    let kills = [kill(user, KillClaim::Newer), kill(admin.clone(), KillClaim::Second), kill(admin, KillClaim::Moved)];
    for (kill, answer) in kills.iter().zip([Evicted::Gone, Evicted::Serves, Evicted::Gone]) {
        assert_eq!(fleet.peers().evict(&b, kill).await.unwrap(), answer);
    }
    assert_eq!(recorder.kills(), kills);
    let elsewhere = PodRecord { id: pod_id("c"), ..b };
    fleet.peers().evict(&elsewhere, &kills[0]).await.unwrap_err();
    assert_eq!(recorder.kills().len(), kills.len());
}

async fn a_peer_says_how_many_sockets_it_has_and_nobody_says_it_for_another(fleet: &mut dyn Fleet) {
    let (b, recorder) = fleet.start("b", 1).await;
    for load in [PodLoad { sockets: u64::MAX, draining: false }, PodLoad { sockets: 0, draining: true }] {
        recorder.carry(load);
        assert_eq!(fleet.peers().load(&b).await.unwrap(), load);
    }
    let elsewhere = PodRecord { id: pod_id("c"), ..b.clone() };
    assert!(fleet.peers().load(&elsewhere).await.is_err(), "b has its address");
    fleet.freeze(&b.id, true);
    let before = Instant::now();
    assert!(fleet.peers().load(&b).await.is_err());
    assert!(before.elapsed() < QUICK, "{:?}", before.elapsed());
}

async fn who_makes_itself_known_hears_whom_the_peer_knows(fleet: &mut dyn Fleet) {
    let (b, _) = fleet.start("b", 1).await;
    let newcomer = |id: &str| PodRecord { id: pod_id(id), address: format!("{id}:1"), started_at: Duration::from_millis(1500) };
    assert_eq!(fleet.peers().introduce(&newcomer("c"), &b).await.unwrap(), []);
    assert_eq!(fleet.peers().introduce(&newcomer("d"), &b).await.unwrap(), vec![newcomer("c")]);
    fleet.freeze(&b.id, true);
    let before = Instant::now();
    assert!(fleet.peers().introduce(&newcomer("e"), &b).await.is_err());
    assert!(before.elapsed() < QUICK, "{:?}", before.elapsed());
}

async fn events_for_a_pod_whose_address_another_has_are_not_answered_for(fleet: &mut dyn Fleet) {
    let (b, recorder) = fleet.start("b", 1).await;
    let dead = PodRecord { id: pod_id("dead"), ..b };
    let pushed = fleet.peers().push(&dead, &[event("here", "chats", 1, "{}")]).await;
    assert!(pushed.is_err_and(|error| error.is_silent()));
    assert!(recorder.events().is_empty());
}

async fn a_peer_says_whether_it_has_room_and_nobody_says_it_for_another(fleet: &mut dyn Fleet) {
    let (b, recorder) = fleet.start("b", 1).await;
    let peers = fleet.peers();
    for room in [true, false, true] {
        recorder.make_room(room);
        let told = async {
            while peers.has_room(&b).await.ok() != Some(room) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(5), told).await.expect("it is told within a second or two");
    }
    let dead = PodRecord { id: pod_id("dead"), ..b.clone() };
    assert!(peers.has_room(&dead).await.is_err(), "b has its address");
    fleet.freeze(&b.id, true);
    let asked = timeout(Duration::from_secs(5), peers.has_room(&b)).await;
    assert!(asked.expect("it is bounded").is_err());
}

async fn a_peer_says_whether_it_is_well_and_nobody_says_it_for_another(fleet: &mut dyn Fleet) {
    let (b, recorder) = fleet.start("b", 1).await;
    let peers = fleet.peers();
    for unwell in [false, true, false] {
        recorder.be_unwell(unwell);
        let told = async {
            while peers.is_well(&b).await.ok() != Some(!unwell) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(5), told).await.expect("it is told within a second or two");
    }
    let dead = PodRecord { id: pod_id("dead"), ..b.clone() };
    assert!(peers.is_well(&dead).await.is_err(), "b has its address");
    fleet.freeze(&b.id, true);
    let asked = timeout(Duration::from_secs(5), peers.is_well(&b)).await;
    assert!(asked.expect("it is bounded").is_err());
}

async fn a_forgotten_peer_can_be_called_again(fleet: &mut dyn Fleet) {
    let (b, _) = fleet.start("b", 1).await;
    let peers = fleet.peers();
    peers.forget(&b.id);
    for seq in 1..=2 {
        assert_eq!(peers.push(&b, &[event("here", "chats", seq, "{}")]).await.unwrap(), vec![Handed::Taken]);
        peers.forget(&b.id);
    }
}

async fn a_panic_at_the_peer_is_an_error_of_that_call(fleet: &mut dyn Fleet) {
    let (b, recorder) = fleet.start("b", 1).await;
    let (peers, batch) = (fleet.peers(), [event("here", "chats", 1, "{}")]);
    recorder.panic(true);
    assert!(matches!(peers.push(&b, &batch).await, Err(PeerError::Failed(_))));
    recorder.panic(false);
    assert_eq!(peers.push(&b, &batch).await.unwrap(), vec![Handed::Taken]);
}

macro_rules! on_both {
    ($($promise:ident,)*) => {
        mod memory {
            $(#[tokio::test(start_paused = true)]
            async fn $promise() {
                super::$promise(&mut super::MemoryFleet::default()).await;
            })*
        }

        mod grpc {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(&mut super::GrpcFleet::default()).await;
            })*
        }
    };
}

on_both! {
    each_event_is_answered_in_order,
    a_session_between_two_pods_is_an_answer_of_its_own,
    an_event_arrives_untouched,
    nobody_there_is_an_answer_not_an_error,
    a_killed_peer_is_unreachable_quickly_and_reached_at_its_new_address,
    a_peer_that_hangs_holds_no_caller_for_ever,
    a_peer_is_asked_to_close_one_socket_and_nobody_is_asked_for_another,
    a_peer_says_how_many_sockets_it_has_and_nobody_says_it_for_another,
    gaps_reach_the_route_or_all,
    a_probe_is_answered_by_that_very_pod_only,
    a_peer_says_which_sockets_it_holds_and_nobody_says_it_for_another,
    who_makes_itself_known_hears_whom_the_peer_knows,
    events_for_a_pod_whose_address_another_has_are_not_answered_for,
    a_peer_says_whether_it_has_room_and_nobody_says_it_for_another,
    a_peer_says_whether_it_is_well_and_nobody_says_it_for_another,
    a_forgotten_peer_can_be_called_again,
    a_panic_at_the_peer_is_an_error_of_that_call,
}
