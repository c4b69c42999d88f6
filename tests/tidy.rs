//! The house rules that a compiler doesn't check, read from the sources as text.
//!
//! Each rule is a function from files to findings; a finding names file and line and says what to do. The last tests show for each rule a sample
//! that breaks it. An exception is a line in a table here, with its reason; one that is no longer needed is a finding too.
//!
//! Not here: what rustc, clippy (`Cargo.toml`, `clippy.toml`) and cargo-deny (`deny.toml`) check.

#[path = "tidy/code.rs"]
mod code;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::code::{code_of, functions, is_name, paths};

/// Lines of a file without its tests: what one can hold in the head.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function, from `fn` to its closing brace: one screen.
const FUNCTION_LINES_MAX: usize = 70;

/// Files that may be longer: up to how many lines, and why.
const LONG_FILES: [(&str, usize, &str); 0] = [];
/// Functions that may be longer: up to how many lines, and why.
const LONG_FUNCTIONS: [(&str, &str, usize, &str); 1] = [(
    "src/app.rs",
    "build",
    95,
    "the wiring of all parts, in the order an event meets them: one reads it from top to bottom",
)];

/// Modules that know neither tokio nor I/O, clock or chance: those come in as arguments.
const DOMAIN: [&str; 11] =
    ["event", "delivery", "verify", "adapter", "json", "ranking", "route", "format", "policy", "backoff", "setting"];
const LOOPS: [&str; 5] = ["receive", "normalize", "deliver", "gate", "poll"];
/// The ports.
const PORTS: [&str; 4] = ["store", "sink", "secret", "trust"];
/// Ports with several edges behind them, one a file or folder, of which none knows another and no loop knows any.
/// The store is one edge: journal, ledger and keeper are its parts. So is trust: its publishers share one cache and one client.
const PORTS_OF_MANY: [&str; 2] = ["sink", "secret"];
/// What edges and loops share: metrics, TLS as a client, the process that runs what users wrote in jq, and files as the body of a request.
const SHARED: [&str; 4] = ["telemetry", "tls", "sandbox", "upload"];
/// The only names outside that the domain may know: plain values.
const DOMAIN_MAY_NAME: [&str; 4] = ["secret::Key", "secret::Secret", "secret::SecretRef", "tls::ClientTlsConfig"];

/// A crate or module of the standard library, the files that may name it, and why nobody else may.
struct Wall {
    path: &'static str,
    only_in: &'static [&'static str],
    reason: &'static str,
}

const WALLS: [Wall; 20] = [
    wall("actix_web", &["src/receive", "src/api", "src/app"], "HTTP as a server ends at the receiver and the API"),
    wall("actix_http", &["src/receive", "src/api", "src/app"], "HTTP as a server ends at the receiver and the API"),
    wall("actix_server", &["src/receive", "src/api", "src/app"], "HTTP as a server ends at the receiver and the API"),
    wall("actix_service", &["src/receive", "src/api", "src/app"], "HTTP as a server ends at the receiver and the API"),
    wall("rdkafka", &["src/sink/kafka"], "Kafka's client is known to its sink alone"),
    wall("rusqlite", &["src/store/ledger"], "SQLite is known to the ledger alone"),
    wall(
        "reqwest",
        &["src/sink/splunk_hec", "src/sink/http", "src/poll/client", "src/cli", "src/secret/vault", "src/trust/web"],
        "the HTTP client stays behind its edges; trust asks publishers of public keys",
    ),
    wall("config::Config", &["src/config"], "the `config` crate is known to the config alone"),
    wall("jaq_core", &["src/adapter/jq"], "jq's library is known to one module, which says what a program may call"),
    wall("jaq_std", &["src/adapter/jq"], "jq's library is known to one module, which says what a program may call"),
    wall("jaq_json", &["src/adapter/jq"], "jq's library is known to one module, which says what a program may call"),
    wall("clap", &["src/cli", "src/main"], "the command line is read by the commands"),
    wall("anyhow", &["src/main", "src/app", "src/cli"], "a caller can't branch on it: one error enum a module"),
    wall(
        "std::env",
        &["src/config", "src/secret/env"],
        "the environment is read in two places; elsewhere it is an argument",
    ),
    wall("tokio", NOT_IN_DOMAIN, "the domain is pure: no runtime"),
    wall("fastrand", NOT_IN_DOMAIN, "the domain is pure: chance is an argument"),
    wall("rustix", NOT_IN_DOMAIN, "the domain is pure: no system calls"),
    wall("std::fs", NOT_IN_DOMAIN, "the domain is pure: no I/O"),
    wall("std::thread", NOT_IN_DOMAIN, "the domain is pure: no threads"),
    wall("std::process", NOT_IN_DOMAIN, "the domain is pure: no processes"),
];

