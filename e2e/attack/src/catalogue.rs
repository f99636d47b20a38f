//! Which attacks there are.

/// One kind of strangers in an attack: a process.
#[derive(Debug, Clone, Copy)]
pub struct Strangers {
    /// One of the names of [`crate::strangers::perform::names`].
    pub name: &'static str,
    /// How many connections, or what else there are many of.
    pub count: usize,
    /// Sessions that they may open.
    pub passes: usize,
    /// Has each an address of its own?
    pub spread: bool,
}

/// What happens to what the pod stands on meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circumstance {
    /// Redis hangs.
    RedisFrozen,
    /// Nobody reads the log.
    LogUnread,
    /// Events of so many bytes, so many a second, for the sessions of the strangers.
    Events {
        /// Bytes of each.
        bytes: usize,
        /// Events a second.
        per_second: u32,
    },
    /// The route of an agent of the audience has so many members.
    WideRoute(usize),
    /// A pod record, and the lock of a session that is connected again and again, have so many bytes.
    HugeValues(usize),
    /// Somebody who can write to Redis says that it is a pod, and on all routes of the audience.
    FalsePod,
    /// `publish` is called for subjects that are no events.
    PublishedSubjects,
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// As on the command line.
    pub name: &'static str,
    /// What is done.
    pub says: &'static str,
    /// By whom.
    pub strangers: &'static [Strangers],
    /// And what else happens.
    pub circumstances: &'static [Circumstance],
}

impl Attack {
    /// The attack of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        ATTACKS.iter().find(|attack| attack.name == name)
    }
}

const fn from_one_address(name: &'static str, count: usize) -> Strangers {
    Strangers { name, count, passes: 0, spread: false }
}

const fn from_many_addresses(name: &'static str, count: usize) -> Strangers {
    Strangers { name, count, passes: 0, spread: true }
}

const fn with_passes(name: &'static str, count: usize, passes: usize) -> Strangers {
    Strangers { name, count, passes, spread: false }
}

use Circumstance::{Events, FalsePod, HugeValues, LogUnread, PublishedSubjects, RedisFrozen, WideRoute};

macro_rules! attack {
    ($name:literal, $says:literal, [$($strangers:expr),*] $(, $circumstance:expr)*) => {
        Attack { name: $name, says: $says, strangers: &[$($strangers),*], circumstances: &[$($circumstance),*] }
    };
}

