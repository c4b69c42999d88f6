//! The private API: metrics, state and dead letters, for operators and their programs.
//!
//! Invariants: nothing is answered to a foreign `Host` or `Origin`, so no web page can reach a listener on loopback; what changes
//! something always needs a token; errors are RFC 9457 problems.
//!
//! Not here: what is behind an answer (`ops`).

mod jobs;
mod submissions;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, ResponseError, web};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::adapter::FetchId;
use crate::event::{Name, Sha256 as Sha256Hash};
use crate::ops::{Ops, OpsError, Submissions, SubmitError, Wanted};
use crate::secret::{KeyRing, SecretRef};
use crate::setting::{Problem, Span};
use crate::store::ledger::LedgerError;

/// The private listener, as written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// Address and port; on loopback by default, because it shows the state of the service.
    pub listen: String,
    /// Who may do what. Without tokens, loopback may read.
    pub tokens: Vec<TokenConfig>,
    /// Whether `/metrics` needs no token.
    pub metrics_open: bool,
    /// Whether a listener off loopback may do without TLS: only behind a proxy that has it.
    pub allow_plaintext: bool,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8081".to_owned(), tokens: Vec::new(), metrics_open: false, allow_plaintext: false }
    }
}

/// One token, as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// Who holds it.
    pub name: String,
    /// Where it is kept.
    pub secret: SecretRef,
    /// What it allows.
    pub scopes: Vec<Scope>,
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Look at metrics, state and dead letters.
    Read,
    /// Announce an analysis that must report.
    Gate,
    /// Send files to a platform.
    Submit,
    /// Redrive and drop dead letters.
    Operate,
}

/// The private listener, validated.
#[derive(Debug, Clone)]
pub struct ApiPlan {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who may do what.
    pub tokens: Vec<TokenConfig>,
    /// Whether `/metrics` needs no token.
    pub metrics_open: bool,
}

impl ApiConfig {
    /// The validated API, or what is wrong. `key` is the path of this table in the config.
    pub fn plan(&self, key: &str) -> Result<ApiPlan, Problem> {
        let Ok(listen) = self.listen.parse::<SocketAddr>() else {
            return Err(Problem::new(
                format!("{key}.listen"),
                "not an address with a port: write it like \"127.0.0.1:8081\"",
            ));
        };
        if !listen.ip().is_loopback() && !self.allow_plaintext {
            let words = "off loopback the API needs TLS in front of it: listen on 127.0.0.1, or set allow_plaintext = true behind a proxy that has TLS";
            return Err(Problem::new(format!("{key}.listen"), words));
        }
        for (at, token) in self.tokens.iter().enumerate() {
            let key = format!("{key}.tokens[{at}]");
            token.secret.check().map_err(|error| Problem::new(format!("{key}.secret"), error.to_string()))?;
            if token.scopes.is_empty() {
                return Err(Problem::new(format!("{key}.scopes"), "a token without a scope allows nothing: name some"));
            }
        }
        Ok(ApiPlan { listen, tokens: self.tokens.clone(), metrics_open: self.metrics_open })
    }
}

/// What every request is answered with.
pub struct Api {
    /// What is behind the answers.
    pub ops: Arc<Ops>,
    /// Where files may be sent.
    pub submissions: Submissions,
    /// Who may do what.
    pub plan: ApiPlan,
    /// The ring of each token, in the order of the plan.
    pub keys: Vec<KeyRing>,
    /// SHA-256 of the token that `serve` writes for the command line.
    pub own_token: [u8; 32],
}

/// File of the token for the command line, in the folder of the store.
pub fn token_file(store: &std::path::Path) -> PathBuf {
    store.join("api.token")
}

/// Serves the API on a bound socket until the handle of the server stops it.
pub fn listen(api: Arc<Api>, socket: TcpListener) -> std::io::Result<actix_web::dev::Server> {
    let app = move || App::new().app_data(web::Data::from(api.clone())).configure(routes);
    let server = HttpServer::new(app).workers(1).disable_signals().shutdown_timeout(2).listen(socket)?;
    Ok(server.run())
}

