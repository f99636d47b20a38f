//! An OTLP endpoint that keeps the spans it is sent.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A span as it came.
#[derive(Debug, Clone)]
pub(crate) struct SeenSpan {
    pub(crate) pod: String,
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) nanos: u64,
}

/// The endpoint; it ends with the runtime of the test.
#[derive(Clone, Default)]
pub(crate) struct Collector {
    spans: Arc<Mutex<Vec<SeenSpan>>>,
}

impl Collector {
    /// Listens on a free port; the URL for `telemetry.otlp_endpoint` comes back too.
    #[expect(clippy::disallowed_methods, reason = "the task ends with its test")]
    pub(crate) async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = TraceServiceServer::new(collector.clone());
        let serve =
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(async move { serve.await.unwrap() });
        (collector, url)
    }

    /// What came so far.
    pub(crate) fn spans(&self) -> Vec<SeenSpan> {
        self.spans.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
            let instance =
                attributes.into_iter().find(|pair| pair.key == "service.instance.id").and_then(|pair| pair.value?.value);
            let pod = if let Some(Value::StringValue(pod)) = instance { pod } else { String::new() };
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans).map(|span| SeenSpan {
                pod: pod.clone(),
                name: span.name,
                trace: hex::encode(span.trace_id),
                id: hex::encode(span.span_id),
                parent: hex::encode(span.parent_span_id),
                nanos: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
            });
            self.spans.lock().unwrap().extend(spans);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