/// Stands for every file that is not in [`DOMAIN`].
const NOT_IN_DOMAIN: &[&str] = &[];

const fn wall(path: &'static str, only_in: &'static [&'static str], reason: &'static str) -> Wall {
    Wall { path, only_in, reason }
}

#[test]
fn modules_know_only_whom_they_may_know() {
    assert_none(&who_knows_whom(&tracked()));
}

#[test]
fn crates_stay_behind_their_walls() {
    assert_none(&walls(&tracked()));
}

#[test]
fn the_domain_reads_no_clock() {
    assert_none(&clock_in_domain(&tracked()));
}

#[test]
fn files_and_functions_can_be_held_in_the_head() {
    assert_none(&sizes(&tracked(), &LONG_FILES, &LONG_FUNCTIONS));
}

#[test]
fn every_source_file_says_what_it_is() {
    assert_none(&module_docs(&tracked()));
}

#[test]
fn nothing_is_left_unfinished_or_switched_off() {
    assert_none(&unfinished(&tracked()));
}

#[test]
fn no_file_names_a_machine() {
    assert_none(&machine_paths(&tracked()));
}

#[test]
fn every_payload_says_where_it_comes_from() {
    assert_none(&payload_sources(&tracked()));
}

#[test]
fn every_dependency_has_its_sentence() {
    assert_none(&dependency_comments(&tracked()));
}

#[test]
fn every_snapshot_belongs_to_a_test() {
    assert_none(&snapshots(&tracked()));
}

/// A file of the repository: its path from the root, and its text.
struct File {
    path: String,
    text: String,
}

/// What is wrong where, and what to do.
#[derive(Debug, PartialEq)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

fn finding(file: &File, line: usize, what: impl Into<String>) -> Finding {
    Finding { path: file.path.clone(), line, what: what.into() }
}

fn assert_none(findings: &[Finding]) {
    let mut list = String::new();
    for Finding { path, line, what } in findings {
        writeln!(list, "{path}:{line}: {what}").expect("a String takes everything");
    }
    assert!(findings.is_empty(), "{} against the house rules (tests/tidy.rs):\n{list}", findings.len());
}

/// Every text file that git tracks or would track.
fn tracked() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let git = ["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").args(git).current_dir(root).output().expect("git is installed");
    assert!(listed.status.success(), "git can't list the files: {}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).expect("the names of our files are UTF-8");
    let read = |path: &str| std::fs::read(root.join(path)).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let file = |path: &str| read(path).map(|text| File { path: path.to_owned(), text });
    names.split_terminator('\0').filter_map(file).collect()
}

/// Which module a path of ours leads to, and whether the one may know the other.
fn who_knows_whom(files: &[File]) -> Vec<Finding> {
    let modules: BTreeSet<String> = files.iter().filter_map(|file| module_of(&file.path)).collect();
    let mut findings = Vec::new();
    for (file, code) in production(files) {
        let Some(from) = module_of(&file.path) else { continue };
        if layer(&from).is_none() {
            findings.push(finding(file, 1, format!("`{from}` has no layer yet: give it one in tests/tidy.rs")));
            continue;
        }
        for (line, path) in paths(&code) {
            let Some(path) = own_path(&from, &path) else { continue };
            // The longest prefix that is a file; what follows is an item in it.
            let prefixes = (1..=path.len()).rev().map(|length| path[..length].join("::"));
            let target = prefixes.into_iter().find(|prefix| modules.contains(prefix));
            let name = path.join("::");
            let plain_value = layer(&from) == Some(Layer::Domain) && DOMAIN_MAY_NAME.contains(&name.as_str());
            if target.is_some_and(|to| !plain_value && !may_know(&from, &to)) {
                let what = format!(
                    "`{from}` may not know `{name}`: take the value as an argument, or change the table in tests/tidy.rs and ARCHITECTURE.md"
                );
                findings.push(finding(file, line, what));
            }
        }
    }
    findings
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Layer {
    Main,
    Cli,
    App,
    Config,
    Api,
    Ops,
    Loop,
    Port,
    Edge,
    Shared,
    Domain,
}

fn layer(module: &str) -> Option<Layer> {
    let first = part(module).split("::").next()?;
    Some(match first {
        "main" => Layer::Main,
        "cli" => Layer::Cli,
        "app" => Layer::App,
        "config" => Layer::Config,
        "api" => Layer::Api,
        "ops" => Layer::Ops,
        _ if LOOPS.contains(&first) => Layer::Loop,
        _ if PORTS.contains(&part(module)) => Layer::Port,
        _ if PORTS_OF_MANY.contains(&first) => Layer::Edge,
        _ if SHARED.contains(&first) => Layer::Shared,
        _ if DOMAIN.contains(&first) => Layer::Domain,
        _ => return None,
    })
}

/// The part a module belongs to: what lies in one folder is one part, but each edge of a port of many is its own.
fn part(module: &str) -> &str {
    let mut ends = module.match_indices("::").map(|(at, _)| at).chain([module.len()]);
    let first = ends.next().unwrap_or(module.len());
    if PORTS_OF_MANY.contains(&&module[..first]) { &module[..ends.next().unwrap_or(first)] } else { &module[..first] }
}

fn may_know(from: &str, to: &str) -> bool {
    use Layer::{Api, App, Cli, Config, Domain, Edge, Loop, Main, Ops, Port, Shared};
    let (Some(from_layer), Some(to_layer)) = (layer(from), layer(to)) else { return false };
    let below = |one: &str, other: &str| other.strip_prefix(one).is_some_and(|rest| rest.starts_with("::"));
    if part(from) == part(to) || below(from, to) || below(to, from) {
        return true;
    }
    match from_layer {
        Main => matches!(to_layer, Cli | App),
        App => true,
        // `store inspect`, `verify` and `backup` work on the folder of a service that need not run.
        Cli => matches!(to_layer, App | Config | Shared | Domain | Port),
        // Each part has its own table of the config, and a plan made of it.
        Config => !matches!(to_layer, Main | Cli | App | Ops),
        Api => matches!(to_layer, Ops | Port | Shared | Domain) || to == "gate",
        Ops => matches!(to_layer, Loop | Port | Shared | Domain),
        Loop | Port | Edge => matches!(to_layer, Port | Shared | Domain),
        Shared | Domain => to_layer == Domain,
    }
}

fn walls(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, code) in production(files) {
        let Some(module) = module_of(&file.path) else { continue };
        let in_domain = layer(&module) == Some(Layer::Domain);
        for (line, path) in paths(&code) {
            let name = path.join("::");
            for Wall { path: walled, only_in, reason } in &WALLS {
                let within = name.strip_prefix(walled).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
                // `src/api` stands for src/api.rs and for what lies in src/api/.
                let may =
                    |allowed: &&str| file.path.strip_prefix(*allowed).is_some_and(|rest| rest.starts_with(['.', '/']));
                let free = if only_in.is_empty() { !in_domain } else { only_in.iter().any(may) };
                if within && !free {
                    findings.push(finding(
                        file,
                        line,
                        format!("`{walled}` has no place here ({reason}): move this behind its wall"),
                    ));
                }
            }
        }
    }
    findings
}

fn clock_in_domain(files: &[File]) -> Vec<Finding> {
    let domain = production(files)
        .filter(|(file, _)| module_of(&file.path).is_some_and(|module| layer(&module) == Some(Layer::Domain)));
    let found = domain.flat_map(|(file, code)| {
        let reads = |line: &str| line.contains("::now()") || line.contains(".elapsed()");
        let lines: Vec<_> = code.lines().enumerate().filter(|(_, line)| reads(line)).map(|(at, _)| at + 1).collect();
        lines.into_iter().map(|line| finding(file, line, "the domain reads no clock: take the time as an argument"))
    });
    found.collect()
}

fn sizes(
    files: &[File],
    long_files: &[(&str, usize, &str)],
    long_functions: &[(&str, &str, usize, &str)],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, code) in production(files) {
        let exception = long_files.iter().find(|(path, ..)| *path == file.path).map(|(_, lines, _)| *lines);
        let lines = code.trim_end().lines().count();
        if lines > exception.unwrap_or(FILE_LINES_MAX) {
            let what = format!(
                "{lines} lines without tests: take an idea out into a file of its own, or name the reason in tests/tidy.rs"
            );
            findings.push(finding(file, 1, what));
        } else if exception.is_some() && lines <= FILE_LINES_MAX {
            findings.push(finding(file, 1, format!("{lines} lines: it needs no exception in tests/tidy.rs any more")));
        }
        for (line, name, lines) in functions(&code) {
            let exception = long_functions.iter().find(|(path, function, ..)| *path == file.path && *function == name);
            let max = exception.map_or(FUNCTION_LINES_MAX, |(_, _, lines, _)| *lines);
            if lines > max {
                let what =
                    format!("`{name}` has {lines} lines: take a step out of it, or name the reason in tests/tidy.rs");
                findings.push(finding(file, line, what));
            } else if exception.is_some() && lines <= FUNCTION_LINES_MAX {
                findings.push(finding(file, line, format!("`{name}` needs no exception in tests/tidy.rs any more")));
            }
        }
    }
    findings
}

