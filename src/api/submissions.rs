//! `/v1/submissions`: takes a file as a stream and has it sent to a source's platform.
//!
//! Invariants: nothing of the file is read before the token and the source are checked; a refusal still reaches whoever is sending.
//!
//! Not here: keeping, knowing and sending the file (`ops`).

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Api, ApiError, EXPECT_MAX, EXPECT_MIN, Scope, Span, expect_within};
use crate::event::Name;
use crate::ops::{NotSubmitted, SubmitError};
use crate::upload::file_name;

/// What stands in the URL.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    source: Name,
    /// The file's name, for whoever reads the report.
    #[serde(default)]
    name: String,
    /// Within which time its result must come.
    #[serde(default = "expect_within")]
    within: Span,
}

/// Longest wait for the next piece of a file.
const PIECE_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long and how much of a refused file is still read, so that the answer is not lost with the connection.
const DRAIN: (Duration, u64) = (Duration::from_secs(2), 64 << 20);

/// Where files of a source would go.
pub(super) async fn destination(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    api.allow(&request, Scope::Submit)?;
    let Query { source, .. } = query(&request)?;
    let told = api.submissions.destination(&api.ops, &source)?;
    let mut told = serde_json::to_value(told).unwrap_or_default();
    told["source"] = json!(source);
    Ok(HttpResponse::Ok().json(told))
}

/// Takes a file.
pub(super) async fn submit(
    api: web::Data<Api>,
    request: HttpRequest,
    mut body: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let taken = take(api, &request, &mut body).await;
    if taken.is_err() {
        drain(&mut body).await;
    }
    taken
}

async fn take(api: web::Data<Api>, request: &HttpRequest, body: &mut web::Payload) -> Result<HttpResponse, ApiError> {
    api.allow(request, Scope::Submit)?;
    let Query { source, name, within } = query(request)?;
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut spool = api.submissions.begin(&api.ops, &source, declared)?;
    while let Some(piece) = timeout(PIECE_WAIT_MAX, body.next()).await.map_err(|_| SubmitError::Incomplete)? {
        spool.write(&piece.map_err(|_| SubmitError::Incomplete)?).await?;
    }
    let spooled = spool.finish(declared).await?;
    let sent = api.submissions.send(&api.ops, &source, spooled, file_name(&name), within.0).await?;
    let status = if sent.known { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(HttpResponse::build(status).json(sent))
}

fn query(request: &HttpRequest) -> Result<Query, ApiError> {
    let query = web::Query::<Query>::from_query(request.query_string())
        .map_err(|error| ApiError::Invalid(format!("the query is not understood: {error}")))?;
    if !(EXPECT_MIN..=EXPECT_MAX).contains(&query.within.0) {
        return Err(ApiError::Invalid("within is \"1s\" to \"7d\"".to_owned()));
    }
    Ok(query.into_inner())
}

async fn drain(body: &mut web::Payload) {
    let until = Instant::now() + DRAIN.0;
    let mut read = 0;
    while let Ok(Some(Ok(piece))) = timeout_at(until, body.next()).await {
        read += piece.len() as u64;
        if read > DRAIN.1 {
            break;
        }
    }
}

/// The status of what was not sent, and when to try again.
pub(super) fn status_of(error: &SubmitError) -> (StatusCode, Option<Duration>) {
    match error {
        SubmitError::UnknownSource => (StatusCode::NOT_FOUND, None),
        SubmitError::Off => (StatusCode::UNPROCESSABLE_ENTITY, None),
        SubmitError::Empty | SubmitError::Incomplete => (StatusCode::BAD_REQUEST, None),
        SubmitError::TooLarge(_) | SubmitError::Platform(NotSubmitted::TooLarge(_)) => {
            (StatusCode::PAYLOAD_TOO_LARGE, None)
        }
        SubmitError::Busy => (StatusCode::TOO_MANY_REQUESTS, Some(SOON)),
        SubmitError::NoRoom | SubmitError::Disk => (StatusCode::SERVICE_UNAVAILABLE, Some(LATER)),
        SubmitError::Platform(NotSubmitted::Quota(_, wait)) => (StatusCode::TOO_MANY_REQUESTS, Some(*wait)),
        SubmitError::Platform(NotSubmitted::Unavailable(_, wait)) => (StatusCode::SERVICE_UNAVAILABLE, Some(*wait)),
        SubmitError::Platform(NotSubmitted::Refused(_)) => (StatusCode::BAD_GATEWAY, None),
    }
}

const SOON: Duration = Duration::from_secs(5);
const LATER: Duration = Duration::from_mins(1);
