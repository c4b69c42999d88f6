//! The tables, and which Bars hold.
//!
//! Invariant: a ratio is taken within one round and only then the median, because the machine's other work comes and goes.
//!
//! Not here: how anything is measured (`main`, `generator`, `subject`).

use std::time::Duration;

use crate::disk::percentile;
use crate::subject::Subject;

/// One measurement of one subject.
pub(crate) struct Row {
    pub(crate) subject: Subject,
    pub(crate) round: usize,
    pub(crate) body_bytes: usize,
    /// Intended requests a second; none as fast as answers come.
    pub(crate) rate: Option<Rate>,
    /// Timed answers a second.
    pub(crate) per_second: f64,
    /// Events a second from the first request until the sink had settled the last one.
    pub(crate) settled_per_second: Option<f64>,
    /// Milliseconds within which 50, 99 and 99.9 of 100 answers came.
    pub(crate) percentiles: [f64; 3],
    /// Processor time of the server for one acknowledged event, in microseconds, until the sink had settled it.
    pub(crate) cpu_us: f64,
    /// Processor time of the generator for one request, in microseconds.
    pub(crate) generator_us: f64,
    pub(crate) rss_bytes: u64,
    pub(crate) rss_peak_bytes: u64,
    pub(crate) acknowledged: usize,
    /// What arrived at the sink, each event once; none where nothing is kept.
    pub(crate) arrived: Option<usize>,
    /// Acknowledged and not arrived.
    pub(crate) lost: usize,
    /// Answers other than 202, and broken connections.
    pub(crate) refused: usize,
    pub(crate) used_up: bool,
    /// Milliseconds within which 50 and 99 of 100 syncs beside this row returned; only where there is a rate.
    pub(crate) syncs: Option<[f64; 2]>,
}

/// A fixed rate, and the subject whose maximum it is a part of.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    pub(crate) of: Subject,
}

/// Everything that was measured.
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    /// Times of a sync on the disk of the stores, between the rows.
    pub(crate) syncs: Vec<Duration>,
    pub(crate) connections: usize,
}

impl Report {
    /// The rows of one table that belong to a subject, in the order of the rounds.
    fn of(&self, subject: Subject, body_bytes: usize, rate: Option<Rate>) -> Vec<&Row> {
        let same = |row: &&Row| row.subject == subject && row.body_bytes == body_bytes && row.rate == rate;
        self.rows.iter().filter(same).collect()
    }

    /// The median over the rounds of a figure of a subject; none where it was not measured.
    pub(crate) fn median(&self, subject: Subject, body_bytes: usize, figure: fn(&Row) -> f64) -> Option<f64> {
        let figures: Vec<f64> = self.of(subject, body_bytes, None).into_iter().map(figure).collect();
        (!figures.is_empty()).then(|| spread(figures).median)
    }

    /// The median over the rounds of the ratio of a figure to another subject's in the same round.
    fn ratio(&self, subject: Subject, base: Subject, body_bytes: usize, figure: fn(&Row) -> f64) -> Option<f64> {
        let (rows, bases) = (self.of(subject, body_bytes, None), self.of(base, body_bytes, None));
        let ratios = rows.iter().filter_map(|row| {
            let base = bases.iter().find(|base| base.round == row.round)?;
            Some(figure(row) / figure(base))
        });
        let ratios: Vec<f64> = ratios.collect();
        (!ratios.is_empty()).then(|| spread(ratios).median)
    }

    /// Prints all of it; whether everything that was acknowledged arrived.
    pub(crate) fn print(&mut self) -> bool {
        let mut tables: Vec<(usize, Option<Rate>)> = Vec::new();
        for row in &self.rows {
            if !tables.contains(&(row.body_bytes, row.rate)) {
                tables.push((row.body_bytes, row.rate));
            }
        }
        for (body_bytes, rate) in tables {
            self.print_table(body_bytes, rate);
        }
        let [p50, p99] = [0.5, 0.99].map(|part| percentile(&mut self.syncs, part));
        println!(
            "\nfdatasync of 4 KiB over written blocks, between the rows ({} times): median {p50:.3} ms, p99 {p99:.3} ms",
            self.syncs.len()
        );
        let unpaced = self.rows.iter().filter(|row| row.rate.is_none());
        let generator = spread(unpaced.map(|row| row.generator_us).collect());
        println!(
            "as fast as answers come, the generator beside the server takes {:.1} us of processor time a request",
            generator.median
        );
        if self.rows.iter().any(|row| row.used_up) {
            println!("some rows ended early, because all prepared deliveries were sent; their rates hold");
        }
        self.print_bars();
        self.rows.iter().all(|row| row.lost == 0)
    }

