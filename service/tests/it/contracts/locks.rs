//! Session locks: who holds one, and that nobody else can touch it.

use std::time::Duration;

use daisi_ws_domain::{
    ids::ChatId,
    session::{LockOwner, SessionKey},
};
use daisi_ws_service::ports::{Acquire, LockRenewal, Renewal};

use super::{
    fleet::{Fleet, LONG, Pod, SHORT, admin, chat, owner, user},
    on_both,
};
use crate::support::wait;

on_both! {
    a_free_lock_is_acquired_and_then_held,
    users_and_administrators_do_not_share_locks,
    a_lock_runs_out,
    acquiring_again_what_is_already_ours_succeeds,
    the_saved_chat_comes_with_the_lock,
    a_saved_chat_runs_out,
    late_release_by_an_old_owner_keeps_the_new_lock,
    an_old_owner_cannot_renew,
    another_connection_on_the_same_pod_is_another_owner,
    replace_takes_the_lock_from_the_owner_seen,
    replace_takes_a_lock_that_has_become_free,
    replace_fails_if_the_owner_changed_since,
    of_two_that_replace_the_same_owner_one_wins,
    renewing_extends_the_life_of_a_lock,
    renewing_restores_a_missing_lock_and_its_chat,
    a_batch_is_renewed_in_order,
    chats_of_a_batch_are_kept_each_with_its_lock,
    releasing_a_batch_takes_only_what_is_ours,
    an_old_pods_bare_value_is_an_owner_without_connection,
    empty_batches_are_fine,
}

fn acquired(saved_chat: Option<ChatId>) -> Acquire {
    Acquire::Acquired { saved_chat }
}

fn renewal(key: SessionKey, owner: LockOwner, chat: Option<ChatId>) -> LockRenewal {
    LockRenewal { key, owner, ttl: LONG, chat, chat_ttl: LONG }
}

/// The owner now; asking with a value that nobody holds changes nothing if somebody does.
async fn holder(pod: &Pod, key: &SessionKey) -> Option<LockOwner> {
    match pod.locks.acquire(key, &owner("prober/0"), Duration::from_millis(1)).await.unwrap() {
        Acquire::Held(holder) => Some(holder),
        Acquire::Acquired { .. } => {
            pod.locks.release(&[(key.clone(), owner("prober/0"))]).await.unwrap();
            None
        }
    }
}

async fn a_free_lock_is_acquired_and_then_held(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    assert_eq!(a.locks.acquire(&user("sari"), &owner("a/1"), LONG).await.unwrap(), acquired(None));
    assert_eq!(b.locks.acquire(&user("sari"), &owner("b/1"), LONG).await.unwrap(), Acquire::Held(owner("a/1")));
    assert_eq!(b.locks.acquire(&user("budi"), &owner("b/1"), LONG).await.unwrap(), acquired(None));
}

async fn users_and_administrators_do_not_share_locks(fleet: Fleet) {
    let a = fleet.pod("a");
    assert_eq!(a.locks.acquire(&user("root"), &owner("a/1"), LONG).await.unwrap(), acquired(None));
    assert_eq!(a.locks.acquire(&admin("root"), &owner("a/2"), LONG).await.unwrap(), acquired(None));
    assert_eq!(holder(&a, &admin("root")).await, Some(owner("a/2")));
}

async fn a_lock_runs_out(fleet: Fleet) {
    let a = fleet.pod("a");
    a.locks.acquire(&user("sari"), &owner("a/1"), SHORT).await.unwrap();
    assert_eq!(holder(&a, &user("sari")).await, Some(owner("a/1")));
    wait::until("the lock runs out", || async { holder(&a, &user("sari")).await.is_none() }).await;
}

async fn acquiring_again_what_is_already_ours_succeeds(fleet: Fleet) {
    let a = fleet.pod("a");
    a.locks.acquire(&user("sari"), &owner("a/1"), LONG).await.unwrap();
    assert_eq!(
        a.locks.acquire(&user("sari"), &owner("a/1"), LONG).await.unwrap(),
        acquired(None),
        "an answer may have been lost"
    );
}

async fn the_saved_chat_comes_with_the_lock(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    a.locks.save_chat(&user("sari"), &chat("62811:7@s.whatsapp.net"), LONG).await.unwrap();
    a.locks.save_chat(&admin("root"), &chat("c2"), LONG).await.unwrap();
    let saved = Some(chat("62811:7@s.whatsapp.net"));
    assert_eq!(b.locks.acquire(&user("sari"), &owner("b/1"), LONG).await.unwrap(), acquired(saved.clone()));
    assert_eq!(b.locks.acquire(&admin("root"), &owner("b/2"), LONG).await.unwrap(), acquired(Some(chat("c2"))));
    assert_eq!(b.locks.acquire(&user("budi"), &owner("b/3"), LONG).await.unwrap(), acquired(None));
    assert_eq!(a.locks.replace(&user("sari"), &owner("b/1"), &owner("a/4"), LONG).await.unwrap(), acquired(saved.clone()));
    a.locks.release(&[(user("sari"), owner("a/4"))]).await.unwrap();
    assert_eq!(a.locks.acquire(&user("sari"), &owner("a/5"), LONG).await.unwrap(), acquired(saved), "it outlives the lock");
}

