//! VirusTotal: objects of its API v3 (file, url, domain, address, analysis, behaviour, notification), pages of its IoC stream and of the
//! older list of Livehunt files, lines of its feeds, and reports of its API v2.
//!
//! VirusTotal sends no webhooks; a forwarder or our own poller hands its answers over. What the engines said becomes a verdict by two
//! thresholds, unless Google's own assessment decides (`virustotal/opinion`).
//!
//! Invariants: an analysis that has not completed is never a verdict, because all its counts are still 0; a count that is missing is
//! never taken for 0 on the way to clean; one sandbox that saw nothing never speaks for the engines.
//!
//! Not here: the thresholds at work (`virustotal/opinion`), v2 (`virustotal/v2`), fetching (`poll`).

use super::items::{Gathered, Outcomes, each, one};
use super::json::{Document, Fault, Value};
use super::{Adapter, FetchId, Hits, NormalizeError, Options, Outcome, native::is_technique};
use crate::delivery::Delivery;
use crate::event::{Finding, LIST_MAX, Sha256, Subject, SubjectId, TEXT_BYTES_MAX, Verdict};
use crate::setting::Problem;

mod fetch;
mod opinion;
mod v2;

use opinion::Opinion;

/// The adapter with its thresholds.
pub(super) struct VirusTotal {
    /// Malicious from this many malicious engines.
    malicious_min: u32,
    /// Clean needs this many engines that answered.
    clean_min: u32,
}

impl VirusTotal {
    /// Checks the options of the source at `key`.
    pub(super) fn plan(key: &str, options: &Options) -> Result<Self, Problem> {
        let malicious_min = options.malicious_min.unwrap_or(MALICIOUS_MIN);
        let clean_min = options.clean_min.unwrap_or(CLEAN_MIN);
        for (option, value) in [("malicious_min", malicious_min), ("clean_min", clean_min)] {
            if value == 0 {
                return Err(Problem::new(
                    format!("{key}.options.{option}"),
                    "must be at least 1: a verdict needs an engine that gave it",
                ));
            }
        }
        Ok(Self { malicious_min, clean_min })
    }
}

impl Adapter for VirusTotal {
    fn provider(&self) -> &'static str {
        "VirusTotal"
    }

    fn normalize(&self, delivery: &Delivery) -> Result<Outcomes, NormalizeError> {
        match Document::read(delivery.body()) {
            Ok(document) => self.message(document.root()),
            Err(error) => feed_lines(delivery.body()).map_or(Err(error.into()), |lines| self.feed(lines)),
        }
    }

    fn fetch_of(&self, finding: &Finding) -> Option<FetchId> {
        fetch::id_of(finding)
    }
}

impl VirusTotal {
    fn message(&self, root: Value<'_>) -> Result<Outcomes, NormalizeError> {
        if root.is_list() {
            let is_errors = root.list().is_ok_and(|mut items| items.all(is_api_error));
            return if is_errors { Ok(vec![Ok(Outcome::Ignore)]) } else { each(root, root, |item| self.item(item)) };
        }
        let [data] = root.fields(["data"]).map_err(|fault| fault.refuses(root))?;
        match data {
            Some(page) if page.is_list() => each(root, page, |item| self.object(item, None)),
            _ => one(root, self.item(root)),
        }
    }

