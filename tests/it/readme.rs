//! The commands of the README, run as they stand there.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The lines behind `$ ` of all console blocks.
fn commands() -> Vec<String> {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).expect("readable");
    readme.lines().filter_map(|line| line.strip_prefix("$ ").map(str::to_owned)).collect()
}

/// The service, ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_five_minutes_of_the_readme_work() {
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["config", "tests"] {
        std::os::unix::fs::symlink(Path::new(ROOT).join(file), folder.path().join(file)).expect("linked");
    }
    let program = "target/debug/verdict-relay";
    fs::create_dir_all(folder.path().join("target/debug")).expect("made");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_verdict-relay"), folder.path().join(program)).expect("linked");

    let (mut exports, mut service, mut ran) = (String::new(), None, 0);
    let shell = |exports: &str, line: &str| {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("{exports}exec {line}")]).current_dir(folder.path());
        command
    };
    for line in commands() {
        if let Some(target) = line.strip_prefix("make ") {
            let makefile = fs::read_to_string(Path::new(ROOT).join("Makefile")).expect("readable");
            assert!(makefile.contains(&format!("\n{target}:")), "the Makefile has no target {target}");
        } else if line.starts_with("export ") {
            // Fixed from here on, as in the reader's shell.
            let value = shell("", &format!("bash -c '{line}; echo $PORTAL_SECRET'")).output().expect("bash runs");
            exports = format!("export PORTAL_SECRET={};", String::from_utf8_lossy(&value.stdout).trim());
        } else if line.ends_with(" serve") {
            let child = shell(&exports, &line).stderr(Stdio::null()).spawn().expect("bash runs");
            service = Some(Running(child));
            wait_until_it_listens();
        } else if line.starts_with("cat ") {
            let written = Instant::now() + Duration::from_secs(20);
            loop {
                let output = shell(&exports, &line).output().expect("bash runs");
                if String::from_utf8_lossy(&output.stdout).contains("\"verdict\":\"malicious\"") {
                    break;
                }
                assert!(Instant::now() < written, "{line}: {}", String::from_utf8_lossy(&output.stderr));
                sleep(Duration::from_millis(50));
            }
        } else if line.starts_with(program) {
            let output = shell(&exports, &line).output().expect("bash runs");
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        } else {
            assert_eq!(line, "cargo build", "a command of the README that no test runs");
        }
        ran += 1;
    }
    assert!(ran >= 8 && service.is_some(), "the README lost its five minutes");
}

fn wait_until_it_listens() {
    let until = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect("127.0.0.1:8080").is_err() {
        assert!(Instant::now() < until, "the service of the README does not listen");
        sleep(Duration::from_millis(50));
    }
}