fn module_docs(files: &[File]) -> Vec<Finding> {
    let undocumented = |file: &&File| is_rust(file) && !file.text.starts_with("//! ");
    let what = "begin with `//!`: one sentence, the invariants, and what is not here";
    files.iter().filter(undocumented).map(|file| finding(file, 1, what)).collect()
}

fn unfinished(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| is_rust(file)) {
        for (at, line) in code_of(&file.text).lines().enumerate() {
            for word in ["todo!", "unimplemented!", "dbg!"] {
                if line.match_indices(word).any(|(at, _)| !line[..at].ends_with(is_name)) {
                    findings.push(finding(
                        file,
                        at + 1,
                        format!("`{word}`: finish it, or return an error that says what is planned"),
                    ));
                }
            }
            if line.contains("#[ignore") {
                findings.push(finding(
                    file,
                    at + 1,
                    "an ignored test is a silent skip: make it pass, or assert what happens today",
                ));
            }
        }
    }
    findings
}

/// Paths and registries of the machine that something was written on.
fn machine_paths(files: &[File]) -> Vec<Finding> {
    // Put together here, so that this file passes its own rule.
    let marks = ["/wor_k/", "/roo_t/", "/hom_e/", "/User_s/", "artifac_tory", "index.crates.i_o:"]
        .map(|mark| mark.replace('_', ""));
    let mut findings = Vec::new();
    // Payloads are what a platform sent: a path in one is the sample's.
    for file in files.iter().filter(|file| !file.path.starts_with("tests/payloads/")) {
        for (at, line) in file.text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| line.contains(*mark)) {
                findings.push(finding(
                    file,
                    at + 1,
                    format!("`{mark}` is of one machine: use a relative path or a variable"),
                ));
            }
        }
    }
    findings
}

