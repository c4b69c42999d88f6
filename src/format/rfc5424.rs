//! A whole syslog message: header, then the event in one of the formats, within the receiver's size limit.
//!
//! Invariants: one message is one line; the header is printable ASCII, with the times and lengths of RFC 5424; no byte order mark,
//! which some receivers take for the beginning of `CEF:`; no structured data, because we have no enterprise number and receivers
//! read it unevenly. Severity is never 0 or 1.
//!
//! Not here: frames and connections (`sink/syslog`); [`Framing`] only says which frame a receiver expects.

use std::io::Write;

use serde::{Deserialize, Serialize};

use super::{CORE_BYTES_MAX, Format, PRODUCT, Severity, Style, time_of};
use crate::event::Event;

/// A kind of receiver, in the words of the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Receiver {
    /// IBM `QRadar`: LEEF.
    Qradar,
    /// `ArcSight` SmartConnector: CEF.
    Arcsight,
    /// Microsoft Sentinel, by its agent's CEF connector.
    Sentinel,
    /// Splunk Connect for Syslog: CEF.
    Sc4s,
    /// rsyslog with `mmjsonparse`: OCSF behind the `@cee:` cookie. syslog-ng's `json-parser` takes it with that prefix.
    Rsyslog,
    /// Any RFC 5424 receiver: OCSF as the message.
    Plain,
}

/// The header before the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Header {
    /// `<134>1 2026-11-21T00:00:00.000Z host verdict-relay - verdict.clean - message`
    Rfc5424,
    /// `<134>Nov 21 00:00:00 host verdict-relay: message`: no year and no zone, so receivers have to guess both; the time is UTC.
    Rfc3164,
}

/// How messages are told apart on TCP and TLS; a datagram is its own frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// RFC 6587 octet counting: the length before the message. RFC 5425 demands it for TLS.
    OctetCounting,
    /// A line feed after the message, for receivers that count no octets.
    Lf,
}

/// What one receiver wants. Take [`Receiver::profile`] and override single fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Format of the event.
    pub format: Format,
    /// Header before it.
    pub header: Header,
    /// Frame that the sink puts around the message on a stream.
    pub framing: Framing,
    /// Most bytes of a message with its header and without its frame; below [`SIZE_MIN`] counts as that.
    pub size_max: usize,
    /// Whether a JSON event has the cookie `@cee:` before it.
    pub cee: bool,
}

impl Receiver {
    /// Every receiver.
    pub const ALL: [Self; 6] = [Self::Qradar, Self::Arcsight, Self::Sentinel, Self::Sc4s, Self::Rsyslog, Self::Plain];

    /// What this receiver wants.
    ///
    /// `QRadar` cuts a TCP payload at 4,096 bytes by default; rsyslog, which also stands before Sentinel, cuts a message at
    /// 8 KiB and then splits it into hundreds of records; the others take more, and need no more.
    pub fn profile(self) -> Profile {
        let profile = |format, size_max, cee| Profile {
            format,
            header: Header::Rfc5424,
            framing: Framing::OctetCounting,
            size_max,
            cee,
        };
        match self {
            Self::Qradar => profile(Format::Leef, 4_000, false),
            Self::Arcsight => profile(Format::Cef, 4_000, false),
            Self::Sentinel | Self::Sc4s => profile(Format::Cef, 8_000, false),
            Self::Rsyslog => profile(Format::Ocsf, 8_000, true),
            Self::Plain => profile(Format::Ocsf, 8_000, false),
        }
    }
}

impl Profile {
    /// This profile for datagrams: at most [`UDP_SIZE_MAX`], whatever the receiver would take on a stream.
    #[must_use]
    pub const fn for_udp(self) -> Self {
        let size_max = if self.size_max < UDP_SIZE_MAX { self.size_max } else { UDP_SIZE_MAX };
        Self { size_max, ..self }
    }

    /// Appends one complete message to `out`, without its frame. It holds no line feed.
    pub fn render(&self, event: &Event, style: &Style, out: &mut Vec<u8>) {
        let start = out.len();
        self.header(event, style, out);
        if self.cee && self.format.is_json() {
            out.extend_from_slice(b"@cee:");
        }
        let left = self.size_max.max(SIZE_MIN).saturating_sub(out.len() - start);
        self.format.render_within(event, style, left, out);
    }

    fn header(&self, event: &Event, style: &Style, out: &mut Vec<u8>) {
        let priority = LOCAL0 * 8 + Severity::of(event).syslog;
        let (time, hostname, code) = (time_of(event), style.hostname(), event.code());
        // Always three digits: QRadar reads exactly that.
        let written = match self.header {
            Header::Rfc5424 => write!(out, "<{priority}>1 {time:.3} {hostname} {PRODUCT} - {code} - "),
            Header::Rfc3164 => {
                let time = time.strftime("%b %e %H:%M:%S");
                write!(out, "<{priority}>{time} {hostname} {PRODUCT}: ")
            }
        };
        written.expect("memory takes every write");
    }
}

/// Facility local0: it is for the site's own use.
const LOCAL0: u8 = 16;
/// Most bytes of a datagram: `QRadar`'s default, and less than every path of RFC 5426 takes.
pub const UDP_SIZE_MAX: usize = 1_024;
/// The smallest size that any event fits: the longest header and the core of an event.
pub const SIZE_MIN: usize = UDP_SIZE_MAX;
const _: () = assert!(SIZE_MIN >= HEADER_BYTES_MAX + CORE_BYTES_MAX);
/// Priority, version, time, the longest host name, APP-NAME, PROCID, MSGID, structured data, cookie.
const HEADER_BYTES_MAX: usize = 5 + 2 + 25 + 256 + 14 + 2 + 19 + 2 + 5;
