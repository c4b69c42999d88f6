//! What each part costs by itself: proof, adapters, renderers, the journal and the ledger.
//!
//! Invariants: every part is warmed up, then timed in rounds of a fixed time; what is printed is the median round and the best one.
//! Nothing here is a promise: the load harness says what the parts are together.
//!
//! Not here: requests, processes, ratios (`benches/load`).

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the table goes to stdout, words to stderr")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "load/bodies.rs"]
mod bodies;

use std::error::Error;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use jiff::Timestamp;
use sha2::Digest;

use verdict_relay::adapter::jq::{self, Evaluate, Program, Script, condition_script};
use verdict_relay::adapter::pack::{Isolate, PackTable};
use verdict_relay::adapter::{self, Adapter, AdapterName, Outcome};
use verdict_relay::delivery::Delivery;
use verdict_relay::event::{Activity, Event, Hash, Name, Position, Standing, Topic, uid_of};
use verdict_relay::format::rfc5424::Receiver;
use verdict_relay::format::{Format, Style, hec};
use verdict_relay::sandbox::Sandbox;
use verdict_relay::secret::{Key, Secret, SecretRef};
use verdict_relay::store::journal::{DiskJournal, Options};
use verdict_relay::store::ledger::Ledger;
use verdict_relay::store::{Draft, Journal, Kind};
use verdict_relay::verify::{
    Found, Headers, NoPublicKeys, Outgoing, Preset, Proven, Request, Scheme, VerifyConfig, sign, verify,
};

/// Measures each part by itself.
#[derive(Parser)]
#[command(after_help = "Example: cargo bench --bench micro -- --only render")]
struct Args {
    /// Milliseconds of a round; there are seven.
    #[arg(long, default_value_t = 100)]
    round_ms: u64,
    /// Only the parts whose name holds this.
    #[arg(long, default_value = "")]
    only: String,
    /// Where the stores go: the disk that is measured.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    folder: PathBuf,
    /// Said by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    if !args.bench {
        eprintln!("micro: run me with `cargo bench --bench micro`; as a test there is nothing to do");
        return Ok(());
    }
    let bench = Bench { round: Duration::from_millis(args.round_ms), only: args.only };
    println!("{:<58} {:>12} {:>12} {:>10}", "", "median", "best", "MB/s");
    measure_proof(&bench)?;
    measure_adapters(&bench)?;
    measure_jq(&bench)?;
    measure_identity(&bench)?;
    measure_renderers(&bench)?;
    if "store".contains(&bench.only) || bench.only.is_empty() {
        measure_journal(&args.folder)?;
        measure_ledger(&args.folder)?;
    }
    Ok(())
}

struct Bench {
    round: Duration,
    only: String,
}

impl Bench {
    /// Times `operation` and prints it; `bytes` is what it reads or writes, for the rate.
    fn time<R>(&self, name: &str, bytes: usize, mut operation: impl FnMut() -> R) {
        if !name.contains(&self.only) {
            return;
        }
        // The warm-up also finds how often it runs in a round, so that the clock is read rarely.
        let began = Instant::now();
        let mut count = 0_u32;
        while began.elapsed() < self.round {
            black_box(operation());
            count += 1;
        }
        let mut rounds: Vec<f64> = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            for _ in 0..count {
                black_box(operation());
            }
            rounds.push(began.elapsed().as_secs_f64() * 1e6 / f64::from(count));
        }
        rounds.sort_by(f64::total_cmp);
        let (median, best) = (rounds[ROUNDS / 2], rounds[0]);
        // Bytes a microsecond are megabytes a second.
        println!("{name:<58} {median:>9.2} us {best:>9.2} us {:>10.0}", bytes as f64 / median);
    }
}

/// A signed message, as the receiver would hand it to the proof.
struct Signed {
    scheme: Scheme,
    keys: Vec<Key>,
    headers: Vec<(String, String)>,
    body: Bytes,
    now: Timestamp,
}

impl Headers for Signed {
    fn find(&self, name: &str) -> Found<'_> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map_or(Found::Nothing, |(_, value)| Found::One(value.as_bytes()))
    }
}

