//! Secrets: where they are kept, which values are live now, and never what they are.
//!
//! Invariants: a value leaves this module only through [`Secret::expose`]; no log line, error or `Debug` holds one, nor a text that
//! was written where a reference belongs. A value that was good stays live until a better one was read: a file that vanishes or
//! breaks is logged once and closes no door. An empty value is never live.
//!
//! Not here: what a value is used for; how each place is read (`secret/env`, `secret/file`).

mod env;
mod file;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tracing::{info, warn};
use zeroize::Zeroizing;

/// Where a secret is kept: `env:NAME`, `file:PATH`, later `vault:` and `aws:`. Not secret itself: it is what logs and errors name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SecretRef(pub String);

/// The place that a reference names.
enum Place<'a> {
    Env(&'a str),
    File(&'a Path),
}

impl SecretRef {
    /// Whether this is a reference that can be read at all, without reading it.
    pub fn check(&self) -> Result<(), SecretError> {
        self.place().map(|_| ())
    }

    fn place(&self) -> Result<Place<'_>, SecretError> {
        match self.0.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Place::Env(name)),
            Some(("file", path)) if !path.is_empty() => Ok(Place::File(Path::new(path))),
            Some((store @ ("vault" | "aws"), _)) => Err(SecretError::Planned { store: store.to_owned() }),
            _ => Err(SecretError::NoReference),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why there is no value behind a reference. Names the reference, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Perhaps the secret itself, so it is not shown.
    #[error(
        "a secret is named by a reference, like \"env:NAME\" or \"file:PATH\"; what stands here is none and is not shown"
    )]
    NoReference,
    /// A store that later versions read.
    #[error("secrets in \"{store}:\" are planned and not built yet: use \"env:NAME\" or \"file:PATH\"")]
    Planned {
        /// The store's prefix.
        store: String,
    },
    /// The environment has no such variable.
    #[error("{reference}: the environment has no such variable: set it where the service is started")]
    Unset {
        /// The reference.
        reference: SecretRef,
    },
    /// The file cannot be read.
    #[error("{reference}: {reason}: check the path and who may read it")]
    Unreadable {
        /// The reference.
        reference: SecretRef,
        /// The system's words.
        reason: String,
    },
    /// Nothing but perhaps a line end.
    #[error(
        "{reference}: the value is empty, and an empty secret proves nothing: write one of at least {BYTES_MIN} bytes"
    )]
    Empty {
        /// The reference.
        reference: SecretRef,
    },
    /// Short enough to be guessed.
    #[error(
        "{reference}: the value has {bytes} bytes, under {BYTES_MIN} it can be guessed: make a longer one, or set allow_short_secret = true"
    )]
    Short {
        /// The reference.
        reference: SecretRef,
        /// Its length.
        bytes: usize,
    },
    /// Surely not a secret.
    #[error("{reference}: the value has more than {BYTES_MAX} bytes: this is the wrong file")]
    Long {
        /// The reference.
        reference: SecretRef,
    },
}

/// A secret value. Wiped when dropped; its `Debug` shows nothing of it.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the value over.
    pub fn new(value: Vec<u8>) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value, for the one line that needs it.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// One live value and the reference it was loaded by.
#[derive(Debug)]
pub struct Key {
    /// The reference, as written in the config.
    pub id: SecretRef,
    /// The value.
    pub secret: Secret,
}

/// The live values of one use (a source's secrets, a sink's tokens), in the order of the config. Cheap to clone; all clones see a refresh.
#[derive(Debug, Clone)]
pub struct KeyRing {
    keys: watch::Receiver<Arc<Vec<Key>>>,
    slots: Arc<Mutex<Slots>>,
}

/// How one secret of a ring stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyState {
    /// The reference.
    pub reference: SecretRef,
    /// Since when its value has been what it is: the file's time, or when the ring was opened; none while there is no value.
    pub since: Option<Timestamp>,
    /// How long ago it was last read with success: some seconds while all is well, growing while it cannot be read.
    pub read_age: Option<Duration>,
    /// Why it could not be read the last time, if it could not.
    pub error: Option<SecretError>,
}

