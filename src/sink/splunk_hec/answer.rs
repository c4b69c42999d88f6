//! What an answer of a Splunk HTTP Event Collector means: one pure table.
//!
//! Invariants: only a 200 with a HEC answer in it is a success, whatever a proxy on the way may say; an event is blamed only where
//! a HEC says so, and never for what is wrong with the token, the index or the server.
//!
//! Not here: requests, endpoints, tokens (`splunk_hec`).

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;

use super::super::{Stop, words_of_receiver};

/// A batch that was taken, all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Receipt {
    /// The id to ask for: it is only final when the indexers acknowledge it.
    pub(super) ack_id: Option<u64>,
    /// Whether the server says that it is filling up.
    pub(super) is_crowded: bool,
}

/// Why a batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// An event of the batch is not acceptable.
    Event {
        /// Its index in the batch, if the server said which.
        event: Option<usize>,
        /// The server's words.
        reason: String,
    },
    /// The batch is too large: a smaller one may pass.
    Size {
        /// The server's words.
        reason: String,
    },
    /// This token is not accepted; another one may be.
    Token {
        /// The server's words.
        reason: String,
    },
    /// Something is wrong with our channel.
    Channel {
        /// What, in words.
        reason: String,
    },
    /// The token has no acknowledgements.
    NoAcks {
        /// The server's words.
        reason: String,
    },
    /// Nothing can be sent to this endpoint now.
    Stop(Stop),
}

/// Reads the answer of `place` to a batch; `index` is the configured one, for words.
pub(super) fn judge(
    place: &str,
    index: Option<&str>,
    status: u16,
    retry_after: Option<Duration>,
    body: &[u8],
) -> Result<Receipt, Refusal> {
    let Ok(hec) = serde_json::from_slice::<HecAnswer>(body) else {
        return Err(judge_status(place, status, retry_after));
    };
    let words = format!("{status}, code {}: {}", hec.code, words_of_receiver(&hec.text));
    let unavailable = |reason: String| Refusal::Stop(Stop::Unavailable { retry_after, reason });
    let refusal = match (status, hec.code) {
        (200, 0) => return Ok(Receipt { ack_id: hec.ack_id, is_crowded: false }),
        // Accepted, but the queue (24) or the table of acknowledgements (25) is filling up.
        (200, 24 | 25) => return Ok(Receipt { ack_id: hec.ack_id, is_crowded: true }),
        (200, _) => unavailable(format!(
            "{place} answered {words}, which does not say that it took the events; sending them again"
        )),
        (_, 1..=4 | 16 | 21 | 22) => Refusal::Token { reason: words },
        // Over HTTP's own limit it does not matter what the code says.
        (413, _) => Refusal::Size { reason: words },
        (_, 5 | 6 | 12 | 13 | 15) => Refusal::Event { event: hec.invalid_event_number, reason: words },
        (_, 7) => {
            let index =
                index.map_or_else(|| "the token's default index".to_owned(), |index| format!("index \"{index}\""));
            Refusal::Stop(Stop::Misconfigured {
                reason: format!(
                    "{place} refuses {index} ({words}): create it, allow it for this token, or change `index`"
                ),
            })
        }
        (_, 14) => Refusal::NoAcks { reason: words },
        (_, 10 | 11) => Refusal::Channel {
            reason: format!("{place} does not like our channel ({words}); trying again with a new one"),
        },
        (_, 8 | 9 | 18..=20 | 23 | 26 | 27) => unavailable(format!("{place} is busy or shutting down ({words})")),
        _ => unavailable(format!(
            "{place} answered {words}, which this version does not know; nothing is dropped for it"
        )),
    };
    Err(refusal)
}

/// An answer that no HEC wrote: a proxy's, or something else that listens there.
fn judge_status(place: &str, status: u16, retry_after: Option<Duration>) -> Refusal {
    let misconfigured =
        |hint: &str| Refusal::Stop(Stop::Misconfigured { reason: format!("{place} answered {status} {hint}") });
    match status {
        413 => Refusal::Size { reason: "413: the request is larger than the server or a proxy takes".to_owned() },
        401 | 403 => {
            Refusal::Token { reason: format!("{status}, not by a HEC: a proxy may want something else than the token") }
        }
        200..=299 => misconfigured(
            "but not as a HEC does: is this the collector's address, and not a proxy's or the web interface's?",
        ),
        300..=399 => misconfigured(
            "with a redirect, which is not followed: a token goes nowhere else; put the final address into `endpoints`",
        ),
        400 => misconfigured("but not as a HEC does: does it want https, or another port?"),
        404 | 405 => {
            misconfigured("but not as a HEC does: check the path, and that HTTP Event Collector is enabled there")
        }
        429 => Refusal::Stop(Stop::Unavailable {
            retry_after,
            reason: format!(
                "{place} answered 429: it, or a proxy before it, limits our requests; raise that limit, or make larger batches"
            ),
        }),
        _ => Refusal::Stop(Stop::Unavailable {
            retry_after,
            reason: format!("{place} answered {status} without a HEC's words"),
        }),
    }
}

/// Whether events may have been taken although this answer does not say so: it comes from something between us and the HEC, which gave up.
pub(super) fn leaves_open(status: u16, body: &[u8]) -> bool {
    let is_refusal = (300..500).contains(&status) && status != 408;
    !is_refusal && serde_json::from_slice::<HecAnswer>(body).is_err()
}

/// What an answer to a question for acknowledgements means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Acked {
    /// What the indexers have, by id; `false` is not yet, or never: nobody can tell the two apart.
    Told(HashMap<String, bool>),
    /// It was not looked at.
    NotNow,
    /// It was, and cannot be read: a `true` may have been in it.
    Lost,
    /// Nothing will be told of what waits here.
    Never(Stop),
    /// Nothing is ever told to us here; code 14 says that the token has no acknowledgements.
    Refused {
        /// Whether it was a HEC that said code 14.
        is_disabled: bool,
        /// What to mend.
        reason: String,
    },
}

/// Reads the answer of `place` to a question for acknowledgements.
pub(super) fn judge_ack(place: &str, status: u16, body: &[u8]) -> Acked {
    if status == 200 {
        return serde_json::from_slice::<AckAnswer>(body).map_or(Acked::Lost, |answer| Acked::Told(answer.acks));
    }
    match (status, serde_json::from_slice::<HecAnswer>(body).map(|hec| hec.code)) {
        (_, Ok(14)) => Acked::Refused {
            is_disabled: true,
            reason: format!(
                "{place} gives no acknowledgements for this token (code 14): switch them on for the token, or set acks = \"auto\" or \"off\""
            ),
        },
        (_, Ok(1..=4 | 10 | 11 | 16 | 21 | 22)) | (401, _) => Acked::Never(Stop::unavailable(format!(
            "{place} no longer tells what it took under this token and channel ({status}); sending it again under a new channel"
        ))),
        (408 | 425 | 429, _) => Acked::NotNow,
        (300..500, _) => Acked::Refused {
            is_disabled: false,
            reason: format!(
                "{place} answers {status} to questions for acknowledgements: let the proxy before it pass /services/collector/ack, or set acks = \"off\""
            ),
        },
        _ => Acked::NotNow,
    }
}

/// The body of every HEC answer.
#[derive(Debug, Deserialize)]
struct HecAnswer {
    code: u32,
    #[serde(default)]
    text: String,
    #[serde(default, rename = "invalid-event-number")]
    invalid_event_number: Option<usize>,
    #[serde(default, rename = "ackId")]
    ack_id: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct AckAnswer {
    acks: HashMap<String, bool>,
}
