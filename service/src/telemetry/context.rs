//! The W3C `traceparent`, between a text and a span.

use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::TraceContextExt as _,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

const HEADER: &str = "traceparent";
/// A longer text is none: version 0 has 55 bytes, and later ones may add little.
const MAX_BYTES: usize = 128;
/// Lengths of version, trace id, span id and flags.
const FIELDS: [usize; 4] = [2, 32, 16, 2];

struct Text<'a>(&'a str);

impl Extractor for Text<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == HEADER).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![HEADER]
    }
}

#[derive(Default)]
struct Written(Option<String>);

impl Injector for Written {
    fn set(&mut self, key: &str, value: String) {
        if key == HEADER {
            self.0 = Some(value);
        }
    }
}

/// Reads a `traceparent`; `None` if it is not valid.
#[must_use]
pub(crate) fn remote_context(traceparent: &str) -> Option<Context> {
    if traceparent.len() > MAX_BYTES || !is_shaped(traceparent) {
        return None;
    }
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Text(traceparent));
    context.span().span_context().is_valid().then_some(context)
}

/// Are version, ids and flags hexadecimal digits, as many as they have to be (W3C Trace Context, section 3.2)? The propagator takes
/// fewer and fills them up, and takes a sign for a digit.
fn is_shaped(traceparent: &str) -> bool {
    let mut parts = traceparent.split('-').map(str::as_bytes);
    FIELDS.iter().all(|field| parts.next().is_some_and(|part| part.len() == *field && part.iter().all(u8::is_ascii_hexdigit)))
}

/// Makes the span a child of the sender's. Does nothing without a valid text, without tracing, or once the span was entered or
/// had children: call it right after making the span.
pub(crate) fn set_parent(span: &Span, traceparent: Option<&str>) {
    if let Some(context) = traceparent.and_then(remote_context) {
        let _ = span.set_parent(context);
    }
}

/// The `traceparent` of the current span, for who is called next; `None` without tracing.
#[must_use]
pub(crate) fn current_traceparent() -> Option<String> {
    let mut written = Written::default();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut written);
    written.0
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::telemetry::{spans, traced_spans, traces::sampler};

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const NOT_SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn traced(work: impl FnOnce()) {
        let provider = SdkTracerProvider::builder().with_sampler(sampler()).build();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(vec![traced_spans(&provider)]), work);
    }

    fn sent_on(received: Option<&str>) -> String {
        let span = tracing::info_span!(target: spans::TARGET, "forward");
        set_parent(&span, received);
        span.in_scope(|| current_traceparent().unwrap())
    }

    #[test]
    fn a_trace_goes_on_under_a_new_span() {
        traced(|| {
            let out = sent_on(Some(SAMPLED));
            assert!(out.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && out.ends_with("-01"), "{out}");
            assert_ne!(out, SAMPLED);
        });
    }

    #[test]
    fn the_senders_decision_is_obeyed() {
        traced(|| assert!(sent_on(Some(NOT_SAMPLED)).ends_with("-00")));
        traced(|| assert!(sent_on(None).ends_with("-01")));
    }

    #[test]
    fn a_bad_text_begins_a_trace_of_its_own() {
        traced(|| {
            let odd = [
                "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-+0f067aa0ba902b7-01",
            ];
            let bad = ["", "nonsense", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", &"0".repeat(1000)];
            for bad in bad.into_iter().chain(odd).chain(["00-1-1-01"]) {
                assert!(!sent_on(Some(bad)).contains("4bf92f3577b34da6a3ce929d0e0e4736"));
                assert!(remote_context(bad).is_none(), "{bad}");
            }
        });
    }

    #[test]
    fn without_tracing_a_span_has_no_text_to_send_on() {
        let span = tracing::info_span!(target: spans::TARGET, "forward");
        set_parent(&span, Some(SAMPLED));
        assert_eq!(span.in_scope(current_traceparent), None);
    }
}
