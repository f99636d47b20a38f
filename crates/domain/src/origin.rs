//! Which sites' scripts may come in: the origins that browsers send, and the patterns that an operator writes.
//!
//! One parser reads both, so that a pattern that is accepted can match, and one that could match is accepted.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What a browser names as `Origin` (RFC 6454, section 6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// `null`: a page without an origin, as in a sandboxed frame or a file.
    Opaque,
    Site {
        scheme: String,
        host: Host,
        /// None: the scheme's own, which browsers leave out.
        port: Option<u16>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Name(String),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

/// Origins that may come in: `*`, `null`, `https://app.example.com`, or a host alone, which stands for every scheme. A first
/// label `*` stands for every host below, at any depth, but not for the host itself. Without a port the scheme's own is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginPattern {
    text: String,
    wanted: Wanted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Any,
    Opaque,
    Sites { scheme: Option<String>, hosts: Hosts, port: Option<u16> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    One(Host),
    /// All whose name ends so; it begins with a dot.
    Below(String),
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no origin: {reason}; write scheme://host[:port] as browsers send it, host[:port] for every scheme, \
     *.host for every host below, null, or * for any"
)]
pub struct OriginError {
    text: String,
    reason: &'static str,
}

/// May a page of this origin come in? An empty list lets everybody in.
#[must_use]
pub fn is_allowed(allowed: &[OriginPattern], origin: &str) -> bool {
    if allowed.is_empty() {
        return true;
    }
    let Ok(origin) = Origin::read(origin) else { return allowed.iter().any(|pattern| pattern.wanted == Wanted::Any) };
    allowed.iter().any(|pattern| pattern.covers(&origin))
}

impl OriginPattern {
    fn covers(&self, origin: &Origin) -> bool {
        match (&self.wanted, origin) {
            (Wanted::Any, _) | (Wanted::Opaque, Origin::Opaque) => true,
            (Wanted::Sites { scheme, hosts, port }, Origin::Site { scheme: of, host, port: at }) => {
                let same_port = match scheme {
                    Some(scheme) => scheme == of && port == at,
                    None => *port == *at || (port.is_some() && at.is_none() && *port == own_port(of)),
                };
                same_port && hosts.have(host)
            }
            _ => false,
        }
    }
}

impl Hosts {
    fn have(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::One(one), host) => one == host,
            (Self::Below(suffix), Host::Name(name)) => name.len() > suffix.len() && name.ends_with(suffix),
            (Self::Below(_), _) => false,
        }
    }
}

impl FromStr for OriginPattern {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let failed = |reason| OriginError { text: text.to_owned(), reason };
        let wanted = match text {
            "*" => Wanted::Any,
            "null" => Wanted::Opaque,
            _ => {
                let (scheme, rest) = match text.split_once("://") {
                    Some((scheme, rest)) => (Some(read_scheme(scheme).map_err(failed)?), rest),
                    None => (None, text),
                };
                let (below, rest) = rest.strip_prefix("*.").map_or((false, rest), |rest| (true, rest));
                let (host, port) = read_host_and_port(rest).map_err(failed)?;
                let hosts = match (below, host) {
                    (false, host) => Hosts::One(host),
                    (true, Host::Name(name)) => Hosts::Below(format!(".{name}")),
                    (true, _) => return Err(failed("nothing is below an address")),
                };
                let port = port.filter(|port| scheme.as_deref().and_then(own_port) != Some(*port));
                Wanted::Sites { scheme, hosts, port }
            }
        };
        Ok(Self { text: text.to_owned(), wanted })
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for OriginPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for OriginPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Origin {
    fn read(text: &str) -> Result<Self, &'static str> {
        if text == "null" {
            return Ok(Self::Opaque);
        }
        let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
        let scheme = read_scheme(scheme)?;
        let (host, port) = read_host_and_port(rest)?;
        let port = port.filter(|port| own_port(&scheme) != Some(*port));
        Ok(Self::Site { scheme, host, port })
    }
}

/// The port that browsers leave out.
fn own_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

fn read_scheme(scheme: &str) -> Result<String, &'static str> {
    let scheme = scheme.to_ascii_lowercase();
    let good = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    if good { Ok(scheme) } else { Err("its scheme is none") }
}

fn read_host_and_port(text: &str) -> Result<(Host, Option<u16>), &'static str> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or("a bracket is not closed")?;
        let host = address.parse().map(Host::V6).map_err(|_| "there is no IPv6 address in the brackets")?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(read_port(port)?))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("something stands behind the host"),
        };
    }
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    Ok((read_host(host)?, port.map(read_port).transpose()?))
}

fn read_port(port: &str) -> Result<u16, &'static str> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = if digits { port.parse().ok() } else { None };
    port.filter(|port| *port > 0).ok_or("its port is none")
}

