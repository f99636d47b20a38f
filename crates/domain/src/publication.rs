//! What may be published: one rule for the command line, the console and every tool.
//!
//! NATS takes anything: on `$JS.API.STREAM.DELETE.wa_stream` a "published event" deletes the stream, on `wa.>` it is stored and
//! is nobody's.

use bytes::Bytes;

use crate::event::{Address, Payload, PayloadError, SubjectError};

/// Why something may not be published. Shows no payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicationError {
    /// The subject is none of an event.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// Two dots in a row, or one at the end: NATS calls such a subject invalid.
    #[error("the subject has an empty token: a dot at its end, or two in a row")]
    EmptyToken,
    /// The payload is none of an event.
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

/// An event that may be published: on a well-formed subject, one JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    subject: String,
    payload: Bytes,
}

impl Publication {
    /// Checks both. Neither is changed: what a publisher wrote is what is stored.
    ///
    /// # Errors
    /// When the subject is not `{prefix}.{company}.{agent}.(chats | messages.{chat_id} | agents)`, or the payload not one JSON
    /// object.
    pub fn parse(prefix: &str, subject: &str, payload: &Bytes) -> Result<Self, PublicationError> {
        Address::parse(prefix, subject)?;
        // Only a chat id may have dots, so only there can a token be empty.
        if subject.split('.').any(str::is_empty) {
            return Err(PublicationError::EmptyToken);
        }
        Payload::parse(payload)?;
        Ok(Self { subject: subject.to_owned(), payload: payload.clone() })
    }

    /// A subject that every pod reads as an event's.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// One JSON object, as it was given.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{AgentId, ChatId, CompanyId};

    const EVENT: &str = "{}";

    fn subject(text: &str) -> Result<Publication, PublicationError> {
        Publication::parse("wa", text, &Bytes::from_static(EVENT.as_bytes()))
    }

    #[test]
    fn events_are_published_as_they_are_written() {
        let payload = Bytes::from_static(b" {\"n\": 9007199254740993}\n");
        for text in ["wa.acme.agent-7.chats", "wa.acme.agent-7.messages.62811@s.whatsapp.net", "wa.acme.agent-7.agents"] {
            let publication = Publication::parse("wa", text, &payload).unwrap();
            assert_eq!((publication.subject(), publication.payload()), (text, &payload));
        }
        assert!(Publication::parse("my.wa", "my.wa.acme.a1.chats", &payload).is_ok());
    }

    #[test]
    fn what_is_no_event_is_never_published() {
        for text in [
            "$JS.API.STREAM.DELETE.wa_stream",
            "$JS.API.STREAM.PURGE.wa_stream",
            "$JS.ACK.wa_stream.ws_fanout.1.1.1.1.1",
            "$SYS.REQ.SERVER.PING",
            "_INBOX.abc",
            "",
            "wa",
            "wa.",
            "wa.>",
            "wa.*.*.chats",
            "wa.acme.>",
            "wa.acme.a1.messages.>",
            "wa.acme.a1.messages.*",
            "wa.acme.a1.messages.c*",
            "wa.acme.a1.messages",
            "wa.acme.a1.messages.",
            "wa.acme.a1.messages.a..b",
            "wa.acme.a1.messages.a.",
            "wa.acme.a1.messages..a",
            "wa.acme.a1.chats.more",
            "wa.acme.a1.unknown",
            "wa.acme..chats",
            "wa..a1.chats",
            "websocket.acme.a1.chats",
            "wax.acme.a1.chats",
            "wa.acme.a1.chats ",
            "wa.acme.a1.chats\r\nPUB $JS.API.STREAM.DELETE.wa_stream 0",
            "wa.acme.a1.messages.a\r\nPUB x 0",
            "wa.acme.a1.messages.a\u{a0}b",
        ] {
            assert!(subject(text).is_err(), "{text:?}");
        }
        for payload in ["", "[]", "7", "{", "{}{}", "null", "\u{feff}{}"] {
            let error = Publication::parse("wa", "wa.acme.a1.chats", &Bytes::from(payload)).unwrap_err();
            assert_eq!(error, PublicationError::Payload(PayloadError::NotAnObject), "{payload:?}");
        }
        let error = Publication::parse("wa", "wa.acme.a1.chats", &Bytes::from_static(b"\xff{}")).unwrap_err();
        assert_eq!(error, PublicationError::Payload(PayloadError::NotUtf8));
    }

    proptest! {
        /// Whatever is published reaches those whom its subject names, and nobody else listens to it.
        #[test]
        fn a_subject_that_passes_is_an_address_in_full(text in "wa\\.[a-c.*>$ é\r\n]{0,6}\\.[a-c.*> ]{0,4}\\.(chats|agents|messages\\.[a-c.*>:@ \t]{0,8})") {
            if subject(&text).is_ok() {
                prop_assert_eq!(Address::parse("wa", &text).unwrap().subject("wa"), text.clone());
                prop_assert!(!text.contains(['*', '>', '\r', '\n', ' ', '\t']));
                prop_assert!(text.split('.').all(|token| !token.is_empty()));
            }
        }

        #[test]
        fn any_text_passes_or_is_refused_without_a_panic(text in "\\PC{0,80}", payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(subject(&text).is_err());
            let _ = Publication::parse("wa", "wa.a.b.chats", &Bytes::from(payload));
        }

        #[test]
        fn every_address_of_plain_tokens_passes(company in "[a-z0-9_@-]{1,20}", agent in "[a-z0-9_@-]{1,20}", chat in "[a-z0-9@:_-]{1,20}(\\.[a-z0-9@:_-]{1,20}){0,3}") {
            let (company, agent) = (CompanyId::parse(&company).unwrap(), AgentId::parse(&agent).unwrap());
            let chat = ChatId::parse(&chat).unwrap();
            for address in [
                Address::Chats { company: company.clone(), agent: agent.clone() },
                Address::Agents { company: company.clone(), agent: agent.clone() },
                Address::Messages { company, agent, chat },
            ] {
                prop_assert!(subject(&address.subject("wa")).is_ok());
            }
        }
    }
}
