//! The cursors once more, in a small file of their own with two slots: written in turn, so one of them is always whole.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Cursor, Head};
use crate::event::Name;

/// The latest state that was mirrored.
#[derive(Debug, Clone)]
pub(super) struct Mirror {
    path: PathBuf,
    content: Content,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    /// Counts the writes: the slot with the larger one is the newer.
    turn: u64,
    head: Head,
    cursors: Vec<(Name, Cursor)>,
}

/// Bytes of a slot: some 150 sinks.
const SLOT_BYTES: usize = 32 << 10;
const PREFIX: usize = 8;

impl Mirror {
    /// Reads the newer of the two slots that is whole; nothing known, if there is none.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("cursors");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let content = bytes.chunks(SLOT_BYTES).filter_map(read_slot).max_by_key(|content| content.turn);
        Ok(Self { path, content: content.unwrap_or_default() })
    }

    pub(super) const fn sequence(&self) -> u64 {
        self.content.head.sequence
    }

    pub(super) fn cursors(&self) -> impl Iterator<Item = &(Name, Cursor)> {
        self.content.cursors.iter()
    }

    /// Writes the state into the older slot, if anything has changed.
    pub(super) fn save(&mut self, head: Head, cursors: Vec<(Name, Cursor)>) -> io::Result<()> {
        if self.content.head == head && self.content.cursors == cursors {
            return Ok(());
        }
        let content = Content { turn: self.content.turn + 1, head, cursors };
        let mut slot = vec![0; PREFIX];
        serde_json::to_writer(&mut slot, &content)?;
        let length = u32::try_from(slot.len() - PREFIX).unwrap_or(u32::MAX);
        if slot.len() > SLOT_BYTES {
            return Err(io::Error::other("more sinks than the file of cursors holds"));
        }
        let crc = crc32fast::hash(&slot[PREFIX..]);
        slot[..4].copy_from_slice(&length.to_le_bytes());
        slot[4..PREFIX].copy_from_slice(&crc.to_le_bytes());
        slot.resize(SLOT_BYTES, 0);
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        file.write_all_at(&slot, (content.turn % 2) * SLOT_BYTES as u64)?;
        file.sync_data()?;
        self.content = content;
        Ok(())
    }
}

fn read_slot(slot: &[u8]) -> Option<Content> {
    let length = u32::from_le_bytes(slot.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(slot.get(4..PREFIX)?.try_into().ok()?);
    let content = slot.get(PREFIX..PREFIX.checked_add(length)?)?;
    (crc32fast::hash(content) == crc).then(|| serde_json::from_slice(content).ok()).flatten()
}
