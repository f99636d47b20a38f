//! Logs, traces and what carries a trace from pod to pod.
//!
//! Logs go to standard error, one line an event, so that a command's output stays clean. Traces go to an OTLP collector if one is configured; a
//! collector that is away costs traces and nothing else.

mod context;
mod json;
pub mod spans;
mod traces;

use std::{backtrace::Backtrace, io::IsTerminal as _, sync::Once};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::Targets,
    fmt::{MakeWriter, format::JsonFields},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

pub use context::{current_traceparent, outgoing_traceparent, remote_context, set_parent};

use crate::{
    config::{self, ConfigWatch, LogFormat},
    lifecycle::Tasks,
};

/// The service's name in traces.
const SERVICE: &str = "daisi-ws-service";

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
}

/// A text is no filter of logs.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A bare word that names no level: as a target it would silence everything else.
    #[error("{0:?} is none of trace, debug, info, warn, error and off")]
    Level(String),
    /// Not in the syntax of filters.
    #[error(transparent)]
    Syntax(#[from] tracing_subscriber::filter::ParseError),
}

/// Reads a filter of logs, as in `info,daisi_ws_service=debug`.
///
/// # Errors
/// When a part is neither a level nor in the form `target=level`.
pub fn filter(text: &str) -> Result<EnvFilter, FilterError> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    if let Some(word) = parts.iter().find(|part| !part.contains(['=', '[']) && !is_level(part)) {
        return Err(FilterError::Level((*word).to_owned()));
    }
    Ok(EnvFilter::try_new(parts.join(","))?)
}

/// Changes the level of logs while they are written. Clones change the same.
#[derive(Debug, Clone)]
pub struct LevelHandle {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LevelHandle {
    /// Puts another filter in force; events under way may still go by the old one.
    ///
    /// # Errors
    /// When the text is no filter. The old one stays.
    pub fn set(&self, level: &str) -> Result<(), FilterError> {
        let new = filter(level)?;
        // It fails only when the subscriber is gone, and then nobody logs.
        let _ = self.filter.reload(new);
        Ok(())
    }

    /// Follows the configuration's `telemetry.log_level` until the drain begins.
    pub fn follow(&self, config: &ConfigWatch, tasks: &Tasks) {
        let (this, mut snapshots, soft) = (self.clone(), config.subscribe(), tasks.shutdown().soft.clone());
        let mut level = snapshots.borrow_and_update().telemetry.log_level.clone();
        tasks.spawn("log-level", async move {
            while let Some(Ok(())) = soft.run_until_cancelled(snapshots.changed()).await {
                let new = snapshots.borrow_and_update().telemetry.log_level.clone();
                if new != level && this.set(&new).is_ok() {
                    level = new;
                }
            }
        });
    }
}

/// Logs and traces that are set up. Dropping it flushes the traces, in a few seconds at most.
///
/// Drop it outside of asynchronous code, while the runtime that it was made in still lives: the flush blocks, and the exporter's connection
/// runs there.
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
            tracing::warn!(%error, "the last traces were not exported");
        }
    }
}

/// Sets up logs, traces and the logging of panics for the whole process. `instance` names this pod in traces.
///
/// In a process that has this already (tests), the first set-up stays and this one does nothing. With an OTLP endpoint, call it in a runtime.
///
/// # Errors
/// When the filter or the endpoint can't be used. Nothing is set up then.
pub fn init(config: &config::Telemetry, instance: &str) -> Result<Telemetry, TelemetryError> {
    let on_terminal = std::io::stderr().is_terminal();
    let (lines, level) = log_lines(config, on_terminal, std::io::stderr)?;
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

fn log_lines<W>(config: &config::Telemetry, on_terminal: bool, writer: W) -> Result<(BoxedLayer, LevelHandle), FilterError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(&config.log_level)?);
    let as_text = match config.log_format {
        LogFormat::Auto => on_terminal,
        LogFormat::Json => false,
        LogFormat::Text => true,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines: BoxedLayer = if as_text {
        lines.with_ansi(on_terminal).with_filter(filter).boxed()
    } else {
        lines.with_ansi(false).fmt_fields(JsonFields::new()).event_format(json::JsonLines).with_filter(filter).boxed()
    };
    Ok((lines, LevelHandle { filter: handle }))
}

fn traced_spans(traces: &SdkTracerProvider) -> BoxedLayer {
    // What is off here costs time at every span and tells nothing that logs don't.
    tracing_opentelemetry::layer()
        .with_tracer(traces.tracer(SERVICE))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_filter(Targets::new().with_target(spans::TARGET, LevelFilter::INFO))
        .boxed()
}

/// Makes every panic one error line with its message, place and stack. The panic itself goes on as it would.
fn log_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(log_panic)));
}

fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let stack = Backtrace::force_capture();
    if !tracing::dispatcher::has_been_set() {
        eprintln!("a thread panicked at {location}: {message}\n{stack}");
        return;
    }
    tracing::error!(
        panic.message = message,
        panic.location = location,
        panic.stack = %stack,
        thread.name = std::thread::current().name().unwrap_or_default(),
        "a thread panicked"
    );
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

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
    fn logged(level: &str, format: LogFormat, work: impl FnOnce(&LevelHandle)) -> Lines {
        let lines = Lines::default();
        let writer = lines.clone();
        let (layer, handle) = log_lines(&config(level, format), false, move || writer.clone()).unwrap();
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
            tracing::info!(attempt = 3, wait = ?std::time::Duration::from_secs(1), "an event was \"parked\"\n");
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
