//! Which sites' scripts may open a socket.

use axum::http::{HeaderMap, header};

/// May a request with these headers come in? An empty list lets everybody in, and so does a request without `Origin`: no browser sends
/// one, and whoever is no browser could write any.
///
/// An entry is `*`, an origin (`https://app.example.com`), or a host with or without scheme whose first label may be `*`
/// (`*.example.com`, `https://*.example.com`): any host below, at any depth, but not `example.com` itself.
pub(super) fn is_allowed(allowed: &[String], headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    allowed.is_empty() || origin.to_str().is_ok_and(|origin| allowed.iter().any(|entry| covers(entry, origin)))
}

fn covers(entry: &str, origin: &str) -> bool {
    if entry == "*" || entry.eq_ignore_ascii_case(origin) {
        return true;
    }
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    let (wanted_scheme, wanted_host) = entry.split_once("://").map_or((None, entry), |(scheme, host)| (Some(scheme), host));
    wanted_scheme.is_none_or(|wanted| wanted.eq_ignore_ascii_case(scheme)) && host_matches(wanted_host, host)
}

fn host_matches(wanted: &str, host: &str) -> bool {
    let (wanted, host) = (wanted.to_ascii_lowercase(), host.to_ascii_lowercase());
    match wanted.strip_prefix('*') {
        Some(suffix) => suffix.starts_with('.') && host.len() > suffix.len() && host.ends_with(&suffix),
        None => wanted == host,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn allows(entry: &str, origin: &'static str) -> bool {
        let headers = [(header::ORIGIN, HeaderValue::from_static(origin))].into_iter().collect();
        is_allowed(&[entry.to_owned()], &headers)
    }

    #[test]
    fn an_entry_lets_in_what_it_names_and_nothing_beside() {
        for (entry, origin, allowed) in [
            ("*", "https://anything.example", true),
            ("https://app.example.com", "https://app.example.com", true),
            ("https://app.example.com", "HTTPS://APP.example.com", true),
            ("https://app.example.com", "http://app.example.com", false),
            ("https://app.example.com", "https://app.example.com:8443", false),
            ("https://app.example.com", "https://app.example.com.evil.test", false),
            ("app.example.com", "http://app.example.com", true),
            ("*.example.com", "https://app.example.com", true),
            ("*.example.com", "https://a.b.example.com", true),
            ("*.example.com", "https://example.com", false),
            ("*.example.com", "https://evilexample.com", false),
            ("*.example.com", "https://app.example.com.evil.test", false),
            ("*.example.com", "null", false),
            ("https://*.example.com", "http://app.example.com", false),
            ("https://*.example.com", "https://app.example.com", true),
            ("*example.com", "https://evilexample.com", false),
            ("", "https://app.example.com", false),
        ] {
            assert_eq!(allows(entry, origin), allowed, "{entry} {origin}");
        }
    }

    #[test]
    fn no_list_or_no_origin_means_no_check() {
        let headers: HeaderMap = [(header::ORIGIN, HeaderValue::from_static("https://x"))].into_iter().collect();
        assert!(is_allowed(&[], &headers));
        assert!(is_allowed(&["https://y".into()], &HeaderMap::new()));
    }
}
