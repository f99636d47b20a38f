//! What a client offers of permessage-deflate, and what it gets (RFC 7692, section 7.1).

use std::fmt::Write as _;

use super::deflate::{Inflater, MAX_WINDOW_BITS, MIN_WINDOW_BITS};
use crate::config::CompressionMode;

/// The extension's name.
const NAME: &str = "permessage-deflate";

/// Compression as agreed on with one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// Window of what the client is sent, 9 to 15 bits.
    pub server_window_bits: u8,
    /// Is each message to the client compressed by itself?
    pub server_alone: bool,
    /// Does the client compress each message by itself?
    pub client_alone: bool,
}

impl Agreement {
    /// The first of a client's offers that can be accepted in this mode; `offers` are the values of `Sec-WebSocket-Extensions`, each of which may
    /// list several.
    #[must_use]
    pub fn reach<'a>(mode: CompressionMode, offers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        if mode == CompressionMode::Disabled {
            return None;
        }
        let offers = offers.into_iter().flat_map(|value| value.split(','));
        let alone = mode == CompressionMode::NoContextTakeover;
        offers.filter_map(Offer::read).find_map(|offer| offer.accept(alone))
    }

    /// The answer's `Sec-WebSocket-Extensions`.
    #[must_use]
    pub fn header(&self) -> String {
        let mut value = NAME.to_owned();
        if self.server_alone {
            value.push_str("; server_no_context_takeover");
        }
        if self.client_alone {
            value.push_str("; client_no_context_takeover");
        }
        if self.server_window_bits < MAX_WINDOW_BITS {
            let _ = write!(value, "; server_max_window_bits={}", self.server_window_bits);
        }
        value
    }

    /// What inflates the client's messages.
    #[must_use]
    pub fn inflater(agreement: Option<&Self>) -> Inflater {
        match agreement {
            None => Inflater::Off,
            Some(agreement) if agreement.client_alone => Inflater::Shared,
            Some(_) => Inflater::Own(None),
        }
    }
}

#[derive(Default)]
struct Offer {
    server_alone: bool,
    client_alone: bool,
    server_window_bits: Option<u8>,
    client_window_bits: bool,
}

impl Offer {
    /// One offer; none if it is another extension, or has a parameter that is unknown, twice there or without sense: such an offer is declined.
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        if parts.next()? != NAME {
            return None;
        }
        let mut offer = Self::default();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
                None => (part, None),
            };
            let fresh = match (name, value) {
                ("server_no_context_takeover", None) => !std::mem::replace(&mut offer.server_alone, true),
                ("client_no_context_takeover", None) => !std::mem::replace(&mut offer.client_alone, true),
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

    /// A client that wants no context kept, on either side, gets its way in either mode. A window of 256 bytes can't be had from zlib.
    fn accept(&self, alone: bool) -> Option<Agreement> {
        let server_window_bits = self.server_window_bits.unwrap_or(MAX_WINDOW_BITS);
        (server_window_bits >= MIN_WINDOW_BITS).then_some(Agreement {
            server_window_bits,
            server_alone: alone || self.server_alone,
            client_alone: alone || self.client_alone,
        })
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
