//! The packs that come with the program, each a folder in `adapters/`, compiled in: its table, its bodies and what they have to become.
//!
//! Not here: what a table means (`pack/table`), who runs the bodies (`pack/expected`).

use super::PackTable;

/// A pack that comes with the program.
#[derive(Debug)]
pub struct Shipped {
    /// Its name, as `adapter` of a source has it.
    pub name: &'static str,
    /// `pack.toml`.
    pub table: &'static str,
    /// `expected.json`.
    pub expected: &'static str,
    /// The bodies, by file name.
    pub bodies: &'static [(&'static str, &'static [u8])],
}

impl Shipped {
    /// The table.
    pub fn parsed(&self) -> PackTable {
        toml::from_str(self.table).expect("a test reads every table that is compiled in")
    }
}

/// The pack of this name.
pub fn find(name: &str) -> Option<&'static Shipped> {
    SHIPPED.iter().find(|pack| pack.name == name)
}

/// The names of all packs.
pub fn names() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|pack| pack.name)
}

macro_rules! pack {
    ($name:literal, [$($body:literal),+]) => {
        Shipped {
            name: $name,
            table: include_str!(concat!("../../../adapters/", $name, "/pack.toml")),
            expected: include_str!(concat!("../../../adapters/", $name, "/expected.json")),
            bodies: &[$(($body, include_bytes!(concat!("../../../adapters/", $name, "/bodies/", $body)))),+],
        }
    };
}

/// A test holds this list against the folders.
pub(super) static SHIPPED: [Shipped; 19] = [
    pack!(
        "anyrun",
        [
            "analysis_clean.json",
            "analysis_failed.json",
            "analysis_running.json",
            "analysis_summary.json",
            "analysis_without_status.json",
            "api_error.json"
        ]
    ),
    pack!(
        "attachmentav",
        ["callback_clean.json", "callback_infected.json", "callback_new_status.json", "callback_not_scanned.json"]
    ),
    pack!(
        "bucketav",
        [
            "eventbridge_infected.json",
            "sns_clean.json",
            "sns_not_scanned.json",
            "sns_notification.json",
            "sns_raw_delivery.json",
            "sns_subscription_confirmation.json"
        ]
    ),
    pack!(
        "cuckoo3",
        [
            "analysis.json",
            "analysis_failed.json",
            "analysis_low_score.json",
            "analysis_pending.json",
            "analysis_zero.json"
        ]
    ),
    pack!(
        "filesafety",
        [
            "scan_complete.json",
            "scan_complete_infected.json",
            "scan_complete_nsfw.json",
            "scan_failed.json",
            "verdict_updated.json"
        ]
    ),
    pack!(
        "hybrid-analysis",
        [
            "report_error.json",
            "report_no_threat.json",
            "report_no_verdict.json",
            "report_queued.json",
            "report_summary.json"
        ]
    ),
    pack!(
        "intezer",
        [
            "analysis_failed.json",
            "analysis_not_supported.json",
            "analysis_queued.json",
            "analysis_result.json",
            "analysis_trusted.json"
        ]
    ),
    pack!(
        "joe",
        [
            "submission_clean.json",
            "submission_failed.json",
            "submission_info.json",
            "submission_running.json",
            "submission_unknown.json"
        ]
    ),
    pack!(
        "perception-point",
        ["callback.json", "callback_clean.json", "callback_new_verdict.json", "callback_url.json"]
    ),
    pack!(
        "polyswarm",
        [
            "engine_bounty.json",
            "ping.json",
            "sandbox_done_assumed.json",
            "sandbox_done_long_id.json",
            "sandbox_done_low_score.json",
            "sandbox_done_zero.json",
            "sandbox_failed.json",
            "sandbox_pending.json"
        ]
    ),
    pack!(
        "reversinglabs",
        [
            "classification_goodware.json",
            "classification_page.json",
            "classification_unknown.json",
            "spectra_analyze_classification.json"
        ]
    ),
    pack!(
        "scanii",
        [
            "async_accepted.json",
            "callback_clean.json",
            "callback_error.json",
            "callback_malicious.json",
            "callback_policy.json",
            "callback_without_checksum.json"
        ]
    ),
    pack!("strelka", ["scan_event.json", "scan_event_nothing.json", "scan_event_yara.json", "scan_events.ndjson"]),
    pack!(
        "sublime",
        [
            "message_flagged.json",
            "message_flagged_critical.json",
            "message_flagged_without_severity.json",
            "message_of_a_new_type.json"
        ]
    ),
    pack!(
        "trend",
        [
            "sns_clean.json",
            "sns_found_in_a_part.json",
            "sns_partly_scanned.json",
            "sns_scan_result.json",
            "sns_scanner_error.json"
        ]
    ),
    pack!(
        "triage",
        [
            "overview.json",
            "overview_low_score.json",
            "overview_running.json",
            "overview_zero.json",
            "sample_event_stream.ndjson",
            "sample_failed.json",
            "sample_with_an_odd_id.json"
        ]
    ),
    pack!("vmray", ["api_error.json", "sample.json", "sample_clean.json", "sample_running.json", "samples_page.json"]),
    pack!(
        "vxcube",
        [
            "analysis.json",
            "analysis_clean.json",
            "analysis_failed.json",
            "analysis_new_verdict.json",
            "analysis_running.json",
            "analysis_worst_of_two.json"
        ]
    ),
    pack!(
        "wildfire",
        [
            "verdict_100.json",
            "verdict_as_json.json",
            "verdict_benign.json",
            "verdict_error.json",
            "verdict_not_found.json",
            "verdict_pending.json",
            "verdicts_list.json"
        ]
    ),
];