impl Signed {
    fn new(preset: Preset, body: Vec<u8>) -> Result<Self, Box<dyn Error>> {
        let reference = SecretRef("env:LOAD_SECRET".to_owned());
        let config = VerifyConfig { preset: Some(preset), secrets: vec![reference.clone()], ..VerifyConfig::default() };
        let scheme = config.plan("verify", true).map_err(|problem| format!("{problem:?}"))?;
        let keys = vec![Key { id: reference, secret: Secret::new(SECRET.to_vec()) }];
        let now = Timestamp::now();
        let message = Outgoing { method: "POST", url: "http://127.0.0.1/v1/hooks/portal", id: "msg_1", body: &body };
        let headers = sign(&scheme, &keys, &message, now)?;
        Ok(Self { scheme, keys, headers, body: body.into(), now })
    }

    fn prove(&self) -> Proven {
        let request = Request {
            headers: self,
            method: "POST",
            public_url: "",
            target: "/v1/hooks/portal",
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            certificate_names: &[],
            headers_kept: &[],
            coding: None,
            decoded_bytes_max: 0,
            public_keys: &NoPublicKeys,
        };
        verify(&self.scheme, &self.keys, &request, self.body.clone(), self.now).expect("it was signed for this")
    }
}

fn measure_proof(bench: &Bench) -> Result<(), Box<dyn Error>> {
    for (name, preset) in [
        ("standard-webhooks", Preset::StandardWebhooks),
        ("github", Preset::Github),
        ("vileanalyziz", Preset::Vileanalyziz),
    ] {
        for bytes in [4 << 10, 64 << 10] {
            let signed = Signed::new(preset, bodies::engine_report(bytes, 14))?;
            bench.time(&format!("proof: {name}, {} KB", bytes >> 10), bytes, || signed.prove());
        }
    }
    Ok(())
}

fn adapter(name: &str) -> Result<Arc<dyn Adapter>, Box<dyn Error>> {
    let planned = adapter::plan("sources.bench", &AdapterName(name.to_owned()), &adapter::Options::default());
    planned.map_err(|problem| format!("{problem:?}").into())
}

fn delivery(body: Vec<u8>) -> Result<Delivery, Box<dyn Error>> {
    let source: Name = "bench".parse()?;
    Ok(Delivery::new(Signed::new(Preset::Github, body)?.prove(), &source, Timestamp::now()))
}

fn measure_adapters(bench: &Bench) -> Result<(), Box<dyn Error>> {
    let cases: [(&str, &str, Vec<u8>); 16] = [
        ("virustotal", "v3 file, malicious, 4 KB", bodies::engine_report(4 << 10, 14)),
        ("virustotal", "v3 file, clean, 4 KB", bodies::engine_report(4 << 10, 0)),
        ("virustotal", "v3 file, malicious, 16 KB", bodies::engine_report(16 << 10, 54)),
        ("virustotal", "v3 file, malicious, 64 KB", bodies::engine_report(64 << 10, 54)),
        ("virustotal", "v3 analysis, as in the tests", ANALYSIS.to_vec()),
        ("virustotal", "v2 report, as in the tests", V2_REPORT.to_vec()),
        ("vileanalyziz", "1 KB", bodies::portal_event(1 << 10)),
        ("vileanalyziz", "4 KB", bodies::portal_event(4 << 10)),
        ("metadefender", "an archive, as in the tests", ARCHIVE.to_vec()),
        ("event_grid", "a blob, as in the tests", BLOB.to_vec()),
        ("aws", "an object in an SNS envelope, as in the tests", OBJECT.to_vec()),
        ("assemblyline", "a submission, as in the tests", SUBMISSION.to_vec()),
        ("cape", "a trimmed report, as in the tests", SANDBOX_REPORT.to_vec()),
        ("native", "half a KB", NATIVE.to_vec()),
        ("scanii", "a callback, as in the pack", SCANII.to_vec()),
        ("trend", "a result in an SNS envelope, as in the pack", TREND.to_vec()),
    ];
    for (name, title, body) in cases {
        let bytes = body.len();
        let (adapter, delivery) = (adapter(name)?, delivery(body)?);
        let outcomes = adapter.normalize(&delivery)?;
        if !outcomes.iter().all(|outcome| matches!(outcome, Ok(Outcome::Verdict(_)))) {
            return Err(format!("{name}, {title}: no verdict: {outcomes:?}").into());
        }
        bench.time(&format!("adapter: {name}, {title}"), bytes, || adapter.normalize(&delivery));
    }
    Ok(())
}