fn routes(app: &mut web::ServiceConfig) {
    app.route("/livez", web::get().to(livez))
        .route("/readyz", web::get().to(readyz))
        .route("/metrics", web::get().to(metrics))
        .route("/openapi.json", web::get().to(openapi))
        .route("/v1/sinks", web::get().to(sinks))
        .route("/v1/sources", web::get().to(sources))
        .route("/v1/keys", web::get().to(keys))
        .route("/v1/expect", web::post().to(expect))
        .route("/v1/submissions", web::get().to(submissions::destination))
        .route("/v1/submissions", web::post().to(submissions::submit))
        .route("/v1/store", web::get().to(store))
        .route("/v1/dead-letters", web::get().to(dead_letters))
        .route("/v1/dead-letters/{id}", web::get().to(dead_letter))
        .route("/v1/dead-letters/{id}", web::delete().to(drop_dead_letter))
        .route("/v1/dead-letters/{id}/redrive", web::post().to(redrive))
        .route("/v1/replays", web::get().to(jobs::list))
        .route("/v1/replays", web::post().to(jobs::replay))
        .route("/v1/replays/{id}", web::delete().to(jobs::stop))
        .route("/v1/renormalizations", web::post().to(jobs::renormalize))
        .default_service(web::to(async || Err::<HttpResponse, _>(ApiError::NotFound)));
}

async fn livez() -> &'static str {
    "alive\n"
}

/// Whether senders may come; with `?verbose`, why not.
async fn readyz(api: web::Data<Api>, request: HttpRequest) -> HttpResponse {
    let ready = *api.ops.ready.borrow();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if request.query_string() != "verbose" {
        return HttpResponse::build(status).body(if ready { "ready\n" } else { "not ready\n" });
    }
    match api.allow(&request, Scope::Read) {
        Err(error) => error.error_response(),
        Ok(()) => match api.ops.sinks() {
            Err(error) => ApiError::from(error).error_response(),
            Ok(sinks) => HttpResponse::build(status).json(json!({
                "ready": ready, "store": api.ops.store(), "sinks": sinks,
            })),
        },
    }
}

async fn metrics(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    if !api.plan.metrics_open {
        api.allow(&request, Scope::Read)?;
    }
    let text = api.ops.metrics(Timestamp::now()).await?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, kind)).body(text))
}

async fn openapi() -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(OPENAPI)
}

async fn sinks(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    api.allow(&request, Scope::Read)?;
    Ok(HttpResponse::Ok().json(json!({ "sinks": api.ops.sinks()? })))
}

async fn sources(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    api.allow(&request, Scope::Read)?;
    Ok(HttpResponse::Ok().json(json!({ "sources": api.ops.sources() })))
}

async fn keys(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    api.allow(&request, Scope::Read)?;
    Ok(HttpResponse::Ok().json(json!({ "keys": api.ops.keys() })))
}

/// An analysis that must report.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    source: Name,
    /// The platform's id of the analysis.
    analysis_id: Option<String>,
    /// The file, where the id is not known.
    sha256: Option<Sha256Hash>,
    #[serde(default = "expect_within")]
    within: Span,
}

const fn expect_within() -> Span {
    Span(EXPECT_WITHIN)
}

/// How long an analysis may take where nobody says: as long as a gate waits.
const EXPECT_WITHIN: Duration = Duration::from_mins(10);
/// What `within` may be.
const EXPECT_MIN: Duration = Duration::from_secs(1);
const EXPECT_MAX: Duration = Duration::from_hours(24 * 7);

