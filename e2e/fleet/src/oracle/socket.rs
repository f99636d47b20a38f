//! A ledger cut into its sockets, and what was owed to each.

use std::time::Duration;

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
    pub(super) chat: Option<Instant>,
    pub(super) ended: Option<Instant>,
    pub(super) entries: &'a [Entry],
    pub(super) gaps: Vec<&'a Entry>,
}

/// Cuts a ledger into its sockets.
pub(super) fn sockets(ledger: &Ledger) -> Vec<Socket<'_>> {
    let starts: Vec<usize> =
        ledger.entries.iter().enumerate().filter(|(_, entry)| matches!(entry.seen, Seen::Ready(_))).map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([ledger.entries.len()]);
    let find =
        |entries: &[Entry], wanted: fn(&Seen) -> bool| entries.iter().find(|entry| wanted(&entry.seen)).map(|entry| entry.at);
    let cut = starts.iter().zip(ends).map(|(start, end)| {
        let entries = &ledger.entries[*start..end];
        Socket {
            pod: if let Seen::Ready(pod) = &entries[0].seen { pod } else { "" },
            ready: entries[0].at,
            chat: find(entries, |seen| *seen == Seen::ChatSelected),
            ended: find(entries, |seen| matches!(seen, Seen::Closed(_))),
            entries,
            gaps: entries.iter().filter(|entry| matches!(entry.seen, Seen::Gap { .. })).collect(),
        }
    });
    cut.collect()
}

impl Socket<'_> {
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
