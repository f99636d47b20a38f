//! What publishers and peers send of their traces, for `service/fuzz`.

use opentelemetry::trace::TraceContextExt as _;

use super::context::remote_context;

/// Trace id, span id and flags of a `traceparent`; none if it is not valid.
#[must_use]
pub fn traceparent(text: &str) -> Option<([u8; 16], [u8; 8], u8)> {
    let context = remote_context(text)?;
    let span = context.span();
    let span = span.span_context();
    Some((span.trace_id().to_bytes(), span.span_id().to_bytes(), span.trace_flags().to_u8()))
}
