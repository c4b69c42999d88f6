//! The API keys of one platform: which are live, which one is used, and what became of those that were refused.
//!
//! A key is *probing* until the platform took it once, *active* from then on, *bad* when it was refused, and *draining* where its
//! reference has a new value that was not taken yet: then the old one goes on, so a wrong value in a secret store stops nothing.
//!
//! Invariants: a refused key is tried again at most every [`PROBE_EVERY`]; no value is shown, only references.
//!
//! Not here: reading secrets (`secret`), quotas (`quota`).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use super::quota::{Quotas, Told};
use crate::secret::{Key, KeyRing, Secret, SecretRef};

/// How a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// The platform has not been asked with it.
    Probing,
    /// The platform takes it.
    Active,
    /// Its reference has a newer value, which has yet to be taken.
    Draining,
    /// The platform refused it.
    Bad,
}

/// How a key stands, for an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyView {
    /// The reference, never the value.
    pub key: SecretRef,
    /// How it stands.
    pub state: KeyState,
    /// Why it is not active, in the platform's words.
    pub reason: String,
    /// Since when its value has been what it is.
    pub since: Timestamp,
    /// When the platform was last asked with it.
    pub last_used_at: Option<Timestamp>,
    /// The group that it draws on, where the platform says one.
    pub group: Option<String>,
    /// Its quotas, where the platform tells them.
    pub quotas: Quotas,
}

/// All keys.
#[derive(Debug)]
pub(super) struct Keys {
    ring: KeyRing,
    /// What was last taken up.
    seen: Arc<Vec<Key>>,
    pub(super) slots: Vec<Slot>,
}

/// One value of one reference.
#[derive(Debug)]
pub(super) struct Slot {
    id: SecretRef,
    value: Secret,
    pub(super) state: KeyState,
    reason: String,
    since: Timestamp,
    last_used_at: Option<Timestamp>,
    /// Not tried before then.
    bad_until: Option<Timestamp>,
    pub(super) told: Told,
    /// When its quotas were read, or tried to be.
    pub(super) told_at: Option<Timestamp>,
}

impl Keys {
    pub(super) fn new(ring: KeyRing) -> Self {
        Self { seen: ring.keys(), ring, slots: Vec::new() }
    }

    /// Reads the secrets again, for whoever was just refused.
    pub(super) async fn refresh(&self) {
        self.ring.refresh().await;
    }

    /// News of other values.
    pub(super) fn news(&self) -> watch::Receiver<Arc<Vec<Key>>> {
        self.ring.news()
    }

    /// Whether there are values that were not taken up.
    pub(super) fn has_news(&self) -> bool {
        !Arc::ptr_eq(&self.seen, &self.ring.keys())
    }

    /// Takes up values that are new. One that replaces another stands before it.
    pub(super) fn sync(&mut self, now: Timestamp) {
        let live = self.ring.keys();
        self.seen = live.clone();
        let mut slots = Vec::new();
        for key in live.iter() {
            let is_it = |slot: &Slot| slot.value.expose() == key.secret.expose() && slot.id == key.id;
            match self.slots.iter().position(is_it) {
                Some(at) => slots.push(self.slots.remove(at)),
                None => slots.push(Slot::new(key.id.clone(), Secret::new(key.secret.expose().to_vec()), now)),
            }
            if slots.last().is_some_and(|slot| slot.state != KeyState::Active)
                && let Some(at) = self.slots.iter().position(|slot| slot.id == key.id && slot.is_good())
            {
                let mut old = self.slots.remove(at);
                old.state = KeyState::Draining;
                slots.push(old);
            }
        }
        // A value that is neither live nor needed any more goes, and is wiped.
        self.slots = slots;
        for slot in &mut self.slots {
            if slot.bad_until.is_some_and(|until| until <= now) {
                slot.bad_until = None;
                slot.state = KeyState::Probing;
            }
        }
    }

    /// The platform took this key.
    pub(super) fn took(&mut self, at: usize, now: Timestamp) {
        let slot = &mut self.slots[at];
        slot.last_used_at = Some(now);
        if slot.state == KeyState::Probing {
            slot.state = KeyState::Active;
            slot.reason.clear();
            let id = slot.id.clone();
            tracing::debug!(key = %id, "the platform takes key {id}");
            self.slots.retain(|other| other.id != id || other.state != KeyState::Draining);
        }
    }

    /// The platform refused this key.
    pub(super) fn refused(&mut self, at: usize, reason: &str, now: Timestamp) {
        let slot = &mut self.slots[at];
        if slot.state != KeyState::Bad && slot.reason != reason {
            tracing::error!(key = %slot.id, "the platform refuses key {}: {reason}; replace it, it is tried again every 5 minutes", slot.id);
        }
        slot.state = KeyState::Bad;
        reason.clone_into(&mut slot.reason);
        slot.last_used_at = Some(now);
        slot.bad_until = now.checked_add(PROBE_EVERY).ok();
    }

