//! The envelope of Splunk's HTTP event collector around an OCSF event: one JSON object on one line.
//!
//! Invariants: index, source type, host and source come from our config, never from a payload; indexed fields are flat, short texts
//! and never empty, because the collector refuses a whole batch for one that is.
//!
//! Not here: batches, channels and acknowledgements (`sink/splunk_hec`).

use std::io::Write;

use super::json::{Shown, object};
use super::{Style, hashes, ocsf, time_of};
use crate::event::Event;

/// The source type of our events; Splunk's OCSF-CIM add-on goes by its prefix (contract 5).
pub const SOURCETYPE: &str = "ocsf:verdict-relay";

/// Appends the envelope of the event; without `index`, the token's default index takes it.
///
/// `fields.event_id` is the event's uid: searches remove by it what was delivered twice.
pub fn render(event: &Event, style: &Style, index: Option<&str>, out: &mut Vec<u8>) {
    object(out, |json| {
        json.embed("time", |out| {
            let ms = time_of(event).as_millisecond();
            write!(out, "{}.{:03}", ms / 1000, ms % 1000).expect("memory takes every write");
        });
        json.put("host", style.hostname());
        json.show("source", format_args!("verdict-relay:{}", event.source));
        json.put("sourcetype", SOURCETYPE);
        json.put_some("index", index);
        json.embed("event", |out| ocsf::render_within(event, style, ocsf::BYTES_MAX, out));
        json.nest("fields", |json| {
            let finding = &event.finding;
            json.show("event_id", event.uid);
            json.put("verdict", finding.verdict.word());
            json.put("verdict_source", event.source.as_str());
            json.put_some("file_sha256", hashes(&finding.subject).0.map(Shown));
            json.put_some("correlation_uid", filled(finding.reference.as_deref()));
            json.put_some("tenant", filled(finding.tenant.as_deref()));
            json.put_some("tlp", filled(finding.tlp.as_deref()));
        });
    });
}

/// Appends an envelope of [`render`], marked as one that may be indexed already: a collector took it, and nobody acknowledged it.
///
/// Indexed, and beside the event: the event itself is the same as the first time, like `event_id`.
pub fn write_suspect(envelope: &[u8], out: &mut Vec<u8>) {
    // The fields stand last, and they are never empty.
    let Some(open) = envelope.strip_suffix(b"}}") else { return out.extend_from_slice(envelope) };
    out.extend_from_slice(open);
    out.extend_from_slice(b",\"suspect_duplicate\":\"true\"}}");
}

fn filled(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.trim().is_empty())
}
