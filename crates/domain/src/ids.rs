//! Ids as newtypes, each with the rule that keeps it from forging a key, a lock value or a subject.
//!
//! The rules are those of the wire contract: an id is 1–128 bytes (a chat id 1–256) without white space or control characters;
//! what else is banned depends on where the id is put.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest id but a chat's, in bytes.
pub const MAX_ID_BYTES: usize = 128;
/// The longest chat id, in bytes.
pub const MAX_CHAT_ID_BYTES: usize = 256;

/// Why a text is no id of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// No bytes; the kind of id.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// More bytes than an id may have.
    #[error("{kind} is longer than {limit} bytes")]
    TooLong {
        /// The kind of id that the text should be.
        kind: &'static str,
        /// The most bytes it may have.
        limit: usize,
    },
    /// White space, a control character, or one that would change the meaning of a key or subject.
    #[error("{kind} has the character {found:?}, which is not allowed there")]
    Forbidden {
        /// The kind of id that the text should be.
        kind: &'static str,
        /// The first character at fault.
        found: char,
    },
}

fn check(kind: &'static str, text: &str, limit: usize, banned: &[char]) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty(kind));
    }
    if text.len() > limit {
        return Err(IdError::TooLong { kind, limit });
    }
    let is_banned = |c: char| banned.contains(&c);
    // Nearly every id is plain, and ids are read with every event.
    if text.bytes().all(|byte| byte.is_ascii_graphic() && !is_banned(byte.into())) {
        return Ok(());
    }
    match text.chars().find(|c| c.is_whitespace() || c.is_control() || is_banned(*c)) {
        Some(found) => Err(IdError::Forbidden { kind, found }),
        None => Ok(()),
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $limit:expr, $banned:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses the text; the error says which rule it breaks.
            ///
            /// # Errors
            /// When the text is empty, too long, or has a character that this kind of id may not have.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check($kind, text, $limit, $banned)?;
                Ok(Self(text.into()))
            }

            /// The id as it stands in keys, subjects and logs.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// A tenant. Part of keys, channels and subjects, so `:` and the characters of a subject are banned.
    CompanyId, "company id", MAX_ID_BYTES, &[':', '.', '*', '>', '/']
);
id!(
    /// A desk of a tenant. Banned characters as for a company.
    AgentId, "agent id", MAX_ID_BYTES, &[':', '.', '*', '>', '/']
);
id!(
    /// An operator of an agent; may look like an e-mail address. Last part of a session key, so only `:` is banned.
    UserId, "user id", MAX_ID_BYTES, &[':']
);
id!(
    /// An administrator; may look like an e-mail address.
    AdminId, "admin id", MAX_ID_BYTES, &[':']
);
id!(
    /// A chat. The tail of a subject and of a key, so it may have `.` and `:` (a WhatsApp JID does) but no wildcard.
    ChatId, "chat id", MAX_CHAT_ID_BYTES, &['*', '>']
);
id!(
    /// A pod of the fleet; may look like an IP address. First part of a lock value, so `/` is banned.
    PodId, "pod id", MAX_ID_BYTES, &['/']
);
id!(
    /// One socket, unique over the fleet and over time: what makes a session's lock a fencing token.
    ConnectionId, "connection id", MAX_ID_BYTES, &['/']
);

impl ConnectionId {
    /// Makes the id of 128 random bits that the caller drew.
    #[must_use]
    pub fn from_random(bits: u128) -> Self {
        Self(format!("{bits:032x}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_forge_a_key_or_subject_are_refused() {
        for text in ["a:b", "a.b", "*", ">", "a/b", "a b", "a\u{7}b", "a\u{a0}b", ""] {
            assert!(CompanyId::parse(text).is_err(), "{text:?}");
            assert!(AgentId::parse(text).is_err(), "{text:?}");
        }
        for text in ["a:b", "", "a\nb"] {
            assert!(UserId::parse(text).is_err(), "{text:?}");
            assert!(AdminId::parse(text).is_err(), "{text:?}");
        }
        assert!(PodId::parse("pod/1").is_err());
        assert!(ChatId::parse("a*").is_err() && ChatId::parse("a>").is_err() && ChatId::parse("a b").is_err());
    }

    #[test]
    fn ids_that_people_use_are_accepted() {
        assert!(UserId::parse("sari@acme.example").is_ok());
        assert!(ChatId::parse("62811200345@s.whatsapp.net").is_ok());
        assert!(ChatId::parse("a:b.c").is_ok());
        assert!(PodId::parse("10.1.2.3:50051").is_ok());
    }

    #[test]
    fn lengths_are_counted_in_bytes() {
        assert!(CompanyId::parse(&"a".repeat(128)).is_ok());
        assert_eq!(CompanyId::parse(&"a".repeat(129)), Err(IdError::TooLong { kind: "company id", limit: 128 }));
        assert!(CompanyId::parse(&"é".repeat(65)).is_err());
        assert!(ChatId::parse(&"a".repeat(256)).is_ok() && ChatId::parse(&"a".repeat(257)).is_err());
    }
}
