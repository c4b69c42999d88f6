//! The config of a syslog sink, and what it means once it is valid.
//!
//! Invariants: all destinations of a sink speak the same transport, so a failover never falls back from TLS to plain text.
//!
//! Not here: connections (`wire`), what is sent again after one was lost (`window`).

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SyslogSink;
use crate::format::rfc5424::{Framing, Header, Profile, Receiver, SIZE_MIN, UDP_SIZE_MAX};
use crate::format::{Format, Style};
use crate::setting::{Problem, Size, Span, Texts};
use crate::sink::Render;
use crate::tls::{ClientTls, ClientTlsConfig};

sink_config! {
    /// Syslog over UDP, TCP or TLS.
    pub struct SyslogConfig {
        /// Where to: `udp://host:port`, `tcp://host:port` or `tls://host:port`; without a port 514, with TLS 6514. A list of
        /// them is taken in its order: the next one while those before it can't be reached.
        pub address: Texts,
        /// What receives. Sets format, header, framing, size budget and time.
        #[serde(default = "plain")]
        pub profile: Receiver,
        /// Our host name in the header. Receivers tell log sources apart by it, so it has to be the same on every replica.
        pub hostname: Option<String>,
        /// How an event is written, instead of the profile's way.
        pub format: Option<Format>,
        /// Header before the event, instead of the profile's.
        pub header: Option<Header>,
        /// How messages are told apart on TCP and TLS, instead of the profile's way.
        pub framing: Option<Framing>,
        /// Most bytes of a message, instead of the profile's: 1KiB to 64KiB, over UDP at most 1KiB.
        pub size_max: Option<Size>,
        /// What is sent again when a TCP or TLS connection was lost.
        pub resend: Option<ResendConfig>,
        /// TLS, for `tls://`.
        #[serde(default)]
        pub tls: ClientTlsConfig,
    }
}

/// The end of what was sent, which a receiver that dies may have left unread: an event counts as delivered only once it is out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResendConfig {
    /// An event is out of the window once the receiver's machine acknowledged so many bytes after it. More than the receive
    /// buffer there can hold, and nothing unread is lost; at most 1GiB.
    #[serde(default = "default_bytes")]
    pub bytes: Size,
    /// It is also out once the receiver's machine acknowledged it and the connection stayed good for so long; at most 1h. With
    /// `0s` the acknowledgement is enough.
    #[serde(default = "default_time")]
    pub time: Span,
}

const fn plain() -> Receiver {
    Receiver::Plain
}

const fn default_bytes() -> Size {
    Size(32 << 20)
}

const fn default_time() -> Span {
    Span(Duration::from_mins(1))
}

/// What carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
    Tls,
}

/// One destination.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// As written in the config, for words.
    pub(super) address: String,
    pub(super) host: String,
    pub(super) port: u16,
}

/// Where to send, and how.
#[derive(Debug, Clone)]
pub struct SyslogPlan {
    pub(super) transport: Transport,
    /// In the order of the config; at least one.
    pub(super) targets: Vec<Target>,
    pub(super) tls: ClientTls,
    pub(super) profile: Profile,
    pub(super) resend_bytes: u64,
    pub(super) resend_time: Duration,
    hostname: Option<String>,
}

impl SyslogConfig {
    pub(in crate::sink) fn plan(self, key: &str) -> Result<SyslogPlan, Vec<Problem>> {
        let mut problems = Vec::new();
        let targets = targets(&self.address.0, &format!("{key}.address"), &mut problems);
        let transport = targets.as_ref().map(|(transport, _)| *transport);
        if !self.tls.is_default() && matches!(transport, Some(Transport::Udp | Transport::Tcp)) {
            problems.push(Problem::new(
                format!("{key}.tls"),
                "the address has no TLS: write \"tls://host:port\", or remove this table",
            ));
        }
        if self.framing.is_some() && transport == Some(Transport::Udp) {
            problems.push(Problem::new(format!("{key}.framing"), "a datagram is a message by itself: remove this"));
        }
        if self.resend.is_some() && transport == Some(Transport::Udp) {
            problems.push(Problem::new(format!("{key}.resend"), "nobody knows which datagram was lost: remove this"));
        }
        let resend = self.resend.unwrap_or(ResendConfig { bytes: default_bytes(), time: default_time() });
        if resend.bytes.0 > RESEND_BYTES_MAX || resend.time.0 > RESEND_TIME_MAX {
            problems.push(Problem::new(format!("{key}.resend"), "use at most { bytes = \"1GiB\", time = \"1h\" }"));
        }
        let size_max = self.size_max.map(|size| usize::try_from(size.0).unwrap_or(usize::MAX));
        let size_most = if transport == Some(Transport::Udp) { UDP_SIZE_MAX } else { SIZE_MOST };
        if size_max.is_some_and(|size| !(SIZE_MIN..=size_most).contains(&size)) {
            let most = Size(size_most as u64);
            problems.push(Problem::new(format!("{key}.size_max"), format!("use \"1KiB\" to \"{most}\"")));
        }
        let Profile { format, header, framing, size_max: budget, cee } = self.profile.profile();
        let profile = Profile {
            format: self.format.unwrap_or(format),
            header: self.header.unwrap_or(header),
            framing: self.framing.unwrap_or(framing),
            size_max: size_max.unwrap_or(budget),
            cee,
        };
        match (targets, self.tls.plan(&format!("{key}.tls"))) {
            (Some((transport, targets)), Ok(tls)) if problems.is_empty() => Ok(SyslogPlan {
                profile: if transport == Transport::Udp { profile.for_udp() } else { profile },
                transport,
                targets,
                tls,
                resend_bytes: resend.bytes.0,
                resend_time: resend.time.0,
                hostname: self.hostname,
            }),
            (_, tls) => {
                problems.extend(tls.err().into_iter().flatten());
                Err(problems)
            }
        }
    }
}