impl KeyRing {
    /// Reads every reference. One that fails is logged, tried again at each refresh, and is no key until then.
    ///
    /// `now` is the age of values whose place keeps no time. `allow_short` lets values under 24 bytes pass.
    pub async fn open(references: Vec<SecretRef>, allow_short: bool, now: Timestamp) -> Self {
        let slot = |reference| Slot { reference, value: None, since: now, read_at: None, error: None };
        let (publish, keys) = watch::channel(Arc::new(Vec::new()));
        let slots = Slots { all: references.into_iter().map(slot).collect(), allow_short, publish };
        let ring = Self { keys, slots: Arc::new(Mutex::new(slots)) };
        ring.refresh().await;
        ring
    }

    /// The values that are loaded now; empty while none could be read.
    pub fn keys(&self) -> Arc<Vec<Key>> {
        self.keys.borrow().clone()
    }

    /// News of other values, for whoever waits for one.
    pub fn news(&self) -> watch::Receiver<Arc<Vec<Key>>> {
        self.keys.clone()
    }

    /// Reads every reference again now, without waiting for the refresh loop: for a receiver that just refused a token.
    pub async fn refresh(&self) {
        self.slots.lock().await.refresh().await;
    }

    /// Takes up what changes, for ever: within [`REFRESH_EVERY`] of the change and the moment it takes to read it.
    pub async fn run(self) {
        let mut ticks = tokio::time::interval(REFRESH_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.refresh().await;
        }
    }

    /// How each secret stands, in the order of the config.
    pub async fn states(&self) -> Vec<KeyState> {
        let slots = self.slots.lock().await;
        let state = |slot: &Slot| KeyState {
            reference: slot.reference.clone(),
            since: slot.value.as_ref().map(|_| slot.since),
            read_age: slot.read_at.map(|at| at.elapsed()),
            error: slot.error.clone(),
        };
        slots.all.iter().map(state).collect()
    }
}

/// Everything that a refresh needs; behind one lock, so that two refreshes cannot overtake each other.
#[derive(Debug)]
struct Slots {
    all: Vec<Slot>,
    allow_short: bool,
    publish: watch::Sender<Arc<Vec<Key>>>,
}

#[derive(Debug)]
struct Slot {
    reference: SecretRef,
    /// The last good value.
    value: Option<Secret>,
    since: Timestamp,
    read_at: Option<Instant>,
    /// What went wrong the last time; kept so that it is logged once.
    error: Option<SecretError>,
}

impl Slots {
    async fn refresh(&mut self) {
        let mut changed = false;
        for slot in &mut self.all {
            let read = slot.read_settled(self.allow_short).await;
            changed |= slot.take(read);
        }
        if changed {
            let live = self.all.iter().filter_map(|slot| {
                let value = slot.value.as_ref()?.expose().to_vec();
                Some(Key { id: slot.reference.clone(), secret: Secret::new(value) })
            });
            self.publish.send_replace(Arc::new(live.collect()));
        }
    }
}

impl Slot {
    /// The value as it stands now; one that differs from the live one is read twice, so that no half-written file is taken.
    async fn read_settled(&self, allow_short: bool) -> Result<Value, SecretError> {
        let first = read(&self.reference, allow_short).await?;
        if self.value.as_ref().is_none_or(|live| live.expose() == first.secret.expose()) {
            return Ok(first);
        }
        read_until_settled(&self.reference, allow_short, first).await
    }

    /// Makes a value live, or notes why there is none; whether the live value changed.
    fn take(&mut self, read: Result<Value, SecretError>) -> bool {
        let value = match read {
            Ok(value) => value,
            Err(error) => {
                if self.error.as_ref() != Some(&error) {
                    let kept = if self.value.is_some() { ", the last good value stays live" } else { "" };
                    warn!(secret = %self.shown(), "secret could not be read{kept}: {error}");
                    self.error = Some(error);
                }
                return false;
            }
        };
        self.read_at = Some(Instant::now());
        if self.error.take().is_some() {
            info!(secret = %self.shown(), "secret {} can be read again", self.shown());
        }
        if self.value.as_ref().is_some_and(|live| live.expose() == value.secret.expose()) {
            return false;
        }
        if self.value.is_some() {
            info!(secret = %self.shown(), "secret {} has a new value", self.shown());
        } else if value.open_to_all && !value.is_public() {
            warn!(secret = %self.shown(), "secret {} can be read by every user of this machine: set its mode to 0600", self.shown());
        }
        self.since = value.changed_at.unwrap_or(self.since);
        self.value = Some(value.secret);
        true
    }