    /// When a refused key may be tried again, if all are refused or missing.
    pub(super) fn next_probe(&self, now: Timestamp) -> Duration {
        let next = self.slots.iter().filter_map(|slot| slot.bad_until).min();
        next.map_or(MISSING_EVERY, |at| at.duration_since(now).unsigned_abs())
    }

    /// How each stands.
    pub(super) fn views(&self) -> Vec<KeyView> {
        self.slots.iter().map(Slot::view).collect()
    }
}

impl Slot {
    fn new(id: SecretRef, value: Secret, now: Timestamp) -> Self {
        Self {
            id,
            value,
            state: KeyState::Probing,
            reason: String::new(),
            since: now,
            last_used_at: None,
            bad_until: None,
            told: Told::default(),
            told_at: None,
        }
    }

    /// The value, for the header that carries it.
    pub(super) fn value(&self) -> &[u8] {
        self.value.expose()
    }

    /// Whether it may be used now.
    pub(super) const fn is_usable(&self) -> bool {
        !matches!(self.state, KeyState::Bad)
    }

    const fn is_good(&self) -> bool {
        matches!(self.state, KeyState::Active | KeyState::Draining)
    }

    /// The pool that it draws on: that of its group, else its own.
    pub(super) fn pool(&self) -> String {
        self.told.group_name.as_ref().map_or_else(|| format!("key {}", self.id), |group| format!("group {group}"))
    }

    fn view(&self) -> KeyView {
        KeyView {
            key: self.id.clone(),
            state: self.state,
            reason: self.reason.clone(),
            since: self.since,
            last_used_at: self.last_used_at,
            group: self.told.group_name.clone(),
            quotas: self.told.tightest(),
        }
    }
}

/// How often a refused key is tried again: accounts that knock more often are suspended.
pub(super) const PROBE_EVERY: Duration = Duration::from_mins(5);
/// How often to look again where no key could be read.
const MISSING_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_774_267_200 + second).expect("in range")
    }

    fn states(keys: &Keys) -> Vec<(String, KeyState)> {
        let state = |slot: &Slot| (String::from_utf8_lossy(slot.value()).into_owned(), slot.state);
        keys.slots.iter().map(state).collect()
    }

    #[tokio::test]
    async fn a_new_value_is_tried_first_and_the_old_one_goes_on_until_it_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        std::fs::write(&path, "old").expect("written");
        let reference = SecretRef(format!("file:{}", path.display()));
        let ring = KeyRing::open(vec![reference], true, at(0)).await;
        let mut keys = Keys::new(ring.clone());
        keys.sync(at(0));
        assert_eq!(states(&keys), [("old".to_owned(), KeyState::Probing)]);
        keys.took(0, at(1));
        assert_eq!(states(&keys), [("old".to_owned(), KeyState::Active)]);

        std::fs::write(&path, "wrong").expect("written");
        ring.refresh().await;
        keys.sync(at(2));
        let both = |first: &str, state| [(first.to_owned(), state), ("old".to_owned(), KeyState::Draining)];
        assert_eq!(states(&keys), both("wrong", KeyState::Probing));
        keys.refused(0, "it answers 401", at(3));
        keys.sync(at(4));
        assert_eq!(states(&keys), both("wrong", KeyState::Bad), "the old value is still used");
        assert!(keys.slots[1].is_usable() && !keys.slots[0].is_usable());

        std::fs::write(&path, "new").expect("written");
        ring.refresh().await;
        keys.sync(at(5));
        assert_eq!(states(&keys), both("new", KeyState::Probing));
        keys.took(0, at(6));
        assert_eq!(states(&keys), [("new".to_owned(), KeyState::Active)]);
        assert!(!format!("{:?}{}", keys, serde_json::to_string(&keys.views()).expect("JSON")).contains("\"new\""));
    }

    #[tokio::test]
    async fn a_refused_key_is_tried_again_after_five_minutes() {
        let ring = KeyRing::open(vec![SecretRef("env:CARGO_MANIFEST_DIR".to_owned())], true, at(0)).await;
        let mut keys = Keys::new(ring);
        keys.sync(at(0));
        keys.refused(0, "it answers 401", at(0));
        keys.sync(at(299));
        assert!(!keys.slots[0].is_usable());
        assert_eq!(keys.next_probe(at(299)), Duration::from_secs(1));
        keys.sync(at(300));
        assert!(keys.slots[0].is_usable());
        let view = &keys.views()[0];
        assert_eq!((view.state, view.reason.as_str()), (KeyState::Probing, "it answers 401"));
        let missing = Keys::new(KeyRing::open(Vec::new(), true, at(0)).await);
        assert_eq!(missing.next_probe(at(0)), MISSING_EVERY);
    }
}