fn read_host(host: &str) -> Result<Host, &'static str> {
    let host = host.to_ascii_lowercase();
    if let Ok(address) = host.parse() {
        return Ok(Host::V4(address));
    }
    let mut last = "";
    for label in host.strip_suffix('.').unwrap_or(&host).split('.') {
        if label.is_empty() {
            return Err("a part of its host is empty");
        }
        if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            return Err(
                "its host has a character that browsers do not send (international names are sent as xn--…, and there is no \
                path)",
            );
        }
        last = label;
    }
    // Browsers take such a host for an IPv4 address, and write it as one.
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("its host ends in a number and is no IPv4 address");
    }
    Ok(Host::Name(host))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allows(pattern: &str, origin: &str) -> bool {
        is_allowed(&[pattern.parse().unwrap()], origin)
    }

    #[test]
    fn a_pattern_lets_in_what_it_names_and_nothing_beside() {
        for (pattern, origin, allowed) in [
            ("*", "https://anything.example", true),
            ("*", "null", true),
            ("null", "null", true),
            ("null", "https://null", false),
            ("https://app.example.com", "https://app.example.com", true),
            ("https://app.example.com", "HTTPS://APP.example.com", true),
            ("HTTPS://App.Example.com", "https://app.example.com", true),
            ("https://app.example.com", "http://app.example.com", false),
            ("https://app.example.com", "https://app.example.com:8443", false),
            ("https://app.example.com:8443", "https://app.example.com:8443", true),
            ("https://app.example.com:443", "https://app.example.com", true),
            ("http://app.example.com:80", "http://app.example.com", true),
            ("https://app.example.com:80", "https://app.example.com", false),
            ("https://app.example.com", "https://app.example.com.evil.test", false),
            ("https://app.example.com", "https://app.example.com@evil.test", false),
            ("app.example.com", "http://app.example.com", true),
            ("app.example.com", "https://app.example.com", true),
            ("app.example.com", "https://app.example.com:8443", false),
            ("app.example.com:443", "https://app.example.com", true),
            ("app.example.com:443", "http://app.example.com", false),
            ("app.example.com:8443", "https://app.example.com:8443", true),
            ("capacitor://localhost", "capacitor://localhost", true),
            ("*.example.com", "https://app.example.com", true),
            ("*.example.com", "https://a.b.example.com", true),
            ("*.example.com", "https://example.com", false),
            ("*.example.com", "https://evilexample.com", false),
            ("*.example.com", "https://app.example.com.evil.test", false),
            ("*.example.com", "null", false),
            ("https://*.example.com", "http://app.example.com", false),
            ("https://*.example.com:8443", "https://app.example.com:8443", true),
            ("https://*.example.com:8443", "https://app.example.com", false),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("http://[0:0:0:0:0:0:0:1]:3000", "http://[::1]:3000", true),
            ("[2001:DB8::1]", "https://[2001:db8::1]", true),
            ("http://10.1.2.3:8080", "http://10.1.2.3:8080", true),
            ("*.example.com", "https://10.1.2.3", false),
        ] {
            assert_eq!(allows(pattern, origin), allowed, "{pattern} {origin}");
        }
    }

    #[test]
    fn what_could_never_match_is_refused_with_its_reason() {
        for bad in [
            "",
            "https://",
            "https://desk.example.com/",
            "https://desk.example.com/path",
            "desk.example.com/",
            "https://desk..example",
            ".example.com",
            "*example.com",
            "https://*",
            "*.",
            "a.*.example.com",
            "*.*.example.com",
            "*.10.1.2.3",
            "*.[::1]",
            "10.1.2",
            "https://desk:0",
            "https://desk:65536",
            "https://desk:+80",
            "https://desk:",
            "https://[::1",
            "https://::1",
            "https://[::1]x",
            "https://joe@desk",
            "1http://desk",
            "https://büro.example",
            "https://a b",
            "NULL ",
        ] {
            let error = bad.parse::<OriginPattern>().unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn an_empty_list_means_no_check() {
        assert!(is_allowed(&[], "https://x") && is_allowed(&[], "nonsense"));
        assert!(!is_allowed(&["https://y".parse().unwrap()], "nonsense"));
    }

    proptest! {
        #[test]
        fn every_pattern_that_is_accepted_matches_some_origin(text in "(https?://|capacitor://|HTTP://)?(\\*\\.)?[a-zA-Z0-9.\\[\\]:_-]{1,24}") {
            let Ok(pattern) = text.parse::<OriginPattern>() else { return Ok(()) };
            let (scheme, host) = text.split_once("://").unwrap_or(("https", &text));
            let origin = format!("{scheme}://{}", host.replace("*.", "some.")).to_ascii_lowercase();
            prop_assert!(is_allowed(&[pattern], &origin), "{} {}", text, origin);
        }

        #[test]
        fn every_origin_is_a_pattern_for_itself(origin in "https?://[a-z0-9.:\\[\\]-]{1,20}") {
            prop_assert_eq!(Origin::read(&origin).is_ok(), origin.parse::<OriginPattern>().is_ok());
            if let Ok(pattern) = origin.parse::<OriginPattern>() {
                prop_assert!(is_allowed(&[pattern], &origin));
            }
        }
    }
}