    /// A feed: one object a line.
    fn feed<'b>(&self, lines: impl Iterator<Item = &'b [u8]>) -> Result<Outcomes, NormalizeError> {
        let mut outcomes = Gathered::default();
        for line in lines {
            let outcome =
                Document::read(line).map_err(|error| NormalizeError::from(error).to_string()).and_then(|document| {
                    let root = document.root();
                    self.item(root).map_err(|fault| fault.refuses(root).to_string())
                });
            outcomes.add(outcome.map_err(|reason| || reason))?;
        }
        Ok(outcomes.finish())
    }

    /// `{data, meta}` around one object, an object by itself, a report of v2, or an error.
    fn item(&self, root: Value<'_>) -> Result<Outcome, Fault> {
        let [data, meta, kind, response_code] = root.fields(["data", "meta", "type", "response_code"])?;
        match (data, kind, response_code) {
            (Some(data), _, _) => self.object(data, meta),
            (None, Some(_), _) => self.object(root, None),
            (None, None, Some(code)) => self.report_v2(root, code),
            (None, None, None) if is_api_error(root) => Ok(Outcome::Ignore),
            (None, None, None) => Err(root.unknown("neither an object, a page nor a report of VirusTotal")),
        }
    }

    /// One object of v3. `meta` stands beside it: an analysis has its hashes there.
    fn object(&self, object: Value<'_>, meta: Option<Value<'_>>) -> Result<Outcome, Fault> {
        let [id, kind, attributes, links, context] =
            object.fields(["id", "type", "attributes", "links", "context_attributes"])?;
        let Some(kind) = kind else {
            return if is_quotas(object) { Ok(Outcome::Ignore) } else { Err(object.missing("type")) };
        };
        let kind_word = kind.text()?;
        if matches!(&*kind_word, "user" | "group" | "service_account") {
            return Ok(Outcome::Ignore);
        }
        let object = Object {
            value: object,
            id: id.ok_or_else(|| object.missing("id"))?.id()?,
            attributes: attributes.ok_or_else(|| object.missing("attributes"))?,
            links,
            context,
        };
        match &*kind_word {
            "file" => self.entity("file", &object, |about| file(&object, about)),
            // A file that only its owner sees: as any other, but no engine looks at it.
            "private_file" => self.entity("private_file", &object, |about| file(&object, about)),
            "url" => self.entity("url", &object, |about| url(&object, about)),
            "domain" => self.entity("domain", &object, |_| object.host("/domains/", "domain", is_domain)),
            "ip_address" => {
                self.entity("ip_address", &object, |_| object.host("/ip_addresses/", "ip-address", is_address))
            }
            "analysis" => self.analysis(&object, meta),
            "file_behaviour" => behaviour(&object),
            "private_analysis" => private_analysis(&object),
            "ioc_stream_notification" => notification(&object),
            "hunting_notification" => hunting_notification(&object),
            "retrohunt_job" => retrohunt(&object),
            _ => Err(kind.unknown("an object of a type that this version does not know")),
        }
    }

    /// What the engines say about a file, URL, domain or address.
    fn entity<'d>(
        &self,
        kind: &str,
        object: &Object<'d>,
        subject: impl FnOnce(Value<'d>) -> Result<(Subject, Option<String>), Fault>,
    ) -> Result<Outcome, Fault> {
        let about = object.attributes;
        let [stats, results, date, gti, threat] = about.fields([
            "last_analysis_stats",
            "last_analysis_results",
            "last_analysis_date",
            "gti_assessment",
            "threat_verdict",
        ])?;
        let is_private = kind == "private_file";
        let was_analysed = date.is_some() && !is_private;
        let mut opinion = Opinion::read(about, stats, results, gti, "last_analysis_stats", was_analysed)?;
        if is_private {
            opinion.assess_privately(threat)?;
        }
        let (subject, report_url) = subject(about)?;
        let mut finding = self.judge(subject, opinion)?;
        // The public page knows nothing of a private file.
        finding.report_url = report_url.filter(|_| !is_private);
        finding.analysed_at = date.map(Value::epoch).transpose()?;
        let event_id = finding.analysed_at.map(|at| format!("{kind}:{}:{}", object.id, at.as_second()));
        // A cut id would be another id, and the time is identity enough.
        finding.event_id = event_id.filter(|id| id.len() <= TEXT_BYTES_MAX);
        describe(about, &mut finding)?;
        if let Some(context) = object.context {
            notified(context, &mut finding)?;
        }
        Ok(Outcome::Verdict(Box::new(finding.within_bounds())))
    }

    /// One run of the engines. What it is about stands outside of it.
    fn analysis(&self, object: &Object<'_>, meta: Option<Value<'_>>) -> Result<Outcome, Fault> {
        let [status, stats, results, date] = object.attributes.fields(["status", "stats", "results", "date"])?;
        let status = status.ok_or_else(|| object.attributes.missing("status"))?;
        match &*status.text()? {
            "completed" => {}
            "queued" | "in-progress" => return Ok(Outcome::NotReady),
            _ => return Err(status.fault("expected queued, in-progress or completed")),
        }
        let (subject, report_url) = subject_of_analysis(object, meta)?;
        let opinion = Opinion::read(object.attributes, stats, results, None, "stats", true)?;
        let mut finding = self.judge(subject, opinion)?;
        finding.report_url = report_url;
        finding.analysed_at = date.map(Value::epoch).transpose()?;
        finding.event_id = Some(format!("analysis:{}", object.id)).filter(|id| id.len() <= TEXT_BYTES_MAX);
        Ok(Outcome::Verdict(Box::new(finding.within_bounds())))
    }
}

