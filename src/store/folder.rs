//! The folder of the store: who may use it, and space that is kept back for a full disk.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FallocateFlags, access, fallocate, statvfs};

/// The folder, locked for this process.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Held as long as the process uses the folder; says which process that is.
    lock: File,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process has it.
    #[error("the store {path} is in use by process {pid}: stop that one first, or set another store.path")]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The process that holds the lock, as it wrote itself down.
        pid: String,
    },
    /// The file system refuses.
    #[error("the store {path}: {source}; check that the folder is on a local disk and belongs to this user")]
    Io {
        /// The folder.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// Kept back so that cursors move and sinks drain when the disk is full: room for the ledger's write-ahead log, and as much again.
const RESERVE_BYTES: u64 = 32 << 20;
/// On a small disk this share of it is kept back instead.
const RESERVE_SHARE: u64 = 4;

/// How much space there is, and how much should be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space {
    /// Bytes that this user may still write.
    pub(super) free: u64,
    /// Bytes that are kept back.
    pub(super) reserve: u64,
    /// With less than this, senders are refused and the reserve is given up.
    pub(super) low: u64,
}

impl Space {
    /// Of the file system that `path` is on.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let disk = statvfs(path)?;
        let reserve = RESERVE_BYTES.min(disk.f_blocks.saturating_mul(disk.f_frsize) / RESERVE_SHARE);
        Ok(Self { free: disk.f_bavail.saturating_mul(disk.f_frsize), reserve, low: reserve / 2 })
    }
}

/// Whether a file of that many bytes fits beside what the store keeps back, twice.
pub fn has_room(folder: &Path, bytes: u64) -> io::Result<bool> {
    let Space { free, reserve, .. } = Space::of(folder)?;
    Ok(free >= bytes.saturating_add(reserve * 2))
}

impl Folder {
    /// Makes the folder, with mode 0700, and locks it.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let failed = |source| FolderError::Io { path: path.to_owned(), source };
        make_folder(path).map_err(failed)?;
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = options.open(path.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                lock.read_to_string(&mut pid).map_err(failed)?;
                return Err(FolderError::InUse { path: path.to_owned(), pid: pid.trim().to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut folder = Self { path: path.to_owned(), lock };
        // A start needs some space, too.
        folder.give_up_reserve().and_then(|()| folder.lacking()).map_err(failed)?;
        match folder.write_pid() {
            // The lock holds without it, and a full disk must not keep the sinks from draining.
            Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(failed(error)),
            _ => Ok(folder),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the reserve again where there is enough space; how many bytes have to be freed until senders may come.
    ///
    /// Without the reserve space stays low until the reserve is back and as much is free beside it: what giving it up has freed is for the
    /// sinks, not for senders.
    pub fn lacking(&self) -> io::Result<u64> {
        let Space { free, reserve: bytes, low } = Space::of(&self.path)?;
        let reserve = self.path.join("reserve");
        let wanted = if reserve.exists() { low } else { bytes * 2 };
        if free < wanted || reserve.exists() {
            return Ok(wanted.saturating_sub(free));
        }
        match take_reserve(&reserve, bytes) {
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => fs::remove_file(&reserve).map(|()| bytes),
            taken => taken.map(|()| 0),
        }
    }

    /// Gives the reserve up for the ledger, if space is low: no sooner than it is needed, or whoever filled the disk would take it before.
    pub fn give_up_reserve(&self) -> io::Result<()> {
        let Space { free, low, .. } = Space::of(&self.path)?;
        let reserve = self.path.join("reserve");
        if free < low && reserve.exists() {
            fs::remove_file(&reserve)?;
            tracing::error!(free, "the disk of the store is full, the reserve is given up so that sinks can drain");
        }
        Ok(())
    }

    /// Over what stands there, so that it needs no space where there was a number before.
    fn write_pid(&mut self) -> io::Result<()> {
        let text = format!("{}\n", std::process::id());
        self.lock.rewind()?;
        self.lock.write_all(text.as_bytes())?;
        self.lock.set_len(text.len() as u64)
    }
}

/// Makes the folder so that a power cut does not take it away again.
fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn take_reserve(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP) => io::copy(&mut io::repeat(0).take(bytes), &mut file).map(|_| ()),
        allocated => Ok(allocated?),
    }
}

/// What there is room for at a path.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// Bytes that the folder's files take already, without those of its subfolders' subfolders.
    pub used_bytes: u64,
    /// Whether this user may write there; for a folder that does not exist, whether it can be made.
    pub is_writable: bool,
}

/// Looks at the disk of `path`, or of the nearest folder above it that exists. Changes nothing.
pub fn room(path: &Path) -> io::Result<Room> {
    let above = path.ancestors().map(|one| if one.as_os_str().is_empty() { Path::new(".") } else { one });
    let nearest = above.into_iter().find(|one| one.exists()).unwrap_or(Path::new("."));
    let space = statvfs(nearest)?;
    let is_writable = nearest.is_dir() && access(nearest, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    let used_bytes = bytes_in(path, 1)?;
    Ok(Room { free_bytes: space.f_bavail.saturating_mul(space.f_frsize), used_bytes, is_writable })
}

/// Bytes of the files in a folder and `depth` levels of folders in it; none if it does not exist.
fn bytes_in(path: &Path, depth: u32) -> io::Result<u64> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        // A file may go between the listing and the look.
        let Ok(meta) = entry.metadata() else { continue };
        bytes += match meta.is_dir() {
            true if depth > 0 => bytes_in(&entry.path(), depth - 1)?,
            true => 0,
            false => meta.len(),
        };
    }
    Ok(bytes)
}

/// The process that uses the folder, as it wrote itself down; none if nobody does.
pub fn holder(path: &Path) -> io::Result<Option<String>> {
    let mut lock = match File::open(path.join("lock")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            lock.read_to_string(&mut pid)?;
            Ok(Some(pid.trim().to_owned()))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_process_is_refused_and_told_who_holds_the_store() {
        let parent = tempfile::tempdir().expect("a folder");
        let path = parent.path().join("data");
        let folder = Folder::open(&path).expect("opens");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        match Folder::open(&path) {
            Err(FolderError::InUse { pid, .. }) => assert_eq!(pid, std::process::id().to_string()),
            other => panic!("{other:?}"),
        }
        assert_eq!(holder(&path).expect("readable"), Some(std::process::id().to_string()));
        drop(folder);
        assert_eq!(holder(&path).expect("readable"), None);
        let room = room(&path.join("not/there")).expect("the disk is there");
        assert!(room.is_writable && room.free_bytes > 0 && room.used_bytes == 0);
        Folder::open(&path).expect("free again");
    }
}
