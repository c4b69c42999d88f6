//! Asking `verify` about a request: with the source's keys, and once more where a public key has to be fetched first.
//!
//! Not here: what a proof is (`verify`), how keys are fetched (`trust`), the order of a request's steps (`receive`).

use std::sync::PoisonError;
use std::time::Duration;

use actix_web::http::header::{ALLOW, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;

use super::answer::Answer;
use super::{Arrived, PeerNames, Receiver, Source, WRONG_METHOD, hook_of};
use crate::secret::Key;
use crate::trust::{NoKey, Trust};
use crate::verify::{
    Found, Headers, KeyName, NoPublicKeys, Proven, PublicKey, PublicKeys, Refusal, Request, preflight, verify, wanted,
};

impl Receiver {
    /// One preflight: whether the sender may send at all, which it asks before it does (CloudEvents HTTP 1.1 Web Hooks, section 4).
    ///
    /// Whatever is not granted is answered as if nothing here knew of such a question.
    pub(super) async fn preflight(&self, request: &HttpRequest, payload: web::Payload) -> HttpResponse {
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner).clone();
        let source = sources.get(hook_of(request.path()).unwrap_or_default());
        if self.is_draining() {
            return Answer::Unavailable.respond(Some(payload));
        }
        let Some(source) = source else { return WRONG_METHOD.respond(Some(payload)) };
        let Ok(peer) = self.peer_of(request) else { return WRONG_METHOD.respond(Some(payload)) };
        let (at, received) = (Timestamp::now(), Instant::now());
        let arrived = Arrived { peer, body: Bytes::new(), coding: None, at, received };
        let ask = |keys: &[Key], proof: &Request<'_>| preflight(&source.scheme, keys, proof, at);
        match self.ask(source, request, &arrived, Fetching::Allowed, ask).await {
            Ok(Some(origin)) => {
                self.metrics.ingest(source.id.as_str(), "accepted");
                let rate = source.rate.as_ref().map(|(rate, _)| format!("{:.0}", rate.per_second * 60.0));
                HttpResponse::Ok()
                    .insert_header((ALLOW, "POST, PUT, OPTIONS"))
                    .insert_header(("webhook-allowed-origin", origin))
                    .insert_header(("webhook-allowed-rate", rate.unwrap_or_else(|| "*".to_owned())))
                    .finish()
            }
            Ok(None) => WRONG_METHOD.respond(Some(payload)),
            Err(refusal) => {
                let answer = self.refused(source, refusal, peer, received);
                self.metrics.ingest(source.id.as_str(), answer.outcome());
                let shown = if answer == Answer::Unproven { WRONG_METHOD } else { answer };
                shown.respond(Some(payload))
            }
        }
    }

    /// Proves a request to this source.
    pub(super) async fn prove(
        &self,
        source: &Source,
        request: &HttpRequest,
        arrived: &Arrived,
        fetching: Fetching,
    ) -> Result<Proven, Refusal> {
        let ask =
            |keys: &[Key], proof: &Request<'_>| verify(&source.scheme, keys, proof, arrived.body.clone(), arrived.at);
        self.ask(source, request, arrived, fetching, ask).await
    }

    /// Puts a question about this request, and once more where it needs a public key that has to be fetched first.
    async fn ask<T>(
        &self,
        source: &Source,
        request: &HttpRequest,
        arrived: &Arrived,
        fetching: Fetching,
        question: impl Fn(&[Key], &Request<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let uri = request.uri();
        let public_keys = Published { trust: source.trust.as_ref(), at: arrived.at };
        let proof = Request {
            headers: &WireHeaders(request.headers()),
            method: request.method().as_str(),
            public_url: &self.public_url,
            target: uri.path_and_query().map_or(uri.path(), |target| target.as_str()),
            peer: arrived.peer,
            certificate_names: request.conn_data::<PeerNames>().map_or(&[], |names| names.0.as_slice()),
            headers_kept: source.headers_kept,
            coding: arrived.coding,
            decoded_bytes_max: self.bodies.bytes_max,
            public_keys: &public_keys,
        };
        let keys = source.keys.keys();
        let answer = question(&keys, &proof);
        let (Err(Refusal::KeyNotLoaded), Some(trust), Fetching::Allowed) = (&answer, &source.trust, fetching) else {
            return answer;
        };
        let Some(name) = wanted(&source.scheme, &proof, &arrived.body) else { return answer };
        match trust.bring(&name, arrived.at, arrived.received + KEY_WITHIN).await {
            Ok(()) => question(&keys, &proof),
            Err(NoKey::Absent) => Err(Refusal::Mismatch),
            Err(NoKey::NotNow) => answer,
        }
    }
}

/// Whether a request may make us fetch a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetching {
    Allowed,
    Never,
}

/// The public keys of a source at one moment.
struct Published<'a> {
    trust: Option<&'a Trust>,
    at: Timestamp,
}

impl PublicKeys for Published<'_> {
    fn find(&self, name: &KeyName) -> Option<PublicKey> {
        self.trust.map_or_else(|| NoPublicKeys.find(name), |trust| trust.at(self.at).find(name))
    }
}

/// The headers of a request, with every value that was sent.
struct WireHeaders<'a>(&'a HeaderMap);

impl Headers for WireHeaders<'_> {
    fn find(&self, name: &str) -> Found<'_> {
        // A look at each of a dozen names costs less than making a key for the table.
        let mut found = self.0.iter().filter(|(other, _)| other.as_str() == name);
        match (found.next(), found.next()) {
            (None, _) => Found::Nothing,
            (Some((_, value)), None) => Found::One(value.as_bytes()),
            (Some(_), Some(_)) => Found::Several,
        }
    }
}

/// From the last byte of the body until a public key has to be here: leaves a second for the disk.
const KEY_WITHIN: Duration = Duration::from_secs(2);
