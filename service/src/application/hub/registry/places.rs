//! Where sessions stand in the stream, and what they are told of what they missed.

use std::sync::Arc;

use daisi_ws_domain::{
    gap::{Gap, GapCause},
    route::RouteKey,
};

use super::{Hub, Membership};
use crate::{
    application::hub::{fan_out::put_item, mailbox::item::Item, session::Session},
    ports::SettledUpTo,
};

impl Hub {
    /// Notes how far the stream's events are settled: what comes of those once more is a redelivery, and nothing about them has
    /// to be remembered.
    pub fn settled_up_to(&self, settled: SettledUpTo) {
        let mut tables = self.lock();
        tables.seen.settled_up_to(settled.stream, settled.seq, settled.at);
        tables.floor.read(settled);
    }

    /// Notes what an announcement of this pod showed.
    pub(crate) fn note_membership(&self, membership: Membership) {
        let mut tables = self.lock();
        match membership {
            Membership::Begun => tables.floor.begin_anew(),
            Membership::Broken => tables.floor.break_off(),
            Membership::Unbroken { asked } => {
                if let Some(settled) = tables.floor.confirm(asked) {
                    tables.seen.confirmed_up_to(settled.stream, settled.seq);
                }
            }
        }
    }

    /// Up to where all sessions have everything that concerned them and came before what is in their mailboxes now.
    #[must_use]
    pub fn floor(&self) -> Option<SettledUpTo> {
        self.lock().floor.confirmed()
    }

    /// This pod was taken for dead, and its routes are there again: each session has what it missed since its place read again;
    /// or is told, if `is_owed` more than that. From now on they may be told newer places.
    pub fn announce_resumed(&self, is_owed: bool) -> usize {
        let mut tables = self.lock();
        let missing = if is_owed { None } else { tables.missing_since_the_floor() };
        tables.floor.go_on();
        let item = Item::missing(Gap::unknown(GapCause::PodResumed), missing);
        tables.entries.values().filter(|entry| put_item(&entry.session, item.clone(), &self.metrics)).count()
    }

    /// Tells the sessions on a route, or all, that they missed events; or has those read again, where it is known which. Returns
    /// how many.
    pub fn announce(&self, route: Option<&RouteKey>, gap: Gap) -> usize {
        let tables = self.lock();
        let item = Item::missing(gap, tables.missing(gap));
        let tell = |session: &Arc<Session>| put_item(session, item.clone(), &self.metrics);
        match route {
            Some(route) => tables.routes.get(route).map_or(0, |entry| entry.members.iter().filter(|s| tell(s)).count()),
            None => tables.entries.values().filter(|e| tell(&e.session)).count(),
        }
    }
}
