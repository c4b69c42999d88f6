//! The adapter of a source: one that comes with the program, or a table of the user's own, here or in a file.
//!
//! Invariant: a user's expressions are compiled here, so that `check` tells what is wrong with them, and run nowhere but in a process of
//! their own.
//!
//! Not here: what a table means (`adapter/pack`), the process (`sandbox`).

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{SourceConfig, in_file};
use crate::adapter::jq::{Evaluate, Script};
use crate::adapter::pack::PackTable;
use crate::adapter::{self, Adapter};
use crate::sandbox::Sandbox;
use crate::setting::Problem;

impl SourceConfig {
    /// The adapter of the source at `key`; `name` is the platform's if its table has none.
    pub(super) fn plan_adapter(&self, key: &str, name: &str) -> Result<Arc<dyn Adapter>, Vec<Problem>> {
        let problem = |field: &str, words: String| Err(vec![Problem::new(format!("{key}.{field}"), words)]);
        let isolate = |script: Script| -> Arc<dyn Evaluate> { Arc::new(Sandbox::new(script)) };
        let is_jq = self.adapter.0 == "jq";
        if is_jq && self.options != adapter::Options::default() {
            return problem("options", "adapter \"jq\" takes no options: remove them".to_owned());
        }
        match (&self.jq, &self.adapter_file, &self.adapter_text) {
            (None, None, _) => adapter::plan(key, &self.adapter, &self.options).map_err(|problem| vec![problem]),
            (Some(_), Some(_), _) => problem("adapter_file", "stands beside a table jq: remove one of them".to_owned()),
            (Some(_), None, _) if !is_jq => problem("jq", "only adapter = \"jq\" reads this table".to_owned()),
            (None, Some(_), _) if !is_jq => problem("adapter_file", "only adapter = \"jq\" reads this file".to_owned()),
            (Some(table), None, _) => adapter::plan_jq(&format!("{key}.jq."), table, name, &isolate),
            (None, Some(path), Some(Ok(text))) => match toml::from_str::<PackTable>(text) {
                Ok(table) => adapter::plan_jq(&format!("{}: ", table_file(path).display()), &table, name, &isolate),
                Err(error) => problem("adapter_file", in_file(path, &error)),
            },
            (None, Some(path), Some(Err(reason))) => {
                problem("adapter_file", format!("cannot read {}: {reason}", path.display()))
            }
            (None, Some(_), None) => problem("adapter_file", "has not been read".to_owned()),
        }
    }
}

/// The table of a pack: the file itself, or the one in its folder.
pub fn table_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("pack.toml") } else { path.to_owned() }
}

/// What stands in the file of a table.
pub(super) fn text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read =
        std::fs::File::open(table_file(path)).and_then(|file| file.take(ADAPTER_BYTES_MAX).read_to_string(&mut text));
    read.map(|_| text).map_err(|error| error.to_string())
}

/// A table has a few KiB.
const ADAPTER_BYTES_MAX: u64 = 1 << 20;
