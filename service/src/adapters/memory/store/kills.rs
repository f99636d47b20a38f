//! The kill bus.

use std::sync::Arc;

use async_trait::async_trait;
use daisi_ws_domain::session::Kill;

use super::{Listening, State, StoreHandle};
use crate::{
    application::admission::kill_inbox::{CAPACITY, KillInbox},
    ports::{KillBus, KillListener, KillSignal, StoreError},
};

#[async_trait]
impl KillBus for StoreHandle {
    async fn publish(&self, kill: &Kill) -> Result<(), StoreError> {
        self.run(|State { faults, listeners, .. }| {
            listeners.retain(|listening| listening.inbox.strong_count() > 0);
            for listening in listeners.iter().filter(|listening| faults.reaches(&listening.pod)) {
                if let Some(inbox) = listening.inbox.upgrade() {
                    inbox.kill(kill.clone());
                }
            }
        })
        .await
    }

    async fn listen(&self) -> Box<dyn KillListener> {
        let inbox = Arc::new(KillInbox::new(CAPACITY));
        let mut state = self.store.lock();
        if state.faults.reaches(&self.pod) {
            inbox.resubscribed();
        }
        state.listeners.push(Listening { pod: self.pod.clone(), inbox: Arc::downgrade(&inbox) });
        Box::new(Listener(inbox))
    }
}

struct Listener(Arc<KillInbox>);

#[async_trait]
impl KillListener for Listener {
    async fn next(&mut self) -> KillSignal {
        self.0.next().await
    }
}