/// A table as users write one, over a report of 75 engines: in this process, as packs are run, and in one of its own, as a user's are.
fn measure_jq(bench: &Bench) -> Result<(), Box<dyn Error>> {
    let table: PackTable = toml::from_str(VT_TABLE)?;
    let here =
        |script: Script| -> Arc<dyn Evaluate> { Arc::new(Program::compile(script).expect("the plan compiled it")) };
    let apart = |script: Script| -> Arc<dyn Evaluate> {
        Arc::new(Sandbox::with_program(script, env!("CARGO_BIN_EXE_verdict-relay")))
    };
    let places: [(&str, Isolate<'_>); 2] = [("in this process", &here), ("in its own", &apart)];
    for (place, isolate) in places {
        let adapter =
            adapter::plan_jq("bench.", &table, "bench", isolate).map_err(|problems| format!("{problems:?}"))?;
        for (kib, hits) in [(4, 14), (16, 54)] {
            let body = bodies::engine_report(kib << 10, hits);
            let (bytes, delivery) = (body.len(), delivery(body)?);
            let outcomes = adapter.normalize(&delivery)?;
            if !outcomes.iter().all(|outcome| matches!(outcome, Ok(Outcome::Verdict(_)))) {
                return Err(format!("jq {place}: no verdict: {outcomes:?}").into());
            }
            bench.time(&format!("adapter: jq {place}, v3 file, {kib} KB"), bytes, || adapter.normalize(&delivery));
        }
    }
    let condition = condition_script("where.jq", ".severity_id >= 3");
    let event = event(bodies::engine_report(4 << 10, 14))?;
    let mut line = Vec::new();
    Format::Ocsf.render(&event, &Style::new("relay.example.com"), &mut line);
    let sandbox = Sandbox::with_program(condition, env!("CARGO_BIN_EXE_verdict-relay"));
    bench.time("where.jq: .severity_id >= 3, in its own process", line.len(), || jq::condition(&sandbox, &line));
    Ok(())
}

/// The event that normalize makes of the 4 KB report.
fn event(body: Vec<u8>) -> Result<Event, Box<dyn Error>> {
    let delivery = delivery(body)?;
    let outcomes = adapter("virustotal")?.normalize(&delivery)?;
    let Some(Ok(Outcome::Verdict(finding))) = outcomes.into_iter().next() else { return Err("no verdict".into()) };
    Ok(Event {
        uid: uid_of(delivery.source(), &finding).ok_or("the report has a time")?,
        source: delivery.source().clone(),
        provider: "VirusTotal".to_owned(),
        auth: delivery.auth(),
        received_at: delivery.received_at(),
        effective_at: finding.analysed_at.unwrap_or(delivery.received_at()),
        clock_suspect: false,
        raw_sha256: Hash(sha2::Sha256::digest(delivery.body()).into()),
        raw_size: delivery.body().len() as u64,
        finding: *finding,
        activity: Activity::Create,
        standing: Standing::Latest,
        previous: None,
        again: None,
        corrects: None,
        topic: Topic::Verdict,
    })
}

fn measure_identity(bench: &Bench) -> Result<(), Box<dyn Error>> {
    let body = bodies::engine_report(4 << 10, 14);
    let event = event(body.clone())?;
    bench.time("identity: uid of a finding", 0, || uid_of(&event.source, &event.finding));
    bench.time("identity: SHA-256 of a 4 KB body", body.len(), || sha2::Sha256::digest(&body));
    let stored = serde_json::to_vec(&event)?;
    let bytes = stored.len();
    bench.time("event: written for the ledger", bytes, || serde_json::to_vec(&event));
    bench.time("event: read from the ledger", bytes, || serde_json::from_slice::<Event>(&stored));
    Ok(())
}

fn measure_renderers(bench: &Bench) -> Result<(), Box<dyn Error>> {
    let style = Style::new("relay.example.com");
    let cases = [("malicious", bodies::engine_report(4 << 10, 14)), ("clean", bodies::engine_report(4 << 10, 0))];
    for (title, body) in cases {
        let event = event(body)?;
        let mut out = Vec::new();
        let mut time = |name: String, render: &dyn Fn(&mut Vec<u8>)| {
            out.clear();
            render(&mut out);
            let bytes = out.len();
            bench.time(&format!("render: {name}, {title}, {bytes} bytes"), bytes, || {
                out.clear();
                render(black_box(&mut out));
            });
        };
        for format in Format::ALL {
            time(format.to_string(), &|out| format.render(&event, &style, out));
        }
        time("hec".to_owned(), &|out| hec::render(&event, &style, Some("security"), out));
        for receiver in Receiver::ALL {
            let profile = receiver.profile();
            time(format!("syslog {receiver:?}"), &|out| profile.render(&event, &style, out));
        }
    }
    Ok(())
}

/// Appends of 4 KB, one after the other and many at once; what one sync serves shows in how far the durable position jumps.
fn measure_journal(folder: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let body = Bytes::from(bodies::engine_report(4 << 10, 14));
    let delivery = delivery(body.to_vec())?;
    let draft = Draft {
        kind: Kind::Delivery,
        source: delivery.source().clone(),
        at: delivery.received_at(),
        head: delivery.stored_head(),
        body,
        repeat: None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for (senders, appends) in [(1, 2_000), (64, 40_000), (256, 40_000)] {
        let folder = tempfile::tempdir_in(folder)?;
        let options = Options { folder: folder.path().to_owned(), segment_bytes: SEGMENT_BYTES, sequence_floor: 0 };
        let journal = Arc::new(DiskJournal::open(&options)?);
        // The first segments are filled with zeros meanwhile.
        runtime.block_on(append(&journal, &draft, senders, appends / 4))?;
        let began = Instant::now();
        let groups = runtime.block_on(append(&journal, &draft, senders, appends))?;
        let us = began.elapsed().as_secs_f64() * 1e6 / appends as f64;
        println!(
            "journal: 4 KB appends, {senders} at once: {us:.1} us each ({:.0}/s), at most {:.1} for a sync",
            1e6 / us,
            appends as f64 / groups as f64
        );
    }
    Ok(())
}

/// Appends from this many tasks; how many groups were seen to become durable (fewer than there were, if two came between two looks).
async fn append(
    journal: &Arc<DiskJournal>,
    draft: &Draft,
    senders: usize,
    appends: usize,
) -> Result<usize, Box<dyn Error>> {
    let mut durable = journal.durable();
    let groups = Arc::new(AtomicUsize::new(0));
    let seen = groups.clone();
    let watching = tokio::spawn(async move {
        while durable.changed().await.is_ok() {
            seen.fetch_add(1, Ordering::Relaxed);
        }
    });
    let tasks = (0..senders).map(|_| {
        let (journal, draft) = (journal.clone(), draft.clone());
        tokio::spawn(async move {
            for _ in 0..appends / senders {
                journal.append(draft.clone()).await?;
            }
            Ok::<_, verdict_relay::store::AppendError>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    watching.abort();
    Ok(groups.load(Ordering::Relaxed))
}

/// What normalize writes for an event, in batches of one transaction each: identity, record of the subject, event.
fn measure_ledger(folder: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let event = event(bodies::engine_report(4 << 10, 14))?;
    let folder = tempfile::tempdir_in(folder)?;
    let ledger = Arc::new(Ledger::open(folder.path())?);
    let mut rounds = Vec::new();
    for round in 0..LEDGER_ROUNDS {
        let began = Instant::now();
        ledger.transact(|transaction| {
            for number in 0..LEDGER_BATCH {
                let position = Position::new(1 + round * LEDGER_BATCH + number, 0);
                let uid = Hash(sha2::Sha256::digest(position.0.to_le_bytes())[..16].try_into().expect("16 of 32"));
                let subject = format!("file:{uid}{uid}");
                transaction.claim(uid, position)?;
                let known = transaction.known(&subject, &event.source)?;
                transaction.put_record(&known, position, &event.finding.verdict)?;
                transaction.put_event(position, None, Event { uid, ..event.clone() })?;
            }
            Ok(())
        })?;
        rounds.push(began.elapsed().as_secs_f64() * 1e6 / LEDGER_BATCH as f64);
    }
    rounds.sort_by(f64::total_cmp);
    println!(
        "ledger: identity, record and event, {LEDGER_BATCH} a transaction: {:.1} us each (best {:.1}, worst {:.1})",
        rounds[rounds.len() / 2],
        rounds[0],
        rounds[rounds.len() - 1]
    );
    Ok(())
}

const ROUNDS: usize = 7;
/// A secret as Standard Webhooks writes it; the other presets take it as text.
const SECRET: &[u8] = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// As the service has them.
const SEGMENT_BYTES: u64 = 64 << 20;
const LEDGER_ROUNDS: u64 = 40;
const LEDGER_BATCH: u64 = 1000;

const ANALYSIS: &[u8] = include_bytes!("../tests/payloads/virustotal/v3_analysis_completed.json");
const V2_REPORT: &[u8] = include_bytes!("../tests/payloads/virustotal/v2_file_report.json");
const ARCHIVE: &[u8] = include_bytes!("../tests/payloads/metadefender/core_callback_infected_archive.json");
const BLOB: &[u8] = include_bytes!("../tests/payloads/azure_defender_storage/event_grid_malicious.json");
const OBJECT: &[u8] = include_bytes!("../tests/payloads/aws_guardduty_s3/sns_wrapped_eventbridge.json");
const SUBMISSION: &[u8] = include_bytes!("../tests/payloads/assemblyline/webhook_submission_completed.json");
const SANDBOX_REPORT: &[u8] = include_bytes!("../tests/payloads/cape/report_trimmed.json");
const SCANII: &[u8] = include_bytes!("../adapters/scanii/bodies/callback_malicious.json");
const TREND: &[u8] = include_bytes!("../adapters/trend/bodies/sns_scan_result.json");
/// What a user's table for VirusTotal would be.
const VT_TABLE: &str = r#"
class = 'if .data.type == "file" then "verdict" else null end'
[fields]
event_id = '"file:\(.data.id):\(.data.attributes.last_analysis_date)"'
time = ".data.attributes.last_analysis_date"
sha256 = ".data.attributes.sha256 // .data.id"
sha1 = ".data.attributes.sha1"
md5 = ".data.attributes.md5"
name = ".data.attributes.meaningful_name"
size = ".data.attributes.size"
file_type = ".data.attributes.type_description"
verdict = """
.data.attributes.last_analysis_stats
| if .malicious >= 3 then "malicious" elif .malicious + .suspicious > 0 then "suspicious"
  elif .harmless + .undetected >= 10 then "clean" else "unknown" end"""
detections = """
[.data.attributes.last_analysis_results[] | select(.category == "malicious" or .category == "suspicious")
 | {engine: .engine_name, name: .result, verdict: .category}]"""
engines = ".data.attributes.last_analysis_stats | .malicious + .suspicious + .harmless + .undetected"
families = "[.data.attributes.popular_threat_classification.popular_threat_name[]?.value]"
tags = ".data.attributes.tags"
report_url = '"https://www.virustotal.com/gui/file/\(.data.id)"'
[score]
expr = ".data.attributes.last_analysis_stats | 100 * .malicious / (.malicious + .suspicious + .harmless + .undetected)"
"#;
const NATIVE: &[u8] = br#"{"id": "scan-4711", "subject": {"type": "file", "sha256": "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f",
 "sha1": "3395856ce81f2b7382dee72602f798b642f14140", "name": "eicar.com", "size": 68}, "verdict": "malicious", "score": 92,
 "analysed_at": "2026-03-23T12:02:00Z", "detections": [{"engine": "clamav", "name": "Win.Test.EICAR_HDB-1", "verdict": "malicious"}],
 "families": ["eicar"], "tags": ["test"], "report_url": "https://scanner.example.com/scan-4711"}"#;
