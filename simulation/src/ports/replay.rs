//! The stream again: reads that take longer, fail, or are not answered.

use std::sync::Arc;

use async_trait::async_trait;
use daisi_ws_service::ports::{ReadRequest, Replay, ReplayError, SpanRequest, StreamBounds, Stretch};

use super::{Broke, fate::Port};

pub(super) struct ReplayPort {
    inner: Arc<dyn Replay>,
    port: Arc<Port>,
}

impl ReplayPort {
    pub(super) fn new(inner: Arc<dyn Replay>, port: Arc<Port>) -> Self {
        Self { inner, port }
    }

    async fn call<T>(&self, what: String, call: impl Future<Output = Result<T, ReplayError>>) -> Result<T, ReplayError> {
        let fate = self.port.next();
        fate.arrive().await;
        let outcome = if fate.refused { Err(ReplayError::unreachable(Broke)) } else { call.await };
        self.port.note(format_args!("{what}: {:?}", outcome.as_ref().map(drop).map_err(ToString::to_string)));
        fate.come_back().await;
        if fate.unanswered { Err(ReplayError::unreachable(Broke)) } else { outcome }
    }
}

#[async_trait]
impl Replay for ReplayPort {
    async fn bounds(&self) -> Result<StreamBounds, ReplayError> {
        self.call("asks how far the stream goes".to_owned(), self.inner.bounds()).await
    }

    async fn read(&self, request: &ReadRequest) -> Result<Stretch, ReplayError> {
        let what = format!("reads {:?} after {} up to {}", request.route, request.after, request.upto);
        self.call(what, self.inner.read(request)).await
    }

    async fn read_all(&self, request: &SpanRequest) -> Result<Stretch, ReplayError> {
        let what = format!("reads all after {} up to {}", request.after, request.upto);
        self.call(what, self.inner.read_all(request)).await
    }
}
