//! What VirusTotal's engines and Google's assessment say together, and the verdict that makes.
//!
//! Invariants: a count that is missing never helps to clean; engines that did not answer never count; a score is never invented.
//!
//! Not here: what the verdict is about (`virustotal`, `virustotal/v2`).

use super::VirusTotal;
use crate::adapter::json::{Fault, Value};
use crate::adapter::{Hits, score_of};
use crate::event::{Finding, Subject, Verdict};

impl VirusTotal {
    /// The verdict. An assessment by Google decides, except where it has no opinion; then the counts of engines do.
    pub(super) fn judge(&self, subject: Subject, opinion: Opinion) -> Result<Finding, Fault> {
        let counts = &opinion.counts;
        let by_counts = || match counts {
            _ if counts.malicious >= self.malicious_min => Verdict::Malicious,
            _ if counts.malicious + counts.suspicious >= 1 => Verdict::Suspicious,
            _ if counts.answered() >= u64::from(self.clean_min) => Verdict::Clean,
            _ => Verdict::Unknown,
        };
        let decided = opinion.assessment.and_then(|assessment| assessment.verdict);
        let verdict = decided.unwrap_or_else(by_counts);
        if let (None, Verdict::Clean, Some(missing)) = (decided, verdict, opinion.missing) {
            return Err(missing);
        }
        let mut finding = Finding::new(subject, verdict);
        finding.score = match verdict {
            // Few engines that saw nothing are no "0, safe".
            Verdict::Unknown => opinion.assessment.and_then(|assessment| assessment.score),
            _ => opinion.assessment.and_then(|assessment| assessment.score).or_else(|| counts.score()),
        };
        if verdict == Verdict::Unknown {
            let (answered, clean_min) = (counts.answered(), self.clean_min);
            finding.reason = Some(format!("{answered} engines answered, clean needs {clean_min}"));
        }
        finding.engines = u32::try_from(counts.answered()).ok().filter(|answered| *answered > 0);
        finding.hits = counts.malicious.saturating_add(counts.suspicious);
        opinion.hits.put_into(&mut finding);
        Ok(finding)
    }
}

/// How many engines said what.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) malicious: u32,
    pub(super) suspicious: u32,
    pub(super) harmless: u32,
    pub(super) undetected: u32,
}

impl Counts {
    /// Engines with an opinion: those that timed out, failed or do not know the type have none.
    fn answered(&self) -> u64 {
        [self.malicious, self.suspicious, self.harmless, self.undetected].into_iter().map(u64::from).sum()
    }

    /// Percent of the engines that answered, a suspicious one counting half, half up; none if none answered.
    fn score(&self) -> Option<u8> {
        let answered = self.answered();
        let hits = 2 * u64::from(self.malicious) + u64::from(self.suspicious);
        (answered > 0).then(|| u8::try_from((100 * hits + answered) / (2 * answered)).unwrap_or(100))
    }
}

/// Google's own assessment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Assessment {
    /// None where it has no opinion.
    verdict: Option<Verdict>,
    score: Option<u8>,
}

/// What engines and Google say, before it is judged.
pub(super) struct Opinion {
    pub(super) counts: Counts,
    pub(super) hits: Hits,
    pub(super) assessment: Option<Assessment>,
    /// A count that is not there, so that it can't be taken for 0.
    pub(super) missing: Option<Fault>,
}

impl Opinion {
    /// `stats_name` is how `of` calls the counts; they may only be missing where it was never analysed.
    pub(super) fn read(
        of: Value<'_>,
        stats: Option<Value<'_>>,
        results: Option<Value<'_>>,
        gti: Option<Value<'_>>,
        stats_name: &'static str,
        was_analysed: bool,
    ) -> Result<Self, Fault> {
        let hits = results.map_or(Ok(Hits::default()), hits_of_engines)?;
        let assessment = gti.map(assessment).transpose()?;
        let (mut counts, mut missing) = (Counts::default(), None);
        match stats {
            Some(stats) => (counts, missing) = counts_of(stats)?,
            None if was_analysed || results.is_some() => missing = Some(of.missing(stats_name)),
            None => {}
        }
        if let (None, Some(missing), None) = (stats, missing, assessment.and_then(|assessment| assessment.verdict)) {
            return Err(missing);
        }
        // The list of engines can only make it worse than the counts say.
        counts.malicious = counts.malicious.max(hits.malicious());
        counts.suspicious = counts.suspicious.max(hits.suspicious());
        Ok(Self { counts, hits, assessment, missing })
    }
}

