//! The servers to compare with, in a process of their own: actix-web and nothing else, then one step more each.
//!
//! Not here: how the process is started (`subject`).

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use actix_web::http::header::HeaderMap;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use anyhow::Context;
use jiff::Timestamp;
use verdict_relay::delivery::Delivery;
use verdict_relay::secret::{Key, Secret, SecretRef};
use verdict_relay::store::journal::{DiskJournal, Options};
use verdict_relay::store::{Draft, Journal, Kind};
use verdict_relay::verify::{Found, Headers, NoPublicKeys, Preset, Proven, Request, Scheme, VerifyConfig, verify};

/// How much the server does before it answers 202.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Handler {
    /// Reads the body.
    Bare,
    /// And checks its signature.
    Proof,
    /// And reads it into a tree of JSON and appends it to a journal with one sync for many: the ceiling of the table of peers.
    Ceiling,
}

struct State {
    handler: Handler,
    scheme: Scheme,
    keys: Vec<Key>,
    journal: Option<Arc<DiskJournal>>,
}

/// Serves until the process is ended.
pub(crate) fn serve(handler: Handler, listen: SocketAddr, folder: &Path, key: &[u8]) -> anyhow::Result<()> {
    let journal = match handler {
        Handler::Bare | Handler::Proof => None,
        Handler::Ceiling => Some(Arc::new(open_journal(folder)?)),
    };
    let state = web::Data::new(State { handler, scheme: scheme()?, keys: vec![key_of(key)], journal });
    let app = move || {
        App::new()
            .app_data(state.clone())
            .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
            .route("/v1/hooks/{source}", web::post().to(accept))
    };
    let serving = async { HttpServer::new(app).bind(listen)?.run().await };
    actix_web::rt::System::new().block_on(serving).context("the handler to compare with")
}

/// The journal of this folder, as a store of the service would open it.
pub(crate) fn open_journal(folder: &Path) -> io::Result<DiskJournal> {
    DiskJournal::open(&Options { folder: folder.to_owned(), segment_bytes: SEGMENT_BYTES, sequence_floor: 0 })
}

/// How the deliveries of the bench are proven.
pub(crate) fn scheme() -> anyhow::Result<Scheme> {
    let config = VerifyConfig {
        preset: Some(Preset::StandardWebhooks),
        secrets: vec![SecretRef(SECRET_REFERENCE.to_owned())],
        tolerance: Some("1h".parse().ok().context("a span")?),
        ..VerifyConfig::default()
    };
    config.plan("verify", true).map_err(|problem| anyhow::anyhow!("{problem:?}"))
}

/// A key as the ring of a source holds it: the key itself, not its written form.
pub(crate) fn key_of(written: &[u8]) -> Key {
    Key { id: SecretRef(SECRET_REFERENCE.to_owned()), secret: Secret::new(written.to_vec()) }
}

async fn accept(state: web::Data<State>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let done = match state.handler {
        Handler::Bare => true,
        Handler::Proof => prove(&state, &request, body).is_some(),
        Handler::Ceiling => keep(&state, &request, body).await.is_some(),
    };
    if done {
        HttpResponse::Accepted()
            .content_type("application/json")
            .body(r#"{"id":"01890a5d-ac96-774b-bcce-b302099a8057"}"#)
    } else {
        HttpResponse::Unauthorized().finish()
    }
}

fn prove(state: &State, request: &HttpRequest, body: web::Bytes) -> Option<Proven> {
    let sent = Request {
        headers: &Sent(request.headers()),
        method: "POST",
        public_url: "",
        target: request.uri().path(),
        peer: request.peer_addr()?.ip(),
        certificate_names: &[],
        headers_kept: &[],
        coding: None,
        decoded_bytes_max: 0,
        public_keys: &NoPublicKeys,
    };
    verify(&state.scheme, &state.keys, &sent, body, Timestamp::now()).ok()
}

async fn keep(state: &State, request: &HttpRequest, body: web::Bytes) -> Option<()> {
    let proven = prove(state, request, body)?;
    let source = "portal".parse().ok()?;
    let (repeat, at) = (proven.repeat(), Timestamp::now());
    let delivery = Delivery::new(proven, &source, at);
    let tree: serde_json::Value = serde_json::from_slice(delivery.body()).ok()?;
    std::hint::black_box(tree);
    let (head, body) = (delivery.stored_head(), delivery.body().clone());
    let draft = Draft { kind: Kind::Delivery, source, at, head, body, repeat };
    state.journal.as_ref()?.append(draft).await.ok()?;
    Some(())
}

/// The headers of an actix request, as a proof reads them.
struct Sent<'a>(&'a HeaderMap);

impl Headers for Sent<'_> {
    fn find(&self, name: &str) -> Found<'_> {
        let mut values = self.0.get_all(name);
        match (values.next(), values.next()) {
            (None, _) => Found::Nothing,
            (Some(value), None) => Found::One(value.as_bytes()),
            (Some(_), Some(_)) => Found::Several,
        }
    }
}

/// The reference by which the service finds the secret of the bench.
pub(crate) const SECRET_REFERENCE: &str = "env:LOAD_SECRET";
/// Above the largest body of the bench.
const BODY_BYTES_MAX: usize = 1 << 20;
/// As the service has them.
const SEGMENT_BYTES: u64 = 64 << 20;