async fn expect(api: web::Data<Api>, request: HttpRequest, body: web::Bytes) -> Result<HttpResponse, ApiError> {
    api.allow(&request, Scope::Gate)?;
    let Expect { source, analysis_id, sha256, within } = serde_json::from_slice(&body)
        .map_err(|error| ApiError::Invalid(format!("the body is not understood: {error}")))?;
    let wanted = match (analysis_id, sha256) {
        (Some(id), None) if is_analysis_id(&id) => Wanted::Id(id),
        (Some(_), None) => {
            return Err(ApiError::Invalid("an analysis_id has 1 to 256 of A-Z a-z 0-9 _ . = -".to_owned()));
        }
        (None, Some(hash)) => Wanted::Sha256(hash),
        _ => return Err(ApiError::Invalid("name either analysis_id or sha256".to_owned())),
    };
    if !(EXPECT_MIN..=EXPECT_MAX).contains(&within.0) {
        return Err(ApiError::Invalid("within is \"1s\" to \"7d\"".to_owned()));
    }
    let id = api.ops.expect(&source, wanted, within.0, Timestamp::now()).await?;
    Ok(HttpResponse::Accepted().json(json!({ "id": id.to_string() })))
}

fn is_analysis_id(id: &str) -> bool {
    FetchId::new("analysis", id).is_some()
}

async fn store(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    api.allow(&request, Scope::Read)?;
    Ok(HttpResponse::Ok().json(api.ops.store()))
}

/// A page of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    /// Begin after the entry with this id.
    after: Option<String>,
    /// Most entries.
    max: Option<usize>,
}

/// Most entries of one page; each is about a KiB.
const PAGE_MAX: usize = 100;

async fn dead_letters(
    api: web::Data<Api>,
    request: HttpRequest,
    page: web::Query<Page>,
) -> Result<HttpResponse, ApiError> {
    api.allow(&request, Scope::Read)?;
    let max = page.max.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
    let letters = api.ops.dead_letters(page.after.as_deref(), max)?;
    Ok(HttpResponse::Ok().json(json!({ "dead_letters": letters })))
}

async fn dead_letter(
    api: web::Data<Api>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    // What it keeps may be a whole body, so looking at one needs more than looking at the list.
    api.allow(&request, Scope::Operate)?;
    let letter = api.ops.dead_letter(&id)?.ok_or(ApiError::NotFound)?;
    let mut shown = serde_json::to_value(&letter).unwrap_or_default();
    shown["raw"] = String::from_utf8_lossy(&letter.raw).into();
    Ok(HttpResponse::Ok().json(shown))
}

async fn drop_dead_letter(
    api: web::Data<Api>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    api.allow(&request, Scope::Operate)?;
    Ok(accepted(api.ops.drop_letter(id.into_inner()).await?))
}

async fn redrive(api: web::Data<Api>, request: HttpRequest, id: web::Path<String>) -> Result<HttpResponse, ApiError> {
    api.allow(&request, Scope::Operate)?;
    Ok(accepted(api.ops.redrive(id.into_inner()).await?))
}

/// It is written down, and done next.
fn accepted(attempt: u64) -> HttpResponse {
    HttpResponse::Accepted().json(json!({ "attempt": attempt.to_string() }))
}

impl Api {
    /// Whether this request may do what needs `scope`.
    fn allow(&self, request: &HttpRequest, scope: Scope) -> Result<(), ApiError> {
        self.check_origin(request)?;
        let bearer = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(token) = bearer.and_then(|value| value.strip_prefix("Bearer ")) else {
            let open = self.plan.tokens.is_empty() && self.plan.listen.ip().is_loopback();
            let harmless = matches!(scope, Scope::Read | Scope::Gate);
            return if open && harmless { Ok(()) } else { Err(ApiError::Unauthorized) };
        };
        let given: [u8; 32] = Sha256::digest(token).into();
        let mut known = bool::from(given.ct_eq(&self.own_token));
        let mut allowed = known;
        for (config, ring) in self.plan.tokens.iter().zip(&self.keys) {
            for key in ring.keys().iter() {
                let same: [u8; 32] = Sha256::digest(key.secret.expose()).into();
                let matches = bool::from(given.ct_eq(&same));
                known |= matches;
                allowed |= matches && config.scopes.contains(&scope);
            }
        }
        match (known, allowed) {
            (_, true) => Ok(()),
            (true, false) => Err(ApiError::Forbidden),
            (false, false) => Err(ApiError::Unauthorized),
        }
    }

