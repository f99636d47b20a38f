//! The others: the table of them, and who is told when one comes or goes.

use std::sync::Arc;

use daisi_ws_domain::{ids::PodId, peer::PodRecord};

use crate::{
    application::{fleet::directory::Directory, forward::forwarder::Forwarder},
    ports::{Announcement, Peers},
};

/// What is told of peers.
#[derive(Clone)]
pub(crate) struct Neighbours {
    /// The table to keep up to date.
    pub directory: Arc<Directory>,
    /// Has a queue for each.
    pub forwarder: Arc<Forwarder>,
    /// Calls them.
    pub peers: Arc<dyn Peers>,
}

impl Neighbours {
    /// Takes over who an announcement shows.
    pub(super) fn take_over(&self, announcement: &Announcement) {
        let changes = self.directory.take_over(announcement);
        for peer in changes.news {
            tracing::info!(peer.id = %peer.id, peer.address = %peer.address, "a peer is there");
            self.forwarder.hint(&peer);
        }
        for pod in changes.left {
            tracing::info!(peer.id = %pod, "a peer has left");
            self.forget(&pod);
        }
    }

    /// One is dead.
    pub(super) fn remove(&self, pod: &PodId) {
        self.directory.remove(pod);
        self.forget(pod);
    }

    /// One is met, and says whom it knows. Returns who is new here.
    pub(super) fn met(&self, pod: &PodId, known: Vec<PodRecord>) -> Vec<PodRecord> {
        self.forwarder.note_proof(pod);
        self.directory.hear_of(known)
    }

    /// Has those told whose sessions missed something because this pod did not know them, or took them for dead.
    pub(super) fn settle_debts(&self) {
        for (peer, gap) in self.directory.take_debts() {
            tracing::warn!(
                peer.id = %peer.id, gap.first = gap.first_seq, gap.last = gap.last_seq,
                "events may have gone past a peer that was not known here, or taken for dead; its sessions will be told of a gap"
            );
            self.forwarder.owe_all(&peer, gap);
        }
    }

    fn forget(&self, pod: &PodId) {
        self.forwarder.forget(pod);
        self.peers.forget(pod);
    }
}
