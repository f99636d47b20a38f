//! A ledger cut into its sockets, and what was owed to each.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::fault_time::FaultTime;
use crate::{
    identity::Kind,
    traffic::ledger::{Entry, Ledger, Published, Seen},
};

/// How long before its socket's end an event may have been on its way.
const IN_FLIGHT: Duration = Duration::from_secs(2);

/// One socket of a session.
pub(super) struct Socket<'a> {
    pub(super) pod: &'a str,
    pub(super) ready: Instant,
    /// All up to here the session had before, where it went on in the stream.
    pub(super) resumed: Option<u64>,
    pub(super) chat: Option<Instant>,
    /// When it was asked to move.
    pub(super) asked: Option<Instant>,
    pub(super) ended: Option<Instant>,
    pub(super) entries: Vec<&'a Entry>,
    pub(super) gaps: Vec<&'a Entry>,
}

/// Cuts a ledger into its sockets, in the order in which they were ready. Two of them stand at a time while a session moves.
pub(super) fn sockets(ledger: &Ledger) -> Vec<Socket<'_>> {
    let mut numbers: Vec<u32> = Vec::new();
    let mut entries: HashMap<u32, Vec<&Entry>> = HashMap::new();
    for entry in &ledger.entries {
        if matches!(entry.seen, Seen::Ready(_)) && !entries.contains_key(&entry.socket) {
            numbers.push(entry.socket);
            entries.insert(entry.socket, Vec::new());
        }
        // Refused ones have no other entry.
        if let Some(entries) = entries.get_mut(&entry.socket) {
            entries.push(entry);
        }
    }
    numbers.iter().filter_map(|number| entries.remove(number).map(Socket::of)).collect()
}

impl<'a> Socket<'a> {
    fn of(entries: Vec<&'a Entry>) -> Self {
        let find = |wanted: fn(&Seen) -> bool| entries.iter().find(|entry| wanted(&entry.seen)).map(|entry| entry.at);
        Self {
            pod: if let Seen::Ready(pod) = &entries[0].seen { pod } else { "" },
            ready: entries[0].at,
            resumed: entries.iter().find_map(|entry| if let Seen::Resumed(cursor) = entry.seen { Some(cursor) } else { None }),
            chat: find(|seen| *seen == Seen::ChatSelected),
            asked: find(|seen| *seen == Seen::Asked),
            ended: find(Seen::is_end),
            gaps: entries.iter().copied().filter(|entry| matches!(entry.seen, Seen::Gap { .. })).collect(),
            entries,
        }
    }

    /// Is this event owed to this socket?
    pub(super) fn owed(&self, event: &Published) -> bool {
        let since = match event.subject.kind {
            Kind::Messages(_) => self.chat,
            Kind::Chats | Kind::Agents => Some(self.ready),
        };
        since.is_some_and(|since| event.started > since) && self.ended.is_none_or(|ended| event.stored < ended)
    }

    /// Does a gap on this socket cover this event?
    pub(super) fn announced(&self, event: &Published, fault: Option<&FaultTime>) -> bool {
        self.gaps.iter().any(|entry| match &entry.seen {
            Seen::Gap { range: Some((first, last)), .. } => (*first..=*last).contains(&event.seq),
            // A gap of unknown size is about what came between the begin of the fault and itself, not about anything ever lost.
            Seen::Gap { range: None, .. } => {
                event.started < entry.at && fault.is_none_or(|fault| event.started + IN_FLIGHT >= fault.began)
            }
            _ => false,
        })
    }

    /// Was this event on its way when the socket ended?
    pub(super) fn went_along(&self, event: &Published, fault: Option<&FaultTime>) -> bool {
        let Some(ended) = self.ended else { return false };
        let since = match fault {
            Some(fault) if fault.stalls => ended.min(fault.began),
            _ => ended,
        };
        event.stored + IN_FLIGHT >= since
    }
}
