//! What a receiver makes of what we write: schema, foreign parsers, size limits, hostile texts.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::rfc5424::{Header, Profile, Receiver, SIZE_MIN};
use super::{CORE_BYTES_MAX, Format, OCSF_BYTES_MAX, Style, hec};
use crate::event::{Activity, Event, Standing, SubjectId, Verdict, sample};

fn style() -> Style {
    let mut style = Style::new("relay-1.example.com");
    // The version changes with every release; the snapshots need not.
    "0.0.0".clone_into(&mut style.version);
    style
}

fn render(format: Format, event: &Event) -> String {
    text(|out| format.render(event, &style(), out))
}

fn render_hec(event: &Event, index: Option<&str>) -> String {
    text(|out| hec::render(event, &style(), index, out))
}

fn message(profile: &Profile, event: &Event) -> String {
    text(|out| profile.render(event, &style(), out))
}

/// What a renderer appends, and that it does append.
fn text(render: impl Fn(&mut Vec<u8>)) -> String {
    let mut out = b"before".to_vec();
    render(&mut out);
    String::from_utf8(out.split_off(6)).expect("UTF-8")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Every profile with every format and header.
fn profiles() -> Vec<Profile> {
    let mut all: Vec<_> = Receiver::ALL.map(Receiver::profile).into();
    for format in Format::ALL {
        for header in [Header::Rfc5424, Header::Rfc3164] {
            all.push(Profile { format, header, ..Receiver::Rsyslog.profile() });
            all.push(Profile { format, header, ..Receiver::Qradar.profile().for_udp() });
        }
    }
    all
}

/// Events that differ in everything that a renderer branches on.
fn table() -> Vec<Event> {
    let mut all = vec![sample::full(), sample::hostile("T1055.012")];
    for activity in [Activity::Create, Activity::Update, Activity::Close, Activity::Scan] {
        all.push(Event { activity, ..sample::biggest() });
    }
    for verdict in Verdict::ALL {
        for activity in [Activity::Create, Activity::Update, Activity::Close, Activity::Scan] {
            for mut event in sample::subjects().into_iter().map(|id| sample::bare(id, verdict)) {
                event.activity = activity;
                all.push(event);
            }
            for mut event in [sample::event(verdict), sample::full()] {
                event.activity = activity;
                event.finding.verdict = verdict;
                event.standing = Standing::Superseded;
                all.push(event);
            }
        }
    }
    all.extend(sample::subjects().into_iter().map(sample::overdue));
    for score in [0, 19, 20, 40, 70, 90, 100] {
        all.push(changed(|event| event.finding.score = Some(score)));
    }
    for threat in ["ransomware.wannacry", "worm/x", "Wiper", "adware", "nothing known", ""] {
        all.push(changed(|event| event.finding.threat = Some(threat.to_owned())));
    }
    for tlp in ["TLP:CLEAR", "GREEN", "TLP:PURPLE", ""] {
        all.push(changed(|event| event.finding.tlp = Some(tlp.to_owned())));
    }
    all.push(changed(|event| event.effective_at = jiff::Timestamp::MIN));
    all.push(changed(|event| event.effective_at = jiff::Timestamp::MAX));
    all
}

fn changed(change: impl Fn(&mut Event)) -> Event {
    let mut event = sample::full();
    change(&mut event);
    event
}

fn schema() -> jsonschema::Validator {
    let schema = json(include_str!("../../tests/schema/ocsf-1.8.0.strict.schema.json"));
    jsonschema::validator_for(&schema).expect("a schema")
}

fn assert_valid(schema: &jsonschema::Validator, event: &Value) {
    let errors: Vec<_> = schema.iter_errors(event).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{event:#}");
}

#[test]
fn every_ocsf_event_is_valid_at_every_size_and_within_it() {
    let schema = schema();
    for event in table() {
        for bytes_max in [usize::MAX, 8_000, 4_000, 3_000, 2_000, 1_500, CORE_BYTES_MAX] {
            let line = text(|out| Format::Ocsf.render_within(&event, &style(), bytes_max, out));
            assert!(line.len() <= bytes_max.min(OCSF_BYTES_MAX), "{} > {bytes_max}: {line}", line.len());
            let value = json(&line);
            assert_valid(&schema, &value);
            assert_eq!(value["metadata"]["uid"], event.uid.to_string());
            assert_eq!(value["unmapped"]["verdict"], event.finding.verdict.word());
        }
    }
}

#[test]
fn a_wrong_caption_or_an_unknown_field_would_be_found() {
    let schema = schema();
    let good = json(&render(Format::Ocsf, &sample::full()));
    for (path, wrong) in
        [("severity", "Low"), ("class_name", "Scan Activity"), ("no_such_field", "x"), ("type_uid", "x")]
    {
        let mut bad = good.clone();
        bad[path] = wrong.into();
        assert!(!schema.is_valid(&bad), "{path}");
    }
}

#[test]
fn the_class_and_activity_follow_the_life_cycle_of_the_finding() {
    for (verdict, activity, class, id, alert) in [
        (Verdict::Malicious, Activity::Create, 2004, 1, true),
        (Verdict::Pua, Activity::Update, 2004, 2, true),
        (Verdict::Clean, Activity::Close, 2004, 3, false),
        (Verdict::Clean, Activity::Scan, 6007, 2, false),
        (Verdict::Unknown, Activity::Scan, 6007, 2, false),
        (Verdict::Error, Activity::Scan, 6007, 6, false),
    ] {
        let mut event = sample::event(verdict);
        event.activity = activity;
        event.finding.reason = Some("timeout".to_owned());
        let value = json(&render(Format::Ocsf, &event));
        assert_eq!((&value["class_uid"], &value["activity_id"]), (&class.into(), &id.into()), "{verdict}");
        assert_eq!(value["type_uid"], class * 100 + id);
        assert_eq!(value["is_alert"], alert);
        assert_eq!(value["status_detail"], "timeout");
        assert_eq!(value["status_id"], if class == 2004 { Value::Null } else { (1 + i32::from(id == 6)).into() });
    }
}

#[test]
fn a_score_is_never_invented() {
    let mut event = sample::full();
    event.finding.score = None;
    for format in Format::ALL {
        let line = render(format, &event);
        for word in ["risk_score", "risk_level", "riskScore", "base_score"] {
            assert!(!line.contains(word), "{line}");
        }
    }
}

#[test]
fn a_finding_keeps_its_uid_over_analyses_and_shares_it_with_no_other() {
    let uid = |event: &Event| json(&render(Format::Ocsf, event))["finding_info"]["uid"].clone();
    let first = uid(&sample::full());
    let again = changed(|event| event.uid = crate::event::Hash([1; 16]));
    let elsewhere = changed(|event| event.source = "vt".parse().expect("a name"));
    assert_eq!(first, uid(&again));
    assert_ne!(first, uid(&elsewhere));
}

#[test]
fn what_the_budget_takes_away_is_the_mildest_and_is_said() {
    let whole = json(&render(Format::Ocsf, &sample::full()));
    assert_eq!(whole["unmapped"]["truncated"], false);
    assert_eq!(whole["finding_info"]["related_analytics"].as_array().map(Vec::len), Some(2));

    let mut big = sample::full();
    big.finding.detections = sample::hostile(&"x".repeat(300)).finding.detections;
    for hit in &mut big.finding.detections[4..] {
        hit.verdict = Verdict::Suspicious;
    }
    let cut = json(&render(Format::Ocsf, &big));
    assert_eq!((&cut["unmapped"]["truncated"], &cut["metadata"]["is_truncated"]), (&true.into(), &true.into()));
    let kept = cut["finding_info"]["related_analytics"].as_array().expect("some are left");
    assert!((4..32).contains(&kept.len()), "{}", kept.len());
    assert!(kept[..4].iter().all(|hit| hit["category"] == "malicious"));
}

#[test]
fn what_a_busy_platform_says_fits_without_a_cut() {
    let mut event = sample::full();
    let hit = event.finding.detections[0].clone();
    event.finding.detections = vec![crate::event::Detection { engine: "A longer engine name".to_owned(), ..hit }; 32];
    event.finding.tags = vec!["direct-cpu-clock-access".to_owned(); 10];
    let line = render(Format::Ocsf, &event);
    assert_eq!(json(&line)["unmapped"]["truncated"], false, "{} bytes", line.len());
}

#[test]
fn a_suspect_is_marked_beside_the_event_and_changes_nothing_else() {
    for event in table() {
        let plain = render_hec(&event, Some("main"));
        let mut marked = json(&text(|out| hec::write_suspect(plain.as_bytes(), out)));
        let mark = marked["fields"].as_object_mut().and_then(|fields| fields.remove("suspect_duplicate"));
        assert_eq!((mark, marked), (Some("true".into()), json(&plain)));
    }
}

#[test]
fn splunk_gets_one_object_with_milliseconds_and_flat_fields() {
    for event in table() {
        let line = render_hec(&event, Some("security"));
        let value = json(&line);
        assert!(!line.bytes().any(|b| b < 0x20), "{line}");
        let keys: Vec<_> = value.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys, ["event", "fields", "host", "index", "source", "sourcetype", "time"]);
        assert_eq!(value["sourcetype"], "ocsf:verdict-relay");
        assert_eq!(value["fields"]["event_id"], event.uid.to_string());
        assert_eq!(value["event"], json(&render(Format::Ocsf, &event)));
        for (key, field) in value["fields"].as_object().expect("an object") {
            assert!(field.as_str().is_some_and(|text| !text.trim().is_empty()), "{key}: {field}");
        }
    }
    let line = render_hec(&sample::event(Verdict::Clean), None);
    assert!(line.starts_with(r#"{"time":1795219200.000,"host":"relay-1.example.com""#), "{line}");
    assert!(json(&line).get("index").is_none());
}

#[test]
fn renderings_look_as_reviewed() {
    let url = {
        let mut event = sample::bare(sample::subjects().swap_remove(3), Verdict::Clean);
        event.finding.reason = Some("no engine knows it".to_owned());
        event
    };
    let close = {
        let mut event = sample::event(Verdict::Clean);
        event.activity = Activity::Close;
        event.previous = sample::full().previous;
        event
    };
    let overdue = sample::overdue(SubjectId::Message("1234".to_owned()));
    let events = [
        ("full", sample::full()),
        ("error", sample::event(Verdict::Error)),
        ("url", url),
        ("close", close),
        ("overdue", overdue),
    ];
    for (name, event) in &events {
        insta::assert_json_snapshot!(format!("ocsf-{name}"), json(&render(Format::Ocsf, event)));
        insta::assert_json_snapshot!(format!("ecs-{name}"), json(&render(Format::Ecs, event)));
        // The other receivers get the same CEF, or the OCSF above.
        let lines =
            [Receiver::Qradar, Receiver::Arcsight].map(|receiver| message(&receiver.profile(), event)).join("\n");
        insta::assert_snapshot!(format!("syslog-{name}"), lines);
    }
    insta::assert_json_snapshot!("hec-full", json(&render_hec(&events[0].1, Some("security"))));
}

/// The extension of a CEF line as the format's guide describes it: a key is a word after a space, up to a bare `=`.
fn parse_cef(line: &str) -> (Vec<String>, BTreeMap<String, String>) {
    let (mut header, mut field, mut chars) = (Vec::new(), String::new(), line.chars());
    while header.len() < 7 {
        match chars.next().expect("seven fields") {
            '\\' => field.push(chars.next().filter(|c| matches!(c, '\\' | '|')).expect("an escape")),
            '|' => header.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    let (mut values, mut key, mut value) = (BTreeMap::new(), String::new(), String::new());
    loop {
        match chars.next() {
            Some('\\') => match chars.next().expect("an escape") {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                c => value.push(Some(c).filter(|c| matches!(c, '\\' | '=')).expect("a known escape")),
            },
            Some('=') => {
                let (before, next) = value.rsplit_once(' ').unwrap_or(("", &value));
                let (before, next) = (before.to_owned(), next.to_owned());
                if !key.is_empty() {
                    assert!(values.insert(std::mem::take(&mut key), before).is_none(), "twice: {line}");
                }
                (key, value) = (next, String::new());
            }
            Some(c) => value.push(c),
            None => break,
        }
    }
    values.insert(key, value);
    (header, values)
}

/// LEEF as its description has it: split on the delimiter, then on the first `=`.
fn parse_leef(line: &str) -> (Vec<&str>, BTreeMap<&str, &str>) {
    let parts: Vec<_> = line.splitn(7, '|').collect();
    let mut values = BTreeMap::new();
    for pair in parts[6].split('^') {
        let (key, value) = pair.split_once('=').expect("a pair");
        assert!(values.insert(key, value).is_none(), "twice: {line}");
    }
    (parts[..6].to_vec(), values)
}

/// What a CEF receiver reads where the sender wrote `text`.
fn as_cef(text: &str) -> String {
    visible(text, |c| matches!(c, '\r' | '\n').then(|| c.to_string()))
}

/// What a LEEF receiver reads where the sender wrote `text`.
fn as_leef(text: &str) -> String {
    visible(text, |c| match c {
        '^' | '|' => Some("_".to_owned()),
        '\r' | '\n' | '\t' => Some(" ".to_owned()),
        _ => None,
    })
}

fn visible(text: &str, special: impl Fn(char) -> Option<String>) -> String {
    let one = |c: char| match special(c) {
        Some(text) => text,
        None if c.is_control() || HAZARDS.contains(&c) => format!("\\u{:04x}", u32::from(c)),
        None => c.to_string(),
    };
    text.chars().map(one).collect()
}

const HAZARDS: [char; 15] = [
    '\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}',
    '\u{202e}', '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}', '\u{feff}',
];

/// Texts as an attacker would choose them: short, so that nothing is cut.
fn hostile_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "\r\n", "\0", "\t", "|", "=", "^", "\\", "\"", "]", "\u{feff}", "\u{202e}", "\u{2028}", "\u{2029}", "\x1b[31m",
            "\u{7f}", "\u{85}", "\u{9b}", " cs6=clean", "^verdict=clean", "\\n", "\\u0001", "\n<134>1 - - - - - - CEF:0|",
            " msg=", "\"}{\"", "é", "文", "👩‍👩‍👧", "\u{2069}", " ", "a", "'", "%5E", "@cee:",
        ]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat())
}

/// Texts of any length, so that shrinking has to cut somewhere.
fn long_hostile_text() -> impl Strategy<Value = String> {
    (hostile_text(), 1_usize..400).prop_map(|(text, times)| text.repeat(times))
}

fn is_line_safe(line: &str) -> bool {
    !line.chars().any(|c| c.is_control() || HAZARDS.contains(&c))
}

/// An event with `text` in every place, and few enough of them that every format keeps all.
fn sprinkled(text: &str) -> Event {
    let mut event = sample::hostile(text);
    for list in [&mut event.finding.families, &mut event.finding.techniques, &mut event.finding.tags] {
        list.truncate(1);
    }
    event.finding.detections.truncate(1);
    event
}

/// The leaves of a JSON value by path, lists without their numbers.
fn paths(value: &Value, path: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| paths(value, &format!("{path}.{key}"), into)),
        Value::Array(items) => items.iter().for_each(|value| paths(value, &format!("{path}[]"), into)),
        _ => into.push(path.to_owned()),
    }
}

