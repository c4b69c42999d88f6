//! VirusTotal's streams: the IoC stream, page by page from where it was read, and the matches of finished retrohunts.
//!
//! The IoC stream is read in ascending order from the date of the last entry that normalize has read, inclusive: what stands on that
//! second comes twice and is known. Entries vanish after 7 days, so being 5 days behind is an alarm.
//!
//! Invariants: the mark of a stream moves in the transaction that reads its page; a page that says nothing new is not stored; a wrong
//! question stops its stream for an hour and no other.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::answer::Answer;
use super::config::{PollPlan, Stream};
use super::platform::{LIST_BYTES_MAX, Question};
use super::reconcile::HOLD;
use super::{Flow, PollStopped, Poller, after};
use crate::adapter::FetchId;
use crate::delivery::Mark;
use crate::event::SourceId;
use crate::telemetry::Metrics;

/// How far each stream was read.
#[derive(Debug)]
pub(super) struct Streams {
    ioc: Ioc,
    retrohunt: Retrohunt,
}

#[derive(Debug)]
struct Ioc {
    next_at: Timestamp,
    /// Date of the last entry that was read, in seconds; none before the mark was looked up.
    date: Option<i64>,
    /// Where the next page is, while there is one, and the date that the pages began with: a cursor belongs to its question.
    cursor: Option<(String, i64)>,
    /// When everything there was had been read.
    caught_up_at: Option<Timestamp>,
    /// Whether it was asked for since the start.
    asked: bool,
    alarmed: bool,
}

#[derive(Debug)]
struct Retrohunt {
    next_at: Timestamp,
    /// Jobs whose matches are being read, and where the next page is.
    jobs: VecDeque<(FetchId, Option<String>)>,
}

/// Most entries of a page that VirusTotal gives.
const PAGE: &str = "40";
/// Pages of one look: between two looks the other questions get their turn.
const PAGES_EACH: u32 = 5;
/// Entries vanish after 7 days.
const ALARM: Duration = Duration::from_hours(24 * 5);

impl Streams {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self {
            ioc: Ioc { next_at: now, date: None, cursor: None, caught_up_at: None, asked: false, alarmed: false },
            retrohunt: Retrohunt { next_at: now, jobs: VecDeque::new() },
        }
    }

    /// When the next stream is due.
    pub(super) fn next(&self, plan: &PollPlan) -> Option<Timestamp> {
        let (_, streams) = plan.streams.as_ref()?;
        let next = |stream: &Stream| match stream {
            Stream::IocStream => self.ioc.next_at,
            Stream::Retrohunt => self.retrohunt.next_at,
        };
        streams.iter().map(next).min()
    }

    /// Whether an operator was told that the IoC stream is far behind.
    #[cfg(test)]
    pub(super) const fn is_alarmed(&self) -> bool {
        self.ioc.alarmed
    }

    /// Shows how far behind the IoC stream is, and says so before it is too late.
    pub(super) fn report(&mut self, plan: &PollPlan, source: &SourceId, metrics: &Metrics, now: Timestamp) {
        let is_read = plan.streams.as_ref().is_some_and(|(_, streams)| streams.contains(&Stream::IocStream));
        let Some(lag) = self.ioc.lag(now).filter(|_| is_read) else { return };
        metrics.poll_lag(source.as_str(), Stream::IocStream.word(), lag.as_secs_f64());
        let is_late = self.ioc.asked && lag >= ALARM;
        if is_late && !self.ioc.alarmed {
            let days = lag.as_secs() / 86_400;
            tracing::error!(%source, days, "source {source}: the IoC stream is {days} days behind, and VirusTotal forgets its entries after 7: see the key, its quota and the log");
        }
        self.ioc.alarmed = is_late;
    }
}

impl Ioc {
    /// How long ago everything was read, or how old the last entry is that was.
    fn lag(&self, now: Timestamp) -> Option<Duration> {
        let read_to = self.date.and_then(|date| Timestamp::from_second(date).ok());
        let known_to = self.caught_up_at.max(read_to)?;
        Some(now.duration_since(known_to).max(jiff::SignedDuration::ZERO).unsigned_abs())
    }

    /// The date that the question begins with.
    fn since(&self) -> i64 {
        self.cursor.as_ref().map_or_else(|| self.date.unwrap_or_default(), |(_, since)| *since)
    }

