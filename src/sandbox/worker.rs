//! The child: reads a script, then bodies, and answers each with what the script makes of it.
//!
//! Invariants: it sets its own limits before it reads a byte; it ends when its parent does, at the latest a second of processor time
//! later; it opens no file and writes nothing but answers.
//!
//! Not here: the deadline of a message (`sandbox`).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::adapter::jq::{Program, Refusal, Script};

/// Memory that the process may map: enough for a body of ten MiB, and little beside the service.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Answers until its standard input ends. That is both ends of the one socket to its parent.
pub fn work() -> io::Result<()> {
    limit()?;
    let mut socket = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let Some(script) = read_body(&mut socket)? else { return Ok(()) };
    let script: Script = serde_json::from_slice(&script)?;
    let Ok(program) = Program::compile(script) else {
        return answer(&mut socket, Err(Refusal::Program("the expressions do not compile".to_owned())));
    };
    answer(&mut socket, Ok(Vec::new()))?;
    while let Some(body) = read_body(&mut socket)? {
        limit_processor()?;
        answer(&mut socket, program.run(&body))?;
    }
    Ok(())
}

fn limit() -> io::Result<()> {
    // Where memory is short, this process goes before the one that holds the store. Some systems do not let it say so.
    let _unsaid = std::fs::write("/proc/self/oom_score_adj", "1000");
    for (resource, most) in [
        (Resource::As, MEMORY_BYTES_MAX),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, 16),
        (Resource::Nproc, 0),
    ] {
        // What the service itself may not pass, its child may not raise.
        let most = getrlimit(resource).maximum.map_or(most, |own| own.min(most));
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    limit_processor()
}

/// Lets the next body take at most two seconds of the processor, should the parent not be there any more to end this.
fn limit_processor() -> io::Result<()> {
    let maximum = getrlimit(Resource::Cpu).maximum;
    let seconds = used().as_secs() + 2;
    let current = maximum.map_or(seconds, |own| own.min(seconds));
    Ok(setrlimit(Resource::Cpu, Rlimit { current: Some(current), maximum })?)
}

/// Processor time of this process so far.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// The next body; none at the end.
fn read_body(socket: &mut File) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match socket.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    socket.read_exact(&mut body)?;
    Ok(Some(body))
}

fn answer(socket: &mut File, answer: Result<Vec<u8>, Refusal>) -> io::Result<()> {
    let (is_refusal, bytes) = match answer {
        Ok(bytes) => (false, bytes),
        Err(refusal) => (true, serde_json::to_vec(&refusal)?),
    };
    let mut frame = Head { is_refusal, used: used(), length: bytes.len() }.write();
    frame.extend_from_slice(&bytes);
    socket.write_all(&frame)
}

/// What stands before an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Whether a [`Refusal`] follows, and not an answer.
    pub(super) is_refusal: bool,
    /// Processor time of the process so far.
    pub(super) used: Duration,
    /// Bytes that follow.
    pub(super) length: usize,
}

/// Bytes of a head: what follows, processor time in microseconds, length; both little endian.
pub(super) const HEAD_BYTES: usize = 1 + 8 + 4;

impl Head {
    fn write(self) -> Vec<u8> {
        let used = u64::try_from(self.used.as_micros()).unwrap_or(u64::MAX);
        let length = u32::try_from(self.length).unwrap_or(u32::MAX);
        let mut bytes = vec![u8::from(self.is_refusal)];
        bytes.extend_from_slice(&used.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes
    }

    pub(super) fn read(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (used, length) = rest.split_first_chunk()?;
        let length = u32::from_le_bytes(length.try_into().ok()?);
        let is_refusal = match kind {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some(Self { is_refusal, used: Duration::from_micros(u64::from_le_bytes(*used)), length: length as usize })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back_and_no_other_does() {
        let head = Head { is_refusal: true, used: Duration::from_micros(1_234_567), length: 70_000 };
        let mut bytes: [u8; HEAD_BYTES] = head.write().try_into().expect("as long as it says");
        assert_eq!(Head::read(&bytes), Some(head));
        bytes[0] = 2;
        assert_eq!(Head::read(&bytes), None);
    }
}