fn json_paths(line: &str) -> Vec<String> {
    let mut all = Vec::new();
    paths(&json(line), "", &mut all);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn json_gives_every_text_back_and_no_text_makes_a_field(text in hostile_text()) {
        let (event, plain) = (sprinkled(&text), sprinkled("a/b"));
        for format in [Format::Ocsf, Format::Ecs] {
            let line = render(format, &event);
            prop_assert!(is_line_safe(&line), "{}", line);
            // A media type stands in another field than words, and a dot makes a sub-technique.
            let depends = ["desc", "mime_type", "sub_technique.uid", "subtechnique.id[]"];
            let optional = |path: &String| !depends.iter().any(|end| path.ends_with(end));
            let shape = |line: &str| json_paths(line).into_iter().filter(optional).collect::<Vec<_>>();
            prop_assert_eq!(shape(&line), shape(&render(format, &plain)));
        }
        let value = json(&render(Format::Ocsf, &event));
        prop_assert_eq!(&value["osint"][0]["file"]["name"], &Value::from(text.as_str()));
        prop_assert_eq!(&value["metadata"]["correlation_uid"], &Value::from(text.as_str()));
        prop_assert_eq!(&value["finding_info"]["related_analytics"][0]["desc"], &Value::from(text.as_str()));
        let value = json(&render(Format::Ecs, &event));
        prop_assert_eq!(&value["file"]["name"], &Value::from(text.as_str()));
        prop_assert_eq!(&json(&render_hec(&event, None))["event"]["status_detail"], &Value::from(text.as_str()));
    }

    /// What a collector refuses a batch for (codes 6, 12, 13, 15), after its documentation.
    #[test]
    fn splunk_never_gets_an_envelope_that_it_refuses(
        text in prop_oneof![hostile_text(), long_hostile_text(), Just(" ".to_owned())],
        ms in -9_000_000_000_000_i64..9_000_000_000_000,
        index in prop::option::of("[a-z0-9][a-z0-9_-]{0,9}"),
    ) {
        let effective_at = jiff::Timestamp::from_millisecond(ms).expect("is in range");
        let line = render_hec(&Event { effective_at, ..sample::hostile(&text) }, index.as_deref());
        prop_assert!(is_line_safe(&line) && line.len() < 64 << 10, "{}", line);
        let envelope = json(&line);
        prop_assert!(envelope["time"].as_f64().is_some_and(|time| time.is_finite() && time >= 0.0));
        prop_assert!(envelope["event"].as_object().is_some_and(|event| !event.is_empty()));
        for key in ["host", "source", "sourcetype"] {
            prop_assert!(envelope[key].as_str().is_some_and(|text| !text.is_empty()), "{}", key);
        }
        prop_assert_eq!(envelope.get("index").and_then(Value::as_str), index.as_deref());
        for (key, field) in envelope["fields"].as_object().expect("an object") {
            prop_assert!(field.as_str().is_some_and(|text| !text.trim().is_empty()), "{}: {}", key, field);
        }
    }

    #[test]
    fn cef_gives_every_text_back_and_no_text_makes_a_key(text in hostile_text()) {
        let line = render(Format::Cef, &sprinkled(&text));
        prop_assert!(is_line_safe(&line), "{}", line);
        let (header, values) = parse_cef(&line);
        let name = "Analysis complete: malicious";
        prop_assert_eq!(header, ["CEF:0", "Verdict Relay", "verdict-relay", "0.0.0", "verdict.malicious", name, "8"]);
        let plain = render(Format::Cef, &sprinkled("a"));
        prop_assert!(values.keys().eq(parse_cef(&plain).1.keys()), "{}", line);
        for key in ["fname", "cs1", "cs2", "cs3", "cs5", "flexString1", "deviceExternalId", "reason", "verdictRelayTlp"] {
            prop_assert_eq!(&values[key], &as_cef(&text), "{}", key);
        }
        prop_assert_eq!(&values["cs6"], "malicious");
    }

    #[test]
    fn leef_gives_every_text_back_but_its_delimiters_and_no_text_makes_a_key(text in hostile_text()) {
        let line = render(Format::Leef, &sprinkled(&text));
        prop_assert!(is_line_safe(&line), "{}", line);
        let (header, values) = parse_leef(&line);
        prop_assert_eq!(header, ["LEEF:2.0", "Verdict Relay", "verdict-relay", "0.0.0", "verdict.malicious", "^"]);
        let plain = render(Format::Leef, &sprinkled("a"));
        prop_assert!(values.keys().eq(parse_leef(&plain).1.keys()), "{}", line);
        for key in ["resource", "provider", "threatName", "correlationUid", "tenant", "reason", "tlp"] {
            prop_assert_eq!(values[key], as_leef(&text), "{}", key);
        }
        prop_assert_eq!(values["verdict"], "malicious");
    }

    #[test]
    fn every_message_fits_its_budget_and_two_foreign_parsers_read_it(
        text in long_hostile_text(),
        profile in prop::sample::select(profiles()),
        size_max in SIZE_MIN..10_000,
    ) {
        let event = sample::hostile(&text);
        let profile = Profile { size_max: profile.size_max.min(size_max), ..profile };
        let line = message(&profile, &event);
        prop_assert!(line.len() <= profile.size_max, "{} > {}", line.len(), profile.size_max);
        prop_assert!(is_line_safe(&line), "{}", line);
        let body = read_syslog(&profile, &line);
        match profile.format {
            Format::Ocsf => prop_assert_eq!(&json(&body)["unmapped"]["verdict"], "malicious"),
            Format::Ecs => prop_assert_eq!(&json(&body)["labels"]["verdict"], "malicious"),
            Format::Cef => prop_assert_eq!(&parse_cef(&body).1["cs6"], "malicious"),
            Format::Leef => prop_assert_eq!(parse_leef(&body).1["verdict"], "malicious"),
        }
    }

    #[test]
    fn a_budget_takes_whole_fields_and_ends_of_texts_never_a_part_of_an_escape_and_says_so(
        text in long_hostile_text(),
        format in prop::sample::select(vec![Format::Cef, Format::Leef]),
        bytes_max in CORE_BYTES_MAX..10_000,
    ) {
        // Short enough that only the budget cuts.
        let event = sample::hostile(super::cut(&text, crate::event::TEXT_BYTES_MAX));
        prop_assert!(!event.finding.truncated);
        let fields = |line: &str| -> BTreeMap<String, String> {
            match format {
                Format::Cef => parse_cef(line).1,
                _ => parse_leef(line).1.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            }
        };
        let whole = render(format, &event);
        let cut = self::text(|out| format.render_within(&event, &style(), bytes_max, out));
        prop_assert!(cut.len() <= bytes_max && is_line_safe(&cut), "{}", cut);
        prop_assert_eq!(cut == whole, whole.len() <= bytes_max);
        let (before, mut after) = (fields(&whole), fields(&cut));
        let mark = after.remove("truncated").or(after.remove("verdictRelayTruncated"));
        prop_assert_eq!(mark.as_deref(), (cut != whole).then_some("true"));
        // These are put together from texts that are each cut.
        for together in ["msg", "cs3"] {
            after.remove(together);
        }
        for (key, value) in &after {
            prop_assert!(before.get(key).is_some_and(|whole| whole.starts_with(value.as_str())), "{}: {}", key, cut);
        }
        for key in ["externalId", "cs6", "eventUid", "verdict"] {
            prop_assert_eq!(after.get(key), before.get(key), "{}", key);
        }
    }

    #[test]
    fn cut_ocsf_is_valid_and_says_so(text in long_hostile_text(), bytes_max in CORE_BYTES_MAX..10_000) {
        thread_local!(static SCHEMA: jsonschema::Validator = schema());
        let event = sample::hostile(&text);
        let value = json(&self::text(|out| Format::Ocsf.render_within(&event, &style(), bytes_max, out)));
        SCHEMA.with(|schema| assert_valid(schema, &value));
        let whole = json(&render(Format::Ocsf, &sprinkled("a")));
        prop_assert_eq!(&whole["unmapped"]["truncated"], &Value::from(false));
        if value["osint"][0]["file"]["name"] != event.finding.subject.name.clone().expect("has one") {
            prop_assert_eq!(&value["unmapped"]["truncated"], &Value::from(true));
        }
    }
}