impl Opinion {
    /// Takes the verdict word of a private file, which no engine looks at, where there is no assessment.
    pub(super) fn assess_privately(&mut self, threat: Option<Value<'_>>) -> Result<(), Fault> {
        if let (None, Some(threat)) = (self.assessment, threat) {
            self.assessment = Some(Assessment { verdict: verdict_of(threat)?, score: None });
        }
        Ok(())
    }
}

fn counts_of(stats: Value<'_>) -> Result<(Counts, Option<Fault>), Fault> {
    let [malicious, suspicious, harmless, undetected] =
        stats.fields(["malicious", "suspicious", "harmless", "undetected"])?;
    let missing = match (malicious, suspicious) {
        (None, _) => Some(stats.missing("malicious")),
        (_, None) => Some(stats.missing("suspicious")),
        _ => None,
    };
    let count = |value: Option<Value<'_>>| {
        let count = value.map_or(Ok(0), Value::count)?;
        let too_many = || value.map_or(stats, |value| value).fault("more engines than there can be");
        if count > ENGINES_MAX { Err(too_many()) } else { Ok(count) }
    };
    let counts = Counts {
        malicious: count(malicious)?,
        suspicious: count(suspicious)?,
        harmless: count(harmless)?,
        undetected: count(undetected)?,
    };
    Ok((counts, missing))
}

fn assessment(gti: Value<'_>) -> Result<Assessment, Fault> {
    let [verdict, score] = gti.fields(["verdict", "threat_score"])?;
    let word = verdict.ok_or_else(|| gti.missing("verdict"))?;
    let [value] = word.fields(["value"])?;
    let value = value.ok_or_else(|| word.missing("value"))?;
    let verdict = verdict_of(value)?;
    let score = match score {
        Some(score) => score.fields(["value"])?[0].map(Value::percent).transpose()?.map(score_of),
        None => None,
    };
    Ok(Assessment { verdict, score })
}

/// The verdict of an assessment; none where it has no opinion.
fn verdict_of(value: Value<'_>) -> Result<Option<Verdict>, Fault> {
    Ok(match &*value.text()? {
        "VERDICT_MALICIOUS" => Some(Verdict::Malicious),
        "VERDICT_SUSPICIOUS" => Some(Verdict::Suspicious),
        "VERDICT_HARMLESS" | "VERDICT_BENIGN" => Some(Verdict::Clean),
        "VERDICT_UNDETECTED" | "VERDICT_UNKNOWN" => None,
        _ => return Err(value.fault("an assessment that this version does not know")),
    })
}

/// The engines that hit, out of the map by engine.
fn hits_of_engines(results: Value<'_>) -> Result<Hits, Fault> {
    let mut hits = Hits::default();
    for (key, engine) in results.entries()? {
        let [category, name, result] = engine.fields(["category", "engine_name", "result"])?;
        let Some(category) = category else { continue };
        let verdict = match &*category.text()? {
            "malicious" => Verdict::Malicious,
            "suspicious" => Verdict::Suspicious,
            _ => continue,
        };
        hits.add(verdict, || {
            let name = name.map_or(Ok(key), Value::text)?;
            Ok((name.into_owned(), result.map(Value::text).transpose()?.map(Into::into)))
        })?;
    }
    Ok(hits)
}

/// VirusTotal runs about 100 engines; a count beyond this is no count of engines, and sums of such counts can't overflow.
pub(super) const ENGINES_MAX: u32 = 10_000;
