//! The platforms that take files (`tests/peers/uploads`), and VirusTotal's own client beside us.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use super::{Process, complete_lines, folder, free_ports, interpreted, output_of, script, steer};

/// VirusTotal and Vile Analyziz on one port. They are ours, written after the references; VirusTotal's own client has to accept the one.
#[derive(Debug)]
pub struct Uploads {
    _process: Process,
    folder: TempDir,
    port: u16,
}

impl Uploads {
    /// The key that they take.
    pub const KEY: &str = "an-api-key-of-more-than-24-bytes";

    /// Starts them.
    pub fn start() -> Self {
        let folder = folder();
        let [port, storage] = free_ports();
        let mut command = script("uploads.sh", "python");
        command.arg(folder.path()).args([port, storage].map(|port| port.to_string()));
        let process = Process::start("the platforms", command, folder.path(), |log| log.contains("are ready"));
        Self { _process: process, folder, port }
    }

    /// `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Steers them while they run, by the files that `uploads/server.py` names.
    pub fn steer(&self, file: &str, content: &str) {
        steer(&self.folder, file, content);
    }

    /// The files that arrived.
    pub fn received(&self) -> Vec<Value> {
        complete_lines(&self.folder, "received.jsonl")
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Value> {
        complete_lines(&self.folder, "requests.jsonl")
    }

    /// What VirusTotal's own client (vt-py) is told when it sends this file.
    pub fn sent_by_its_client(&self, file: &Path) -> Value {
        let mut command = interpreted(&script("uploads/client.py", "python"), "venv/bin/python");
        command.args([&self.url(), Self::KEY]).arg(file);
        serde_json::from_slice(&output_of(command).stdout).expect("the client prints JSON")
    }
}
