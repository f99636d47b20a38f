//! Log lines as JSON, flat: what every line has, then the fields of the event and of the spans around it, all on one level.

use std::{borrow::Cow, fmt, time::Duration};

use opentelemetry::trace::TraceContextExt as _;
use serde::{
    Deserialize, Serialize,
    de::{self, Deserializer},
};
use serde_json::{to_string, value::RawValue};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::{
    Event, Level, Subscriber,
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

/// Writes `{"timestamp","level","message","target","span","trace_id","span_id","…":…}`, the ids where a span around is traced. A
/// field of an inner span hides an outer one's of the same name, and the event's hides both.
#[derive(Debug)]
pub(super) struct JsonLines;

impl<S> FormatEvent<S, JsonFields> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(&self, context: &FmtContext<'_, S, JsonFields>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        let mut span = None;
        for around in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            span = Some(around.name());
            if let Some(formatted) = around.extensions().get::<FormattedFields<JsonFields>>()
                && let Ok(Object(more)) = serde_json::from_str(formatted)
            {
                more.into_iter().for_each(|(name, value)| fields.put(name.into_owned().into(), value.get().to_owned()));
            }
        }
        event.record(&mut fields);
        let target = fields.take_log_target();
        let target = target.as_deref().unwrap_or_else(|| event.metadata().target());
        let trace = trace_ids(context);
        let line = write_line(event.metadata().level().as_str(), target, span, trace, fields).map_err(|_| fmt::Error)?;
        writer.write_str(&line)
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
    mut fields: Fields,
) -> serde_json::Result<String> {
    let message = fields.take("message").unwrap_or_else(|| "\"\"".to_owned());
    let mut line = String::with_capacity(384);
    let mut entry = |name: &str, json: &str| {
        line.push_str(if line.is_empty() { "{\"" } else { ",\"" });
        line.push_str(name);
        line.push_str("\":");
        line.push_str(json);
    };
    entry("timestamp", &to_string(&timestamp(crate::runtime::clock::now()))?);
    entry("level", &to_string(level)?);
    entry("message", &message);
    entry("target", &to_string(target)?);
    if let Some(span) = span {
        entry("span", &to_string(span)?);
    }
    if let Some((trace_id, span_id)) = trace {
        entry("trace_id", &to_string(&trace_id)?);
        entry("span_id", &to_string(&span_id)?);
    }
    fields.0.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    for (name, json) in fields.0.iter().filter(|(name, _)| !RESERVED.contains(&&**name)) {
        // Names are Rust paths and identifiers, in a span as in an event: nothing to escape.
        entry(name, json);
    }
    line.push_str("}\n");
    Ok(line)
}

/// A line that no event is behind. The values of `fields` are JSON.
pub(super) fn own_line(level: Level, target: &str, message: &str, fields: &[(&str, String)]) -> String {
    let mut all = Fields::default();
    all.put("message".into(), to_string(message).unwrap_or_default());
    for (name, json) in fields {
        all.put(Cow::Owned((*name).to_owned()), json.clone());
    }
    // Texts can't fail to be JSON.
    write_line(level.as_str(), target, None, None, all).unwrap_or_default()
}

/// RFC 3339 in UTC, to the microsecond.
pub(super) fn timestamp(since_epoch: Duration) -> String {
    let micros = i128::try_from(since_epoch.as_micros()).unwrap_or_default();
    let at = OffsetDateTime::from_unix_timestamp_nanos(micros * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(&Rfc3339).unwrap_or_default()
}

/// An object's members, each value as its text.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> de::Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Names and values as JSON. Few enough that a search from end to end is the fastest.
#[derive(Default)]
struct Fields(Vec<(Cow<'static, str>, String)>);

impl Fields {
    /// Events of the `log` crate have their origin in fields: the target is lifted out of them, the rest is noise.
    fn take_log_target(&mut self) -> Option<String> {
        let target = self.take("log.target")?;
        for place in ["log.module_path", "log.file", "log.line"] {
            self.take(place);
        }
        serde_json::from_str(&target).ok()
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let place = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(place).1)
    }

    fn put(&mut self, name: Cow<'static, str>, json: String) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, value)) => *value = json,
            None => self.0.push((name, json)),
        }
    }

    fn record<T: Serialize + ?Sized>(&mut self, field: &Field, value: &T) {
        if let Ok(json) = to_string(value) {
            self.put(field.name().into(), json);
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.record(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inner_field_hides_an_outer_one_and_none_passes_for_what_every_line_has() {
        let mut fields = Fields::default();
        for (name, json) in [("b", "1"), ("a", "\"x\\\"\""), ("b", "2"), ("level", "\"forged\""), ("message", "\"said\"")] {
            fields.put(name.into(), json.to_owned());
        }
        let line = write_line("INFO", "here", Some("pod"), None, fields).unwrap();
        assert!(line.ends_with("}\n"));
        let members: Object<'_> = serde_json::from_str(&line).unwrap();
        let names: Vec<&str> = members.0.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["timestamp", "level", "message", "target", "span", "a", "b"]);
        assert_eq!(members.0[6].1.get(), "2");
        assert_eq!(members.0[5].1.get(), "\"x\\\"\"");
    }

    #[test]
    fn timestamps_are_rfc_3339_in_microseconds() {
        assert_eq!(timestamp(Duration::new(1_700_000_000, 123_456_789)), "2023-11-14T22:13:20.123456Z");
    }
}