fn payload_sources(files: &[File]) -> Vec<Finding> {
    let text_of = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.text.as_str());
    let all = text_of("tests/payloads/SOURCES.md").unwrap_or_default();
    let mut findings = Vec::new();
    for file in files {
        let Some(rest) = file.path.strip_prefix("tests/payloads/") else { continue };
        let (name, own) = match rest.split_once('/') {
            Some((folder, _)) => (folder, text_of(&format!("tests/payloads/{folder}/SOURCES.md")).is_some()),
            None => (rest, rest == "SOURCES.md"),
        };
        let described =
            all.lines().any(|line| line.strip_prefix("## ") == Some(name) || line.contains(&format!("`{name}`")));
        if !own && !described {
            findings.push(finding(
                file,
                1,
                format!("say in tests/payloads/SOURCES.md, under `## {name}`, where it comes from"),
            ));
        }
    }
    findings
}

fn dependency_comments(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        let (mut in_dependencies, mut previous) = (false, "");
        for (at, line) in file.text.lines().enumerate() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            }
            let is_dependency = in_dependencies && line.contains(" = ") && !line.starts_with('#');
            if is_dependency && !previous.starts_with("# ") && !line.contains(" # ") {
                findings.push(finding(file, at + 1, "say in a comment above it what this dependency is for"));
            }
            previous = line;
        }
    }
    findings
}

