//! Who sent a request: the other end of the connection, or what a trusted proxy says about it.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::{HeaderMap, HeaderValue};
use ipnet::IpNet;

/// The rightmost address that no trusted proxy stands at. What stands to its left was written by strangers.
pub(super) fn peer_of(socket: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut peer = socket.to_canonical();
    if trusted.is_empty() || !is_trusted(&peer) {
        return peer;
    }
    // Several headers are one list, in the order in which they stand (RFC 9110, 5.3).
    let values: Vec<&[u8]> = headers.get_all(FORWARDED_FOR).map(HeaderValue::as_bytes).collect();
    for entry in values.iter().rev().flat_map(|value| value.rsplit(|byte| *byte == b',')) {
        // A proxy that hides the address, or one that lies: the last address that we know is the proxy's.
        let Some(address) = std::str::from_utf8(entry).ok().and_then(parse_address) else { break };
        peer = address;
        if !is_trusted(&peer) {
            break;
        }
    }
    peer
}

/// An address, with or without brackets and port, as the proxies in use write it.
fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches([' ', '\t']);
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))?;
    Some(address.to_canonical())
}

const FORWARDED_FOR: &str = "x-forwarded-for";

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderName;

    use super::*;

    #[test]
    fn the_rightmost_untrusted_address_is_the_peer() {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().expect("network")).into();
        let cases: [(&str, &[&str], &str); 12] = [
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1,203.0.113.9 ,10.0.0.7"], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1", "203.0.113.9", "10.0.0.7"], "203.0.113.9"),
            ("::ffff:10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9"),
            ("fd00::1", &["[2001:db8::5]:4711"], "2001:db8::5"),
            ("fd00::1", &["[2001:db8::5]"], "2001:db8::5"),
            ("10.0.0.1", &["203.0.113.9:80"], "203.0.113.9"),
            ("10.0.0.1", &["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
            ("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
            // Whoever is no proxy of ours may write what he likes.
            ("203.0.113.5", &["10.0.0.9"], "203.0.113.5"),
        ];
        for (socket, forwarded, peer) in cases {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                let value = HeaderValue::from_str(value).expect("a header");
                headers.append(HeaderName::from_static(FORWARDED_FOR), value);
            }
            let found = peer_of(socket.parse().expect("address"), &headers, &trusted);
            assert_eq!(found.to_string(), peer, "{socket} {forwarded:?}");
        }
    }
}