    /// The reference, unless it may be a secret that was written in its place.
    fn shown(&self) -> &str {
        if self.reference.place().is_ok() { &self.reference.0 } else { "[no reference]" }
    }
}

/// A value as one read found it.
struct Value {
    secret: Secret,
    /// When it was written, where its place knows.
    changed_at: Option<Timestamp>,
    /// Whether every user of the machine may read it.
    open_to_all: bool,
}

impl Value {
    /// Whether it is a public key or a certificate, which everybody may read.
    fn is_public(&self) -> bool {
        let bytes = self.secret.expose();
        let holds = |words: &[u8]| bytes.windows(words.len()).any(|part| part == words);
        bytes.starts_with(b"whpk_") || (bytes.starts_with(b"-----BEGIN ") && !holds(b"PRIVATE KEY"))
    }
}

/// Reads again until two reads agree. A file that never comes to rest is taken as it stands at the end.
async fn read_until_settled(reference: &SecretRef, allow_short: bool, mut last: Value) -> Result<Value, SecretError> {
    for _ in 0..SETTLE_READS_MAX {
        tokio::time::sleep(SETTLE_WAIT).await;
        let next = read(reference, allow_short).await?;
        if next.secret.expose() == last.secret.expose() {
            return Ok(next);
        }
        last = next;
    }
    Ok(last)
}

async fn read(reference: &SecretRef, allow_short: bool) -> Result<Value, SecretError> {
    let mut value = match reference.place()? {
        Place::Env(name) => env::read(name).ok_or_else(|| SecretError::Unset { reference: reference.clone() })?,
        Place::File(path) => file::read(path, BYTES_MAX)
            .await
            .map_err(|error| SecretError::Unreadable { reference: reference.clone(), reason: error.to_string() })?,
    };
    // Editors and `echo` end a file with a line end that is not part of the secret. One is taken off, and only from the end.
    let bytes = &mut value.secret.0;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    let reference = || reference.clone();
    match bytes.len() {
        0 => Err(SecretError::Empty { reference: reference() }),
        _ if bytes.iter().all(u8::is_ascii_whitespace) => Err(SecretError::Empty { reference: reference() }),
        bytes if bytes > BYTES_MAX => Err(SecretError::Long { reference: reference() }),
        bytes if bytes < BYTES_MIN && !allow_short => Err(SecretError::Short { reference: reference(), bytes }),
        _ => Ok(value),
    }
}

/// Under this a secret can be guessed; it is what Standard Webhooks demands of a key.
const BYTES_MIN: usize = 24;

/// Over this a file is no secret: the largest ones are private keys in PEM form.
const BYTES_MAX: usize = 64 << 10;

/// A change is taken up within 10 s, with room for a slow file system.
pub const REFRESH_EVERY: Duration = Duration::from_secs(4);

/// How long a file that changed has to rest.
const SETTLE_WAIT: Duration = Duration::from_millis(100);