/// The parts of a v3 object.
struct Object<'d> {
    value: Value<'d>,
    id: String,
    attributes: Value<'d>,
    links: Option<Value<'d>>,
    context: Option<Value<'d>>,
}

impl Object<'_> {
    /// A domain or address: its id, or where that is something else, the end of its own link.
    fn host(&self, place: &str, page: &str, is_host: fn(&str) -> bool) -> Result<(Subject, Option<String>), Fault> {
        let mut host = Some(self.id.clone());
        if !is_host(&self.id) {
            host = self.link_end("self", place)?.filter(|host| is_host(host));
        }
        let host = host.ok_or_else(|| self.value.fault("neither the id nor the link names the domain or address"))?;
        let page = format!("{GUI}/{page}/{host}");
        Ok((Subject::of(SubjectId::Url(host)), Some(page)))
    }

    /// What follows `place` in one of the object's links.
    fn link_end(&self, link: &str, place: &str) -> Result<Option<String>, Fault> {
        let Some(links) = self.links else { return Ok(None) };
        let [link] = links.fields([link])?;
        let Some(link) = link.map(Value::text).transpose()? else { return Ok(None) };
        Ok(link.rsplit_once(place).map(|(_, end)| end.to_owned()))
    }
}

fn file(object: &Object<'_>, about: Value<'_>) -> Result<(Subject, Option<String>), Fault> {
    let [sha256, sha1, md5, size, name, names, kind] =
        about.fields(["sha256", "sha1", "md5", "size", "meaningful_name", "names", "type_description"])?;
    let by_id: Option<Sha256> = object.id.parse().ok();
    let by_attribute: Option<Sha256> = sha256.map(Value::hash).transpose()?;
    if let (Some(sha256), Some(_), true) = (sha256, by_id, by_id != by_attribute) {
        return Err(sha256.fault("another hash than the id of the object"));
    }
    let subject =
        Subject::file(by_attribute.or(by_id), sha1.map(Value::hash).transpose()?, md5.map(Value::hash).transpose()?);
    let mut subject = subject.ok_or_else(|| about.missing("sha256"))?;
    subject.size = size.map(Value::whole).transpose()?;
    subject.name = match (name, names) {
        (Some(name), _) => Some(name.text()?.into_owned()),
        (None, Some(names)) => names.texts(1)?.pop(),
        (None, None) => None,
    };
    subject.file_type = kind.map(Value::text).transpose()?.map(Into::into);
    let page = subject.sha256().map(|sha256| format!("{GUI}/file/{sha256}"));
    Ok((subject, page))
}

fn url(object: &Object<'_>, about: Value<'_>) -> Result<(Subject, Option<String>), Fault> {
    let [url] = about.fields(["url"])?;
    let url = url.ok_or_else(|| about.missing("url"))?.subject_url()?;
    let page = object.id.parse::<Sha256>().ok().map(|id| format!("{GUI}/url/{id}"));
    Ok((Subject::of(SubjectId::Url(url)), page))
}

/// The file or URL of an analysis: in `meta`, else at the end of the link to it.
fn subject_of_analysis(object: &Object<'_>, meta: Option<Value<'_>>) -> Result<(Subject, Option<String>), Fault> {
    let [file_info, url_info] = meta.map_or(Ok([None; 2]), |meta| meta.fields(["file_info", "url_info"]))?;
    if let Some(info) = file_info {
        let [sha256, sha1, md5, size] = info.fields(["sha256", "sha1", "md5", "size"])?;
        let subject = Subject::file(
            sha256.map(Value::hash).transpose()?,
            sha1.map(Value::hash).transpose()?,
            md5.map(Value::hash).transpose()?,
        );
        let mut subject = subject.ok_or_else(|| info.missing("sha256"))?;
        subject.size = size.map(Value::whole).transpose()?;
        let page = subject.sha256().map(|sha256| format!("{GUI}/file/{sha256}"));
        return Ok((subject, page));
    }
    if let Some(info) = url_info {
        let [url] = info.fields(["url"])?;
        let url = url.ok_or_else(|| info.missing("url"))?.subject_url()?;
        return Ok((Subject::of(SubjectId::Url(url)), None));
    }
    let linked = object.link_end("item", "/files/")?.and_then(|end| end.parse::<Sha256>().ok());
    let sha256 =
        linked.ok_or_else(|| object.value.fault("no hash or URL in meta.file_info, meta.url_info or links.item"))?;
    Ok((Subject::of(SubjectId::Sha256(sha256)), Some(format!("{GUI}/file/{sha256}"))))
}

