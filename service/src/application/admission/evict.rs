//! Kills: closes the sessions that somebody else takes over.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{
    close::CloseReason,
    ids::{ConnectionId, PodId},
    moving::MoveReason,
    session::Kill,
};
use tokio::sync::Notify;

use super::release::Releaser;
use crate::{
    application::hub::{registry::Hub, session::Session},
    metrics::{
        Metrics,
        labels::{KillHeard, MoveOutcome},
    },
    ports::{Evicted, KillBus, KillSignal},
};

/// Closes sessions of this pod on order.
#[derive(Debug, Clone)]
pub struct Evictor {
    me: PodId,
    hub: Arc<Hub>,
    releaser: Releaser,
    metrics: Arc<Metrics>,
}

impl Evictor {
    /// Closes sessions of the hub and gives their locks back.
    #[must_use]
    pub fn new(me: PodId, hub: Arc<Hub>, releaser: Releaser, metrics: Arc<Metrics>) -> Self {
        Self { me, hub, releaser, metrics }
    }

    /// Obeys the kill bus until cancelled. Kills may be missed while it was interrupted: then `sweep` is told to check all locks.
    pub async fn run(&self, kills: &dyn KillBus, sweep: &Notify) {
        let mut listener = kills.listen().await;
        loop {
            match listener.next().await {
                KillSignal::Kill(kill) => {
                    self.obey(&kill);
                }
                KillSignal::Resubscribed => sweep.notify_one(),
            }
        }
    }

    /// Closes whom the kill is about, unless it may serve on for a while. The lock is given back at once: the successor does not
    /// wait for a closing handshake.
    pub fn obey(&self, kill: &Kill) -> Evicted {
        let killed = self.hub.kill(kill, &self.me);
        if killed.serves {
            return Evicted::Serves;
        }
        let outcome = if killed.sessions.is_empty() { KillHeard::NobodyHere } else { KillHeard::Evicted };
        self.metrics.session_kills_total.with_label_values(&[outcome.as_str()]).inc();
        for (session, reason) in &killed.sessions {
            if let (CloseReason::Moved, Some(moving)) = (reason, session.moving()) {
                self.count_move(moving.reason, MoveOutcome::Moved);
            }
            self.follow_up(session, *reason);
        }
        Evicted::Gone
    }

    /// Closes a session whose lock another has, and gives back what it may have of it.
    pub(crate) fn yield_up(&self, session: &Session) {
        let moving = session.moving();
        let reason = if moving.is_some() { CloseReason::Moved } else { CloseReason::SessionReplaced };
        if self.evict(session.connection(), reason)
            && let Some(moving) = moving
        {
            self.count_move(moving.reason, MoveOutcome::Moved);
        }
    }

    /// Asks a client to move. False if it can't, or was asked before.
    pub(crate) fn ask_to_move(&self, session: &Session, reason: MoveReason, within: Duration) -> bool {
        let asked = session.ask_to_move(reason, within);
        if asked {
            self.count_move(reason, MoveOutcome::Asked);
        }
        asked
    }

    /// Closes a client that was asked to move, and has not, as its time is over.
    pub(crate) fn end_overdue(&self, session: &Session) {
        if self.evict(session.connection(), CloseReason::GoingAway)
            && let Some(moving) = session.moving()
        {
            self.count_move(moving.reason, MoveOutcome::Overdue);
        }
    }

    fn count_move(&self, reason: MoveReason, outcome: MoveOutcome) {
        self.metrics.session_moves_total.with_label_values(&[reason.as_str(), outcome.as_str()]).inc();
    }

    /// Closes one session and gives its lock back. False if it is not here.
    pub fn evict(&self, connection: &ConnectionId, reason: CloseReason) -> bool {
        let Some(session) = self.hub.evict(connection, reason) else { return false };
        self.follow_up(&session, reason);
        true
    }

    fn follow_up(&self, session: &Session, reason: CloseReason) {
        self.releaser.release(session);
        tracing::debug!(connection.id = %session.connection(), reason = reason.as_str(), "a session is closed from outside");
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::Ordering, time::Duration};

    use daisi_ws_domain::{
        claims::{AdminClaims, Claims},
        ids::AdminId,
        session::KillClaim,
    };

    use super::*;
    use crate::{
        application::{admission::release::releaser, hub::mailbox::MailboxLimits},
        config::DropPolicy,
        runtime::workers::Workers,
    };

    fn session(me: &PodId, connection: &str) -> Arc<Session> {
        let limits = MailboxLimits {
            messages: 10,
            bytes: 10_000,
            burst_bytes: 10_000,
            held_bytes: 10_000,
            policy: DropPolicy::DropOldest,
            overflow_timeout: Duration::from_secs(1),
            repair: 0,
        };
        let claims = AdminClaims::new(AdminId::parse("root").unwrap(), None, None, None, Duration::from_secs(1)).unwrap();
        let connection = ConnectionId::parse(connection).unwrap();
        Arc::new(Session::new(Claims::Admin(claims), me.clone(), connection, limits, "test", Workers::of_the_runtime().first()))
    }

    #[tokio::test]
    async fn a_kill_visits_the_hub_once() {
        let (me, metrics) = (PodId::parse("pod-a").unwrap(), Arc::new(Metrics::new().unwrap()));
        let hub = Arc::new(Hub::new(Arc::clone(&metrics)));
        let evictor = Evictor::new(me.clone(), Arc::clone(&hub), releaser().0, metrics);
        let sessions = ["old", "older"].map(|connection| session(&me, connection));
        sessions.iter().for_each(|session| hub.enter(session, 10).unwrap());
        let visits = || hub.visits.load(Ordering::Relaxed);
        let (key, new_pod) = (sessions[0].key().clone(), PodId::parse("pod-b").unwrap());
        let kill =
            |victim| Kill { key: key.clone(), new_pod: new_pod.clone(), connection: None, victim, claim: KillClaim::Newer };

        let before = visits();
        evictor.obey(&kill(Some(sessions[0].owner().clone())));
        assert_eq!((visits() - before, hub.len()), (1, 1));
        let before = visits();
        evictor.obey(&kill(None));
        assert_eq!((visits() - before, hub.len()), (1, 0));
        assert_eq!(sessions.map(|session| session.close_reason()), [Some(CloseReason::SessionReplaced); 2]);
    }
}
