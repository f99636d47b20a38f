//! What a client offers of permessage-deflate, and what it gets (RFC 7692, section 7.1).

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::deflate::{Inflater, MAX_WINDOW_BITS, MIN_WINDOW_BITS};

/// The extension's name.
const NAME: &str = "permessage-deflate";

/// What a compressor with the largest window takes, and a decompressor; in bytes.
const SERVER_CONTEXT: usize = 260 * 1024;
const CLIENT_CONTEXT: usize = 45 * 1024;

/// What may be agreed on with clients (RFC 7692).
#[derive(Debug, Clone, Copy, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum CompressionMode {
    /// None.
    Disabled,
    /// Each message by itself: made once for all sockets, and no memory a socket.
    NoContextTakeover,
    /// Each message with those before it in view: smaller, but made for each socket anew, with some 300 KiB a socket.
    ContextTakeover,
}

/// Compression as agreed on with one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// Window of what the client is sent, 9 to 15 bits.
    pub server_window_bits: u8,
    /// Is each message to the client compressed by itself?
    pub server_no_context_takeover: bool,
    /// Does the client compress each message by itself?
    pub client_no_context_takeover: bool,
    /// Has the client asked for a window of what it is sent? Then the answer has to name it, whatever it is.
    pub server_window_asked: bool,
}

impl Agreement {
    /// The first of a client's offers that can be accepted in this mode; `offers` are the values of `Sec-WebSocket-Extensions`,
    /// each of which may list several.
    #[must_use]
    pub fn reach<'a>(mode: CompressionMode, offers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        if mode == CompressionMode::Disabled {
            return None;
        }
        let offers = offers.into_iter().flat_map(|value| items(value, ','));
        let alone = mode == CompressionMode::NoContextTakeover;
        offers.filter_map(Offer::read).find_map(|offer| offer.accept(alone))
    }

    /// The answer's `Sec-WebSocket-Extensions` (RFC 7692, section 7), to be sent only with a 101.
    #[must_use]
    pub fn header(&self) -> String {
        let mut value = NAME.to_owned();
        if self.server_no_context_takeover {
            value.push_str("; server_no_context_takeover");
        }
        if self.client_no_context_takeover {
            value.push_str("; client_no_context_takeover");
        }
        if self.server_window_asked {
            let _ = write!(value, "; server_max_window_bits={}", self.server_window_bits);
        }
        value
    }

    /// Bytes that a socket needs for contexts of its own.
    #[must_use]
    pub fn contexts(self) -> usize {
        let server = if self.server_no_context_takeover { 0 } else { SERVER_CONTEXT };
        server + if self.client_no_context_takeover { 0 } else { CLIENT_CONTEXT }
    }

    /// What inflates the client's messages.
    #[must_use]
    pub fn inflater(agreement: Option<&Self>) -> Inflater {
        match agreement {
            None => Inflater::Off,
            Some(agreement) if agreement.client_no_context_takeover => Inflater::Shared,
            Some(_) => Inflater::Own(None),
        }
    }
}

#[derive(Default)]
struct Offer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_window_bits: Option<u8>,
    client_window_bits: bool,
}

impl Offer {
    /// One offer; none if it is another extension, or has a parameter that is unknown, twice there or without sense: such an
    /// offer is declined.
    fn read(text: &str) -> Option<Self> {
        let mut parts = items(text, ';');
        if parts.next()? != NAME {
            return None;
        }
        let mut offer = Self::default();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), Some(unquoted(value.trim())?)),
                None => (part, None),
            };
            let fresh = match (name, value) {
                ("server_no_context_takeover", None) => !std::mem::replace(&mut offer.server_no_context_takeover, true),
                ("client_no_context_takeover", None) => !std::mem::replace(&mut offer.client_no_context_takeover, true),
                ("server_max_window_bits", Some(bits)) => offer.server_window_bits.replace(window_bits(bits)?).is_none(),
                ("client_max_window_bits", value) => {
                    value.map_or(Some(0), window_bits)?;
                    !std::mem::replace(&mut offer.client_window_bits, true)
                }
                _ => false,
            };
            if !fresh {
                return None;
            }
        }
        Some(offer)
    }

    /// A client that wants no context kept, on either side, gets its way in either mode. A window of 256 bytes can't be had from
    /// zlib.
    fn accept(&self, alone: bool) -> Option<Agreement> {
        let server_window_bits = self.server_window_bits.unwrap_or(MAX_WINDOW_BITS);
        (server_window_bits >= MIN_WINDOW_BITS).then_some(Agreement {
            server_window_bits,
            server_no_context_takeover: alone || self.server_no_context_takeover,
            client_no_context_takeover: alone || self.client_no_context_takeover,
            server_window_asked: self.server_window_bits.is_some(),
        })
    }
}

/// The items of a list, without the separators that stand in quotes.
fn items(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let split = move |c: char| {
        let here = c == separator && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && quoted && !escaped;
        here
    };
    text.split(split).map(str::trim)
}

/// The value of a parameter; one in quotes has to be a token without them (RFC 6455, section 9.1), so it has nothing to unescape.
fn unquoted(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').filter(|token| !token.contains('"')),
        None => (!value.contains('"')).then_some(value),
    }
}