/// Names, families and tags.
fn describe(about: Value<'_>, finding: &mut Finding) -> Result<(), Fault> {
    let [classification, tags] = about.fields(["popular_threat_classification", "tags"])?;
    finding.tags = tags.map_or(Ok(Vec::new()), |tags| tags.texts(LIST_MAX + 1))?;
    let Some(classification) = classification else { return Ok(()) };
    let [label, names] = classification.fields(["suggested_threat_label", "popular_threat_name"])?;
    finding.threat = label.map(Value::text).transpose()?.map(Into::into);
    if let Some(names) = names {
        for name in names.list()?.take(LIST_MAX + 1) {
            let [value] = name.fields(["value"])?;
            finding.families.extend(value.map(Value::text).transpose()?.map(String::from));
        }
    }
    Ok(())
}

/// An entry of the IoC stream, or of the older list of Livehunt files: the notification names the event, not the analysis that the entity
/// had before.
fn notified(context: Value<'_>, finding: &mut Finding) -> Result<(), Fault> {
    let [id, date, hunting, tags, rule, older_tags] = context.fields([
        "notification_id",
        "notification_date",
        "hunting_info",
        "tags",
        "rule_name",
        "notification_tags",
    ])?;
    if let Some(id) = id {
        let id = id.id()?;
        finding.event_id = Some(id.clone());
        finding.notification_id = Some(id);
    }
    if let Some(date) = date {
        finding.analysed_at = Some(date.epoch()?);
    }
    let in_stream = hunting.map_or(Ok([None]), |hunting| hunting.fields(["rule_name"]))?;
    finding.hunting_rule = in_stream[0].or(rule).map(Value::text).transpose()?.map(Into::into);
    if let Some(tags) = tags.or(older_tags) {
        let known = &mut finding.tags;
        for tag in tags.texts(LIST_MAX + 1)? {
            if !known.contains(&tag) {
                known.push(tag);
            }
        }
    }
    Ok(())
}

/// One sandbox's run. Only a hit is a verdict: a sandbox that saw nothing must not replace what the engines said.
fn behaviour(object: &Object<'_>) -> Result<Outcome, Fault> {
    let [verdicts, date, sandbox, techniques] =
        object.attributes.fields(["verdicts", "analysis_date", "sandbox_name", "mitre_attack_techniques"])?;
    let mut worst = None;
    for word in verdicts.map(Value::list).transpose()?.into_iter().flatten() {
        let verdict = match &*word.text()? {
            "CLEAN" | "UNKNOWN_VERDICT" => continue,
            "GREYWARE" | "ADWARE" => Verdict::Pua,
            "MALWARE" | "RANSOM" | "PHISHING" | "BANKER" | "EXPLOIT" | "EVADER" | "RAT" | "TROJAN" | "SPREADER"
            | "STEALER" => Verdict::Malicious,
            _ => return Err(word.fault("a sandbox verdict that this version does not know")),
        };
        worst = worst.max(Some((verdict, word.text()?)));
    }
    let Some((verdict, word)) = worst else { return Ok(Outcome::Ignore) };
    let (hash, named) = object.id.split_once('_').unwrap_or((&object.id, "sandbox"));
    let sha256 = hash.parse().map_err(|_| object.value.fault("the id does not begin with a SHA-256"))?;
    let mut finding = Finding::new(Subject::of(SubjectId::Sha256(sha256)), verdict);
    let sandbox = sandbox.map(Value::text).transpose()?.map_or_else(|| named.to_owned(), Into::into);
    let mut hits = Hits::default();
    hits.add(verdict, || Ok((sandbox, Some(word.into_owned()))))?;
    hits.put_into(&mut finding);
    for technique in techniques.map(Value::list).transpose()?.into_iter().flatten() {
        let [id] = technique.fields(["id"])?;
        let id = id.map(Value::text).transpose()?;
        finding.techniques.extend(id.filter(|id| is_technique(id)).map(String::from));
        if finding.techniques.len() > LIST_MAX {
            break;
        }
    }
    finding.analysed_at = date.map(Value::epoch).transpose()?;
    finding.event_id = Some(format!("file_behaviour:{}", object.id)).filter(|id| id.len() <= TEXT_BYTES_MAX);
    finding.report_url = Some(format!("{GUI}/file/{sha256}/behavior"));
    Ok(Outcome::Verdict(Box::new(finding.within_bounds())))
}