fn snapshots(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        let extension = Path::new(&file.path).extension().and_then(|extension| extension.to_str());
        if file.path.contains(".snap.") {
            findings.push(finding(file, 1, "an unreviewed snapshot: accept it or fix the test"));
        } else if extension == Some("snap") {
            let source = file.text.lines().find_map(|line| line.strip_prefix("source: ")).unwrap_or_default();
            if !files.iter().any(|other| other.path == source) {
                findings.push(finding(file, 2, format!("its test file `{source}` is gone: remove the snapshot")));
            }
        }
    }
    findings
}

fn is_rust(file: &File) -> bool {
    Path::new(&file.path).extension().is_some_and(|extension| extension == "rs")
}

/// The files of `src` that are not tests, each with its code: no comments, no text of strings, no test module at the end.
fn production(files: &[File]) -> impl Iterator<Item = (&File, String)> {
    let test_modules: BTreeSet<String> = files.iter().flat_map(test_modules_of).collect();
    files.iter().filter(|file| is_rust(file)).filter_map(move |file| {
        let module = module_of(&file.path)?;
        if test_modules.contains(&module) {
            return None;
        }
        let code = code_of(&file.text);
        let is_test_mod = |at: usize| {
            let after = code[at..].trim_start_matches("#[cfg(test)]").trim_start();
            let after = after.strip_prefix("pub").unwrap_or(after);
            after.find('{').is_some_and(|brace| after[..brace].contains("mod ") && !after[..brace].contains(';'))
        };
        let end = code.match_indices("\n#[cfg(test)]").map(|(at, _)| at + 1).find(|at| is_test_mod(*at));
        Some((file, code[..end.unwrap_or(code.len())].to_owned()))
    })
}

/// Modules in files of their own that are compiled for tests only.
fn test_modules_of(file: &File) -> Vec<String> {
    let Some(module) = module_of(&file.path) else { return Vec::new() };
    let mut lines = file.text.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let declared = lines.peek().and_then(|next| next.strip_suffix(';')).and_then(|next| next.rsplit_once("mod "));
        if let ("#[cfg(test)]", Some((_, name))) = (line, declared) {
            found.push(if module == "lib" { name.to_owned() } else { format!("{module}::{name}") });
        }
    }
    found
}

/// `src/sink/kafka.rs` is `sink::kafka`; lib.rs is the table of contents and no module of its own.
fn module_of(path: &str) -> Option<String> {
    let module = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    Some(module.strip_suffix("/mod").unwrap_or(module).replace('/', "::")).filter(|module| module != "lib")
}

/// A path of ours from the root of the crate on; none for what belongs to another crate.
fn own_path(from: &str, path: &[String]) -> Option<Vec<String>> {
    let ups = path.iter().take_while(|segment| *segment == "super").count();
    match path.first()?.as_str() {
        "crate" | "verdict_relay" => Some(path[1..].to_vec()),
        "self" => Some(from.split("::").map(str::to_owned).chain(path[1..].iter().cloned()).collect()),
        "super" => {
            let own: Vec<_> = from.split("::").map(str::to_owned).collect();
            Some(own[..own.len().saturating_sub(ups)].iter().cloned().chain(path[ups..].iter().cloned()).collect())
        }
        _ => None,
    }
}

/// A repository of one file, beside a few modules that paths can lead to.
#[cfg(test)]
fn sample(path: &str, text: &str) -> Vec<File> {
    let others =
        ["src/sink.rs", "src/sink/kafka.rs", "src/sink/syslog.rs", "src/api.rs", "src/secret.rs", "src/deliver.rs"];
    let others = others.iter().filter(|other| **other != path).map(|other| ((*other).to_owned(), "//! x".to_owned()));
    others.chain([(path.to_owned(), text.to_owned())]).map(|(path, text)| File { path, text }).collect()
}

