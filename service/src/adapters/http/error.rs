//! What a request is answered with when it fails: one shape, whatever failed.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use daisi_ws_domain::{close::ErrorCode, frame::ErrorBody};

use crate::application::{
    admission::{
        connect::{ConnectError, Unavailable},
        throttle::TooOften,
    },
    auth::{authenticator::AuthError, mint::MintError},
};

/// An answer of `{"code","message","details"?}`.
#[derive(Debug)]
pub(super) struct HttpError {
    status: StatusCode,
    body: ErrorBody,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What of the store was missing, for the log alone.
    unavailable: Option<Unavailable>,
}

impl HttpError {
    /// An error with the status of its code.
    pub(super) fn new(body: ErrorBody) -> Self {
        let status = StatusCode::from_u16(body.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, body, headers: Vec::new(), unavailable: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorBody::new(ErrorCode::BadRequest, message))
    }

    /// HTTP's own refusals (404, 405, 426) have no code of their own: the request makes no sense, so it is `BadRequest`.
    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub(super) fn with_details(mut self, details: impl Into<String>) -> Self {
        self.body = self.body.with_details(details);
        self
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The body as it is sent.
    pub(super) fn json(&self) -> Vec<u8> {
        // A struct of texts can't fail to be JSON.
        serde_json::to_vec(&self.body).unwrap_or_default()
    }

    pub(super) fn code(&self) -> ErrorCode {
        self.body.code
    }

    pub(super) fn message(&self) -> &str {
        &self.body.message
    }

    /// What of the store was missing, if that is why.
    pub(super) fn unavailable(&self) -> Option<&Unavailable> {
        self.unavailable.as_ref()
    }

    /// Is it the service, rather than the client, that has to change something?
    pub(super) fn is_ours(&self) -> bool {
        self.status.is_server_error()
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}

impl From<AuthError> for HttpError {
    fn from(error: AuthError) -> Self {
        Self::new(error.body())
    }
}

impl From<ConnectError> for HttpError {
    fn from(error: ConnectError) -> Self {
        let refused = Self { unavailable: error.unavailable().cloned(), ..Self::new(error.body()) };
        match error.retry_after() {
            Some(wait) => refused.with_header(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait))),
            None => refused,
        }
    }
}

impl From<TooOften> for HttpError {
    fn from(TooOften { retry_after }: TooOften) -> Self {
        let body = ErrorBody::new(ErrorCode::RateLimitExceeded, "too often; wait as long as Retry-After says");
        Self::new(body).with_header(header::RETRY_AFTER, HeaderValue::from(whole_seconds(retry_after)))
    }
}

impl From<MintError> for HttpError {
    fn from(error: MintError) -> Self {
        let code = match error {
            MintError::Id(_) | MintError::Lifetime { .. } | MintError::Claims(_) => ErrorCode::BadRequest,
            MintError::Seal(_) => ErrorCode::InternalServerError,
        };
        Self::new(ErrorBody::new(code, error.to_string()))
    }
}

/// Rounded up, and at least 1: `Retry-After: 0` would ask for a storm.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::StoreError;

    #[test]
    fn retry_after_is_never_zero() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1001)), 2);
    }

    #[test]
    fn every_code_has_its_status() {
        for (code, status) in [
            (ErrorCode::InvalidAPIKey, 401),
            (ErrorCode::InvalidToken, 403),
            (ErrorCode::SessionConflict, 409),
            (ErrorCode::RateLimitExceeded, 429),
            (ErrorCode::BadRequest, 400),
            (ErrorCode::SubscriptionFailure, 500),
            (ErrorCode::InternalServerError, 500),
            (ErrorCode::ServiceUnavailable, 503),
        ] {
            assert_eq!(HttpError::new(ErrorBody::new(code, "x")).into_response().status().as_u16(), status);
        }
    }

    #[test]
    fn only_a_refusal_that_time_can_mend_says_when_to_come_back() {
        for (error, retry) in [
            (ConnectError::Full, true),
            (ConnectError::Draining, true),
            (ConnectError::Busy, true),
            (StoreError::Stopped.into(), true),
            (ConnectError::RateLimited, true),
            (ConnectError::Replaced, false),
            (ConnectError::TokenExpired, false),
            (ConnectError::Internal, false),
        ] {
            let response = HttpError::from(error).into_response();
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), retry);
        }
    }
}