    fn print_table(&self, body_bytes: usize, rate: Option<Rate>) {
        match rate {
            None => println!("\n{body_bytes} byte bodies, {} connections, as fast as answers come", self.connections),
            Some(rate) => println!(
                "\n{body_bytes} byte bodies, {:.0} requests/s whatever the answers do (30 % of \"{}\")",
                rate.per_second,
                rate.of.title()
            ),
        }
        println!(
            "{:<38} {:>23} {:>6} {:>17} {:>18} {:>20} {:>6} {:>9} {:>16}",
            "",
            "requests/s",
            "x bare",
            "until settled/s",
            "p50/p99/p99.9 ms",
            "CPU us an event",
            "x bare",
            "RSS/peak",
            "arrived/acked"
        );
        let mut subjects: Vec<Subject> = Vec::new();
        for row in self.rows.iter().filter(|row| row.body_bytes == body_bytes && row.rate == rate) {
            if !subjects.contains(&row.subject) {
                subjects.push(row.subject);
            }
        }
        for subject in subjects {
            self.print_subject(subject, body_bytes, rate);
        }
    }

    fn print_subject(&self, subject: Subject, body_bytes: usize, rate: Option<Rate>) {
        let rows = self.of(subject, body_bytes, rate);
        let of = |figure: fn(&Row) -> f64| spread(rows.iter().map(|row| figure(row)).collect());
        let ratio = |figure| match rate {
            None => {
                self.ratio(subject, Subject::Bare, body_bytes, figure).map_or_else(String::new, |it| format!("{it:.2}"))
            }
            Some(_) => String::new(),
        };
        let settled: Vec<f64> =
            rows.iter().filter(|_| rate.is_none()).filter_map(|row| row.settled_per_second).collect();
        let settled = if settled.is_empty() { String::new() } else { format!("{:.0}", spread(settled).median) };
        let percentiles = [0, 1, 2].map(|at| spread(rows.iter().map(|row| row.percentiles[at]).collect()).median);
        let [p50, p99, p999] = percentiles.map(milliseconds);
        let (rss, peak) = (of(|row| mib(row.rss_bytes)).median, of(|row| mib(row.rss_peak_bytes)).max);
        let acknowledged: usize = rows.iter().map(|row| row.acknowledged).sum();
        let arrived: Option<usize> = rows.iter().map(|row| row.arrived).sum();
        let arrived = arrived.map_or_else(|| "-".to_owned(), |arrived| arrived.to_string());
        let refused: usize = rows.iter().map(|row| row.refused).sum();
        let refused = if refused == 0 { String::new() } else { format!("  {refused} refused") };
        println!(
            "{:<38} {:>23} {:>6} {:>17} {:>18} {:>20} {:>6} {:>9} {:>16}{refused}",
            subject.title(),
            of(|row| row.per_second).whole(),
            ratio(|row| row.per_second),
            settled,
            format!("{p50}/{p99}/{p999}"),
            of(|row| row.cpu_us).tenths(),
            ratio(|row| row.cpu_us),
            format!("{rss:.0}/{peak:.0}"),
            format!("{arrived}/{acknowledged}"),
        );
    }

    fn print_bars(&self) {
        println!("\nBars (4 KB bodies, as fast as answers come, medians of the rounds)");
        let size = 4096;
        let rate = |row: &Row| row.per_second;
        let cpu = |row: &Row| row.cpu_us;
        if let Some(ratio) = self.ratio(Subject::Receive, Subject::Bare, size, rate) {
            bar(
                ratio >= 0.45,
                &format!("--roles receive: {:.0} % of the bare handler's requests/s, at least 45 %", ratio * 100.0),
            );
        }
        if let Some(ratio) = self.ratio(Subject::Receive, Subject::Bare, size, cpu) {
            bar(ratio <= 3.0, &format!("--roles receive: {ratio:.1} times the bare handler's CPU, at most 3"));
        }
        if let Some(ratio) = self.ratio(Subject::File, Subject::Bare, size, cpu) {
            bar(ratio <= 7.0, &format!("all roles to a file: {ratio:.1} times the bare handler's CPU, at most 7"));
        }
        if let Some(us) = self.median(Subject::File, size, cpu) {
            bar(us <= 100.0, &format!("all roles to a file: {us:.0} us of CPU an event, at most 100"));
        }
        self.print_peers(size);
        for subject in [Subject::Receive, Subject::File] {
            self.print_open_loop(subject, size);
        }
        let lost: usize = self.rows.iter().map(|row| row.lost).sum();
        let acknowledged: usize =
            self.rows.iter().filter(|row| row.arrived.is_some()).map(|row| row.acknowledged).sum();
        bar(
            lost == 0,
            &format!("{lost} of {acknowledged} acknowledged events lost (no crash here; those are in the suite)"),
        );
        let peak =
            self.rows.iter().filter(|row| row.subject.delivers()).map(|row| row.rss_peak_bytes).max().unwrap_or(0);
        if peak > 0 {
            bar(
                peak < 200 << 20,
                &format!("all roles: {:.0} MiB RSS at the most, under 200 (the backlog here is small)", mib(peak)),
            );
        }
    }