/// 8 to 15, without leading zeros (section 7.1.2.1).
fn window_bits(text: &str) -> Option<u8> {
    let bits = text.parse().ok()?;
    ((8..=MAX_WINDOW_BITS).contains(&bits) && !text.starts_with(['0', '+'])).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(mode: CompressionMode, offer: &str) -> Option<String> {
        Agreement::reach(mode, [offer]).map(|agreement| agreement.header())
    }

    #[test]
    fn a_disabled_server_agrees_on_nothing() {
        assert_eq!(answer(CompressionMode::Disabled, NAME), None);
    }

    #[test]
    fn the_mode_decides_whether_context_is_kept_and_a_client_may_ask_for_less() {
        let browser = "permessage-deflate; client_max_window_bits";
        let without = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        assert_eq!(answer(CompressionMode::NoContextTakeover, browser).as_deref(), Some(without));
        assert_eq!(answer(CompressionMode::ContextTakeover, browser).as_deref(), Some(NAME));
        let half = "permessage-deflate; server_no_context_takeover";
        assert_eq!(answer(CompressionMode::ContextTakeover, half).as_deref(), Some(half));
    }

    #[test]
    fn a_smaller_window_is_kept_to_and_the_smallest_is_declined() {
        let small = "permessage-deflate; server_max_window_bits=10";
        assert_eq!(answer(CompressionMode::ContextTakeover, small).as_deref(), Some(small));
        let quoted = "permessage-deflate; server_max_window_bits=\"10\"";
        assert_eq!(answer(CompressionMode::ContextTakeover, quoted).as_deref(), Some(small));
        assert_eq!(answer(CompressionMode::ContextTakeover, "permessage-deflate; server_max_window_bits=8"), None);
    }

    #[test]
    fn the_rfcs_rules_hold_one_by_one() {
        const BARE: Option<&str> = Some("permessage-deflate");
        for (section, offer, expected) in [
            ("7692 5.1: no parameter", "permessage-deflate", BARE),
            (
                "7692 7.1.1.1: asked for, it has to be answered",
                "permessage-deflate; server_no_context_takeover",
                Some("permessage-deflate; server_no_context_takeover"),
            ),
            (
                "7692 7.1.1.2: taken up",
                "permessage-deflate; client_no_context_takeover",
                Some("permessage-deflate; client_no_context_takeover"),
            ),
            (
                "7692 7.1.2.1: the largest, too, has to be answered",
                "permessage-deflate; server_max_window_bits=15",
                Some("permessage-deflate; server_max_window_bits=15"),
            ),
            (
                "7692 7.1.2.1: kept to",
                "permessage-deflate; server_max_window_bits=9",
                Some("permessage-deflate; server_max_window_bits=9"),
            ),
            ("7692 7.1.2.1: zlib has none so small", "permessage-deflate; server_max_window_bits=8", None),
            ("7692 7.1.2.1: needs a value", "permessage-deflate; server_max_window_bits", None),
            ("7692 7.1.2.2: a hint that may be passed over", "permessage-deflate; client_max_window_bits", BARE),
            ("7692 7.1.2.2: with a value", "permessage-deflate; client_max_window_bits=8", BARE),
            ("7692 7.1.2.2: out of range", "permessage-deflate; client_max_window_bits=16", None),
            ("7692 7.1.2.2: leading zero", "permessage-deflate; client_max_window_bits=09", None),
            (
                "7692 7.1: the same parameter twice",
                "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
                None,
            ),
            ("7692 7.1: a parameter that is none", "permessage-deflate; server_max_window_bit=10", None),
            (
                "6455 9.1: a value in quotes",
                "permessage-deflate; server_max_window_bits=\"15\"",
                Some("permessage-deflate; server_max_window_bits=15"),
            ),
            ("6455 9.1: half a quote", "permessage-deflate; server_max_window_bits=10\"", None),
            ("6455 9.1: two quotes", "permessage-deflate; server_max_window_bits=\"\"10\"\"", None),
            ("6455 9.1: an empty value", "permessage-deflate; server_max_window_bits=\"\"", None),
            ("6455 9.1: a list in quotes is no list", "x-other; a=\",permessage-deflate,\"", None),
            ("6455 9.1: an escaped quote ends none", "x-other; a=\"\\\",permessage-deflate,\"", None),
            (
                "6455 9.1: white space around",
                " permessage-deflate ;server_max_window_bits = 10 ",
                Some("permessage-deflate; server_max_window_bits=10"),
            ),
            (
                "7692 5.2: the next offer is the fallback",
                "permessage-deflate; server_max_window_bits=8, permessage-deflate",
                BARE,
            ),
            (
                "7692 5.2: the order is the client's",
                "permessage-deflate; server_max_window_bits=10, permessage-deflate",
                Some("permessage-deflate; server_max_window_bits=10"),
            ),
            ("6455 9.1: other extensions are passed over", "x-webkit-deflate-frame, , permessage-deflate", BARE),
        ] {
            assert_eq!(answer(CompressionMode::ContextTakeover, offer).as_deref(), expected, "{section}: {offer}");
        }
    }

    #[test]
    fn the_first_offer_that_can_be_accepted_is() {
        let offers =
            "x-webkit-deflate-frame, permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=12";
        let expected = "permessage-deflate; server_max_window_bits=12";
        assert_eq!(answer(CompressionMode::ContextTakeover, offers).as_deref(), Some(expected));
    }

    #[test]
    fn an_offer_that_makes_no_sense_is_declined() {
        for bad in [
            "permessage-deflate; unknown",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; client_max_window_bits=x",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate;",
        ] {
            assert_eq!(answer(CompressionMode::NoContextTakeover, bad), None, "{bad}");
        }
    }
}
