//! Any bytes at any adapter: it never panics, and whatever it makes of them can be rendered for every receiver without a control byte.
//!
//! The first line of the input names the adapter (or its first byte chooses one), the rest is the body.

#![no_main]

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use verdict_relay::adapter::{self, Adapter, AdapterName, Options, Outcome};
use verdict_relay::delivery::Delivery;
use verdict_relay::event::{Activity, Auth, Event, Finding, Hash, Standing, Topic};
use verdict_relay::format::{Format, Style};

static ADAPTERS: LazyLock<Vec<(&str, Arc<dyn Adapter>)>> = LazyLock::new(|| {
    let plan = |name: &'static str| {
        let adapter = adapter::plan("sources.fuzz", &AdapterName(name.to_owned()), &Options::default());
        (name, adapter.expect("it is built"))
    };
    adapter::names().map(plan).collect()
});

static STYLE: LazyLock<Style> = LazyLock::new(|| Style::new("fuzz"));

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (name, body) = (&data[..end], &data[end + 1..]);
    let named = ADAPTERS.iter().find(|(known, _)| known.as_bytes() == name);
    let any = usize::from(data[0]) % ADAPTERS.len();
    let (_, adapter) = named.unwrap_or(&ADAPTERS[any]);
    let Ok(outcomes) = adapter.normalize(&delivery(body)) else { return };
    for outcome in outcomes.into_iter().flatten() {
        if let Outcome::Verdict(finding) = outcome {
            let event = event(*finding, adapter.provider());
            for format in Format::ALL {
                let mut line = Vec::new();
                format.render(&event, &STYLE, &mut line);
                let text = std::str::from_utf8(&line).expect("every rendering is UTF-8");
                assert!(!text.chars().any(char::is_control), "{format:?} wrote a control character");
            }
        }
    }
});

const EVIDENCE: &[u8] = br#"{"how":"network"}"#;

fn delivery(body: &[u8]) -> Delivery {
    // The stored form: version, length of the evidence, evidence, body.
    let stored = [&[1, EVIDENCE.len() as u8, 0, 0, 0], EVIDENCE, body].concat();
    Delivery::from_stored("fuzz".parse().expect("a name"), Timestamp::UNIX_EPOCH, &stored.into()).expect("well formed")
}

fn event(finding: Finding, provider: &str) -> Event {
    Event {
        topic: Topic::Verdict,
        uid: Hash([0; 16]),
        source: "fuzz".parse().expect("a name"),
        provider: provider.to_owned(),
        auth: Auth::Signature,
        received_at: Timestamp::UNIX_EPOCH,
        effective_at: finding.analysed_at.unwrap_or(Timestamp::UNIX_EPOCH),
        clock_suspect: false,
        raw_sha256: Hash([0; 32]),
        raw_size: 1,
        finding,
        activity: Activity::Scan,
        standing: Standing::Latest,
        previous: None,
        again: None,
        corrects: None,
    }
}
