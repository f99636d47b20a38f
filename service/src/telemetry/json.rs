//! Log lines as JSON, flat: what every line has, then the fields of the event and of the spans around it, all on one level.

use std::{fmt, time::Duration};

use opentelemetry::trace::TraceContextExt as _;
use serde::ser::{SerializeMap as _, Serializer as _};
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormattedFields,
        format::{JsonFields, Writer},
    },
    registry::LookupSpan,
};

use super::spans::TARGET;

/// What every line has; a field of such a name is left out, or it could pass for it.
const RESERVED: [&str; 6] = ["timestamp", "level", "target", "span", "trace_id", "span_id"];

/// Writes `{"timestamp","level","message","target","span","trace_id","span_id","…":…}`, the ids where a span around is traced. A field of an inner span hides an outer one's of the same name, and the
/// event's hides both.
#[derive(Debug)]
pub(super) struct JsonLines;

impl<S> FormatEvent<S, JsonFields> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(&self, context: &FmtContext<'_, S, JsonFields>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields(Map::new());
        let mut span = None;
        for around in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            span = Some(around.name());
            if let Some(formatted) = around.extensions().get::<FormattedFields<JsonFields>>()
                && let Ok(more) = serde_json::from_str::<Map<String, Value>>(formatted)
            {
                fields.0.extend(more);
            }
        }
        event.record(&mut fields);
        let target = fields.take_log_target().unwrap_or_else(|| event.metadata().target().to_owned());
        let trace = trace_ids(context);
        let line = write_line(event.metadata().level().as_str(), &target, span, trace, fields.0).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

/// Ids of the innermost traced span around the event, in hexadecimal as tools show them.
fn trace_ids<S>(context: &FmtContext<'_, S, JsonFields>) -> Option<(String, String)>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let mut traced = context.event_scope()?.filter(|span| span.metadata().target() == TARGET);
    let id = traced.next()?.id();
    tracing::dispatcher::get_default(|dispatch| {
        let traced = tracing_opentelemetry::get_otel_context(&id, dispatch)?;
        let span = traced.span();
        let span = span.span_context();
        span.is_valid().then(|| (span.trace_id().to_string(), span.span_id().to_string()))
    })
}

fn write_line(
    level: &str,
    target: &str,
    span: Option<&str>,
    trace: Option<(String, String)>,
    mut fields: Map<String, Value>,
) -> Result<String, Box<dyn std::error::Error>> {
    let message = fields.remove("message").unwrap_or_else(|| Value::from(""));
    let mut line = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::new(&mut line);
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("timestamp", &timestamp(crate::clock::now()))?;
    map.serialize_entry("level", level)?;
    map.serialize_entry("message", &message)?;
    map.serialize_entry("target", target)?;
    if let Some(span) = span {
        map.serialize_entry("span", span)?;
    }
    if let Some((trace_id, span_id)) = trace {
        map.serialize_entry("trace_id", &trace_id)?;
        map.serialize_entry("span_id", &span_id)?;
    }
    for (name, value) in fields.iter().filter(|(name, _)| !RESERVED.contains(&name.as_str())) {
        map.serialize_entry(name, value)?;
    }
    map.end()?;
    Ok(String::from_utf8(line)?)
}

/// RFC 3339 in UTC, to the microsecond.
fn timestamp(since_epoch: Duration) -> String {
    let micros = i128::try_from(since_epoch.as_micros()).unwrap_or_default();
    let at = OffsetDateTime::from_unix_timestamp_nanos(micros * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(&Rfc3339).unwrap_or_default()
}

struct Fields(Map<String, Value>);

impl Fields {
    /// Events of the `log` crate have their origin in fields: the target is lifted out of them, the rest is noise.
    fn take_log_target(&mut self) -> Option<String> {
        let Some(Value::String(target)) = self.0.remove("log.target") else { return None };
        for place in ["log.module_path", "log.file", "log.line"] {
            self.0.remove(place);
        }
        Some(target)
    }

    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_rfc_3339_in_microseconds() {
        assert_eq!(timestamp(Duration::new(1_700_000_000, 123_456_789)), "2023-11-14T22:13:20.123456Z");
    }
}
