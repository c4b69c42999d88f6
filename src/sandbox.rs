//! A process for each script that a user wrote: this same program once more, which reads bodies and answers, and can do nothing else.
//!
//! An expression may never end, take all memory or overflow the stack; in a process of its own it takes nothing along but the message
//! it was run on. The process has an empty environment, the root folder, no file of ours, and limits on memory and processor time.
//! Bodies and answers travel over one socket, each behind its length.
//!
//! Invariants: a message costs at most [`DEADLINE`] of the processor, [`PATIENCE`] of time where the machine is busy, and the start of the
//! next process; a process that failed is never asked again; nothing that it answers is believed to be within bounds.
//!
//! Not here: what is read and computed (`adapter/jq`), what the child does (`sandbox/worker`).

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::adapter::jq::{ANSWER_BYTES_MAX, Evaluate, Refusal, Script};

pub mod worker;

/// Processor time that a message may take, and time, unless the process hardly ran.
pub const DEADLINE: Duration = Duration::from_millis(250);
/// Time that a message may take on a machine so busy that its process hardly runs.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Time that a process may take to start and to compile its script.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// After this many failures in a row the script rests, so that it cannot hold up everything else that its loop has to do.
const FAILURES_MAX: u32 = 3;
/// How long it rests.
const REST: Duration = Duration::from_secs(5);

/// Runs one script in a process of its own.
pub struct Sandbox {
    script: Script,
    program: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Started by the first message, and again by the first one after a failure.
    process: Option<Process>,
    failures: u32,
    resting_until: Option<Instant>,
}

impl Sandbox {
    /// Starts nothing yet. The script has to compile: the process does that once more.
    pub fn new(script: Script) -> Self {
        // The file that this process was started from, also after an update has put another in its place.
        Self::with_program(script, "/proc/self/exe")
    }

    /// The same with another file of this program.
    pub fn with_program(script: Script, program: impl Into<PathBuf>) -> Self {
        Self { script, program: program.into(), state: Mutex::default() }
    }

    /// The process that waits for the next body, if there is one.
    pub fn process(&self) -> Option<u32> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.process.as_ref().map(|process| process.child.id())
    }

    fn ask(&self, running: Option<Process>, body: &[u8]) -> Result<(Process, Answer), Failure> {
        let is_new = running.is_none();
        let mut process = running.map_or_else(|| Process::spawn(&self.program), Ok)?;
        if is_new {
            let script = serde_json::to_vec(&self.script).expect("a script is plain data");
            if let Err(refusal) = process.ask(&script, START_PATIENCE, START_PATIENCE)? {
                return Ok((process, Err(refusal)));
            }
        }
        let answer = process.ask(body, DEADLINE, PATIENCE)?;
        Ok((process, answer))
    }
}

impl Evaluate for Sandbox {
    fn evaluate(&self, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.resting_until.is_some_and(|until| Instant::now() < until) {
            return Err(Failure::Resting.into());
        }
        let running = state.process.take().and_then(Process::if_running);
        let is_used = running.is_some();
        let mut asked = self.ask(running, body);
        if is_used && matches!(asked, Err(Failure::Ended)) {
            // It may have ended before it was asked, or for what earlier messages left in its memory.
            asked = self.ask(None, body);
        }
        match asked {
            Ok((process, answer)) => {
                *state = State { process: Some(process), ..State::default() };
                answer
            }
            Err(failure) => {
                state.failures += 1;
                state.resting_until = (state.failures >= FAILURES_MAX).then(|| Instant::now() + REST);
                Err(failure.into())
            }
        }
    }
}

/// What a process answers.
type Answer = Result<Vec<u8>, Refusal>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no process could be started to run the expressions: {0}; free memory or processes, and redrive")]
    NoProcess(std::io::Error),
    #[error("the expressions ran longer than {} ms and were stopped", DEADLINE.as_millis())]
    Late,
    #[error(
        "the process of the expressions ended: they took more memory or a deeper stack than they may, or met a fault of jq"
    )]
    Ended,
    #[error("the expressions failed {FAILURES_MAX} times in a row and rest for {} s, so that everything else goes on", REST.as_secs())]
    Resting,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Program(failure.to_string())
    }
}

