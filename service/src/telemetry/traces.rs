//! Where traces go: in batches, from a thread of their own, to an OTLP collector that may be away.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter},
};

use super::chain::Chain;

/// The name under which traces are found.
pub(super) const SERVICE: &str = "daisi-ws-service";
/// The longest flush at a shutdown: it comes after the drain, and the orchestrator's patience is nearly used up by then.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest export of one batch. Shorter than the flush, which may have to wait for one that has begun.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(2);
/// Spans that wait for export, about a kilobyte each; what comes on top is dropped, not waited for.
const QUEUE: usize = 4096;
/// Spans in one export.
const BATCH: usize = 512;

/// Call it in a runtime, which the connection will run in.
pub(super) fn provider(endpoint: &str, instance: &str) -> Result<SdkTracerProvider, ExporterBuildError> {
    let exporter =
        opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_TIMEOUT).build()?;
    let batches = BatchConfigBuilder::default().with_max_queue_size(QUEUE).with_max_export_batch_size(BATCH).build();
    let processor = BatchSpanProcessor::builder(Outspoken::new(exporter)).with_batch_config(batches).build();
    Ok(SdkTracerProvider::builder()
        .with_span_processor(processor)
        .with_sampler(sampler())
        .with_resource(resource(instance))
        .build())
}

/// By the parent's decision. Where there is none, the ratio was applied before the span was made ([`super::spans::decide`]).
pub(super) fn sampler() -> Sampler {
    Sampler::ParentBased(Box::new(Sampler::AlwaysOn))
}

fn resource(instance: &str) -> Resource {
    Resource::builder()
        .with_service_name(SERVICE)
        .with_attributes([
            KeyValue::new("service.instance.id", instance.to_owned()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .build()
}

/// Says once that exports fail, and once that they work again: the SDK by itself is silent.
#[derive(Debug)]
struct Outspoken<E> {
    exporter: E,
    failing: AtomicBool,
}

impl<E> Outspoken<E> {
    fn new(exporter: E) -> Self {
        Self { exporter, failing: AtomicBool::new(false) }
    }

    fn note(&self, result: &OTelSdkResult) {
        let was_failing = self.failing.swap(result.is_err(), Ordering::Relaxed);
        match result {
            Err(error) if !was_failing => {
                tracing::warn!(error = %Chain(error), "traces can't be exported; those meanwhile are lost");
            }
            Ok(()) if was_failing => tracing::info!("traces are exported again"),
            _ => {}
        }
    }
}

impl<E: SpanExporter> SpanExporter for Outspoken<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        self.note(&result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
