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

/// What a HEC's answer to a batch means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// All of it was taken; with an id, that is only final when the indexers acknowledge it.
    Taken {
        /// The id to ask for.
        ack_id: Option<u64>,
        /// Whether the server says that its queues are nearly full.
        crowded: bool,
    },
    /// An event of the batch is not acceptable.
    Refused {
        /// Its index in the batch, if the server said which.
        event: Option<usize>,
        /// The server's words.
        reason: String,
    },
    /// This token is not accepted; another one may be.
    Token {
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
) -> Answer {
    let Ok(hec) = serde_json::from_slice::<HecAnswer>(body) else {
        return judge_status(place, status, retry_after);
    };
    let words = format!("{status}, code {}: {}", hec.code, words_of_receiver(&hec.text));
    let unavailable = |reason: String| Answer::Stop(Stop::Unavailable { retry_after, reason });
    match (status, hec.code) {
        (200, 0) => Answer::Taken { ack_id: hec.ack_id, crowded: false },
        // Accepted, but the queue (24) or the table of acknowledgements (25) is filling up.
        (200, 24 | 25) => Answer::Taken { ack_id: hec.ack_id, crowded: true },
        (200, _) => unavailable(format!(
            "{place} answered {words}, which does not say that it took the events; sending them again"
        )),
        (_, 1..=4 | 16 | 21 | 22) => Answer::Token { reason: words },
        // Over HTTP's own limit it does not matter what the code says: a smaller batch may pass.
        (413, _) | (_, 5 | 6 | 12 | 13 | 15) => Answer::Refused { event: hec.invalid_event_number, reason: words },
        (_, 7) => {
            let index =
                index.map_or_else(|| "the token's default index".to_owned(), |index| format!("index \"{index}\""));
            Answer::Stop(Stop::Misconfigured {
                reason: format!(
                    "{place} refuses {index} ({words}): create it, allow it for this token, or change `index`"
                ),
            })
        }
        (_, 10 | 11) => {
            unavailable(format!("{place} does not like our channel ({words}); trying again with a new one"))
        }
        (_, 8 | 9 | 18..=20 | 23 | 26 | 27) => unavailable(format!("{place} is busy or shutting down ({words})")),
        _ => unavailable(format!(
            "{place} answered {words}, which this version does not know; nothing is dropped for it"
        )),
    }
}

/// An answer that no HEC wrote: a proxy's, or something else that listens there.
fn judge_status(place: &str, status: u16, retry_after: Option<Duration>) -> Answer {
    let misconfigured =
        |hint: &str| Answer::Stop(Stop::Misconfigured { reason: format!("{place} answered {status} {hint}") });
    match status {
        413 => Answer::Refused {
            event: None,
            reason: "413: the request is larger than the server or a proxy takes".to_owned(),
        },
        401 | 403 => {
            Answer::Token { reason: format!("{status}, not by a HEC: a proxy may want something else than the token") }
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
        429 => Answer::Stop(Stop::Unavailable {
            retry_after,
            reason: format!(
                "{place} answered 429: it, or a proxy before it, limits our requests; raise that limit, or make larger batches"
            ),
        }),
        _ => Answer::Stop(Stop::Unavailable {
            retry_after,
            reason: format!("{place} answered {status} without a HEC's words"),
        }),
    }
}

/// What an answer to a question for an acknowledgement means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Acked {
    /// The indexers have it.
    Yes,
    /// Not yet, or never: nobody can tell the two apart.
    NotYet,
    /// It will never be said.
    Never(Stop),
}

/// Reads the answer of `place` to the question for `ack_id`.
pub(super) fn judge_ack(place: &str, ack_id: u64, status: u16, body: &[u8]) -> Acked {
    if status == 200 {
        return match serde_json::from_slice::<AckAnswer>(body) {
            Ok(answer) if answer.acks.get(&ack_id.to_string()) == Some(&true) => Acked::Yes,
            // Something odd is not a yes; asking on does no harm.
            _ => Acked::NotYet,
        };
    }
    match serde_json::from_slice::<HecAnswer>(body).map(|hec| hec.code) {
        Ok(14) => Acked::Never(Stop::Misconfigured {
            reason: format!(
                "{place} gives acknowledgements no longer (code 14): switch them on for the token, or set acks = \"off\""
            ),
        }),
        Ok(1..=4 | 10 | 11 | 16 | 21 | 22) => Acked::Never(Stop::unavailable(format!(
            "{place} no longer tells what it took under this token and channel ({status}); sending it again under a new channel"
        ))),
        _ => Acked::NotYet,
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