/// A running process. It ends with this value.
struct Process {
    child: Child,
    socket: UnixStream,
    /// Processor time that it had used when it last answered.
    used: Duration,
}

impl Process {
    fn spawn(program: &Path) -> Result<Self, Failure> {
        let spawned = UnixStream::pair().and_then(|(socket, theirs)| {
            let child = Command::new(program)
                .arg0("verdict-relay")
                .arg("jq-worker")
                .env_clear()
                .current_dir("/")
                .stdin(OwnedFd::from(theirs.try_clone()?))
                .stdout(OwnedFd::from(theirs))
                .stderr(Stdio::null())
                .spawn()?;
            Ok(Self { child, socket, used: Duration::ZERO })
        });
        spawned.map_err(Failure::NoProcess)
    }

    fn if_running(mut self) -> Option<Self> {
        matches!(self.child.try_wait(), Ok(None)).then_some(self)
    }

    /// Sends one body and waits for the answer.
    fn ask(&mut self, body: &[u8], deadline: Duration, patience: Duration) -> Result<Answer, Failure> {
        let limit = Limit { began: Instant::now(), deadline, patience };
        let length = u32::try_from(body.len()).map_err(|_| Failure::Ended)?;
        self.send(&length.to_le_bytes(), &limit)?;
        self.send(body, &limit)?;
        let mut head = [0; worker::HEAD_BYTES];
        self.receive(&mut head, &limit)?;
        let Some(head) = worker::Head::read(&head).filter(|head| head.length <= ANSWER_BYTES_MAX + LEEWAY) else {
            return Err(Failure::Ended);
        };
        self.used = head.used;
        let mut answer = vec![0; head.length];
        self.receive(&mut answer, &limit)?;
        if head.is_refusal {
            return Ok(Err(serde_json::from_slice(&answer).map_err(|_| Failure::Ended)?));
        }
        Ok(Ok(answer))
    }

    fn send(&mut self, mut bytes: &[u8], limit: &Limit) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let wait = self.wait_of(limit)?;
            let sent = self.socket.set_write_timeout(Some(wait)).and_then(|()| self.socket.write(bytes));
            bytes = &bytes[moved(sent)?..];
        }
        Ok(())
    }

    fn receive(&mut self, mut bytes: &mut [u8], limit: &Limit) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let wait = self.wait_of(limit)?;
            let received = match self.socket.set_read_timeout(Some(wait)).and_then(|()| self.socket.read(bytes)) {
                Ok(0) => return Err(Failure::Ended),
                received => moved(received)?,
            };
            bytes = &mut bytes[received..];
        }
        Ok(())
    }

    /// How long the next wait may last. At the deadline a process that hardly ran, because the machine is busy, gets some more.
    fn wait_of(&self, limit: &Limit) -> Result<Duration, Failure> {
        let elapsed = limit.began.elapsed();
        if let Some(left) = limit.deadline.checked_sub(elapsed).filter(|left| !left.is_zero()) {
            return Ok(left);
        }
        let used = processor_time(self.child.id()).unwrap_or(Duration::MAX).saturating_sub(self.used);
        let left = limit.deadline.saturating_sub(used).min(limit.patience.saturating_sub(elapsed));
        // Its clock ticks every 10 ms, so one that ran all the time seems to have used a little less.
        if left > TICK * 3 { Ok(left) } else { Err(Failure::Late) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already cannot be killed; either way nothing is left of it after this.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// How long an answer may take.
struct Limit {
    began: Instant,
    deadline: Duration,
    patience: Duration,
}

/// Bytes that went over the socket; none where the wait was over.
fn moved(result: std::io::Result<usize>) -> Result<usize, Failure> {
    match result {
        Ok(bytes) => Ok(bytes),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
            Ok(0)
        }
        Err(_) => Err(Failure::Ended),
    }
}

/// Processor time that a process has used, by its line in /proc.
fn processor_time(process: u32) -> Option<Duration> {
    let line = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Its name may hold anything; what follows the last bracket are numbers.
    let numbers: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| numbers.get(at)?.parse::<u32>().ok();
    Some(TICK * ticks(11)?.saturating_add(ticks(12)?))
}

/// The unit in which Linux tells processor times.
const TICK: Duration = Duration::from_millis(10);
/// An answer may pass its bound by its last item, before that is noticed.
const LEEWAY: usize = 1 << 20;