/// All of them, the combination last.
pub const ATTACKS: &[Attack] = &[
    attack!("none", "nothing, for comparison", []),
    attack!("idle", "1,200 connections that say nothing", [from_one_address("idle", 1200)]),
    attack!("idle-spread", "the same, each at an address of its own", [from_many_addresses("idle", 1200)]),
    attack!("idle-probes", "1,200 connections that say nothing where orchestrators ask", [from_one_address("idle-probes", 1200)]),
    attack!(
        "pipeline",
        "1,100 connections ask for `/metrics` 55 times each and read nothing",
        [from_one_address("pipeline", 1100)]
    ),
    attack!("pipeline-spread", "the same, each at an address of its own", [from_many_addresses("pipeline", 1100)]),
    attack!("slow-headers", "1,200 requests whose header goes on by a byte a second", [from_one_address("slow-headers", 1200)]),
    attack!("slow-headers-spread", "the same, each at an address of its own", [from_many_addresses("slow-headers", 1200)]),
    attack!(
        "slow-body",
        "1,200 calls of the token API whose body goes on by a byte a second",
        [from_one_address("slow-body", 1200)]
    ),
    attack!(
        "http2-preface",
        "1,200 connections that greet in HTTP/2 and say nothing more",
        [from_one_address("http2-preface", 1200)]
    ),
    attack!(
        "many-headers",
        "16 clients send requests with 90 headers as fast as they are answered",
        [from_one_address("many-headers", 16)]
    ),
    attack!(
        "redis-frozen-storm",
        "Redis hangs, and 8,000 clients connect again and again",
        [Strangers { name: "storm", count: 8000, passes: 400, spread: true }],
        RedisFrozen
    ),
    attack!(
        "stopped-log-reader",
        "nobody reads the log, and 500 connects are refused",
        [from_one_address("refused", 500)],
        LogUnread
    ),
    attack!("refusals", "20,000 connects with a wrong key", [from_many_addresses("refused", 20_000)]),
    attack!("pongs", "eight clients send pongs without end", [with_passes("pongs", 8, 8)]),
    attack!("pings", "eight clients send pings without end", [with_passes("pings", 8, 8)]),
    attack!("pings-unread", "eight clients send the longest pings and read no pong", [with_passes("pings-unread", 8, 8)]),
    attack!("binary", "eight clients send empty binary messages without end", [with_passes("binary", 8, 8)]),
    attack!("continuations", "eight clients send empty continuations without end", [with_passes("continuations", 8, 8)]),
    attack!("connects", "60 clients open the same session in a loop", [with_passes("connects", 60, 1)]),
    attack!("connects-of-many", "60 clients open a session each in a loop", [with_passes("connects-of-many", 60, 60)]),
    attack!("select-chats", "200 clients select another chat 18 times a second", [with_passes("select-chats", 200, 200)]),
    attack!("long-request-ids", "refused connects with a request id of 30 kB", [from_one_address("long-request-ids", 16)]),
    attack!("made-up-tokens", "made-up tokens, with the key that every page has", [from_one_address("made-up-tokens", 8)]),
    attack!("key-guessing", "guesses of the key that mints tokens", [from_one_address("key-guessing", 8)]),
    attack!("publish-subjects", "`publish` to subjects of JetStream's API and to such as are no events", [], PublishedSubjects),
    attack!("grpc-pings", "1,100 connections to the port of pods that only ping", [from_one_address("grpc-pings", 1100)]),
    attack!("grpc-idle", "1,100 connections to the port of pods that say nothing", [from_one_address("grpc-idle", 1100)]),
    attack!(
        "grpc-settings-unread",
        "eight connections send settings and read no answer",
        [from_one_address("grpc-settings-unread", 8)]
    ),
    attack!("grpc-calls-unread", "64 connections make calls and read no refusal", [from_one_address("grpc-calls-unread", 64)]),
    attack!("grpc-watches", "64,000 unproved health watches", [from_one_address("grpc-watches", 64_000)]),
    attack!("grpc-resets", "four connections take each call back as soon as it is made", [from_one_address("grpc-resets", 4)]),
    attack!("grpc-continuations", "four header blocks without an end", [from_one_address("grpc-continuations", 4)]),
    attack!("grpc-metadata", "eight connections send calls with a megabyte of metadata", [from_one_address("grpc-metadata", 8)]),
    attack!("grpc-ping-flood", "four connections ping without end", [from_one_address("grpc-ping-flood", 4)]),
    attack!("grpc-settings", "four connections send settings without end", [from_one_address("grpc-settings", 4)]),
    attack!(
        "grpc-bombs",
        "four connections send 64 KiB that unpack to 64 MiB, again and again",
        [from_one_address("grpc-bombs", 4)]
    ),
    attack!("grpc-bodies", "64 connections begin calls with large bodies and end none", [from_one_address("grpc-bodies", 64)]),
    attack!(
        "unread-sockets",
        "300 sockets that do not read, and 600 events of 50 kB a second for them in turn",
        [with_passes("unread-sockets", 300, 300)],
        Events { bytes: 50_000, per_second: 600 }
    ),
    attack!(
        "unread-sockets-650",
        "650 sockets that do not read, and 900 events of 60 kB a second for them in turn",
        [with_passes("unread-sockets", 650, 650)],
        Events { bytes: 60_000, per_second: 900 }
    ),
    attack!(
        "unread-largest",
        "60 sockets that do not read, and 30 events of 900 kB a second for them in turn",
        [with_passes("unread-sockets", 60, 60)],
        Events { bytes: 900_000, per_second: 30 }
    ),
    attack!("largest-events", "30 events of 900 kB a second that nobody wants", [], Events { bytes: 900_000, per_second: 30 }),
    attack!(
        "unread-upgrades",
        "400 sockets whose clients do not read even the answer that opens them",
        [with_passes("unread-upgrades", 400, 400)]
    ),
    attack!("false-pod", "somebody who can write to Redis says that it is a pod, and on all routes", [], FalsePod),
    attack!("wide-route", "a million members in a route that somebody wrote", [], WideRoute(1_000_000)),
    attack!(
        "huge-values",
        "a lock and a pod record of 100 MB that somebody wrote, and the session is opened in a loop",
        [with_passes("storm", 8, 8)],
        HugeValues(100_000_000)
    ),
    attack!(
        "all",
        "at once: idle and pipelining connections, a log that nobody reads and refusals, pongs, \
         one session in a loop, connections and watches at the port of pods",
        [
            from_one_address("idle", 1200),
            from_one_address("pipeline", 1100),
            from_one_address("refused", 500),
            with_passes("pongs", 8, 8),
            with_passes("connects", 60, 1),
            from_one_address("grpc-pings", 1100),
            from_one_address("grpc-watches", 20_000)
        ],
        LogUnread
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strangers::perform;

    #[test]
    fn every_attack_has_a_name_of_its_own_and_strangers_that_know_what_to_do() {
        for attack in ATTACKS {
            assert_eq!(ATTACKS.iter().filter(|other| other.name == attack.name).count(), 1, "{}", attack.name);
            for strangers in attack.strangers {
                assert!(perform::names().any(|name| name == strangers.name), "{}", strangers.name);
            }
        }
    }
}
