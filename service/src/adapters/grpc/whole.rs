//! Bodies that are read whole, to be hashed, and passed on as they came.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tonic::{Status, body::Body, codegen::http::HeaderMap};

use super::{MAX_MESSAGE_BYTES, proof::sha256};
use crate::application::fleet::key::Signature;

/// A message, its head, and nothing else.
const MAX_BODY_BYTES: usize = MAX_MESSAGE_BYTES + 1024;

/// A body in memory. Its bytes are not copied.
#[derive(Debug, Default)]
pub(super) struct Whole {
    data: Vec<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Whole {
    /// Reads a body to its end; one that is longer than any message is an error.
    pub(super) async fn read(mut body: Body) -> Result<Self, Status> {
        let (mut whole, mut bytes) = (Self::default(), 0);
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                Ok(data) => {
                    bytes += data.len();
                    if bytes > MAX_BODY_BYTES {
                        return Err(Status::resource_exhausted(format!("a message has at most {MAX_MESSAGE_BYTES} bytes")));
                    }
                    if !data.is_empty() {
                        whole.data.push(data);
                    }
                }
                Err(frame) => whole.trailers = frame.into_trailers().ok(),
            }
        }
        Ok(whole)
    }

    pub(super) fn hash(&self) -> Signature {
        sha256(self.data.iter().map(AsRef::as_ref))
    }

    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    /// The body again.
    pub(super) fn into_body(self) -> Body {
        if self.data.is_empty() && self.trailers.is_none() {
            return Body::empty();
        }
        let frames = self.data.into_iter().map(Frame::data).chain(self.trailers.map(Frame::trailers));
        Body::new(StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>))))
    }
}