/// The destinations and what they all speak; None where something is wrong with them.
fn targets(addresses: &[String], key: &str, problems: &mut Vec<Problem>) -> Option<(Transport, Vec<Target>)> {
    let before = problems.len();
    let mut targets = Vec::new();
    let mut transport = None;
    for address in addresses {
        match parse_address(address) {
            Ok((one, host, port)) => {
                if *transport.get_or_insert(one) != one {
                    let words =
                        "all addresses of a sink need the same scheme: nothing falls back from TLS to TCP or UDP";
                    problems.push(Problem::new(key, words));
                }
                targets.push(Target { address: address.clone(), host, port });
            }
            Err(message) => problems.push(Problem::new(key, message)),
        }
    }
    if addresses.is_empty() {
        problems.push(Problem::new(key, "there is none: write it like \"tls://qradar:6514\""));
    }
    if targets.len() > 1 && transport == Some(Transport::Udp) {
        problems.push(Problem::new(key, "over UDP nobody knows that a receiver is gone: give one address"));
    }
    if targets.len() > TARGETS_MAX {
        problems.push(Problem::new(key, format!("use at most {TARGETS_MAX} addresses")));
    }
    transport.filter(|_| problems.len() == before).map(|transport| (transport, targets))
}

pub(super) fn parse_address(address: &str) -> Result<(Transport, String, u16), String> {
    let wrong =
        || format!("\"{address}\" is no address: write it like \"tls://qradar:6514\", \"tcp://...\" or \"udp://...\"");
    let (scheme, rest) = address.split_once("://").ok_or_else(wrong)?;
    let (transport, default_port) = match scheme {
        "udp" => (Transport::Udp, 514),
        "tcp" => (Transport::Tcp, 514),
        "tls" => (Transport::Tls, 6514),
        _ => return Err(wrong()),
    };
    let (host, port) = match rest.strip_prefix('[') {
        // An IPv6 address stands in brackets.
        Some(bracketed) => bracketed.split_once(']').ok_or_else(wrong)?,
        None => rest.find(':').map_or((rest, ""), |at| rest.split_at(at)),
    };
    let port = match port.strip_prefix(':') {
        Some(digits) => digits.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
        None if port.is_empty() => default_port,
        None => return Err(wrong()),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(plain) { Err(wrong()) } else { Ok((transport, host.to_owned(), port)) }
}

impl SyslogPlan {
    pub(in crate::sink) fn render(&self, style: Style) -> Render {
        let style = self.hostname.as_deref().map_or(style, Style::new);
        let profile = self.profile.clone();
        Box::new(move |event, out| profile.render(event, &style, out))
    }

    pub(in crate::sink) fn build(self) -> SyslogSink {
        SyslogSink::new(Arc::new(self))
    }
}

/// What receivers take at most (SC4S); OCSF has at most 9 KiB.
const SIZE_MOST: usize = 64 << 10;
/// The books of a gigabyte of events are some 100 MiB of memory.
const RESEND_BYTES_MAX: u64 = 1 << 30;
/// Longer than a receiver that hangs is left alone.
const RESEND_TIME_MAX: Duration = Duration::from_hours(1);
/// Each may take [`super::wire::CONNECT_TIMEOUT`] while all are away.
const TARGETS_MAX: usize = 8;
