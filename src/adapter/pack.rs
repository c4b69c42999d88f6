//! Adapters as data: a table of jq expressions and what their answers mean. Platforms that send one plain form need no code.
//!
//! Invariants: jq only selects; what it gave is read here, typed and within bounds; a verdict word that no table knows is an error and
//! never clean; of an item that is no verdict nothing but its class is read, so counters of a queued analysis do not matter.
//!
//! Not here: the tables themselves (`adapters/NAME/pack.toml`), jq (`jq`), how times and hashes are written (`pack/coerce`).

use std::sync::Arc;

use super::items::{Gathered, Outcomes};
use super::jq::{Evaluate, Script};
use super::native::{is_technique, mark_of};
use super::shared::reference_of;
use super::{Adapter, FetchId, Hits, NormalizeError, Outcome};
use crate::delivery::Delivery;
use crate::event::{Finding, Subject, SubjectId, URL_BYTES_MAX, Verdict};
use crate::json::{Document, Fault, Kind, Value};
use crate::setting::Problem;

mod coerce;
pub mod expected;
mod shipped;
mod table;

#[cfg(test)]
mod tests;

use coerce::{approval, count, hash, id, own_verdict, size, text, texts, time, word};
use table::Rules;

pub use shipped::{Shipped, find, names};
pub use table::{Fields, PackTable, PointerKind, PointerTable, ScoreTable};

/// The pack of this name, which there is. Its expressions are ours, so they run in this process.
pub(super) fn plan_shipped(name: &str) -> Arc<dyn Adapter> {
    let shipped = find(name).expect("the caller has found it");
    Arc::new(Pack::plan(name, &shipped.parsed(), name, None).expect("a test plans every table that is compiled in"))
}

/// An adapter made of a table.
pub(super) struct Pack {
    provider: String,
    rules: Rules,
    evaluate: Arc<dyn Evaluate>,
}

/// Makes the evaluator of a user's script; ours run in this process.
pub type Isolate<'a> = &'a dyn Fn(Script) -> Arc<dyn Evaluate>;

impl Pack {
    /// Validates the table and makes an adapter of it. `key` is what stands before the table's own keys (`sources.acme.jq.`). `provider` is for a table that names none.
    pub(super) fn plan(
        key: &str,
        table: &PackTable,
        provider: &str,
        isolate: Option<Isolate<'_>>,
    ) -> Result<Self, Vec<Problem>> {
        let (program, rules) = table.plan(key)?;
        let evaluate: Arc<dyn Evaluate> = match isolate {
            Some(isolate) => isolate(table.script()),
            None => Arc::new(program),
        };
        let provider = table.provider.clone().unwrap_or_else(|| provider.to_owned());
        Ok(Self { provider, rules, evaluate })
    }
}

impl Adapter for Pack {
    fn provider(&self) -> &str {
        &self.provider
    }

    fn normalize(&self, delivery: &Delivery) -> Result<Outcomes, NormalizeError> {
        let answer = self.evaluate.evaluate(delivery.body())?;
        let document = Document::read(&answer)
            .map_err(|_| NormalizeError::Field("jq: the answer of the expressions is not readable".to_owned()))?;
        let mut items = document.root().list().map_err(|fault| fault.refuses(document.root()))?.peekable();
        let mut gathered = Gathered::default();
        while let Some(item) = items.next() {
            let outcome = self.item(item);
            if let (Err(reason), 0, None) = (&outcome, gathered.count(), items.peek()) {
                return Err(NormalizeError::Field(reason.clone()));
            }
            gathered.add(outcome.map_err(|reason| || reason))?;
        }
        Ok(gathered.finish())
    }

    /// Of a platform whose messages point to reports, the id of an analysis is the id of its report.
    fn fetch_of(&self, finding: &Finding) -> Option<FetchId> {
        FetchId::new(self.rules.pointer?.word(), finding.event_id.as_deref()?)
    }
}

impl Pack {
    fn item(&self, item: Value<'_>) -> Result<Outcome, String> {
        let words = |fault: Fault| fault.words(item);
        let [class, fault] = item.fields(["class", "fault"]).map_err(words)?;
        if let Some(fault) = fault {
            return Err(fault.text().map_err(words)?.into_owned());
        }
        let class = class.ok_or_else(|| item.missing("class")).map_err(words)?;
        match &*class.text().map_err(words)? {
            "verdict" | "verdict_changed" => self.verdict(item).map_err(words),
            "not_ready" => Ok(Outcome::NotReady),
            "pointer" => self.pointer(item).map_err(words),
            "job" => Ok(Outcome::Job),
            "ignore" | "request" | "handshake" | "api_response" => Ok(Outcome::Ignore),
            _ => Err(words(class.fault(
                "expected verdict, verdict_changed, not_ready, pointer, job, request, handshake, api_response or ignore",
            ))),
        }
    }

    fn pointer(&self, item: Value<'_>) -> Result<Outcome, Fault> {
        let [pointer] = item.fields(["pointer"])?;
        let Some(kind) = self.rules.pointer else { return Err(item.missing("pointer")) };
        let pointer = pointer.ok_or_else(|| item.missing("pointer"))?;
        let id = id(pointer)?.and_then(|id| FetchId::new(kind.word(), &id));
        let odd = || pointer.fault("expected an id of letters, digits, _ . = and -, at most 256 of them");
        Ok(Outcome::Pointer(id.ok_or_else(odd)?))
    }

