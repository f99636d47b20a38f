//! The forms of addresses, URLs and names.

/// Is the text `host:port`, with an IPv6 host in brackets, and nothing else?
pub(in super::super) fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    port.parse::<u16>().is_ok_and(|port| port > 0) && is_host_of_url(host)
}

/// Is the text the host of a URL: a name, an IPv4 address, or an IPv6 address in brackets?
fn is_host_of_url(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// Is the text a name or an address, without brackets and without a port?
pub(super) fn is_host(text: &str) -> bool {
    !text.starts_with('[') && (text.parse::<std::net::IpAddr>().is_ok() || is_host_of_url(text))
}

/// Is the text a URL of one of the schemes: host, perhaps user information and a port, and no path but `/`?
pub(super) fn is_url(text: &str, schemes: &[&str], scheme_optional: bool) -> bool {
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if schemes.contains(&scheme) => rest,
        Some(_) => return false,
        None if scheme_optional => text,
        None => return false,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    is_host_of_url(host) || is_host_and_port(host)
}

/// May a stream or consumer have this name?
pub(super) fn is_stream_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c))
}

/// May subjects start with this?
pub(super) fn is_subject_prefix(prefix: &str) -> bool {
    // The server keeps subjects that start with `$` to itself.
    !prefix.starts_with('$')
        && prefix.split('.').all(|token| {
            !token.is_empty() && !token.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port() {
        for good in ["redis:6379", "10.1.2.3:1", "[::1]:50051", "pod-1.gateway.svc.cluster.local:50051"] {
            assert!(is_host_and_port(good), "{good}");
        }
        for bad in
            ["", "redis", ":6379", "redis:", "redis:0", "redis:65536", "::1", "redis://redis:6379", "a b:1", "a@b:1", "[::1:1"]
        {
            assert!(!is_host_and_port(bad), "{bad}");
        }
    }

    #[test]
    fn urls() {
        for good in ["nats://nats:4222", "tls://nats", "nats:4222", "nats://joe:p@ss@nats:4222", "nats://[::1]:4222/"] {
            assert!(is_url(good, &["nats", "tls"], true), "{good}");
        }
        for bad in ["", "http://nats:4222", "nats://", "nats://nats:port", "nats://nats/path"] {
            assert!(!is_url(bad, &["nats", "tls"], true), "{bad}");
        }
        assert!(!is_url("collector:4317", &["http"], false) && is_url("http://collector:4317", &["http"], false));
    }

    #[test]
    fn names_and_prefixes() {
        assert!(is_stream_name("wa_stream") && !is_stream_name("wa stream") && !is_stream_name("a.b") && !is_stream_name(""));
        for good in ["wa", "websocket", "eu.wa"] {
            assert!(is_subject_prefix(good), "{good}");
        }
        for bad in ["", ".", "wa.", "wa.>", "*", "w a", "$JS"] {
            assert!(!is_subject_prefix(bad), "{bad}");
        }
    }
}
