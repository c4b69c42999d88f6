//! What a sender is told: one table of answers, with bodies that never depend on the request.
//!
//! Every refusal closes the connection, so that whoever has proven nothing holds none.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, web};
use bytes::Bytes;

/// The answers that are not 2xx.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The framing is broken, or the body ended early or came too slowly.
    BrokenBody,
    /// No proof, or one that does not hold, or no such source: nobody outside can tell which.
    Unproven,
    /// No such path.
    NoSuchPath,
    /// A path that takes other methods.
    WrongMethod {
        /// The methods that it takes.
        allow: &'static str,
    },
    /// The body is over the limit.
    TooLarge,
    /// A compressed body, which the source does not allow.
    Encoded,
    /// More proven requests than the source may send.
    TooMany {
        /// When there is room again.
        retry_after: Duration,
    },
    /// Our own trouble.
    Unavailable,
}

impl Answer {
    /// The word under which metrics count it.
    pub(super) const fn outcome(self) -> &'static str {
        match self {
            Self::Unproven => "unauthorized",
            Self::Unavailable => "unavailable",
            _ => "rejected",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::BrokenBody => StatusCode::BAD_REQUEST,
            Self::Unproven => StatusCode::UNAUTHORIZED,
            Self::NoSuchPath => StatusCode::NOT_FOUND,
            Self::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The body, in the form of RFC 9457.
    const fn problem(self) -> &'static str {
        match self {
            Self::BrokenBody => {
                r#"{"title":"Bad Request","status":400,"detail":"The request's framing is broken, or its body did not arrive whole and in time."}"#
            }
            Self::Unproven => {
                r#"{"title":"Unauthorized","status":401,"detail":"The request does not prove that it comes from this source. The operator finds the reason in the metrics and the log."}"#
            }
            Self::NoSuchPath => {
                r#"{"title":"Not Found","status":404,"detail":"Webhooks are taken at /v1/hooks/ followed by the name of the source."}"#
            }
            Self::WrongMethod { .. } => {
                r#"{"title":"Method Not Allowed","status":405,"detail":"The header Allow names the methods that this path takes."}"#
            }
            Self::TooLarge => {
                r#"{"title":"Content Too Large","status":413,"detail":"The body is larger than this receiver takes."}"#
            }
            Self::Encoded => {
                r#"{"title":"Unsupported Media Type","status":415,"detail":"Send the body without a Content-Encoding."}"#
            }
            Self::TooMany { .. } => {
                r#"{"title":"Too Many Requests","status":429,"detail":"The source is over its rate limit. Come again after Retry-After seconds."}"#
            }
            Self::Unavailable => {
                r#"{"title":"Service Unavailable","status":503,"detail":"The message could not be kept. Come again after Retry-After seconds."}"#
            }
        }
    }

    /// The answer itself. `unread` is the payload where the body was not read to its end: it is held until the answer is out.
    pub(super) fn respond(self, unread: Option<web::Payload>) -> HttpResponse {
        let mut response = HttpResponse::build(self.status());
        response.insert_header((CONTENT_TYPE, HeaderValue::from_static("application/problem+json")));
        match self {
            Self::Unproven => {
                response.insert_header((WWW_AUTHENTICATE, HeaderValue::from_static("Webhook")));
            }
            Self::WrongMethod { allow } => {
                response.insert_header((ALLOW, HeaderValue::from_static(allow)));
            }
            Self::TooMany { retry_after } => {
                response.insert_header((RETRY_AFTER, retry_after.as_secs().saturating_add(1).to_string()));
            }
            Self::Unavailable => {
                response.insert_header((RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_TROUBLE_S)));
            }
            _ => {}
        }
        // A sender that is over its limit has proven itself: its connection may stay.
        if !matches!(self, Self::TooMany { .. }) {
            response.force_close();
        }
        let problem = Bytes::from_static(self.problem().as_bytes());
        match unread {
            None => response.body(problem),
            Some(payload) => response.body(Holding { problem: Some(problem), payload }),
        }
    }
}

/// A body that keeps the request's payload alive until the answer is out.
///
/// With the payload gone, the server would read a chunked body to its end, and that end may never come. With the payload there,
/// it sends the answer, waits a moment for the sender to read it, and closes.
struct Holding {
    problem: Option<Bytes>,
    #[expect(dead_code, reason = "held, never read")]
    payload: web::Payload,
}

impl MessageBody for Holding {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.problem.as_ref().map_or(0, |problem| problem.len() as u64))
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Poll::Ready(self.get_mut().problem.take().map(Ok))
    }
}

/// Long enough that a full disk is not hammered, short enough that a restart goes unnoticed.
const RETRY_AFTER_TROUBLE_S: &str = "10";
