//! Secrets in environment variables. Only this file and `config` look at the environment.

use std::os::unix::ffi::OsStringExt;

use super::{Secret, Value};

/// The variable's bytes, which need not be text; none if it is not set.
pub(super) fn read(name: &str) -> Option<Value> {
    // The system takes neither sign in a name, and answers with a panic.
    let is_name = !name.contains(['=', '\0']);
    let value = is_name.then(|| std::env::var_os(name)).flatten()?;
    Some(Value { secret: Secret::new(value.into_vec()), changed_at: None, open_to_all: false })
}
