//! Replays and renormalizations: begun, listed and stopped.

use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Api, ApiError, Scope, accepted};
use crate::event::Name;
use crate::ops::Work;

/// Events that a receiver is to get again.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replay {
    sink: Name,
    since: Timestamp,
    until: Option<Timestamp>,
    #[serde(rename = "where")]
    condition: Option<String>,
}

/// Deliveries that are to be read again.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Renormalize {
    source: Name,
    since: Timestamp,
}

pub(super) async fn replay(
    api: web::Data<Api>,
    request: HttpRequest,
    body: web::Bytes,
) -> Result<HttpResponse, ApiError> {
    api.allow(&request, Scope::Operate)?;
    let Replay { sink, since, until, condition } = read(&body)?;
    if until.is_some_and(|until| until <= since) {
        return Err(ApiError::Invalid("until is not after since".to_owned()));
    }
    Ok(accepted(api.ops.begin(Work::Replay { sink, since, until, condition }).await?))
}

pub(super) async fn renormalize(
    api: web::Data<Api>,
    request: HttpRequest,
    body: web::Bytes,
) -> Result<HttpResponse, ApiError> {
    api.allow(&request, Scope::Operate)?;
    let Renormalize { source, since } = read(&body)?;
    Ok(accepted(api.ops.begin(Work::Renormalize { source, since }).await?))
}

pub(super) async fn list(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    api.allow(&request, Scope::Read)?;
    Ok(HttpResponse::Ok().json(json!({ "replays": api.ops.jobs()? })))
}

pub(super) async fn stop(
    api: web::Data<Api>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    api.allow(&request, Scope::Operate)?;
    let id = id.parse().map_err(|_| ApiError::NotFound)?;
    Ok(accepted(api.ops.stop_job(id).await?))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::Invalid(format!("the body is not understood: {error}")))
}
