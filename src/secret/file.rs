//! Secrets in files, one value a file.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jiff::Timestamp;
use tokio::io::AsyncReadExt;

use super::{Secret, Value};

/// The file's bytes; of a file with more than `bytes_max`, one byte more than that.
pub(super) async fn read(path: &Path, bytes_max: usize) -> io::Result<Value> {
    let file = tokio::fs::File::open(path).await?;
    let about = file.metadata().await?;
    // Room for all of it from the start: a buffer that grows would leave copies of the secret behind.
    let mut bytes = Secret::new(Vec::with_capacity(bytes_max + 2));
    file.take(bytes_max as u64 + 2).read_to_end(&mut bytes.0).await?;
    Ok(Value {
        secret: bytes,
        changed_at: about.modified().ok().and_then(|at| Timestamp::try_from(at).ok()),
        open_to_all: about.permissions().mode() & 0o004 != 0,
    })
}
