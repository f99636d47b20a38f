//! Logs, traces and what carries a trace from pod to pod.
//!
//! Logs go to standard error, one line an event, so that a command's output stays clean; a thread of its own writes them, and
//! nobody else waits for anyone who reads them. Traces go to an OTLP collector if one is configured; a collector that is away
//! costs traces and nothing else.

pub(crate) mod audit;
mod chain;
mod context;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod json;
mod levels;
mod line;
mod panics;
mod queue;
mod sampling;
pub mod spans;
mod traces;
mod writer;

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{Arc, OnceLock},
    time::Duration,
};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer, Registry,
    filter::{FilterExt as _, Targets},
    fmt::{MakeWriter, format::JsonFields},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

pub use chain::Chain;
use levels::NoPayloads;
pub use levels::filter;
pub(crate) use levels::{FilterError, LevelHandle};
use line::Format;
pub(crate) use line::SESSION_LINE;
pub(crate) use panics::log_panics;
use queue::Class;
use sampling::Sampled;
use writer::LineWriter;

use crate::config::{self, LogFormat};

/// How long the end of the process waits for anyone who reads the last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `telemetry.log_level` is no filter.
    #[error("telemetry.log_level is no filter: {0}")]
    Filter(#[from] FilterError),
    /// `telemetry.otlp_endpoint` can't be used.
    #[error("telemetry.otlp_endpoint can't be used: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// There is no thread to write the logs.
    #[error("the logs can't be written: {0}")]
    Writer(#[source] io::Error),
}

/// Logs and traces that are set up. Dropping it flushes the traces, in a few seconds at most.
///
/// Drop it outside of asynchronous code, while the runtime that it was made in still lives: the flush blocks, and the exporter's
/// connection runs there.
#[derive(Debug)]
pub struct Telemetry {
    level: LevelHandle,
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// For changing the level later.
    #[must_use]
    pub fn level(&self) -> LevelHandle {
        self.level.clone()
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = &self.traces
            && let Err(error) = traces.shutdown_with_timeout(traces::FLUSH_TIMEOUT)
        {
            tracing::warn!(error = %Chain(&error), "the last traces were not exported");
        }
    }
}

/// Sets up logs, traces and the logging of panics for the whole process. `instance` names this pod in traces.
///
/// In a process that has this already (tests), the first set-up stays and this one does nothing. With an OTLP endpoint, call it
/// in a runtime.
///
/// # Errors
/// When the filter or the endpoint can't be used. Nothing is set up then.
pub(crate) fn init(config: &config::Telemetry, instance: &str) -> Result<Telemetry, TelemetryError> {
    let on_terminal = io::stderr().is_terminal();
    let writer = of_process(format(config, on_terminal)).map_err(TelemetryError::Writer)?;
    let sampled = Sampled(Arc::clone(writer.sampler()));
    let (lines, level) = log_lines(config, on_terminal, writer.clone(), sampled)?;
    let mut layers: Vec<BoxedLayer> = vec![lines];
    let traces = match config.otlp_endpoint.as_str() {
        "" => None,
        endpoint => Some(traces::provider(endpoint, instance)?),
    };
    if let Some(traces) = &traces {
        layers.push(traced_spans(traces));
        spans::enable(config.sample_ratio);
    }
    log_panics();
    // Somebody else's subscriber is as good.
    let _ = tracing_subscriber::registry().with(layers).try_init();
    Ok(Telemetry { level, traces })
}

/// What writes to standard error in this process, no matter who asks first.
static OF_PROCESS: OnceLock<LineWriter> = OnceLock::new();

fn of_process(format: Format) -> io::Result<LineWriter> {
    if let Some(there) = OF_PROCESS.get() {
        return Ok(there.clone());
    }
    let new = LineWriter::start(writer::standard_error(), Arc::default(), format)?;
    Ok(OF_PROCESS.get_or_init(|| new).clone())
}

/// Writes to standard error as log lines are written: it waits for nobody.
pub(crate) fn say(text: &str) {
    match of_process(Format::Text) {
        Ok(writer) => writer.put(Class::Audit, text.as_bytes()),
        // No thread is to be had, so none serves that this could hold up.
        Err(_) => drop(io::stderr().write_all(text.as_bytes())),
    }
}

/// Waits until all lines are written, for [`LAST_LINES`] at most.
pub(crate) fn flush() {
    if let Some(writer) = OF_PROCESS.get() {
        writer.flush(LAST_LINES);
    }
}

/// Has all lines written when it is dropped, also by a panic. To be held by `main`: nothing may be logged after it.
#[derive(Debug)]
pub(crate) struct FlushedAtExit;

impl Drop for FlushedAtExit {
    fn drop(&mut self) {
        flush();
    }
}

/// Log lines of this process that were not written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LostLines {
    /// Dropped, as they could not be written in time.
    pub dropped: u64,
    /// Audit lines among these.
    pub dropped_audit: u64,
    /// Left out for a line with their number.
    pub suppressed: u64,
}

