//! What an answer of an HTTP receiver means: one pure table.
//!
//! Invariants: only 2xx is a success; an event is blamed only where the status blames what was sent, never for an address, credentials, a limit
//! or the receiver's own trouble.
//!
//! Not here: requests and secrets (`session`), resending (`deliver`).

use std::time::Duration;

use super::super::{Stop, words_of_receiver};

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The receiver does not want what is in it; its words.
    Refused(String),
    /// Nothing can be posted now.
    Stop(Stop),
}

/// Reads the answer of `place`; `body` is the beginning of what it wrote.
pub(super) fn judge(place: &str, status: u16, retry_after: Option<Duration>, body: &[u8]) -> Result<(), Failure> {
    let words = words_of_receiver(String::from_utf8_lossy(body).trim());
    let told = if words.is_empty() { status.to_string() } else { format!("{status}: {words}") };
    let setup =
        |hint: &str| Err(Failure::Stop(Stop::Misconfigured { reason: format!("{place} answered {told}: {hint}") }));
    match status {
        200..=299 => Ok(()),
        300..=399 => {
            setup("a redirect is not followed, because events go nowhere else; put the final address into `url`")
        }
        401 | 403 | 407 => Err(Failure::Stop(Stop::Unauthorized {
            reason: format!(
                "{place} refused our credentials ({told}): check the secrets and token here and there, tls.certificate, and our clock; a firewall for web applications also answers so to content that it dislikes"
            ),
        })),
        404 | 405 | 410 => setup("nobody takes events there; check the path of `url`"),
        406 | 415 => setup("it wants another content type; check `format` and what it expects"),
        // Of the request as such, which is the same for every event.
        402 | 411 | 414 | 417 | 421 | 426 | 428 | 431 | 451 => {
            setup("it does not talk to us in this way; check what stands at this address")
        }
        408 | 423 | 424 | 425 | 429 | 500.. => Err(Failure::Stop(Stop::Unavailable {
            retry_after,
            reason: format!("{place} cannot take events now ({told})"),
        })),
        400..=499 => Err(Failure::Refused(words_of_receiver(&told))),
        _ => setup("this is no answer to a request; is it HTTP?"),
    }
}