/// The message after the header, as foreign parsers read it.
fn read_syslog(profile: &Profile, line: &str) -> String {
    let variant = match profile.header {
        Header::Rfc5424 => syslog_loose::Variant::RFC5424,
        Header::Rfc3164 => syslog_loose::Variant::RFC3164,
    };
    let loose = syslog_loose::parse_message_with_year_exact(line, |_| 2026, variant).expect("reads it");
    assert_eq!((loose.hostname, loose.appname), (Some("relay-1.example.com"), Some("verdict-relay")));
    assert_eq!(loose.facility, Some(syslog_loose::SyslogFacility::LOG_LOCAL0));
    assert_eq!(loose.timestamp.map(|time| time.timestamp_millis()), Some(1_795_219_200_000));
    if profile.header == Header::Rfc5424 {
        let strict = syslog_rfc5424::parse_message(line).expect("reads it");
        assert_eq!(strict.msg, loose.msg);
        assert_eq!(strict.msgid.as_deref(), Some("verdict.malicious"));
        assert!(strict.sd.is_empty());
    }
    let cookie = if profile.cee && profile.format.is_json() { "@cee:" } else { "" };
    loose.msg.strip_prefix(cookie).expect("the cookie").to_owned()
}

#[test]
fn the_smallest_budget_holds_any_event_with_any_host_name() {
    let long = Style::new(&"h".repeat(1000));
    for event in table() {
        for format in Format::ALL {
            let profile = Profile { format, size_max: 0, ..Receiver::Rsyslog.profile() };
            let line = text(|out| profile.render(&event, &long, out));
            assert!(line.len() <= SIZE_MIN, "{}: {line}", line.len());
            assert!(line.contains(event.finding.verdict.word()) && line.contains(&event.uid.to_string()));
        }
        for format in Format::ALL {
            let core = text(|out| format.render_within(&event, &style(), 0, out));
            assert!(core.len() <= CORE_BYTES_MAX, "{}: {core}", core.len());
            assert!(is_line_safe(&core));
        }
    }
}

