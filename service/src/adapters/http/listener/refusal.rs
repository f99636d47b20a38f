//! What is answered where the HTTP parser takes no request: it knows a bare status at most, and the client is owed the one shape
//! of errors, with an id.

use std::fmt::Write as _;

use axum::http::StatusCode;
use bytes::Bytes;

use super::limits::{MAX_HEAD_BYTES, MAX_HEADERS};
use crate::adapters::http::{error::HttpError, request_id::RequestId};

/// The preface of HTTP/2 (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// Why no request was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed,
    TargetTooLong,
    HeadTooLarge,
    TooSlow,
    Http2,
}

impl Refusal {
    /// The refusal in an answer that the parser makes by itself; an answer of ours has a request id. `line_ended`: the request's
    /// line is all there.
    pub(crate) fn in_answer(answer: &[u8], line_ended: bool) -> Option<Self> {
        let refusal = match answer.get(..13)?.strip_prefix(b"HTTP/1.")?.get(2..)? {
            b"400 " => Self::Malformed,
            b"414 " => Self::TargetTooLong,
            b"431 " if line_ended => Self::HeadTooLarge,
            b"431 " => Self::TargetTooLong,
            _ => return None,
        };
        let marked = answer.windows(14).any(|part| part.eq_ignore_ascii_case(b"\nx-request-id:"));
        (!marked).then_some(refusal)
    }

    /// Why a connection ended without any answer, if one is due. `read` is what was read of its last request.
    pub(crate) fn of_silence(error: &hyper::Error, read: &[u8]) -> Option<Self> {
        if error.is_parse_version_h2() || read.starts_with(HTTP2_PREFACE) {
            return Some(Self::Http2);
        }
        // A connection that is idle between requests is owed nothing: a proxy would take that for the answer to its next.
        (error.is_timeout() && !read.is_empty()).then_some(Self::TooSlow)
    }

    fn error(self) -> HttpError {
        let refused =
            |status, message, details: String| HttpError::bad_request(message).with_status(status).with_details(details);
        match self {
            Self::Malformed => refused(
                StatusCode::BAD_REQUEST,
                "this is no request of HTTP/1.1",
                "this port speaks HTTP/1.1 without TLS; TLS and HTTP/2 end at a proxy in front".to_owned(),
            ),
            Self::TargetTooLong => refused(
                StatusCode::URI_TOO_LONG,
                "the request's target is too long",
                format!("a request's head may have {MAX_HEAD_BYTES} bytes; a token may also stand in the header Authorization"),
            ),
            Self::HeadTooLarge => refused(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the request's head is too large",
                format!("it may have {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers; cookies of the site count"),
            ),
            Self::TooSlow => {
                refused(StatusCode::REQUEST_TIMEOUT, "the request's head did not arrive in time", "send it as a whole".to_owned())
            }
            Self::Http2 => refused(
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                "this port does not speak HTTP/2",
                "have the proxy in front speak HTTP/1.1 to it, which WebSocket upgrades need".to_owned(),
            ),
        }
    }

    /// The whole answer, head and body, in place of the parser's, which knows the date. The connection ends behind it.
    pub(crate) fn answer(self, parsers: &[u8]) -> Bytes {
        let (id, error) = (RequestId::fresh(), self.error());
        let status = error.status();
        tracing::debug!(request.id = %id, http.status = status.as_u16(), reason = error.message(), "refused what is no request");
        let body = error.json();
        let mut head = format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
        let date = String::from_utf8_lossy(parsers);
        if let Some(date) = date.lines().find(|line| line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case("date:"))) {
            head.push_str(date);
            head.push_str("\r\n");
        }
        // Writing to a String can't fail.
        let _ = write!(
            head,
            "content-type: application/json\r\ncontent-length: {}\r\nx-request-id: {id}\r\nx-content-type-options: nosniff\r\n\
             cache-control: no-store\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let mut answer = head.into_bytes();
        answer.extend_from_slice(&body);
        answer.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_parsers_own_refusals_are_taken_for_them() {
        let parsers = |status: &str| format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        for (status, line_ended, refusal) in [
            ("400 Bad Request", true, Some(Refusal::Malformed)),
            ("414 URI Too Long", true, Some(Refusal::TargetTooLong)),
            ("431 Request Header Fields Too Large", true, Some(Refusal::HeadTooLarge)),
            ("431 Request Header Fields Too Large", false, Some(Refusal::TargetTooLong)),
            ("404 Not Found", true, None),
            ("200 OK", true, None),
        ] {
            assert_eq!(Refusal::in_answer(parsers(status).as_bytes(), line_ended), refusal, "{status}");
        }
        let ours = "HTTP/1.1 400 Bad Request\r\nX-Request-Id: abc\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(Refusal::in_answer(ours.as_bytes(), true), None);
        for body in ["", "{}", "HTTP/1.1 4", "a page that says HTTP/1.1 400 "] {
            assert_eq!(Refusal::in_answer(body.as_bytes(), true), None);
        }
    }

    #[test]
    fn the_answer_keeps_the_parsers_date_and_counts_its_body() {
        let answer = Refusal::HeadTooLarge.answer(b"HTTP/1.1 431 x\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n\r\n");
        let text = String::from_utf8(answer.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n"),
            "{head}"
        );
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
    }
}