/// How often it may change again while we look.
const SETTLE_READS_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const GOOD: &str = "a-secret-of-thirty-two-characters";

    async fn ring(references: &[&str], allow_short: bool) -> KeyRing {
        let references = references.iter().map(|text| SecretRef((*text).to_owned())).collect();
        KeyRing::open(references, allow_short, Timestamp::UNIX_EPOCH).await
    }

    fn values(ring: &KeyRing) -> Vec<String> {
        ring.keys().iter().map(|key| String::from_utf8(key.secret.expose().to_vec()).expect("text")).collect()
    }

    async fn error(reference: &str, allow_short: bool) -> String {
        let states = ring(&[reference], allow_short).await.states().await;
        states[0].error.as_ref().expect("an error").to_string()
    }

    #[tokio::test]
    async fn one_line_end_is_no_part_of_a_secret() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("s");
        let reference = format!("file:{}", path.display());
        for (written, live) in [
            (GOOD.to_owned(), GOOD.to_owned()),
            (format!("{GOOD}\n"), GOOD.to_owned()),
            (format!("{GOOD}\r\n"), GOOD.to_owned()),
            (format!("{GOOD}\n\n"), format!("{GOOD}\n")),
            (format!(" {GOOD} "), format!(" {GOOD} ")),
        ] {
            fs::write(&path, &written).expect("write");
            assert_eq!(values(&ring(&[&reference], false).await), [live], "{written:?}");
        }
    }

    #[tokio::test]
    async fn empty_short_and_huge_values_are_refused_with_the_next_move() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("s");
        let reference = format!("file:{}", path.display());
        for (written, allow_short, words) in [
            (Vec::new(), true, "is empty"),
            (b"\n".to_vec(), true, "is empty"),
            (b"  \n".to_vec(), true, "is empty"),
            (b"twenty-three-characters\n".to_vec(), false, "has 23 bytes"),
            (vec![b'x'; BYTES_MAX + 1], true, "the wrong file"),
        ] {
            fs::write(&path, &written).expect("write");
            let error = error(&reference, allow_short).await;
            assert!(error.contains(words) && error.contains(&reference), "{error}");
        }
        fs::write(&path, "short").expect("write");
        assert_eq!(values(&ring(&[&reference], true).await), ["short"]);
        assert!(error("file:/nowhere/at/all", false).await.contains("check the path"));
        assert!(error("env:NO_SUCH_VARIABLE_ANYWHERE", false).await.contains("no such variable"));
    }

    #[tokio::test]
    async fn a_secret_written_in_place_of_its_reference_is_not_shown() {
        for text in ["hunter2-hunter2-hunter2-hunter2", "", "env:", "file:", "https://x"] {
            let shown = error(text, false).await;
            assert!(shown.contains("is named by a reference"), "{shown}");
            assert!(!shown.contains("hunter2"));
        }
        for text in ["vault:kv/a#b", "aws:prod/a"] {
            assert!(error(text, false).await.contains("not built yet"));
        }
    }

    #[tokio::test]
    async fn a_value_comes_from_the_environment() {
        let manifest = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let ring = ring(&["env:CARGO_MANIFEST_DIR"], true).await;
        assert_eq!(values(&ring), [manifest.to_str().expect("text")]);
        assert_eq!(ring.states().await[0].since, Some(Timestamp::UNIX_EPOCH));
    }

    #[tokio::test]
    async fn a_changed_file_is_taken_up_and_a_broken_one_keeps_the_last_good_value() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("s");
        let reference = format!("file:{}", path.display());
        let ring = ring(&["file:/nowhere/at/all", &reference], false).await;
        assert!(ring.keys().is_empty());

        fs::write(&path, GOOD).expect("write");
        ring.refresh().await;
        assert_eq!(values(&ring), [GOOD]);
        assert_eq!(ring.keys()[0].id.0, reference);

        let next = GOOD.to_uppercase();
        fs::write(&path, &next).expect("write");
        let clone = ring.clone();
        ring.refresh().await;
        assert_eq!(values(&clone), std::slice::from_ref(&next));

        fs::write(&path, "").expect("write");
        ring.refresh().await;
        assert!(matches!(ring.states().await[1].error, Some(SecretError::Empty { .. })));
        fs::remove_file(&path).expect("remove");
        ring.refresh().await;
        assert_eq!(values(&ring), [next]);
        let state = ring.states().await.remove(1);
        assert!(matches!(state.error, Some(SecretError::Unreadable { .. })));
        assert!(state.since.is_some_and(|since| since > Timestamp::UNIX_EPOCH) && state.read_age.is_some());

        fs::write(&path, GOOD).expect("write");
        ring.refresh().await;
        assert_eq!(values(&ring), [GOOD]);
        assert!(ring.states().await[1].error.is_none());
    }

    #[test]
    fn a_change_is_taken_up_within_ten_seconds() {
        let settled = SETTLE_WAIT * u32::try_from(SETTLE_READS_MAX).expect("few");
        assert!(REFRESH_EVERY + settled < Duration::from_secs(10));
    }

    #[test]
    fn debug_shows_no_value() {
        let key = Key { id: SecretRef("env:A".to_owned()), secret: Secret::new(GOOD.into()) };
        assert!(!format!("{key:?}").contains(GOOD));
    }
}