    fn question(&self) -> Question {
        let since = Timestamp::from_second(self.since()).unwrap_or(Timestamp::UNIX_EPOCH);
        let mut query = vec![
            ("limit", PAGE.to_owned()),
            ("order", "date+".to_owned()),
            ("filter", format!("date:{}+", since.strftime("%Y-%m-%dT%H:%M:%S"))),
        ];
        query.extend(self.cursor.clone().map(|(cursor, _)| ("cursor", cursor)));
        Question { path: path(&["ioc_stream"]), query, bytes_max: LIST_BYTES_MAX }
    }
}

impl Poller {
    /// Reads what is due of every stream.
    pub(super) async fn read_streams(&mut self, now: Timestamp) -> Result<Flow, PollStopped> {
        let Some((every, streams)) = self.plan.streams.clone() else { return Ok(Flow::Go) };
        for stream in streams {
            let flow = match stream {
                Stream::IocStream if self.streams.ioc.next_at <= now => {
                    self.read_ioc_stream(every.every, every.look_back, now).await?
                }
                Stream::Retrohunt if self.streams.retrohunt.next_at <= now => {
                    self.read_retrohunts(every.every, every.look_back, now).await?
                }
                Stream::IocStream | Stream::Retrohunt => Flow::Go,
            };
            if flow == Flow::Rest {
                return Ok(Flow::Rest);
            }
        }
        Ok(Flow::Go)
    }

    async fn read_ioc_stream(
        &mut self,
        every: Duration,
        look_back: Duration,
        now: Timestamp,
    ) -> Result<Flow, PollStopped> {
        if self.streams.ioc.date.is_none() {
            let mark = self.reader.mark(&self.source, Stream::IocStream.word())?;
            let begin = || now.checked_sub(look_back).unwrap_or(Timestamp::UNIX_EPOCH).as_second();
            self.streams.ioc.date = Some(mark.and_then(|mark| mark.parse().ok()).unwrap_or_else(begin));
        }
        for _ in 0..PAGES_EACH {
            let question = self.streams.ioc.question();
            let answer = self.session.ask(&question, now).await;
            self.streams.ioc.asked = !matches!(answer, Answer::Wait(_));
            let body = match self.heed(answer, now) {
                Ok(Answer::Found(body)) => body,
                Ok(_) => {
                    // A cursor may be too old; from the date of the last entry it always goes on.
                    let had_cursor = self.streams.ioc.cursor.take().is_some();
                    self.streams.ioc.next_at = after(now, if had_cursor { every } else { HOLD });
                    return Ok(Flow::Go);
                }
                Err(flow) => return Ok(flow),
            };
            let page: IocPage = match serde_json::from_slice(&body) {
                Ok(page) => page,
                Err(error) => {
                    self.tell("misconfigured", &format!("its IoC stream is not what this version reads ({error})"));
                    self.streams.ioc.next_at = after(now, HOLD);
                    return Ok(Flow::Go);
                }
            };
            let dates = page.data.iter().filter_map(|entry| entry.context_attributes.as_ref()?.notification_date);
            let date = dates.chain(self.streams.ioc.date).max();
            let mark = date.map(|date| Mark { stream: Stream::IocStream.word().to_owned(), value: date.to_string() });
            if !page.data.is_empty() && self.keep_page(body, mark).await? == Flow::Rest {
                return Ok(Flow::Rest);
            }
            let ioc = &mut self.streams.ioc;
            let since = ioc.since();
            ioc.date = date;
            let next = page.meta.and_then(|meta| meta.cursor).filter(|cursor| !cursor.is_empty());
            let next = next.map(|cursor| (cursor, since));
            if page.data.is_empty() || next.is_none() || next == ioc.cursor {
                ioc.cursor = None;
                ioc.caught_up_at = Some(now);
                ioc.next_at = after(now, every);
                return Ok(Flow::Go);
            }
            ioc.cursor = next;
        }
        Ok(Flow::Go)
    }