/// Log lines of this process that were not written so far.
#[must_use]
pub(crate) fn lost_lines() -> LostLines {
    OF_PROCESS.get().map_or_else(LostLines::default, |writer| {
        let (ordinary, dropped_audit) = writer.dropped();
        LostLines { dropped: ordinary + dropped_audit, dropped_audit, suppressed: writer.sampler().left_out() }
    })
}

fn format(config: &config::Telemetry, on_terminal: bool) -> Format {
    match config.log_format {
        LogFormat::Auto if on_terminal => Format::Text,
        LogFormat::Text => Format::Text,
        LogFormat::Auto | LogFormat::Json => Format::Json,
    }
}

fn log_lines<W>(
    config: &config::Telemetry,
    on_terminal: bool,
    writer: W,
    sampled: Sampled,
) -> Result<(BoxedLayer, LevelHandle), FilterError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(&config.log_level)?);
    let filter = filter.and(NoPayloads).and(sampled);
    // It says its own errors to standard error, and waits for anyone who reads that.
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
    let lines: BoxedLayer = match format(config, on_terminal) {
        Format::Text => lines.with_ansi(on_terminal).with_filter(filter).boxed(),
        Format::Json => {
            lines.with_ansi(false).fmt_fields(JsonFields::new()).event_format(json::JsonLines).with_filter(filter).boxed()
        }
    };
    Ok((lines, LevelHandle { filter: handle }))
}