/// A private analysis has no verdict in it.
fn private_analysis(object: &Object<'_>) -> Result<Outcome, Fault> {
    let [status] = object.attributes.fields(["status"])?;
    let status = status.ok_or_else(|| object.attributes.missing("status"))?;
    match &*status.text()? {
        "completed" => pointer(object.value, "private_analysis", &object.id),
        "queued" | "in-progress" => Ok(Outcome::NotReady),
        _ => Err(status.fault("expected queued, in-progress or completed")),
    }
}

/// A notification by itself names an entity and says nothing about it.
fn notification(object: &Object<'_>) -> Result<Outcome, Fault> {
    let [kind, id] = object.attributes.fields(["entity_type", "entity_id"])?;
    let kind = kind.ok_or_else(|| object.attributes.missing("entity_type"))?;
    let id = id.ok_or_else(|| object.attributes.missing("entity_id"))?;
    let word = kind.text()?;
    match ["file", "url", "domain", "ip_address"].into_iter().find(|known| *known == word) {
        Some(known) => pointer(id, known, &id.id()?),
        None => Err(kind.fault("expected file, url, domain or ip_address")),
    }
}

/// The older notification of Livehunt: which file it is about stands only among its tags.
fn hunting_notification(object: &Object<'_>) -> Result<Outcome, Fault> {
    let [tags] = object.attributes.fields(["tags"])?;
    let tags = tags.ok_or_else(|| object.attributes.missing("tags"))?;
    let texts = tags.texts(LIST_MAX)?;
    let mut hashes = texts.iter().filter_map(|tag| tag.parse::<Sha256>().ok());
    match (hashes.next(), hashes.next()) {
        (Some(hash), None) => pointer(tags, "file", &hash.to_string()),
        _ => Err(tags.fault("expected the SHA-256 of one file among the tags")),
    }
}

fn pointer(at: Value<'_>, kind: &'static str, id: &str) -> Result<Outcome, Fault> {
    let id = FetchId::new(kind, id).map(Outcome::Pointer);
    id.ok_or_else(|| at.fault("an id with characters that no id of VirusTotal has"))
}

/// A retrohunt. Its matches are fetched from `matching_files`.
fn retrohunt(object: &Object<'_>) -> Result<Outcome, Fault> {
    let [status] = object.attributes.fields(["status"])?;
    let status = status.ok_or_else(|| object.attributes.missing("status"))?;
    match &*status.text()? {
        "finished" | "aborted" => Ok(Outcome::Job),
        _ => Ok(Outcome::NotReady),
    }
}

/// `{"error": {...}}`, also as `body` of a recorded answer.
fn is_api_error(value: Value<'_>) -> bool {
    let Ok([error, body]) = value.fields(["error", "body"]) else { return false };
    error.is_some_and(Value::is_object) || body.is_some_and(is_api_error)
}

/// An answer about quotas: a map of `{user, group}`.
fn is_quotas(value: Value<'_>) -> bool {
    let is_quota =
        |quota: Value<'_>| matches!(quota.fields(["user", "group"]), Ok([user, group]) if user.or(group).is_some());
    let Ok(entries) = value.entries() else { return false };
    let mut entries = entries.map(|(_, quota)| is_quota(quota)).peekable();
    entries.peek().is_some() && entries.all(|is_quota| is_quota)
}

/// The lines of a feed, if the body is one: it is no JSON value as a whole, and its lines begin an object each.
fn feed_lines(body: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let lines = || body.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let mut starts = lines().take(2).map(|line| line.starts_with(b"{"));
    (starts.next() == Some(true) && starts.next() == Some(true)).then(lines)
}

fn is_domain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') || !byte.is_ascii();
    name.contains('.') && name.len() <= 253 && name.bytes().all(is_plain) && !name.starts_with('.')
}

fn is_address(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
}

const GUI: &str = "https://www.virustotal.com/gui";
/// Fewer than this many malicious engines are often false alarms (contract: defaults).
const MALICIOUS_MIN: u32 = 3;
/// With fewer answers, silence means nothing (contract: defaults).
const CLEAN_MIN: u32 = 10;
