//! Files that are sent for analysis with the real program, its command line and its API, to platforms on loopback.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::peers::uploads::Uploads;
use crate::service::{PATIENCE, Sender, Service, Site, wait_until};

/// A site with these sources; `KEY` stands for the reference to the key, `URL` for the platforms.
fn site(sources: &str, url: &str) -> Site {
    let mut site = Site::new();
    let file = |name: &str, content: &str| {
        let path = site.folder.path().join(name);
        fs::write(&path, content).expect("written");
        format!("file:{}", path.display())
    };
    let key = file("api-key", Uploads::KEY);
    let tokens = ["read", "gate", "submit"].map(|scope| {
        let token = file(scope, &token(scope));
        format!("[[api.tokens]]\nname = \"{scope}\"\nsecret = \"{token}\"\nscopes = [\"{scope}\"]\n")
    });
    site.more = format!("{}{}", sources.replace("KEY", &key).replace("URL", url), tokens.concat());
    site
}

const VT: &str =
    "[sources.vt]\nadapter = \"virustotal\"\nsubmit = \"public\"\npoll = { keys = [\"KEY\"], url = \"URL\" }\n";
const PRIVATE: &str =
    "[sources.own]\nadapter = \"virustotal\"\nsubmit = \"private\"\npoll = { keys = [\"KEY\"], url = \"URL\" }\n";
const VILE: &str = "[sources.vile]\nadapter = \"vileanalyziz\"\nsubmit = \"private\"\n\
    confirm = { url = \"URL\", key = \"KEY\" }\nreconcile = { every = \"1h\" }\n";
const OFF: &str = "[sources.off]\nadapter = \"virustotal\"\npoll = { keys = [\"KEY\"], url = \"URL\" }\n";

fn token(scope: &str) -> String {
    format!("{scope}-token-of-more-than-24-bytes")
}

/// A file of that many bytes that nobody has seen, and its hash.
fn sample(site: &Site, name: &str, bytes: usize) -> (PathBuf, String) {
    let path = site.folder.path().join(name);
    let mut content: Vec<u8> = (0..bytes).map(|at| u8::try_from(at * 7 % 251).expect("small")).collect();
    content.splice(0..name.len().min(bytes), name.bytes().take(bytes));
    fs::write(&path, &content).expect("written");
    (path, hex::encode(Sha256::digest(&content)))
}