async fn a_saved_chat_runs_out(fleet: Fleet) {
    let a = fleet.pod("a");
    a.locks.save_chat(&user("sari"), &chat("c1"), SHORT).await.unwrap();
    let sari = user("sari");
    wait::until("the chat is forgotten", || async {
        a.locks.acquire(&sari, &owner("a/1"), LONG).await.unwrap() == acquired(None)
    })
    .await;
}

async fn late_release_by_an_old_owner_keeps_the_new_lock(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    a.locks.acquire(&user("sari"), &owner("a/1"), LONG).await.unwrap();
    b.locks.replace(&user("sari"), &owner("a/1"), &owner("b/1"), LONG).await.unwrap();
    assert_eq!(a.locks.release(&[(user("sari"), owner("a/1"))]).await.unwrap(), 0);
    assert_eq!(holder(&a, &user("sari")).await, Some(owner("b/1")));
}

async fn an_old_owner_cannot_renew(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    a.locks.acquire(&user("sari"), &owner("a/1"), LONG).await.unwrap();
    b.locks.replace(&user("sari"), &owner("a/1"), &owner("b/1"), LONG).await.unwrap();
    b.locks.save_chat(&user("sari"), &chat("new"), LONG).await.unwrap();
    let late = renewal(user("sari"), owner("a/1"), Some(chat("old")));
    assert_eq!(a.locks.renew(&[late]).await.unwrap(), [Renewal::Lost(owner("b/1"))]);
    assert_eq!(holder(&a, &user("sari")).await, Some(owner("b/1")));
    let kept = b.locks.acquire(&user("sari"), &owner("b/1"), LONG).await.unwrap();
    assert_eq!(kept, acquired(Some(chat("new"))), "nor may it overwrite the chat");
}

async fn another_connection_on_the_same_pod_is_another_owner(fleet: Fleet) {
    let a = fleet.pod("a");
    a.locks.acquire(&user("sari"), &owner("a/1"), LONG).await.unwrap();
    assert_eq!(a.locks.acquire(&user("sari"), &owner("a/2"), LONG).await.unwrap(), Acquire::Held(owner("a/1")));
    assert_eq!(a.locks.release(&[(user("sari"), owner("a/2"))]).await.unwrap(), 0);
    let renewed = a.locks.renew(&[renewal(user("sari"), owner("a/2"), None)]).await.unwrap();
    assert_eq!(renewed, [Renewal::Lost(owner("a/1"))]);
}

async fn replace_takes_the_lock_from_the_owner_seen(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    a.locks.acquire(&user("sari"), &owner("a/1"), LONG).await.unwrap();
    let replaced = b.locks.replace(&user("sari"), &owner("a/1"), &owner("b/1"), LONG).await.unwrap();
    assert_eq!(replaced, acquired(None));
    assert_eq!(holder(&a, &user("sari")).await, Some(owner("b/1")));
}

async fn replace_takes_a_lock_that_has_become_free(fleet: Fleet) {
    let b = fleet.pod("b");
    assert_eq!(b.locks.replace(&user("sari"), &owner("a/1"), &owner("b/1"), LONG).await.unwrap(), acquired(None));
}

async fn replace_fails_if_the_owner_changed_since(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    a.locks.acquire(&user("sari"), &owner("a/2"), LONG).await.unwrap();
    let replaced = b.locks.replace(&user("sari"), &owner("a/1"), &owner("b/1"), LONG).await.unwrap();
    assert_eq!(replaced, Acquire::Held(owner("a/2")));
    assert_eq!(holder(&a, &user("sari")).await, Some(owner("a/2")));
}

async fn of_two_that_replace_the_same_owner_one_wins(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    a.locks.acquire(&user("sari"), &owner("old/1"), LONG).await.unwrap();
    let (sari, old, one, two) = (user("sari"), owner("old/1"), owner("a/1"), owner("b/1"));
    let (first, second) = tokio::join!(a.locks.replace(&sari, &old, &one, LONG), b.locks.replace(&sari, &old, &two, LONG));
    let outcomes = [first.unwrap(), second.unwrap()];
    let winner = holder(&a, &sari).await.unwrap();
    assert!(outcomes.contains(&acquired(None)) && outcomes.contains(&Acquire::Held(winner)), "{outcomes:?}");
}

