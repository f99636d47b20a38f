//! The kill bus: everybody hears, the victim is named, and deafness is owned up to.

use daisi_ws_domain::{
    ids::ConnectionId,
    session::{Kill, KillClaim, SessionKey},
};
use daisi_ws_service::ports::KillSignal;

use super::{
    fleet::{Fleet, admin, owner, pod, signal, user},
    on_both,
};

on_both! {
    the_first_signal_says_that_the_subscription_is_in_force,
    a_kill_names_its_victim_and_reaches_every_pod,
    kills_keep_their_order,
    a_kill_of_an_old_pod_names_no_victim,
    an_interrupted_subscription_is_signalled_and_goes_on,
    a_listener_hears_again_after_a_restart,
    a_listener_hears_again_after_a_freeze,
    a_listener_that_begins_during_an_outage_hears_later,
    giving_up_a_wait_loses_no_signal,
    a_kill_that_nobody_hears_is_no_error,
}

fn kill(key: SessionKey) -> Kill {
    Kill {
        key,
        new_pod: pod("b"),
        connection: Some(ConnectionId::parse("2").unwrap()),
        victim: Some(owner("a/1")),
        claim: KillClaim::Newer,
    }
}

async fn the_first_signal_says_that_the_subscription_is_in_force(fleet: Fleet) {
    let a = fleet.pod("a");
    let mut listener = a.kills.listen().await;
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);
    a.kills.publish(&kill(user("sari"))).await.unwrap();
    assert_eq!(signal(&mut listener).await, KillSignal::Kill(kill(user("sari"))));
}

async fn a_kill_names_its_victim_and_reaches_every_pod(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    let mut listeners = [a.kills.listen().await, b.kills.listen().await];
    for listener in &mut listeners {
        assert_eq!(signal(listener).await, KillSignal::Resubscribed);
    }
    for key in [user("sari@acme.example"), admin("root")] {
        b.kills.publish(&kill(key.clone())).await.unwrap();
        for listener in &mut listeners {
            assert_eq!(signal(listener).await, KillSignal::Kill(kill(key.clone())));
        }
    }
}

async fn kills_keep_their_order(fleet: Fleet) {
    let a = fleet.pod("a");
    let mut listener = a.kills.listen().await;
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);
    for number in 0..100 {
        a.kills.publish(&kill(user(&number.to_string()))).await.unwrap();
    }
    for number in 0..100 {
        assert_eq!(signal(&mut listener).await, KillSignal::Kill(kill(user(&number.to_string()))));
    }
}

async fn a_kill_of_an_old_pod_names_no_victim(fleet: Fleet) {
    let a = fleet.pod("a");
    let mut listener = a.kills.listen().await;
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);
    let old = Kill { connection: None, victim: None, ..kill(user("sari")) };
    a.kills.publish(&old).await.unwrap();
    assert_eq!(signal(&mut listener).await, KillSignal::Kill(old));
}

async fn an_interrupted_subscription_is_signalled_and_goes_on(fleet: Fleet) {
    let a = fleet.pod("a");
    let mut listener = a.kills.listen().await;
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);
    fleet.interrupt_listeners().await;
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);
    a.kills.publish(&kill(user("sari"))).await.unwrap();
    assert_eq!(signal(&mut listener).await, KillSignal::Kill(kill(user("sari"))));
}

async fn a_listener_hears_again_after_a_restart(mut fleet: Fleet) {
    let a = fleet.pod("a");
    let mut listener = a.kills.listen().await;
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);
    fleet.stop();
    assert!(a.kills.publish(&kill(user("sari"))).await.is_err());
    fleet.start_again_empty().await;
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);
    a.kills.publish(&kill(user("sari"))).await.unwrap();
    assert_eq!(signal(&mut listener).await, KillSignal::Kill(kill(user("sari"))));
}

async fn a_listener_hears_again_after_a_freeze(fleet: Fleet) {
    let a = fleet.pod("a");
    let mut listener = a.kills.listen().await;
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);
    fleet.freeze();
    // Until the subscription has been noticed to be dead: a freeze shorter than that is a delay, not an interruption.
    for _ in 0..5 {
        assert!(a.kills.publish(&kill(user("lost"))).await.is_err());
    }
    fleet.thaw();
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);
    // On a real server, kills that timed out may yet arrive.
    let fresh = Kill { connection: None, ..kill(user("sari")) };
    a.kills.publish(&fresh).await.unwrap();
    while signal(&mut listener).await != KillSignal::Kill(fresh.clone()) {}
}

async fn a_listener_that_begins_during_an_outage_hears_later(mut fleet: Fleet) {
    let a = fleet.pod("a");
    fleet.stop();
    let mut listener = a.kills.listen().await;
    fleet.start_again_empty().await;
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);
}

async fn giving_up_a_wait_loses_no_signal(fleet: Fleet) {
    let a = fleet.pod("a");
    let mut listener = a.kills.listen().await;
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);
    for number in 0..20 {
        let sent = kill(user(&number.to_string()));
        let (_, given_up) = tokio::join!(a.kills.publish(&sent), async {
            tokio::select! {
                biased;
                heard = listener.next() => Some(heard),
                () = tokio::task::yield_now() => None,
            }
        });
        let heard = match given_up {
            Some(heard) => heard,
            None => signal(&mut listener).await,
        };
        assert_eq!(heard, KillSignal::Kill(sent));
    }
}

async fn a_kill_that_nobody_hears_is_no_error(fleet: Fleet) {
    let a = fleet.pod("a");
    drop(a.kills.listen().await);
    a.kills.publish(&kill(user("sari"))).await.unwrap();
}
