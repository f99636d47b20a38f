use async_trait::async_trait;
use daisi_ws_domain::{
    gap::GapCause,
    ids::{AgentId, CompanyId},
    route::RouteKey,
};

use super::*;
use crate::ports::{Announce, AnnounceError, Lookup, RouteChange, Routes, Standing, StoreError};

/// A store that answers as it was told.
struct Canned {
    lookup: Vec<&'static str>,
    unread: bool,
    standing: Option<Standing>,
}

#[async_trait]
impl Routes for Canned {
    async fn apply(&self, _: &PodId, _: &[RouteChange]) -> Result<Vec<usize>, StoreError> {
        Ok(Vec::new())
    }
    async fn lookup(&self, _: &PodId, _: &[RouteKey]) -> Result<Lookup, StoreError> {
        let pods = self.lookup.iter().map(|id| pod(id)).collect();
        Ok(Lookup {
            incarnation: Incarnation(0),
            epoch: Some(Epoch("1".into())),
            pods: vec![pods],
            refused: Vec::new(),
            unread: if self.unread { vec![0] } else { vec![] },
        })
    }
    async fn resolve(&self, pods: &[(PodId, Vec<RouteKey>)], _: bool) -> Result<(Incarnation, Vec<Standing>), StoreError> {
        assert_eq!(pods.len(), 1, "asked about one pod");
        self.standing.clone().map(|standing| (Incarnation(0), vec![standing])).ok_or_else(|| StoreError::unreachable("slow"))
    }
    async fn announce(&self, _: Announce<'_>) -> Result<Announcement, AnnounceError> {
        Err(StoreError::Stopped.into())
    }
    async fn retire(&self, _: &[PodId]) -> Result<Vec<bool>, StoreError> {
        Ok(Vec::new())
    }
    async fn leave(&self, _: &PodRecord) -> Result<(), StoreError> {
        Ok(())
    }
    async fn pass_over(&self, _: &PodId) -> Result<(), StoreError> {
        Ok(())
    }
}

fn pod(id: &str) -> PodId {
    PodId::parse(id).unwrap()
}

fn record(id: &str) -> PodRecord {
    PodRecord { id: pod(id), address: format!("{id}:1"), started_at: Duration::from_secs(1) }
}

fn route() -> [RouteKey; 1] {
    [RouteKey::Chats { company: CompanyId::parse("acme").unwrap(), agent: AgentId::parse("a1").unwrap() }]
}

fn announced(pods: &[&str], lapsed: &[&str], left: &[&str]) -> Announcement {
    Announcement {
        incarnation: Incarnation(0),
        was_present: true,
        retirements: 0,
        epoch: Epoch("1".into()),
        epoch_created: false,
        pods: pods.iter().map(|id| record(id)).collect(),
        lapsed: lapsed.iter().map(|id| pod(id)).collect(),
        left: left.iter().map(|id| Goodbye { pod: pod(id), started_at: record(id).started_at }).collect(),
        members: pods.len() + lapsed.len(),
    }
}

fn directory() -> Directory {
    let directory = Directory::new(pod("me"), Duration::from_secs(20), Arc::new(Metrics::new().unwrap()));
    directory.note_epoch(&Epoch("1".into()));
    directory
}