async fn renewing_extends_the_life_of_a_lock(fleet: Fleet) {
    let a = fleet.pod("a");
    a.locks.acquire(&user("short"), &owner("a/0"), SHORT).await.unwrap();
    a.locks.acquire(&user("sari"), &owner("a/1"), SHORT).await.unwrap();
    assert_eq!(a.locks.renew(&[renewal(user("sari"), owner("a/1"), None)]).await.unwrap(), [Renewal::Renewed]);
    wait::until("a lock that was not renewed runs out", || async { holder(&a, &user("short")).await.is_none() }).await;
    assert_eq!(holder(&a, &user("sari")).await, Some(owner("a/1")));
}

async fn renewing_restores_a_missing_lock_and_its_chat(mut fleet: Fleet) {
    let a = fleet.pod("a");
    a.locks.acquire(&user("sari"), &owner("a/1"), LONG).await.unwrap();
    a.locks.save_chat(&user("sari"), &chat("c1"), LONG).await.unwrap();
    fleet.start_again_empty().await;
    let renewed = a.locks.renew(&[renewal(user("sari"), owner("a/1"), Some(chat("c1")))]).await.unwrap();
    assert_eq!(renewed, [Renewal::Restored]);
    let replaced = a.locks.replace(&user("sari"), &owner("a/1"), &owner("a/2"), LONG).await.unwrap();
    assert_eq!(replaced, acquired(Some(chat("c1"))));
}

async fn a_batch_is_renewed_in_order(fleet: Fleet) {
    let a = fleet.pod("a");
    a.locks.acquire(&user("kept"), &owner("a/1"), LONG).await.unwrap();
    a.locks.acquire(&user("taken"), &owner("b/9"), LONG).await.unwrap();
    let batch = [("kept", "a/1"), ("gone", "a/2"), ("taken", "a/3")].map(|(key, value)| renewal(user(key), owner(value), None));
    assert_eq!(a.locks.renew(&batch).await.unwrap(), [Renewal::Renewed, Renewal::Restored, Renewal::Lost(owner("b/9"))]);
    assert_eq!(holder(&a, &user("gone")).await, Some(owner("a/2")));
}

async fn chats_of_a_batch_are_kept_each_with_its_lock(fleet: Fleet) {
    let a = fleet.pod("a");
    let batch = [("one", Some("c1")), ("none", None), ("taken", Some("c3")), ("four", Some("c4"))];
    a.locks.acquire(&user("taken"), &owner("b/9"), LONG).await.unwrap();
    let renewals = batch.map(|(key, selected)| renewal(user(key), owner("a/1"), selected.map(chat)));
    a.locks.renew(&renewals).await.unwrap();
    for (key, selected) in batch {
        let holder = owner(if key == "taken" { "b/9" } else { "a/1" });
        let kept = a.locks.acquire(&user(key), &holder, LONG).await.unwrap();
        assert_eq!(kept, acquired(selected.filter(|_| key != "taken").map(chat)), "{key}");
    }
}

async fn releasing_a_batch_takes_only_what_is_ours(fleet: Fleet) {
    let a = fleet.pod("a");
    a.locks.acquire(&user("ours"), &owner("a/1"), LONG).await.unwrap();
    a.locks.acquire(&admin("ours"), &owner("a/2"), LONG).await.unwrap();
    a.locks.acquire(&user("theirs"), &owner("b/1"), LONG).await.unwrap();
    let batch = [
        (user("ours"), owner("a/1")),
        (user("theirs"), owner("a/3")),
        (user("free"), owner("a/4")),
        (admin("ours"), owner("a/2")),
    ];
    assert_eq!(a.locks.release(&batch).await.unwrap(), 2);
    assert_eq!(holder(&a, &user("ours")).await, None);
    assert_eq!(holder(&a, &admin("ours")).await, None);
    assert_eq!(holder(&a, &user("theirs")).await, Some(owner("b/1")));
}

async fn an_old_pods_bare_value_is_an_owner_without_connection(fleet: Fleet) {
    let (old, b) = (fleet.pod("old"), fleet.pod("b"));
    let bare = owner("old");
    assert_eq!(bare.connection, None);
    old.locks.acquire(&user("sari"), &bare, LONG).await.unwrap();
    assert_eq!(b.locks.acquire(&user("sari"), &owner("b/1"), LONG).await.unwrap(), Acquire::Held(bare.clone()));
    let other = b.locks.replace(&user("sari"), &owner("old/1"), &owner("b/1"), LONG).await.unwrap();
    assert_eq!(other, Acquire::Held(bare.clone()), "it is not the same owner as one with a connection");
    assert_eq!(b.locks.replace(&user("sari"), &bare, &owner("b/1"), LONG).await.unwrap(), acquired(None));
}

async fn empty_batches_are_fine(fleet: Fleet) {
    let a = fleet.pod("a");
    assert_eq!(a.locks.renew(&[]).await.unwrap(), []);
    assert_eq!(a.locks.release(&[]).await.unwrap(), 0);
}