    /// Vector's disk-buffer row was taken on another day, next to the row of [`Subject::Ceiling`]; by that one it is carried over to this run.
    fn print_peers(&self, size: usize) {
        for subject in [Subject::Receive, Subject::File] {
            let rate = self.ratio(subject, Subject::Ceiling, size, |row| row.per_second);
            let cpu = self.ratio(subject, Subject::Ceiling, size, |row| row.cpu_us);
            let (Some(rate), Some(cpu)) = (rate, cpu) else { continue };
            let (rate, cpu) = (rate * PEERS_CEILING.0 / VECTOR.0, cpu * PEERS_CEILING.1 / VECTOR.1);
            bar(
                rate >= 3.0 && cpu <= 1.0 / 3.0,
                &format!(
                    "{}: {rate:.1} times Vector's disk buffer (at least 3) at {:.0} % of its CPU (at most 33), by the ceiling row of both runs",
                    subject.title(),
                    cpu * 100.0
                ),
            );
        }
        for subject in [Subject::Receive, Subject::File] {
            let rate = self.ratio(subject, Subject::Bare, size, |row| row.per_second);
            let cpu = self.ratio(subject, Subject::Bare, size, |row| row.cpu_us);
            let (Some(rate), Some(cpu)) = (rate, cpu) else { continue };
            let (rate, cpu) = (rate * BARE_THEN.0 / VECTOR.0, cpu * BARE_THEN.1 / VECTOR.1);
            bar(
                rate >= 3.0 && cpu <= 1.0 / 3.0,
                &format!(
                    "{}: {rate:.1} times Vector's disk buffer at {:.0} % of its CPU, by the bare handler (measured on a quieter day than Vector)",
                    subject.title(),
                    cpu * 100.0
                ),
            );
        }
    }

    fn print_open_loop(&self, subject: Subject, size: usize) {
        let of = |row: &&Row| {
            row.subject == subject && row.body_bytes == size && row.rate.is_some_and(|rate| rate.of == subject)
        };
        let Some(rate) = self.rows.iter().find(of).and_then(|row| row.rate) else { return };
        let (ours, bare) = (self.of(subject, size, Some(rate)), self.of(Subject::Bare, size, Some(rate)));
        for (which, name) in ["median", "p99"].into_iter().enumerate() {
            let mut words = Vec::new();
            let mut over = Vec::new();
            for row in &ours {
                let Some(bare) = bare.iter().find(|bare| bare.round == row.round) else { continue };
                let limit = bare.percentiles[1] + 3.0 * row.syncs.map_or(f64::NAN, |syncs| syncs[which]);
                words.push(format!("{:.1} of {limit:.1}", row.percentiles[1]));
                over.push(row.percentiles[1] - limit);
            }
            bar(
                spread(over).median <= 0.0,
                &format!(
                    "{} at 30 %: p99 at most the bare handler's and 3 {name} syncs beside it, in ms: {}",
                    subject.title(),
                    words.join(", ")
                ),
            );
        }
    }
}

fn bar(holds: bool, words: &str) {
    println!("  {} {words}", if holds { "holds         " } else { "does NOT hold " });
}

struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn whole(&self) -> String {
        format!("{:.0}/{:.0}/{:.0}", self.min, self.median, self.max)
    }

    fn tenths(&self) -> String {
        format!("{:.1}/{:.1}/{:.1}", self.min, self.median, self.max)
    }
}

fn spread(mut figures: Vec<f64>) -> Spread {
    figures.sort_by(f64::total_cmp);
    let at = |part: usize| figures.get(part).copied().unwrap_or(f64::NAN);
    let last = figures.len().saturating_sub(1);
    Spread { min: at(0), median: f64::midpoint(at(last / 2), at(last.div_ceil(2))), max: at(last) }
}

fn milliseconds(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.2}") } else { format!("{ms:.0}") }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Vector 0.58 to TCP with its disk buffer and acknowledgements: acknowledged a second, CPU us an event (medians of that table).
const VECTOR: (f64, f64) = (5_658.0, 316.0);
/// In the same rounds as [`VECTOR`]: actix-web, HMAC, a tree of JSON and one sync for many.
const PEERS_CEILING: (f64, f64) = (15_645.0, 95.0);
/// The bare handler, as it was measured on the same machine at another time.
const BARE_THEN: (f64, f64) = (84_900.0, 12.9);