    /// Refuses what a web page could have sent: a name that resolves to us without being ours, or a foreign origin.
    fn check_origin(&self, request: &HttpRequest) -> Result<(), ApiError> {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let name = host
            .rsplit_once(':')
            .map_or(host, |(name, port)| if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host });
        let ours = matches!(name, "localhost" | "127.0.0.1" | "[::1]") || host == self.plan.listen.to_string();
        let unspecified = self.plan.listen.ip().is_unspecified();
        let origin = request.headers().get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
        let own_origin = origin.is_none_or(|origin| origin.split_once("://").is_some_and(|(_, origin)| origin == host));
        if (ours || unspecified) && own_origin { Ok(()) } else { Err(ApiError::Foreign) }
    }
}

/// What the API does not answer.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("send a token with the right scope: Authorization: Bearer TOKEN")]
    Unauthorized,
    #[error("this token does not have the scope that the request needs")]
    Forbidden,
    #[error("the Host or Origin of this request is not this service")]
    Foreign,
    #[error("there is nothing here")]
    NotFound,
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Unprocessable(String),
    #[error("{0}")]
    Missing(String),
    #[error("{0}")]
    TooMany(String, Duration),
    #[error("the journal does not take it now, try again: {0}")]
    Unavailable(String),
    #[error(transparent)]
    Submission(#[from] SubmitError),
    #[error("the store cannot be read; the log says why")]
    Internal,
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        tracing::error!(%error, "the API could not read the ledger");
        Self::Internal
    }
}

impl From<OpsError> for ApiError {
    fn from(error: OpsError) -> Self {
        match error {
            OpsError::Unknown | OpsError::UnknownSink => Self::Missing(error.to_string()),
            OpsError::SinkRemoved | OpsError::Running(_) | OpsError::Ended => Self::Conflict(error.to_string()),
            OpsError::Condition(_) => Self::Invalid(error.to_string()),
            OpsError::UnknownSource | OpsError::Unpollable(_) => Self::Unprocessable(error.to_string()),
            OpsError::TooMany => Self::TooMany(error.to_string(), RETRY_AFTER),
            OpsError::TooFast(wait) => Self::TooMany(error.to_string(), wait),
            OpsError::Journal(error) => Self::Unavailable(error.to_string()),
            OpsError::Ledger(error) => error.into(),
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::Foreign => StatusCode::FORBIDDEN,
            Self::NotFound | Self::Missing(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooMany(..) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Submission(error) => submissions::status_of(error).0,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        let problem = json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": self.to_string(),
        });
        let mut answer = HttpResponse::build(status);
        let wait = match self {
            Self::Unavailable(_) => Some(RETRY_AFTER),
            Self::TooMany(_, wait) => Some(*wait),
            Self::Submission(error) => submissions::status_of(error).1,
            _ => None,
        };
        if let Some(wait) = wait {
            answer.insert_header(("Retry-After", wait.as_secs_f64().ceil().max(1.0).to_string()));
        }
        answer.insert_header((CONTENT_TYPE, "application/problem+json")).body(problem.to_string())
    }
}

/// When to come back where nothing says better.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The OpenAPI document of these routes; a test holds the two together.
pub const OPENAPI: &str = include_str!("api/openapi.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_describes_the_routes_that_there_are() {
        let routes = include_str!("api.rs").lines().filter_map(|line| {
            let (path, rest) =
                line.trim().trim_start_matches("app").strip_prefix(".route(\"")?.split_once("\", web::")?;
            Some(format!("{} {path}", rest.split_once('(')?.0))
        });
        let document: serde_json::Value = serde_json::from_str(OPENAPI).expect("JSON");
        let described = document["paths"].as_object().into_iter().flatten().flat_map(|(path, methods)| {
            methods.as_object().into_iter().flatten().map(move |(method, _)| format!("{method} {path}"))
        });
        let routes: BTreeSet<String> = routes.collect();
        assert!(routes.len() > 15, "{routes:?}");
        assert_eq!(routes, described.collect());
    }
}
