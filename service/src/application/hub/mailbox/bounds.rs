//! How much a mailbox may hold.

use std::time::Duration;

use daisi_ws_domain::event::StreamId;

use super::item::Item;
use crate::{application::hub::prepared_message::EVENT_OVERHEAD, config::DropPolicy};

/// The limits of a mailbox.
#[derive(Debug, Clone, Copy)]
pub struct MailboxLimits {
    /// Messages that may wait while the socket takes no bytes.
    pub messages: usize,
    /// Bytes that may wait while the socket takes none; one message may be larger.
    pub bytes: usize,
    /// Bytes that may wait in any case, with what each event takes beside its bytes; one message may be larger.
    pub burst_bytes: usize,
    /// While the pod holds more bytes than this for its sockets, nobody may have more than `bytes`.
    pub held_bytes: usize,
    /// What happens past that.
    pub policy: DropPolicy,
    /// With `block`: the longest time that the overflow may take to drain.
    pub overflow_timeout: Duration,
    /// What has no room is read again from the stream, so many events at a time; 0: it is lost, or the socket is.
    pub repair: usize,
}

/// [`MailboxLimits`] in little memory: every socket has them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) messages: u32,
    pub(super) bytes: u32,
    pub(super) burst_bytes: u32,
    pub(super) held_kibibytes: u32,
    pub(super) overflow_ms: u32,
    pub(super) repair: u32,
    pub(super) policy: DropPolicy,
}

/// What is past 32 bits is as good as no bound.
pub(super) fn narrow(number: impl TryInto<u32>) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

impl From<MailboxLimits> for Bounds {
    fn from(limits: MailboxLimits) -> Self {
        Self {
            messages: narrow(limits.messages),
            bytes: narrow(limits.bytes),
            burst_bytes: narrow(limits.burst_bytes.max(limits.bytes)),
            held_kibibytes: narrow(limits.held_bytes / 1024),
            overflow_ms: narrow(limits.overflow_timeout.as_millis()),
            repair: narrow(limits.repair),
            policy: limits.policy,
        }
    }
}

impl Bounds {
    pub(super) fn messages(self) -> usize {
        self.messages as usize
    }

    pub(super) fn bytes(self) -> usize {
        self.bytes as usize
    }

    /// Is what has no room read again from the stream?
    pub(super) fn repairs(self) -> bool {
        self.repair > 0
    }

    /// Would a socket that takes bytes have too much waiting with so many bytes in so many messages? `held` is what the pod holds
    /// for all.
    pub(super) fn is_past_burst(self, bytes: usize, messages: usize, held: usize) -> bool {
        let takes = bytes.saturating_add(messages.saturating_mul(EVENT_OVERHEAD));
        takes > self.burst_bytes as usize || (bytes > self.bytes() && held / 1024 > self.held_kibibytes as usize)
    }
}

/// The stream of whose events some are known to be had; in little memory, as every socket has one.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct CoveredStream(u64);

impl CoveredStream {
    pub(super) fn set(&mut self, stream: StreamId) {
        self.0 = Self::short(stream);
    }

    /// Nanoseconds since the epoch fit for centuries.
    fn short(stream: StreamId) -> u64 {
        u64::try_from(stream.0).unwrap_or(0)
    }

    pub(super) fn is(self, stream: StreamId) -> bool {
        self.0 == Self::short(stream)
    }

    pub(super) fn is_of(self, item: &Item) -> bool {
        match item {
            Item::Event(event) => self.is(event.stream),
            Item::Gap(_) | Item::Hole(_) => false,
        }
    }
}