/// `submit --json`, as the service's user.
fn submit(site: &Site, service: &Service, source: &str, files: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_verdict-relay"))
        .arg("--config")
        .arg(site.folder.path().join("relay.toml"))
        .args(["submit", "--json", "--within", "1s", "--source", source, "--url", &format!("http://{}", service.api)])
        .args(files)
        .output()
        .expect("the program runs")
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Status, `Retry-After` and problem of a post to the API.
fn post(service: &Service, query: &str, token: Option<&str>, body: &[u8]) -> (u16, String) {
    let mut sender = Sender::connect(service.api).expect("connects");
    let authorization = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let head = format!(
        "POST /v1/submissions?{query} HTTP/1.1\r\nHost: localhost\r\n{authorization}Content-Length: {}\r\n\r\n",
        body.len()
    );
    sender.send(&[head.as_bytes(), body].concat()).expect("sent");
    let answer = sender.answer().expect("an answer");
    (answer.status, format!("{answer:?}"))
}

#[test]
fn files_go_where_the_config_says_and_as_the_platforms_own_client_sends_them() {
    let platform = Uploads::start();
    let site = site(&[VT, PRIVATE, VILE].concat(), &platform.url());
    let service = site.start();
    let (small, small_hash) = sample(&site, "a \"quoted\" name.exe", 1000);
    let (large, large_hash) = sample(&site, "large.bin", 40_000_000);

    for (source, who) in [("vt", "public"), ("own", "private"), ("vile", "private")] {
        let before = platform.received().len();
        let output = submit(&site, &service, source, &[&small, &large]);
        assert!(output.status.success(), "{source}: {}", words(&output));
        let said = words(&output);
        let warned = said.lines().next().expect("a line");
        assert!(warned.contains(&platform.url()), "{warned}");
        assert_eq!(warned.contains("EVERYBODY"), who == "public", "{warned}");
        let answers = lines(&output);
        assert_eq!(answers.len(), 2);
        for (answer, hash) in answers.iter().zip([&small_hash, &large_hash]) {
            assert_eq!((answer["known"].as_bool(), answer["sha256"].as_str()), (Some(false), Some(hash.as_str())));
            assert!(answer["analysis_id"].is_string() && answer["expected"] == true, "{answer}");
        }
        let received = &platform.received()[before..];
        let told = |file: &Value| ["sha256", "as", "name"].map(|key| file[key].as_str().expect("a text").to_owned());
        let quoted = if source == "vile" { "a \"quoted\" name.exe" } else { "a %22quoted%22 name.exe" };
        assert_eq!(told(&received[0]), [&small_hash, who, quoted], "{source}");
        assert_eq!(told(&received[1]), [&large_hash, who, "large.bin"], "{source}");
    }
    // VirusTotal's own client is told the same by the same server, so the server is like VirusTotal in what it takes.
    let theirs = platform.sent_by_its_client(&large);
    let last = platform.received().pop().expect("it arrived");
    assert_eq!((last["sha256"].as_str(), theirs["type"].as_str()), (Some(large_hash.as_str()), Some("analysis")));
    // The large files went to the address that was named for them, and our key to no other host.
    let requests = platform.requests();
    let named = |part: &str| -> Vec<_> {
        requests.iter().filter(|request| request["path"].as_str().expect("a path").contains(part)).collect()
    };
    assert_eq!(named("/_ah/upload/").len(), 3);
    assert!(named("/bucket/").len() == 2 && named("/bucket/").iter().all(|request| request["key"] == false));
    assert!(requests.iter().all(|request| request["status"] != 401), "{requests:?}");
    // Nothing came within a second: each platform is asked, where its analysis is.
    for path in ["/api/v3/analyses/", "/api/v3/private/analyses/", "/v1/files/fil_"] {
        wait_until(path, PATIENCE, || {
            platform.requests().iter().any(|request| request["path"].as_str().expect("a path").starts_with(path))
        });
    }
    assert!(service.rss_peak_mib() < 250, "{} MiB: a file is never whole in memory", service.rss_peak_mib());
    assert!(!service.log().contains(Uploads::KEY), "no key is told");
}

#[test]
fn what_is_known_is_not_sent() {
    let platform = Uploads::start();
    let site = site(&[VT, PRIVATE, VILE].concat(), &platform.url());
    let service = site.start();
    let (file, hash) = sample(&site, "known.exe", 100);
    platform.steer("known", &hash);
    for source in ["vt", "own", "vile"] {
        let output = submit(&site, &service, source, &[&file]);
        assert!(output.status.success(), "{source}: {}", words(&output));
        let answer = &lines(&output)[0];
        assert_eq!(
            (answer["known"].as_bool(), answer["known_by"].as_str()),
            (Some(true), Some("platform")),
            "{source}"
        );
    }
    // The report that the platform had was fetched: from then on our own index knows the file, and nobody is asked.
    wait_until("the report is there", PATIENCE, || {
        let answer = lines(&submit(&site, &service, "vt", &[&file])).remove(0);
        answer["known_by"] == "index" && answer["verdict"] == "malicious"
    });
    assert_eq!(platform.received().len(), 0);
}

#[test]
fn what_the_platform_refuses_is_told_and_one_file_does_not_keep_the_others_back() {
    let platform = Uploads::start();
    let down = VT.replace("sources.vt", "sources.down").replace("URL", "http://127.0.0.1:1");
    let site = site(&[VT, VILE, &down].concat(), &platform.url());
    let service = site.start();
    let (file, hash) = sample(&site, "file.exe", 100);
    let token = token("submit");
    for (source, path, error, status, told) in [
        ("vt", "/api/v3/files", "429 QuotaExceededError 77", 429, "no quota left"),
        ("vt", "/api/v3/files", "429 TooManyRequestsError 77", 429, "too fast"),
        ("vt", "POST/api/v3/files", "503 TransientError 77", 503, "TransientError, example [2J message"),
        ("vt", "/api/v3/files", "401 WrongCredentialsError", 503, "refuses every key"),
        ("vt", "/api/v3/files", "403 ForbiddenError", 502, "lacks the right"),
        ("vt", "POST/api/v3/files", "413 PayloadTooLargeError", 413, "too large"),
        ("vile", "/v1/upload", "429 rate_limited 77", 429, "too fast"),
        ("vile", "/bucket/", "503 SlowDown 77", 503, "cannot take the file now"),
        ("vile", "/bucket/", "403 AccessDenied", 502, "address it named"),
        ("vile", "/v1/upload/complete", "500 oops", 503, "it answers 500"),
    ] {
        platform.steer("errors", &format!("{path} {error}"));
        let (answered, problem) = post(&service, &format!("source={source}&name=x"), Some(&token), b"bytes");
        assert_eq!(answered, status, "{source} {error}: {problem}");
        assert!(problem.contains(told) && !problem.contains("\\u{1b}"), "{source} {error}: {problem}");
        assert_eq!(error.ends_with(" 77"), problem.contains("77"), "{source} {error}: {problem}");
        let output = submit(&site, &service, source, &[&file]);
        assert_eq!((output.status.code(), words(&output).contains(told)), (Some(1), true), "{}", words(&output));
    }
    platform.steer("errors", "");
    assert_eq!(platform.received().len(), 0);
    let output = submit(&site, &service, "down", &[&file]);
    assert!(output.status.code() == Some(1) && words(&output).contains("cannot connect"), "{}", words(&output));
    let missing = site.folder.path().join("missing.exe");
    let output = submit(&site, &service, "vt", &[&missing, site.folder.path(), &file]);
    assert_eq!(output.status.code(), Some(1));
    let answers = lines(&output);
    assert!(answers[0]["error"].is_string() && answers[1]["error"].is_string(), "{answers:?}");
    assert_eq!((answers[2]["sha256"].as_str(), platform.received().len()), (Some(hash.as_str()), 1));
}

#[test]
fn who_may_not_submit_is_told_so_before_the_file_is_looked_at() {
    let platform = Uploads::start();
    let site = site(&[VT, OFF].concat(), &platform.url());
    let service = site.start();
    let large = vec![0; 5_000_000];
    for (query, token, status) in [
        ("source=vt", Some(token("read")), 403),
        ("source=vt", Some(token("gate")), 403),
        ("source=vt", Some("some-other-token".to_owned()), 401),
        ("source=vt", None, 401),
        ("source=nobody", Some(token("submit")), 404),
        ("source=off", Some(token("submit")), 422),
        ("source=vt&within=never", Some(token("submit")), 400),
        ("source=../vt", Some(token("submit")), 400),
    ] {
        let (answered, problem) = post(&service, query, token.as_deref(), &large);
        assert_eq!(answered, status, "{query}: {problem}");
    }
    let (answered, problem) = post(&service, "source=vt", Some(&token("submit")), b"");
    assert_eq!(answered, 400, "{problem}");
    let declared = format!(
        "POST /v1/submissions?source=vt HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Length: 650000001\r\n\r\n",
        token("submit")
    );
    let mut sender = Sender::connect(service.api).expect("connects");
    sender.send(declared.as_bytes()).expect("sent");
    assert_eq!(sender.answer().expect("an answer").status, 413);
    assert_eq!(platform.requests().iter().filter(|request| request["method"] != "GET").count(), 0);
    let output = submit(&site, &service, "off", &[Path::new("/nonexistent")]);
    let said = words(&output);
    assert!(output.status.code() == Some(1) && said.contains("sources.NAME.submit"), "{said}");
}

#[test]
fn of_a_file_that_breaks_off_nothing_stays() {
    let platform = Uploads::start();
    let site = site(VT, &platform.url());
    let service = site.start();
    let names = || {
        let entries = fs::read_dir(&site.store).expect("readable").map(|entry| entry.expect("an entry").file_name());
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    let held = || {
        let handles = fs::read_dir(format!("/proc/{}/fd", service.pid())).expect("it runs").flatten();
        let of_store =
            |handle: &PathBuf| handle.starts_with(&site.store) && handle.to_string_lossy().ends_with("(deleted)");
        handles.filter_map(|handle| fs::read_link(handle.path()).ok()).filter(of_store).count()
    };
    let (before, none) = (names(), held());
    let mut client = TcpStream::connect(service.api).expect("connects");
    let head = format!(
        "POST /v1/submissions?source=vt HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Length: 40000000\r\n\r\n",
        token("submit")
    );
    client.write_all(head.as_bytes()).expect("sent");
    client.write_all(&vec![7; 20_000_000]).expect("sent");
    wait_until("the file is being kept", PATIENCE, || held() == none + 1);
    assert_eq!(names(), before, "it has no name, so a crash leaves nothing either");
    drop(client);
    wait_until("the file is gone", Duration::from_secs(10), || held() == none);
    assert_eq!((names(), platform.received().len()), (before, 0));
    let (file, _) = sample(&site, "file.exe", 100);
    assert!(submit(&site, &service, "vt", &[&file]).status.success(), "the next file is taken");
}
