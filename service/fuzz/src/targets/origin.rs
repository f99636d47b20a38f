//! A pattern of origins and an origin, with a zero byte between them.

use daisi_ws_domain::origin::{OriginPattern, is_allowed};

use crate::{
    input::{split, text},
    must,
};

pub(super) fn check(input: &[u8]) {
    let [pattern, origin] = split(input).map(text);
    assert!(is_allowed(&[], &origin), "an empty list lets everybody in");
    let Ok(parsed) = pattern.parse::<OriginPattern>() else {
        // What browsers could send as an origin, and a pattern could match, is a pattern.
        assert!(!is_allowed(&[must("null".parse(), "null")], &pattern) || pattern == "null");
        return;
    };
    assert_eq!(parsed.to_string(), pattern);
    let allows = |origin: &str| is_allowed(std::slice::from_ref(&parsed), origin);
    // Schemes and hosts have no case; `null` has.
    if !origin.eq_ignore_ascii_case("null") {
        assert_eq!(allows(&origin), allows(&origin.to_ascii_lowercase()), "case decides");
    }
    if pattern == "*" {
        assert!(allows(&origin));
    } else if allows(&origin) && pattern != "null" {
        let host = pattern.rsplit("://").next().unwrap_or_default().trim_start_matches("*.");
        let host = host.split_once(':').map_or(host, |(host, _)| if host.starts_with('[') { "[" } else { host });
        assert!(origin.to_ascii_lowercase().contains(&host.to_ascii_lowercase()) || host == "[", "{pattern} lets {origin} in");
    }
    // A pattern that is accepted can match.
    let example = match pattern.split_once("://") {
        _ if ["*", "null"].contains(&&*pattern) => pattern.to_string(),
        Some((scheme, rest)) => format!("{scheme}://{}", one_below(rest)),
        None => format!("https://{}", one_below(&pattern)),
    };
    assert!(allows(&example), "{pattern} does not match {example}");
    // And nothing beside: not a host that only ends so.
    if !["*", "null"].contains(&&*pattern) {
        assert!(!allows("null") && !allows("") && !allows("https://"), "{pattern} lets anybody in");
    }
}

fn one_below(host: &str) -> String {
    host.strip_prefix("*.").map_or_else(|| host.to_owned(), |rest| format!("below.{rest}"))
}
