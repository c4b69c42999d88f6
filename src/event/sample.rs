//! Events for tests of every module: plain, with everything, as big as they get, and with a text of one's choice everywhere.

use jiff::Timestamp;

use super::{
    Activity, Again, Approval, Auth, DETECTIONS_MAX, Detection, Event, Finding, Hash, LIST_MAX, Previous, Standing,
    Subject, SubjectId, TEXT_BYTES_MAX, Topic, URL_BYTES_MAX, Verdict,
};

/// An event with nothing optional, about `id`.
pub(crate) fn bare(id: SubjectId, verdict: Verdict) -> Event {
    Event {
        uid: Hash([0x33; 16]),
        source: "portal".parse().expect("a name"),
        provider: "VirusTotal".to_owned(),
        auth: Auth::Signature,
        received_at: at("2026-11-21T00:00:01.500Z"),
        effective_at: at("2026-11-21T00:00:00Z"),
        clock_suspect: false,
        raw_sha256: Hash([0x60; 32]),
        raw_size: 5651,
        finding: Finding::new(Subject::of(id), verdict),
        activity: if verdict.is_detection() { Activity::Create } else { Activity::Scan },
        standing: Standing::Latest,
        previous: None,
        again: None,
        corrects: None,
        topic: Topic::Verdict,
    }
}

/// What most events look like: a named file with its hashes.
pub(crate) fn event(verdict: Verdict) -> Event {
    let mut event = bare(SubjectId::Sha256(Hash([0x6a; 32])), verdict);
    event.finding.subject.name = Some("invoice-4471.pdf.exe".to_owned());
    event.finding.subject.size = Some(48_640);
    event.finding.subject.sha1 = Some(Hash([0x54; 20]));
    event.finding.subject.md5 = Some(Hash([0xe6; 16]));
    event.finding.analysed_at = Some(event.effective_at);
    event.finding.event_id = Some("an-20261121-7".to_owned());
    event
}

/// An analysis that was announced by `id` and has not reported.
pub(crate) fn overdue(id: SubjectId) -> Event {
    let mut event = bare(id, Verdict::Unknown);
    event.topic = Topic::Overdue;
    event.auth = Auth::Confirmed;
    event.finding.reason = Some("no report within 600 s: the platform has not finished it".to_owned());
    event.finding.event_id = Some("1234".to_owned());
    event
}

/// A detection with every field filled.
pub(crate) fn full() -> Event {
    let mut event = event(Verdict::Malicious);
    let text = |text: &str| Some(text.to_owned());
    event.finding = Finding {
        score: Some(79),
        notification_id: text("n-1"),
        policy: Some(Approval::NotApproved),
        reason: text("drops a known loader"),
        detections: vec![
            Detection { engine: "Alpha".to_owned(), name: text("Trojan.Emotet"), verdict: Verdict::Malicious },
            Detection { engine: "Beta".to_owned(), name: None, verdict: Verdict::Suspicious },
        ],
        hits: 54,
        engines: Some(68),
        families: vec!["emotet".to_owned(), "kryptik".to_owned()],
        threat: text("trojan.emotet/kryptik"),
        techniques: vec!["T1055.012".to_owned(), "T1204".to_owned()],
        tags: vec!["peexe".to_owned(), "overlay".to_owned()],
        report_url: text("https://www.virustotal.com/gui/file/6a6a"),
        hunting_rule: text("Win_Emotet_Loader"),
        tenant: text("acme"),
        reference: text("ci-run-8812"),
        tlp: text("TLP:AMBER+STRICT"),
        ..event.finding
    };
    event.finding.subject.file_type = text("Win32 EXE");
    event.activity = Activity::Update;
    event.previous = Some(Previous { verdict: Verdict::Suspicious, analysed_at: at("2026-11-20T00:00:00Z") });
    event
}

/// An event with `text` in every place that a sender can fill, and every flag set.
pub(crate) fn hostile(text: &str) -> Event {
    let mut event = full();
    let some = || Some(text.to_owned());
    let list = || vec![text.to_owned(); LIST_MAX];
    let hit = || Detection { engine: text.to_owned(), name: some(), verdict: Verdict::Malicious };
    text.clone_into(&mut event.provider);
    event.finding = Finding {
        event_id: some(),
        notification_id: some(),
        reason: some(),
        detections: (0..DETECTIONS_MAX).map(|_| hit()).collect(),
        families: list(),
        threat: some(),
        techniques: list(),
        tags: list(),
        report_url: some(),
        hunting_rule: some(),
        tenant: some(),
        reference: some(),
        tlp: some(),
        ..event.finding
    };
    event.finding.subject.name = some();
    event.finding.subject.file_type = some();
    event.standing = Standing::Contested;
    event.again = Some(Again::Replay);
    event.clock_suspect = true;
    event.finding = event.finding.within_bounds();
    event
}

/// The biggest event there can be: every text at its bound, of characters that take the most room when they are escaped.
pub(crate) fn biggest() -> Event {
    let mut event = hostile(&"\u{1}".repeat(TEXT_BYTES_MAX));
    let url = format!("https://example.com/{}", "\u{1}".repeat(URL_BYTES_MAX));
    event.finding.report_url = Some(url.clone());
    event.finding.subject.id = SubjectId::Object { url, etag: "\u{1}".repeat(TEXT_BYTES_MAX) };
    event.finding.subject.size = Some(u64::MAX);
    event.finding.hits = u32::MAX;
    event.finding.engines = Some(u32::MAX);
    event.raw_size = u64::MAX;
    event.source = "s".repeat(63).parse().expect("a name");
    event.finding = event.finding.within_bounds();
    event
}

/// One subject of each kind.
pub(crate) fn subjects() -> Vec<SubjectId> {
    vec![
        SubjectId::Sha256(Hash([0x6a; 32])),
        SubjectId::Sha1(Hash([0x54; 20])),
        SubjectId::Md5(Hash([0xe6; 16])),
        SubjectId::Url("https://example.com/a?b=c|d^e".to_owned()),
        SubjectId::Object { url: "https://store.example.com/in/report.docx".to_owned(), etag: "9f1c".to_owned() },
        SubjectId::Object { url: "s3://bucket/key".to_owned(), etag: String::new() },
        SubjectId::Message("<4711@example.com>".to_owned()),
    ]
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}