    /// Reads the matches of retrohunts that finished since the last look.
    async fn read_retrohunts(
        &mut self,
        every: Duration,
        look_back: Duration,
        now: Timestamp,
    ) -> Result<Flow, PollStopped> {
        if self.streams.retrohunt.jobs.is_empty() {
            let query = vec![("limit", PAGE.to_owned())];
            let question =
                Question { path: path(&["intelligence", "retrohunt_jobs"]), query, bytes_max: LIST_BYTES_MAX };
            let Some(page) = self.page::<JobPage>(&question, now).await else {
                return Ok(self.stream_rests(now));
            };
            let since = now.checked_sub(look_back).unwrap_or(Timestamp::UNIX_EPOCH).as_second();
            for job in page.data.iter().filter(|job| job.attributes.is_finished_since(since)) {
                let Some(id) = FetchId::new("retrohunt", &job.id) else { continue };
                if self.reader.mark(&self.source, id.as_str())?.is_none() {
                    self.streams.retrohunt.jobs.push_back((id, None));
                }
            }
        }
        for _ in 0..PAGES_EACH {
            let Some((job, cursor)) = self.streams.retrohunt.jobs.front().cloned() else {
                self.streams.retrohunt.next_at = after(now, every);
                return Ok(Flow::Go);
            };
            if self.read_matches(&job, cursor, now).await? == Flow::Rest {
                return Ok(Flow::Rest);
            }
        }
        Ok(Flow::Go)
    }

    /// One page of the matches of a retrohunt; after the last one the job is done.
    async fn read_matches(
        &mut self,
        job: &FetchId,
        cursor: Option<String>,
        now: Timestamp,
    ) -> Result<Flow, PollStopped> {
        let mut query = vec![("limit", PAGE.to_owned())];
        query.extend(cursor.clone().map(|cursor| ("cursor", cursor)));
        let segments = ["intelligence", "retrohunt_jobs", job.id(), "matching_files"];
        let question = Question { path: path(&segments), query, bytes_max: LIST_BYTES_MAX };
        let answer = self.session.ask(&question, now).await;
        let body = match self.heed(answer, now) {
            Ok(Answer::Found(body)) => body,
            // Without matches, or forgotten by VirusTotal.
            Ok(Answer::Absent(_) | Answer::Never(_)) => bytes::Bytes::from_static(br#"{"data": []}"#),
            Ok(_) => return Ok(self.stream_rests(now)),
            Err(flow) => return Ok(flow),
        };
        let Ok(page) = serde_json::from_slice::<MatchPage>(&body) else {
            self.tell("misconfigured", "its page of matches is not what this version reads");
            return Ok(self.stream_rests(now));
        };
        if !page.data.is_empty() && self.keep_page(body, None).await? == Flow::Rest {
            return Ok(Flow::Rest);
        }
        let next = page.meta.and_then(|meta| meta.cursor).filter(|next| !next.is_empty());
        if next.is_some() && next != cursor && !page.data.is_empty() {
            if let Some(front) = self.streams.retrohunt.jobs.front_mut() {
                front.1 = next;
            }
            return Ok(Flow::Go);
        }
        let source = self.source.clone();
        self.transact(|transaction| transaction.put_mark(&source, job.as_str(), "read", now))?;
        self.streams.retrohunt.jobs.pop_front();
        Ok(Flow::Go)
    }

    /// A page of VirusTotal, if it gives one.
    async fn page<T: for<'de> Deserialize<'de>>(&mut self, question: &Question, now: Timestamp) -> Option<T> {
        let answer = self.session.ask(question, now).await;
        match self.heed(answer, now) {
            Ok(Answer::Found(body)) => serde_json::from_slice(&body).ok(),
            _ => None,
        }
    }

    /// Retrohunts wait: as long as the source has to, or for an hour where the question is at fault.
    fn stream_rests(&mut self, now: Timestamp) -> Flow {
        if self.rests(now).is_some() {
            return Flow::Rest;
        }
        self.streams.retrohunt.next_at = after(now, HOLD);
        Flow::Go
    }
}

fn path(segments: &[&str]) -> Vec<String> {
    ["api", "v3"].iter().chain(segments).map(|segment| (*segment).to_owned()).collect()
}

#[derive(Deserialize)]
struct IocPage {
    data: Vec<IocEntry>,
    #[serde(default)]
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct IocEntry {
    #[serde(default)]
    context_attributes: Option<IocContext>,
}

#[derive(Deserialize)]
struct IocContext {
    #[serde(default)]
    notification_date: Option<i64>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct JobPage {
    data: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    id: String,
    attributes: JobAttributes,
}

#[derive(Deserialize)]
struct JobAttributes {
    status: String,
    #[serde(default)]
    finish_date: Option<i64>,
}

impl JobAttributes {
    fn is_finished_since(&self, second: i64) -> bool {
        // An aborted one has the matches that it found until then.
        matches!(self.status.as_str(), "finished" | "aborted") && self.finish_date.is_none_or(|date| date >= second)
    }
}

#[derive(Deserialize)]
struct MatchPage {
    data: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    meta: Option<Meta>,
}