#[test]
fn severity_reaches_no_terminal_and_time_has_three_digits() {
    for (verdict, priority) in [
        (Verdict::Malicious, 131),
        (Verdict::Suspicious, 132),
        (Verdict::Pua, 133),
        (Verdict::Error, 133),
        (Verdict::Clean, 134),
        (Verdict::Unknown, 134),
    ] {
        let line = message(&Receiver::Qradar.profile(), &sample::event(verdict));
        let header = format!(
            "<{priority}>1 2026-11-21T00:00:00.000Z relay-1.example.com verdict-relay - verdict.{verdict} - LEEF:2.0|"
        );
        assert!(line.starts_with(&header), "{line}");
    }
    let ransomware = changed(|event| event.finding.threat = Some("ransomware.x".to_owned()));
    assert!(message(&Receiver::Plain.profile(), &ransomware).starts_with("<130>1 "));
    let old = Profile { header: Header::Rfc3164, ..Receiver::Arcsight.profile() };
    let early = changed(|event| event.effective_at = "2026-11-01T09:05:03.9Z".parse().expect("a time"));
    let line = message(&old, &early);
    assert!(line.starts_with("<131>Nov  1 09:05:03 relay-1.example.com verdict-relay: CEF:0|"), "{line}");
}

#[test]
fn a_host_name_fits_the_header_whatever_it_was() {
    for (given, written) in [("", "-"), ("a b", "a-b"), ("ü\n", "--"), ("relay", "relay")] {
        assert_eq!(Style::new(given).hostname(), written);
    }
    assert_eq!(Style::new(&"x".repeat(300)).hostname().len(), 255);
}

#[test]
fn a_report_is_never_taken_for_the_address_of_the_subject() {
    let file = sample::full();
    assert!(!parse_cef(&render(Format::Cef, &file)).1.contains_key("request"));
    assert!(!parse_leef(&render(Format::Leef, &file)).1.contains_key("url"));
    let url = sample::bare(SubjectId::Url("https://example.com/a^b|c".to_owned()), Verdict::Malicious);
    assert_eq!(parse_cef(&render(Format::Cef, &url)).1["request"], "https://example.com/a^b|c");
    assert_eq!(parse_leef(&render(Format::Leef, &url)).1["url"], "https://example.com/a%5Eb%7Cc");
}

#[test]
fn the_words_of_the_config_are_the_words_of_the_command_line() {
    for format in Format::ALL {
        assert_eq!(format.word().parse(), Ok(format));
        assert_eq!(json(&format!("\"{format}\"")), serde_json::to_value(format).expect("a word"));
    }
    assert!("OCSF".parse::<Format>().is_err());
}