    fn verdict(&self, item: Value<'_>) -> Result<Outcome, Fault> {
        let [verdict, time, event_id, notification_id, score, policy] =
            item.fields(["verdict", "time", "event_id", "notification_id", "score", "policy"])?;
        let verdict = self.verdict_of(verdict.ok_or_else(|| item.missing("verdict"))?)?;
        let verdict = verdict.ok_or_else(|| item.missing("verdict"))?;
        let mut finding = Finding::new(subject(item)?, verdict);
        finding.analysed_at = optional(time, self::time)?;
        finding.event_id = optional(event_id, id)?;
        finding.notification_id = optional(notification_id, id)?;
        finding.policy = optional(policy, approval)?;
        if let (Some(scale), true) = (self.rules.scale, verdict != Verdict::Error) {
            finding.score = optional(score, |score| scale.risk(score))?;
        }
        self.describe(item, &mut finding)?;
        Ok(Outcome::Verdict(Box::new(finding.within_bounds())))
    }

    /// The meaning of a word; none if it is blank.
    fn verdict_of(&self, value: Value<'_>) -> Result<Option<Verdict>, Fault> {
        let Some(word) = word(value)? else { return Ok(None) };
        let known = match &self.rules.verdicts {
            Some(verdicts) => verdicts.get(&word).copied().or(self.rules.default),
            None => own_verdict(&word),
        };
        known.map(Some).ok_or_else(|| value.fault("a verdict that the table does not know"))
    }

    /// Everything that is neither subject nor verdict.
    fn describe(&self, item: Value<'_>, finding: &mut Finding) -> Result<(), Fault> {
        let [detections, engines, families, threat, techniques, tags] =
            item.fields(["detections", "engines", "families", "threat", "techniques", "tags"])?;
        let [reason, report_url, hunting_rule, tenant, correlation, tlp] =
            item.fields(["reason", "report_url", "hunting_rule", "tenant", "correlation", "tlp"])?;
        if let Some(detections) = detections {
            let mut hits = Hits::default();
            for detection in detections.list()?.filter(|detection| !detection.is_null()) {
                self.hit(detection, finding.verdict, &mut hits)?;
            }
            hits.put_into(finding);
        }
        let list = |value: Option<Value<'_>>| value.map_or(Ok(Vec::new()), texts);
        finding.engines = optional(engines, count)?;
        finding.families = list(families)?;
        finding.threat = optional(threat, text)?;
        finding.techniques = list(techniques)?;
        finding.techniques.retain(|technique| is_technique(technique));
        finding.tags = list(tags)?;
        finding.reason = optional(reason, text)?;
        finding.report_url = report_url.map_or(Ok(None), Value::link)?;
        finding.hunting_rule = optional(hunting_rule, text)?;
        finding.tenant = optional(tenant, id)?;
        finding.tlp = tlp.map(mark_of).transpose()?;
        finding.reference = correlation.and_then(reference_of);
        Ok(())
    }

    /// A hit whose own verdict is not given is as bad as the whole.
    fn hit(&self, detection: Value<'_>, verdict: Verdict, hits: &mut Hits) -> Result<(), Fault> {
        let as_bad = if verdict.is_detection() { verdict } else { Verdict::Suspicious };
        if !detection.is_object() {
            return hits.add(as_bad, || Ok((self.provider.clone(), text(detection)?)));
        }
        let [engine, name, own] = detection.fields(["engine", "name", "verdict"])?;
        let own = match own {
            Some(own) => match word(own)?.as_deref().and_then(own_verdict) {
                Some(own) => Some(own),
                None => self.verdict_of(own)?,
            },
            None => None,
        };
        match own {
            Some(own) if !own.is_detection() => Ok(()),
            own => hits.add(own.unwrap_or(as_bad), || {
                Ok((optional(engine, text)?.unwrap_or_else(|| self.provider.clone()), optional(name, text)?))
            }),
        }
    }
}

fn optional<'d, T>(
    value: Option<Value<'d>>,
    read: impl FnOnce(Value<'d>) -> Result<Option<T>, Fault>,
) -> Result<Option<T>, Fault> {
    value.map_or(Ok(None), read)
}

/// What a verdict is about: a file, else an object, else a URL, else a message.
fn subject(item: Value<'_>) -> Result<Subject, Fault> {
    let [sha256, sha1, md5, object, etag, url, message] =
        item.fields(["sha256", "sha1", "md5", "object", "etag", "url", "message"])?;
    let file = Subject::file(optional(sha256, hash)?, optional(sha1, hash)?, optional(md5, hash)?);
    let mut subject = match file {
        Some(file) => file,
        None => Subject::of(other_subject(item, [object, etag, url, message])?),
    };
    let [name, size, file_type] = item.fields(["name", "size", "file_type"])?;
    subject.name = optional(name, text)?;
    subject.size = optional(size, self::size)?;
    subject.file_type = optional(file_type, text)?;
    Ok(subject)
}

fn other_subject(item: Value<'_>, [object, etag, url, message]: [Option<Value<'_>>; 4]) -> Result<SubjectId, Fault> {
    let link = |value: Value<'_>| match (value.kind(), text(value)?) {
        (Kind::Text | Kind::EscapedText, Some(link)) if link.len() > URL_BYTES_MAX => {
            Err(value.fault("the URL is longer than 2048 bytes"))
        }
        (Kind::Text | Kind::EscapedText, link) => Ok(link),
        _ => Err(value.fault("expected a text")),
    };
    if let Some(url) = optional(object, link)? {
        return Ok(SubjectId::Object { url, etag: optional(etag, id)?.unwrap_or_default() });
    }
    if let Some(url) = optional(url, link)? {
        return Ok(SubjectId::Url(url));
    }
    if let Some(message) = optional(message, id)? {
        return Ok(SubjectId::Message(message));
    }
    Err(item.fault("nothing says what the verdict is about: no sha256, sha1, md5, object, url or message"))
}
