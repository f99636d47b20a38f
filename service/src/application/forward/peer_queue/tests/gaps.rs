//! What the sessions of a peer are owed.

use super::*;

#[tokio::test(start_paused = true)]
async fn gaps_that_are_owed_hold_no_event_up_and_go_in_one_call() {
    let mut setup = Setup::of_fleet(3);
    *setup.world.gaps.lock().unwrap() = Does::Hangs;
    *setup.world.probe.lock().unwrap() = Does::Hangs;
    setup.add_gap("b", 300);
    for _ in 0..20 {
        let started = Instant::now();
        setup.outcome(clock::now(), 1).await;
        assert_eq!(started.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(setup.pending_gaps(), 300);
    setup.world.set(Does::Takes);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let announced: HashMap<_, _> =
        setup.world.announced.lock().unwrap().iter().flatten().map(|pending| (pending.route.clone(), pending.gap)).collect();
    assert_eq!((setup.world.announced.lock().unwrap().len(), announced.len(), setup.pending_gaps()), (1, 300, 0));
}

#[tokio::test(start_paused = true)]
async fn a_gap_comes_before_the_first_event_after_the_breaker() {
    let mut setup = Setup::of_fleet(3);
    setup.world.set(Does::IsCut);
    for _ in 0..3 {
        setup.outcome(clock::now(), 1).await;
    }
    setup.forwarder.owe_gap(&record("b").id, [route(1)], Gap::of(1, GapCause::GivenUp));
    setup.world.pushed.lock().unwrap().clear();
    setup.world.set(Does::Takes);
    while setup.world.announced.lock().unwrap().is_empty() {
        setup.outcome(clock::now(), 1).await;
        assert!(setup.world.pushed.lock().unwrap().is_empty() || !setup.world.announced.lock().unwrap().is_empty());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(setup.outcome(clock::now(), 1).await, Settlement::Ack);
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_kept_however_much_queues_for_the_peer() {
    let mut setup = Setup::of_fleet(3);
    setup.world.set(Does::Hangs);
    for _ in 0..20_000 {
        setup.forward("b");
    }
    setup.forwarder.owe_gap(&record("b").id, [route(1)], Gap::of(1, GapCause::GivenUp));
    assert_eq!(setup.pending_gaps(), 1);
    setup.world.set(Does::Takes);
    while setup.pending_gaps() > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(setup.world.announced.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn g5_a_peer_that_refuses_this_pod_is_told_of_its_gaps_by_way_of_the_store() {
    let mut setup = Setup::of_fleet(3);
    setup.world.set(Does::Refuses);
    *setup.world.probe.lock().unwrap() = Does::Takes;
    setup.add_gap("b", 1);
    while setup.pending_gaps() > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(*setup.world.passed_over.lock().unwrap(), [record("b").id]);
    // All of its sessions are told each time: so not with every gap.
    for _ in 0..50 {
        setup.add_gap("b", 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(setup.world.passed_over.lock().unwrap().len() <= 2);
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_task_panicked_goes_on_and_forgets_no_gap() {
    let mut setup = Setup::of_fleet(3);
    *setup.world.gaps.lock().unwrap() = Does::Hangs;
    setup.add_gap("b", 2);
    at_rest().await;
    *setup.world.push.lock().unwrap() = Does::Panics;
    setup.forward("b");
    at_rest().await;
    assert_eq!((setup.tally(), setup.pending_gaps()), ((1, 1, 0), 2));
    setup.forward("b");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((setup.tally(), setup.pending_gaps()), ((1, 0, 0), 0));
    assert_eq!(setup.world.announced.lock().unwrap().concat().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_leaves_tells_what_it_owes_if_need_be_by_way_of_the_store() {
    let mut setup = Setup::of_fleet(3);
    setup.world.set(Does::IsCut);
    *setup.world.gaps.lock().unwrap() = Does::Hangs;
    setup.add_gap("b", 1);
    setup.forwarder.settle_debts(Instant::now() + Duration::from_secs(5)).await;
    assert_eq!((setup.pending_gaps(), setup.world.passed_over.lock().unwrap().len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_owed_to_a_peer_survives_its_new_address_and_its_restart() {
    let mut setup = Setup::of_fleet(3);
    setup.world.set(Does::IsCut);
    setup.add_gap("b", 2);
    let moved = PodRecord { address: "elsewhere:1".into(), ..record("b") };
    let restarted = PodRecord { started_at: Duration::from_secs(1), ..record("b") };
    for peer in [moved, restarted] {
        let target = setup.target(clock::now(), 1, 0);
        setup.forwarder.forward(&peer, target);
        at_rest().await;
        assert_eq!(setup.pending_gaps(), 2, "{peer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn events_for_a_peer_that_died_are_nobodys_even_in_the_middle_of_a_call() {
    let mut setup = Setup::of_fleet(3);
    setup.world.set(Does::Hangs);
    for _ in 0..300 {
        setup.forward("b");
    }
    at_rest().await;
    setup.forwarder.forget(&record("b").id);
    at_rest().await;
    assert_eq!(setup.tally(), (300, 0, 0));
}