async fn look_up(directory: &Directory, on_route: &[&'static str], standing: Option<Standing>) -> (Vec<PodId>, bool) {
    let routes = Canned { lookup: on_route.to_vec(), unread: false, standing };
    let targets = directory.targets(&routes, &route()).await;
    (targets.peers[0].iter().map(|peer| peer.id.clone()).collect(), targets.doubtful[0].is_some())
}

#[tokio::test(start_paused = true)]
async fn the_members_are_beyond_doubt_while_each_has_its_key_and_look_ups_are_trusted() {
    let directory = directory();
    let ids = || directory.undoubted().map(|pods| pods.iter().map(|pod| pod.id.to_string()).collect::<Vec<_>>());
    directory.take_over(&announced(&["me", "b", "a"], &[], &[]));
    assert_eq!(ids().unwrap(), ["a", "b"]);
    directory.take_over(&announced(&["me", "a"], &["b"], &[]));
    assert_eq!(ids(), None, "b has no key");
    directory.take_over(&announced(&["me", "a"], &["c"], &["b"]));
    assert_eq!(ids(), None, "nobody knows c");
    directory.take_over(&announced(&["me", "a"], &[], &["c"]));
    assert_eq!(ids().unwrap(), ["a"]);
    directory.note_store_trouble();
    assert_eq!(ids(), None);
    tokio::time::advance(Duration::from_secs(20)).await;
    directory.doubt_for(Duration::from_secs(5));
    assert_eq!(ids(), None);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(ids().unwrap(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_on_a_route_that_is_newer_than_the_table_gets_its_events_at_once() {
    let directory = directory();
    let seen = look_up(&directory, &["new"], Some(Standing::Alive(record("new")))).await;
    assert_eq!(seen, (vec![pod("new")], false));
    assert_eq!(directory.peer(&pod("new")), Some(record("new")), "and is known from now on");
}

#[tokio::test(start_paused = true)]
async fn an_event_is_not_nobodys_while_a_pod_on_its_route_may_live() {
    let directory = directory();
    for (why, standing) in [("no answer", None), ("a member without a key", Some(Standing::Member))] {
        assert_eq!(look_up(&directory, &["quiet"], standing).await, (vec![], true), "{why}");
    }
    assert_eq!(look_up(&directory, &["quiet"], Some(Standing::Gone)).await, (vec![], false), "it is dead");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_announces_itself_is_asked_about_once_in_a_while() {
    let directory = directory();
    assert_eq!(look_up(&directory, &["old"], Some(Standing::Unheard)).await, (vec![], true), "it may be about to");
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(look_up(&directory, &["old"], Some(Standing::Unheard)).await, (vec![], false));
    // Would be in doubt if it were asked about.
    assert_eq!(look_up(&directory, &["old"], None).await, (vec![], false));
    directory.take_over(&announced(&["old"], &[], &[]));
    assert_eq!(look_up(&directory, &["old"], None).await, (vec![pod("old")], false), "it was replaced");
}

#[tokio::test(start_paused = true)]
async fn every_peer_is_meant_where_a_route_cannot_be_read() {
    let directory = directory();
    directory.take_over(&announced(&["a", "b"], &[], &[]));
    let routes = Canned { lookup: vec![], unread: true, standing: None };
    assert_eq!(directory.targets(&routes, &route()).await.peers[0].len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_left_is_gone_and_one_that_is_silent_is_sent_everything() {
    let directory = directory();
    directory.take_over(&announced(&["a", "b"], &[], &[]));
    let changes = directory.take_over(&announced(&[], &["a"], &["b"]));
    assert_eq!(changes, Changes { news: vec![], left: vec![pod("b")] });
    assert_eq!(look_up(&directory, &[], None).await, (vec![pod("a")], false));
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_of_the_process_before_takes_nobody_out() {
    let directory = directory();
    let restarted = PodRecord { started_at: Duration::from_secs(9), ..record("a") };
    directory.take_over(&Announcement { pods: vec![restarted.clone()], ..announced(&[], &[], &[]) });
    let changes = directory.take_over(&announced(&[], &[], &["a"]));
    assert_eq!(changes, Changes::default(), "the store went back to when it had left");
    let left = vec![Goodbye { pod: pod("a"), started_at: restarted.started_at }];
    assert_eq!(directory.lapsed(), [restarted], "it is sent everything");
    let changes = directory.take_over(&Announcement { left, ..announced(&[], &[], &[]) });
    assert_eq!(changes.left, [pod("a")]);
}

#[tokio::test(start_paused = true)]
async fn hearsay_adds_a_pod_that_the_store_does_not_show_and_brings_none_back_that_is_dead() {
    let directory = directory();
    directory.take_over(&announced(&["a"], &[], &[]));
    assert_eq!(directory.hear_of(vec![record("a"), record("me"), record("cut-off")]), [record("cut-off")]);
    assert_eq!(directory.lapsed(), [record("cut-off")], "its routes can't be trusted to be there");
    let has_series = || String::from_utf8(directory.metrics.encode().unwrap()).unwrap().contains("cut-off");
    assert!(!has_series(), "it has not proved itself");
    directory.remove(&pod("cut-off"));
    assert_eq!(directory.hear_of(vec![record("cut-off")]), []);
    let restarted = PodRecord { started_at: Duration::from_secs(9), ..record("cut-off") };
    assert_eq!(directory.hear_of(vec![restarted.clone()]), [restarted]);
}

#[tokio::test(start_paused = true)]
async fn no_more_pods_are_known_than_a_fleet_has() {
    let directory = directory();
    let crowd: Vec<PodRecord> = (0..2 * MAX_PODS).map(|n| record(&format!("p{n}"))).collect();
    assert_eq!(directory.hear_of(crowd.clone()).len(), MAX_PODS);
    directory.take_over(&Announcement { pods: crowd, ..announced(&[], &[], &[]) });
    assert_eq!(directory.peers().len(), MAX_PODS);
}

#[tokio::test(start_paused = true)]
async fn a_reading_that_had_begun_before_a_doubt_is_no_answer_to_it() {
    let directory = directory();
    let before = directory.begin_reading();
    let answered = async {
        tokio::task::yield_now().await;
        directory.end_reading(before);
    };
    assert!(!tokio::join!(directory.refreshed(), answered).0);
    let after = async {
        directory.refresh_requests().await;
        let reading = directory.begin_reading();
        directory.end_reading(reading);
    };
    assert!(tokio::join!(directory.refreshed(), after).0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_a_liveness_key_that_makes_itself_known_again_is_lapsed_still() {
    let directory = directory();
    directory.take_over(&announced(&["a", "b"], &[], &[]));
    directory.take_over(&announced(&["a"], &["b"], &[]));
    directory.meet(&record("b"));
    assert_eq!(directory.lapsed(), [record("b")]);
    directory.remove(&pod("a"));
    tokio::time::advance(NOT_BELIEVED_FOR).await;
    directory.meet(&record("a"));
    assert_eq!(directory.lapsed().len(), 2, "who was found dead has no key that is known of");
    directory.take_over(&announced(&["a", "b"], &[], &[]));
    assert_eq!(directory.lapsed(), []);
}

#[tokio::test(start_paused = true)]
async fn g5_who_came_while_look_ups_failed_is_owed_a_gap_and_so_is_who_was_found_dead_and_lives() {
    let directory = directory();
    directory.take_over(&announced(&["a", "b"], &[], &[]));
    directory.note_uncertain([7, 9]);
    directory.meet(&record("a"));
    assert_eq!(directory.take_debts(), [], "it was known");
    directory.take_over(&announced(&["a", "b", "new"], &[], &[]));
    let owed = directory.take_debts();
    assert_eq!(
        owed.iter().map(|(pod, gap)| (pod, gap.first_seq, gap.last_seq)).collect::<Vec<_>>(),
        [(&record("new"), Some(7), Some(9))]
    );
    directory.note_settled([8].into_iter());
    directory.remove(&pod("b"));
    directory.meet(&record("b"));
    assert!(directory.peer(&pod("b")).is_none(), "it may reach this pod, and not be reached");
    tokio::time::advance(NOT_BELIEVED_FOR).await;
    directory.meet(&record("b"));
    assert_eq!(directory.take_debts(), [], "nothing was settled without it");
    directory.remove(&pod("b"));
    directory.note_settled([12, 10, 11].into_iter());
    tokio::time::advance(NOT_BELIEVED_FOR).await;
    directory.meet(&record("b"));
    let gap = Gap { dropped: None, first_seq: Some(10), last_seq: Some(12), cause: GapCause::PodResumed };
    assert_eq!(directory.take_debts(), [(record("b"), gap)]);
}

#[tokio::test(start_paused = true)]
async fn targets_are_certain_only_while_the_store_says_all_of_them() {
    let directory = directory();
    let routes = Canned { lookup: vec![], unread: false, standing: None };
    assert!(directory.targets(&routes, &route()).await.is_certain);
    let in_doubt = Canned { lookup: vec!["quiet"], unread: false, standing: Some(Standing::Member) };
    assert!(!directory.targets(&in_doubt, &route()).await.is_certain);
    directory.note_store_trouble();
    assert!(!directory.targets(&routes, &route()).await.is_certain);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_make_itself_known_is_a_stranger_once() {
    let directory = directory();
    directory.meet(&record("polite"));
    directory.take_over(&announced(&["polite"], &[], &[]));
    assert!(!directory.take_strangers());
    directory.take_over(&announced(&["polite", "stranger"], &[], &[]));
    assert!(directory.take_strangers() && !directory.take_strangers());
    directory.hear_of(vec![record("heard-of")]);
    assert!(directory.take_strangers());
}
