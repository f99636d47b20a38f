//! A `traceparent` (W3C Trace Context, section 3.2).

use daisi_ws_service::telemetry::fuzzing::traceparent;

use crate::input::text;

/// The fields of version 0, by the specification alone.
fn specified(text: &str) -> Option<(&str, &str, u8)> {
    let parts: Vec<_> = text.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { return None };
    let hex = |text: &str, length| text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_some = |text: &str| text.bytes().any(|byte| byte != b'0');
    let good = version == "00" && hex(trace, 32) && hex(span, 16) && hex(flags, 2) && is_some(trace) && is_some(span);
    good.then(|| Some((trace, span, u8::from_str_radix(flags, 16).ok()?))).flatten()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(in super::super) fn check(input: &[u8]) {
    let text = text(input);
    let read = traceparent(&text);
    if let Some((trace, span, flags)) = specified(&text) {
        let (read_trace, read_span, read_flags) = read.unwrap_or_else(|| crate::fail("a good one is passed over"));
        assert_eq!((&*hex(&read_trace), &*hex(&read_span)), (trace, span));
        assert_eq!(read_flags & 1, flags & 1, "the sender's decision");
    }
    if let Some((trace, span, _)) = read {
        assert!(text.len() <= 128 && trace != [0; 16] && span != [0; 8]);
        assert!(text.to_ascii_lowercase().contains(&hex(&trace)) && text.to_ascii_lowercase().contains(&hex(&span)), "{text:?}");
    }
}