#[test]
fn each_rule_can_fail() {
    type Rule = fn(&[File]) -> Vec<Finding>;
    let long_file = "//! x\n".to_owned() + &"const A: u8 = 1;\n".repeat(FILE_LINES_MAX);
    let long_function = format!("//! x\nfn long() {{\n{}}}\n", "    step();\n".repeat(FUNCTION_LINES_MAX - 1));
    let sizes: Rule = |files| sizes(files, &[], &[]);
    let cases: [(Rule, &str, &str, usize, &str); 25] = [
        (who_knows_whom, "src/route.rs", "//! x\nuse crate::sink::Sink;", 2, "`route` may not know `sink::Sink`"),
        (who_knows_whom, "src/verify.rs", "use crate::secret::{Key, KeyRing};", 1, "`secret::KeyRing`"),
        (who_knows_whom, "src/deliver.rs", "fn f() {\n crate::sink::kafka::open() }", 2, "`sink::kafka::open`"),
        (who_knows_whom, "src/sink/syslog.rs", "use super::kafka::Kafka;", 1, "`sink::kafka::Kafka`"),
        (who_knows_whom, "src/sink/http.rs", "use super::{Sink, kafka};", 1, "`sink::kafka`"),
        (who_knows_whom, "src/main.rs", "use verdict_relay::sink;", 1, "`main` may not know `sink`"),
        (who_knows_whom, "src/api.rs", "use crate::deliver::State;", 1, "`deliver::State`"),
        (who_knows_whom, "src/helpers.rs", "//! x", 1, "`helpers` has no layer yet"),
        (walls, "src/deliver.rs", "use rdkafka::ClientContext;", 1, "`rdkafka` has no place here"),
        (walls, "src/apiary.rs", "use actix_web;", 1, "`actix_web` has no place here"),
        (walls, "src/sink.rs", "use std::{\n env, fmt};", 1, "`std::env` has no place here"),
        (walls, "src/ranking.rs", "fn f() { tokio::spawn(x) }", 1, "the domain is pure"),
        (
            clock_in_domain,
            "src/format/ocsf.rs",
            "let a = 1;\nlet t = Timestamp::now();",
            2,
            "take the time as an argument",
        ),
        (sizes, "src/gate.rs", &long_file, 1, "501 lines without tests"),
        (sizes, "src/gate.rs", &long_function, 2, "`long` has 71 lines"),
        (module_docs, "src/gate.rs", "use std::fmt;", 1, "begin with `//!`"),
        (unfinished, "src/gate.rs", "fn f() {\n todo!()\n}", 2, "`todo!`"),
        (unfinished, "tests/it/gate.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}", 2, "a silent skip"),
        (machine_paths, "README.md", concat!("run\n/ho", "me/me/x"), 2, "is of one machine"),
        (payload_sources, "tests/payloads/acme/a.json", "{}", 1, "under `## acme`"),
        (payload_sources, "tests/payloads/list.json", "[]", 1, "under `## list.json`"),
        (
            dependency_comments,
            "Cargo.toml",
            "[dependencies]\n# Why.\na = \"1\"\nb = \"1\"",
            4,
            "what this dependency is for",
        ),
        (snapshots, "src/snapshots/a.snap", "---\nsource: src/gone.rs", 2, "`src/gone.rs` is gone"),
        (snapshots, "src/snapshots/a.snap.new", "---", 1, "an unreviewed snapshot"),
        (unfinished, "benches/load.rs", "fn f() { dbg!(1); }", 1, "`dbg!`"),
    ];
    for (rule, path, text, line, words) in cases {
        let findings = rule(&sample(path, text));
        let expected =
            matches!(&findings[..], [one] if one.path == path && one.line == line && one.what.contains(words));
        assert!(expected, "{path}: {text:.60}\nfindings: {findings:#?}\nexpected: line {line}, {words}");
    }
}

#[test]
fn what_is_allowed_is_no_finding() {
    let text = r##"//! x
use crate::secret::{Key, SecretRef};
// use crate::sink::Sink; todo!()
const A: &str = "crate::sink::Sink"; const B: &str = r#"tokio::spawn " todo!()"#; const C: char = '"';
fn f<'a>(x: &'a str) -> &'a str { env!("X") }
#[cfg(test)]
pub mod sample;

#[cfg(test)]
mod tests {
    use tokio::time;
    use crate::sink::Sink;
}
"##;
    let files = sample("src/verify.rs", text);
    for rule in [who_knows_whom, walls, clock_in_domain, module_docs, unfinished] {
        assert_eq!(rule(&files), []);
    }
    assert_eq!(test_modules_of(&files[files.len() - 1]), ["verify::sample"]);
}

#[test]
fn an_exception_that_is_not_needed_any_more_is_a_finding() {
    let files = sample("src/gate.rs", "//! x\nfn short() {}\n");
    let findings = sizes(&files, &[("src/gate.rs", 600, "was long")], &[("src/gate.rs", "short", 90, "was long")]);
    assert_eq!(findings.len(), 2, "{findings:#?}");
}