fn traced_spans(traces: &SdkTracerProvider) -> BoxedLayer {
    // What is off here costs time at every span and tells nothing that logs don't.
    tracing_opentelemetry::layer()
        .with_tracer(traces.tracer(traces::SERVICE))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_filter(Targets::new().with_target(spans::TARGET, LevelFilter::INFO))
        .boxed()
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Mutex};

    use super::*;
    use crate::config::testing;

    /// Log lines, kept.
    #[derive(Debug, Clone, Default)]
    pub(super) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        pub(super) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }

        pub(super) fn json(&self) -> Vec<serde_json::Value> {
            self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn config(level: &str, format: LogFormat) -> config::Telemetry {
        config::Telemetry { log_level: level.to_owned(), log_format: format, ..testing::config().telemetry }
    }

    /// What is logged by `work`.
    pub(super) fn logged(level: &str, format: LogFormat, work: impl FnOnce(&LevelHandle)) -> Lines {
        let lines = Lines::default();
        let writer = lines.clone();
        let sampled = Sampled(Arc::default());
        let (layer, handle) = log_lines(&config(level, format), false, move || writer.clone(), sampled).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(vec![layer]), || work(&handle));
        lines
    }

    #[test]
    fn a_json_line_has_the_fields_of_its_event_and_of_its_spans() {
        let lines = logged("info", LogFormat::Auto, |_| {
            let outer =
                tracing::info_span!("connection", company.id = "acme", user.id = "sari", request.id = tracing::field::Empty);
            outer.record("request.id", "r-1");
            let _outer = outer.enter();
            let _inner = tracing::info_span!("dispatch", event.id = "e-1", user.id = "budi").entered();
            tracing::info!(attempt = 3, wait = ?Duration::from_secs(1), "an event was \"parked\"\n");
        });
        let [line] = &lines.json()[..] else { panic!("not one line: {}", lines.text()) };
        for (field, value) in [
            ("level", "INFO"),
            ("message", "an event was \"parked\"\n"),
            ("company.id", "acme"),
            ("request.id", "r-1"),
            ("event.id", "e-1"),
            ("user.id", "budi"),
            ("span", "dispatch"),
            ("wait", "1s"),
        ] {
            assert_eq!(line[field], value, "{field} in {line}");
        }
        assert_eq!(line["attempt"], 3);
        assert!(line["target"].as_str().unwrap().starts_with("daisi_ws_service::telemetry"));
        assert!(lines.text().starts_with("{\"timestamp\":\"20"), "{}", lines.text());
    }

    #[test]
    fn a_field_can_not_pass_for_what_every_line_has() {
        let lines = logged("info", LogFormat::Json, |_| tracing::info!(level = "ERROR", timestamp = 0, "forged"));
        let line = &lines.json()[0];
        assert_eq!((&line["level"], lines.text().matches("level").count()), (&"INFO".into(), 1));
        assert!(line["timestamp"].is_string());
    }

    #[test]
    fn the_level_changes_while_logs_are_written() {
        let lines = logged("warn", LogFormat::Json, |handle| {
            tracing::info!("before");
            handle.set("info").unwrap();
            tracing::info!("after");
            assert!(handle.set("nonsense").is_err());
            tracing::info!("still");
        });
        let messages: Vec<_> = lines.json().iter().map(|line| line["message"].clone()).collect();
        assert_eq!(messages, ["after", "still"]);
    }

    #[test]
    fn text_is_for_people() {
        let lines = logged("info", LogFormat::Text, |_| tracing::info!(pod.id = "ws-1", "ready"));
        assert!(lines.text().contains("ready pod.id=\"ws-1\""), "{}", lines.text());
    }

    #[test]
    fn filters_are_levels_and_targets() {
        for good in
            ["info", "warn,daisi_ws_service=debug", "off", "info, daisi_ws_service::adapters=trace", "info,[connection]=debug"]
        {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["", "verbose", "info,loud", "daisi_ws_service=loud"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_panic_is_one_line_with_its_place_and_stack() {
        log_panics();
        let lines = logged("info", LogFormat::Json, |_| {
            let _ = std::panic::catch_unwind(|| panic!("on purpose: {}", 7));
        });
        let [line] = &lines.json()[..] else { panic!("not one line: {}", lines.text()) };
        assert_eq!(line["panic.message"], "on purpose: 7");
        assert!(line["panic.location"].as_str().unwrap().contains("telemetry/mod.rs:"));
        assert!(line["panic.stack"].as_str().unwrap().contains("a_panic_is_one_line"), "{line}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn set_up_twice_and_without_a_collector_nothing_hangs() {
        let mut config = config("info", LogFormat::Auto);
        let first = init(&config, "ws-1").unwrap();
        // A collector that takes connections and never answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        config.otlp_endpoint = format!("http://{}", silent.local_addr().unwrap());
        config.sample_ratio = 1.0;
        let second = init(&config, "ws-1").unwrap();
        let layers = vec![traced_spans(second.traces.as_ref().unwrap())];
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layers), || {
            tracing::info_span!(target: spans::TARGET, "connect").in_scope(|| {});
        });
        let before = tokio::time::Instant::now();
        tokio::task::spawn_blocking(move || drop((first, second))).await.unwrap();
        assert!(before.elapsed() < traces::FLUSH_TIMEOUT * 2, "{:?}", before.elapsed());
    }
}
