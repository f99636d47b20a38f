//! What a peer may hold.

use std::collections::VecDeque;

use super::*;

/// Offers a peer events at a steady rate.
async fn offer_for(setup: &mut Setup, to: &[&str], per_second: usize, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        for peer in to {
            for _ in 0..per_second / 50 {
                setup.forward(peer);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn g2_what_is_queued_in_a_call_and_parked_counts_against_the_share_of_a_silent_peer() {
    let mut setup = Setup::of_fleet(3);
    // Another peer can be reached: it is "b" that is silent.
    setup.forward("c");
    at_rest().await;
    setup.tally();
    setup.world.set(Does::Hangs);
    let (started, mut unsettled) = (Instant::now(), 0);
    // What the stream delivers again, and how often it has been delivered then.
    let mut again: VecDeque<(Instant, u64)> = VecDeque::new();
    while started.elapsed() < Duration::from_secs(10) {
        again.make_contiguous().sort_unstable();
        while again.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            let (_, deliveries) = again.pop_front().unwrap();
            setup.forward_as("b", clock::now(), deliveries, 0);
        }
        for _ in 0..5 {
            setup.forward("b");
        }
        unsettled += 5;
        tokio::time::sleep(Duration::from_millis(2)).await;
        while let Ok(settled) = setup.settled.try_recv() {
            match settled.settlement {
                Settlement::Ack => panic!("nobody takes it"),
                Settlement::Retry(delay) => {
                    let deliveries = 1 + setup.deliveries[&settled.event.seq];
                    again.push_back((Instant::now() + delay, deliveries));
                }
                Settlement::Terminate => unsettled -= 1,
                Settlement::Extend => {}
            }
        }
        // Of 5000 over the fleet, of which another pod may hold as many. The queue counts an event as delivered again some rounds
        // before this loop does so, and what comes for the first time is given to another pod, which is 50 ms on its way at most.
        assert!(unsettled <= 1666 + 150 + 125, "{unsettled} after {:?}", started.elapsed());
    }
    assert!(unsettled <= 333 + 125, "{unsettled}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_loses_nothing_of_a_burst_however_large() {
    let mut setup = Setup::of_fleet(3);
    for _ in 0..5000 {
        setup.forward("b");
    }
    at_rest().await;
    assert_eq!(setup.tally(), (5000, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stands_still_for_a_second_loses_nothing_of_a_thousand_events() {
    let mut setup = Setup::of_fleet(3);
    setup.world.set(Does::Hangs);
    offer_for(&mut setup, &["b"], 1000, Duration::from_millis(1500)).await;
    let (acked, parked, given_up) = setup.tally();
    assert_eq!((acked, given_up), (0, 0));
    // Nothing but the call itself has waited for more than a second.
    assert!(parked >= 1400, "{parked}");
}

#[tokio::test(start_paused = true)]
async fn g2_all_peers_that_cannot_be_reached_have_half_of_what_may_be_unsettled_between_them() {
    let mut setup = Setup::of_fleet(6);
    setup.world.set(Does::IsCut);
    let silent = ["b", "c", "d", "e", "f"];
    offer_for(&mut setup, &silent, 1000, Duration::from_secs(3)).await;
    let parked: i64 = silent.iter().map(|peer| setup.metrics.events_parked.with_label_values(&[peer]).get()).sum();
    assert!(parked <= 416, "{parked}");
    // One that is well is not touched by that.
    setup.tally();
    setup.world.set(Does::Takes);
    for _ in 0..2000 {
        setup.forward("g");
    }
    at_rest().await;
    assert_eq!(setup.tally().0, 2000);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_wait_for_a_silent_peer_are_bounded_and_what_is_past_that_is_parked() {
    let mut setup = Setup::of_fleet(3);
    setup.world.set(Does::Hangs);
    let megabyte = 1 << 20;
    for _ in 0..30 {
        for _ in 0..2 {
            setup.forward_as("b", clock::now(), 1, megabyte);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (acked, parked, given_up) = setup.tally();
    assert_eq!((acked, given_up), (0, 0));
    assert!(60 - parked <= 26, "{} MB wait", 60 - parked);
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_of_a_peer_long_ago_holds_no_event_back() {
    let mut setup = Setup::of_fleet(3);
    setup.world.set(Does::IsCut);
    setup.outcome(clock::now(), 1).await;
    setup.world.set(Does::Takes);
    tokio::time::sleep(Duration::from_secs(600)).await;
    for _ in 0..3000 {
        setup.forward("b");
    }
    at_rest().await;
    assert_eq!(setup.tally(), (3000, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_stood_still_itself_does_not_take_that_for_the_silence_of_its_peers() {
    let mut setup = Setup::of_fleet(3);
    *setup.world.push.lock().unwrap() = Does::Hangs;
    setup.forward("b");
    at_rest().await;
    tokio::time::advance(Duration::from_secs(3)).await;
    for _ in 0..1000 {
        setup.forward("b");
    }
    at_rest().await;
    assert_eq!(setup.tally(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_waited_elsewhere_before_is_no_sign_that_a_peer_is_slow() {
    let mut setup = Setup::of_fleet(3);
    let targets: Vec<_> = (0..3000).map(|_| setup.target(clock::now(), 1, 0)).collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    for target in targets {
        setup.forwarder.forward(&record("b"), target);
    }
    at_rest().await;
    assert_eq!(setup.tally(), (3000, 0, 0));
}

/// What becomes of an event that finds no room, by how often it was delivered.
async fn past_the_share(setup: &mut Setup, well: &[&str], silent: &[&str], deliveries: u64) -> (usize, usize, usize) {
    for peer in well {
        setup.forward(peer);
    }
    at_rest().await;
    setup.world.set(Does::IsCut);
    offer_for(setup, silent, 50, Duration::from_secs(2)).await;
    for _ in 0..2000 {
        for peer in silent {
            setup.forward(peer);
        }
    }
    at_rest().await;
    setup.tally();
    setup.forward_as("b", clock::now(), deliveries, 0);
    at_rest().await;
    setup.tally()
}

#[tokio::test(start_paused = true)]
async fn g1_an_event_past_the_share_of_a_peer_is_given_to_another_pod_once_before_it_is_given_up() {
    // Another peer can be reached, so it is "b" that can't.
    assert_eq!(past_the_share(&mut Setup::of_fleet(3), &["c"], &["b"], 1).await, (0, 1, 0));
    assert_eq!(past_the_share(&mut Setup::of_fleet(3), &["c"], &["b"], 2).await, (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn g1_a_pod_that_reaches_none_of_its_peers_gives_what_is_theirs_to_other_pods_more_often() {
    assert_eq!(past_the_share(&mut Setup::of_fleet(3), &[], &["b", "c"], 3).await, (0, 1, 0));
    assert_eq!(past_the_share(&mut Setup::of_fleet(3), &[], &["b", "c"], 4).await, (0, 0, 1));
    // Of two pods, neither knows which of them is cut off.
    assert_eq!(past_the_share(&mut Setup::of_fleet(2), &[], &["b"], 3).await, (0, 0, 1));
}
