//! The commands as a user runs them: arguments in, output and exit code out.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use clap::CommandFactory;

use super::*;

/// Catches what a command prints.
#[derive(Clone, Default)]
pub(super) struct Screen {
    data: Arc<Mutex<Vec<u8>>>,
    words: Arc<Mutex<Vec<u8>>>,
}

struct Catch(Arc<Mutex<Vec<u8>>>);

impl Write for Catch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Screen {
    pub(super) fn terminal(&self) -> Terminal {
        Terminal::new(Box::new(Catch(self.data.clone())), Box::new(Catch(self.words.clone())))
    }

    pub(super) fn data(&self) -> String {
        String::from_utf8(self.data.lock().expect("not poisoned").clone()).expect("text")
    }

    pub(super) fn words(&self) -> String {
        String::from_utf8(self.words.lock().expect("not poisoned").clone()).expect("text")
    }
}

/// Runs a command line: exit code, data, words.
pub(super) fn run(arguments: &[&str]) -> (Code, String, String) {
    let screen = Screen::default();
    let cli = Cli::try_parse_from([&["verdict-relay"], arguments].concat()).expect("a command line");
    let code = cli.run(&mut screen.terminal());
    (code, screen.data(), screen.words())
}

#[test]
fn every_command_shows_an_example() {
    fn visit(command: &mut clap::Command, path: &str) {
        let help = command.render_long_help().to_string();
        assert!(help.contains("Example: verdict-relay"), "{path} has no example:\n{help}");
        for inner in command.get_subcommands_mut() {
            let path = format!("{path} {}", inner.get_name());
            visit(inner, &path);
        }
    }
    Cli::command().debug_assert();
    visit(&mut Cli::command(), "verdict-relay");
}

#[test]
fn a_missing_config_says_where_to_begin() {
    for command in ["check", "serve"] {
        let (code, data, words) = run(&["--config", "nowhere.toml", command]);
        assert_eq!((code, data.as_str()), (BAD, ""));
        assert!(words.contains("nowhere.toml") && words.contains("config/quickstart.toml"), "{words}");
    }
}

#[test]
fn the_schema_is_json_and_completions_know_the_commands() {
    let (code, data, words) = run(&["schema"]);
    assert_eq!((code, words.as_str()), (GOOD, ""));
    serde_json::from_str::<serde_json::Value>(&data).expect("JSON");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, data, _) = run(&["completions", shell]);
        assert!(code == GOOD && data.contains("schema"), "{shell}");
    }
}
