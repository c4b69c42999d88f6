//! How many bytes of a TCP connection its other end has not acknowledged: what `SIOCOUTQ` tells, asked by `sock_diag` (netlink),
//! because an ioctl would take unsafe code.
//!
//! Invariants: whatever the kernel answers, nothing is indexed beyond it.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto, socket_with};

/// Bytes that were written and not acknowledged, sent or not.
pub(super) fn unacknowledged(local: SocketAddr, peer: SocketAddr) -> io::Result<u64> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::SOCK_DIAG))?;
    sendto(&socket, &question(local, peer), SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
    // The kernel answers before `sendto` returns.
    let mut answer = [0; 512];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::DONTWAIT)?;
    read(&answer[..length])
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2` of `linux/inet_diag.h`.
fn question(local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let scope = if let SocketAddr::V6(peer) = peer { peer.scope_id() } else { 0 };
    let mut message = Vec::with_capacity(QUESTION_BYTES as usize);
    message.extend(QUESTION_BYTES.to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and sender: nothing else is asked on this socket.
    message.extend([0; 8]);
    let family = u8::try_from(family.as_raw()).expect("AF_INET and AF_INET6 are small numbers");
    message.extend([family, IPPROTO_TCP, 0, 0]);
    // In any state.
    message.extend(u32::MAX.to_ne_bytes());
    for address in [local, peer] {
        message.extend(address.port().to_be_bytes());
    }
    for address in [local, peer] {
        let mut bytes = [0; 16];
        match address.ip() {
            IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes.copy_from_slice(&ip.octets()),
        }
        message.extend(bytes);
    }
    message.extend(scope.to_ne_bytes());
    // No cookie: the addresses name the connection.
    message.extend([0xff; 8]);
    debug_assert_eq!(message.len(), QUESTION_BYTES as usize);
    message
}

/// `idiag_wqueue` of `struct inet_diag_msg`, or the error.
fn read(answer: &[u8]) -> io::Result<u64> {
    let number = |at: usize| answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    match (kind, number(HEADER_BYTES), number(HEADER_BYTES + QUEUE_AT)) {
        (Some(SOCK_DIAG_BY_FAMILY), _, Some(queue)) => Ok(u64::from(queue)),
        (Some(NLMSG_ERROR), Some(error), _) => Err(Errno::from_raw_os_error(error.cast_signed().wrapping_neg()).into()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const IPPROTO_TCP: u8 = 6;
const HEADER_BYTES: usize = 16;
const QUESTION_BYTES: u32 = 16 + 56;
const QUEUE_AT: usize = 60;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_the_other_end_has_not_taken_is_counted() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).expect("a port");
            let mut stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
            let (local, peer) = (stream.local_addr().expect("bound"), stream.peer_addr().expect("connected"));
            assert_eq!(unacknowledged(local, peer).expect("the kernel answers"), 0);
            stream.set_nonblocking(true).expect("can be set");
            let mut written = 0;
            while let Ok(bytes) = stream.write(&vec![b'x'; 65_536]) {
                written += bytes;
            }
            let queued = unacknowledged(local, peer).expect("the kernel answers");
            assert!(queued > 0 && queued < written as u64, "{queued} of {written}");
            let (mut reader, _) = listener.accept().expect("accepts");
            reader.read_exact(&mut vec![0; written]).expect("reads all");
            let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
            while unacknowledged(local, peer).expect("the kernel answers") > 0 {
                assert!(std::time::Instant::now() < until, "never acknowledged");
            }
        }
    }

    #[test]
    fn a_connection_that_is_not_there_and_an_answer_that_is_none_are_errors() {
        let nobody = "127.0.0.1:1".parse().expect("an address");
        let error = unacknowledged(nobody, nobody).expect_err("there is no such connection");
        assert_eq!(error.raw_os_error(), Some(Errno::NOENT.raw_os_error()), "{error}");
        for length in 0..80 {
            assert!(read(&vec![0; length]).is_err(), "{length}");
        }
    }
}
