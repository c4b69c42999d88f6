//! The load harness: what the service takes, at which cost, beside a handler of the same framework that only reads the body.
//!
//! Invariants: a row is a process of its own with a new store; rounds of all subjects are interleaved, and ratios are taken within a
//! round, because the machine is never quiet; deliveries are signed before the clock runs, and each is another one; what was
//! acknowledged is looked for at the sink. The run fails only where something broke or was lost, never for a figure.
//!
//! Not here: the parts by themselves (`benches/micro.rs`), crashes (the tests).

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the table goes to stdout, words to stderr")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]

mod arrivals;
mod bodies;
mod deliveries;
mod disk;
mod generator;
mod handler;
mod kafka;
mod report;
mod subject;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;

use deliveries::Deliveries;
use disk::Disk;
use generator::{Outcome, Pace};
use handler::Handler;
use report::{Rate, Report, Row};
use subject::{Server, Site, Subject};

/// That of the program, so that the handler beside it gains from it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the service under load, beside a bare handler.
#[derive(Parser)]
#[command(after_help = "Example: cargo bench --bench load -- --sizes 4096 --subjects bare,receive,file --rounds 5")]
struct Args {
    /// Seconds that a row is timed, after a warm-up.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How often each row is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of the bodies.
    #[arg(long, value_delimiter = ',', default_values_t = [1024, 4096, 65536])]
    sizes: Vec<usize>,
    /// What to measure; all of it for bodies of 4 KB, where it is not said, and the first ones for others.
    #[arg(long, value_delimiter = ',')]
    subjects: Vec<Subject>,
    /// One short round of 4 KB bodies, to see that everything works.
    #[arg(long)]
    quick: bool,
    /// Where the stores go: the disk that is measured.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    folder: PathBuf,
    /// Brokers for the Kafka row; without, it is left out.
    #[arg(long, env = "KAFKA_BROKERS")]
    kafka: Option<String>,
    /// Said by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Be one of the servers to compare with.
    #[arg(long, hide = true, requires = "listen")]
    handler: Option<Handler>,
    #[arg(long, hide = true)]
    listen: Option<SocketAddr>,
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    if let (Some(handler), Some(listen)) = (args.handler, args.listen) {
        return ended(serve(handler, listen, &args.folder));
    }
    if !args.bench {
        eprintln!("load: run me with `cargo bench --bench load`; as a test there is nothing to do");
        return ExitCode::SUCCESS;
    }
    if args.quick {
        (args.seconds, args.rounds, args.sizes) = (1.0, 1, vec![SIZE_OF_BARS]);
    }
    ended(measure(&args))
}

fn ended(result: anyhow::Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("load: acknowledged events are missing at the sink, see the table");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(handler: Handler, listen: SocketAddr, folder: &Path) -> anyhow::Result<bool> {
    let secret = std::env::var(subject::SECRET_VARIABLE).context("the bench gives the secret")?;
    handler::serve(handler, listen, folder, secret.as_bytes()).map(|()| true)
}

/// Measures everything and prints it; whether nothing was lost.
fn measure(args: &Args) -> anyhow::Result<bool> {
    let key: [u8; 32] = std::array::from_fn(|_| fastrand::u8(..));
    let secret = format!("whsec_{}", STANDARD.encode(key));
    let site = Site { folder: args.folder.clone(), kafka: args.kafka.clone(), secret };
    let disk = Disk::prepare(&args.folder).with_context(|| format!("cannot write to {}", args.folder.display()))?;
    let mut bench = Bench {
        args,
        site,
        key,
        disk,
        report: Report { rows: Vec::new(), syncs: Vec::new(), connections: args.connections },
    };
    for &body_bytes in &args.sizes {
        bench.as_fast_as_answers_come(body_bytes)?;
    }
    Ok(bench.report.print())
}

struct Bench<'a> {
    args: &'a Args,
    site: Site,
    key: [u8; 32],
    disk: Disk,
    report: Report,
}

impl Bench<'_> {
    /// All rows of one size: in closed loop, and those of the Bars then at a part of their maximum.
    fn as_fast_as_answers_come(&mut self, body_bytes: usize) -> anyhow::Result<()> {
        let (warm_up, timed) = (WARM_UP, Duration::from_secs_f64(self.args.seconds));
        let subjects = self.subjects(body_bytes);
        let per_second = PREPARED_A_SECOND.min(PREPARED_BYTES_A_SECOND / body_bytes);
        let count = (warm_up + timed).as_secs_f64() * per_second as f64;
        eprintln!("signing {count:.0} deliveries of {body_bytes} bytes");
        let seconds = jiff::Timestamp::now().as_second();
        let deliveries = Arc::new(Deliveries::prepare(body_bytes, count as usize, &self.key, seconds));
        for round in 1..=self.args.rounds {
            for &subject in &subjects {
                self.row(subject, round, &deliveries, Pace::Closed { warm_up, timed }, None)?;
            }
        }
        if body_bytes == SIZE_OF_BARS { self.at_a_part_of_the_maximum(&deliveries) } else { Ok(()) }
    }

    /// What a sender sees while the service has room: the Bars' 30 %, next to the bare handler at the same rate.
    fn at_a_part_of_the_maximum(&mut self, deliveries: &Arc<Deliveries>) -> anyhow::Result<()> {
        let mut rates = Vec::new();
        for of in [Subject::Receive, Subject::File] {
            // What a sink takes in the long run is the maximum of all roles, where it is less than what is acknowledged.
            let maximum = |row: &Row| row.settled_per_second.unwrap_or(f64::INFINITY).min(row.per_second);
            if let Some(maximum) = self.report.median(of, deliveries.body_bytes, maximum) {
                rates.push(Rate { per_second: (maximum * PART_OF_MAXIMUM).round(), of });
            }
        }
        for round in 1..=self.args.rounds {
            for &rate in &rates {
                let interval = Duration::from_secs_f64(1.0 / rate.per_second);
                let requests = |time: Duration| (rate.per_second * time.as_secs_f64()) as usize;
                let count = requests(Duration::from_secs_f64(self.args.seconds));
                let pace = Pace::Open { interval, warm_up: requests(WARM_UP), count };
                for subject in [Subject::Bare, rate.of] {
                    self.row(subject, round, deliveries, pace, Some(rate))?;
                }
            }
        }
        Ok(())
    }

    /// What is measured with bodies of this size: everything at the size of the Bars, else what tells most.
    fn subjects(&self, body_bytes: usize) -> Vec<Subject> {
        use Subject::{Bare, Ceiling, Console, File, Hec, Kafka, Proof, Receive, Syslog};
        let mut subjects = match (self.args.subjects.as_slice(), body_bytes) {
            ([], SIZE_OF_BARS) => vec![Bare, Proof, Ceiling, Receive, File, Console, Syslog, Hec, Kafka],
            ([], _) => vec![Bare, Receive, File],
            (chosen, _) => chosen.to_vec(),
        };
        subjects.retain(|subject| *subject != Kafka || self.site.kafka.is_some());
        subjects
    }

    /// One process, from its start to its end.
    fn row(
        &mut self,
        subject: Subject,
        round: usize,
        deliveries: &Arc<Deliveries>,
        pace: Pace,
        rate: Option<Rate>,
    ) -> anyhow::Result<()> {
        self.report.syncs.extend(self.disk.times()?);
        let server = Server::start(subject, &self.site)?;
        let (cpu_before, own_before) = (server.cpu()?, subject::cpu_of(std::process::id())?);
        let began = Instant::now();
        let (outcome, syncs) = self.load(&server, subject, deliveries, pace)?;
        let own = subject::cpu_of(std::process::id())?.saturating_sub(own_before);
        let acknowledged = outcome.acknowledged.len();
        let mut settled_per_second = None;
        if subject.delivers() {
            server.wait_until_settled(acknowledged, SETTLE_MAX)?;
            settled_per_second = Some(acknowledged as f64 / began.elapsed().as_secs_f64());
        }
        let cpu = server.cpu()?.saturating_sub(cpu_before);
        let (rss_bytes, rss_peak_bytes) = server.memory()?;
        let words = server.last_words();
        let arrivals = server.finish()?;
        let an_event = |time: Duration| time.as_secs_f64() * 1e6 / acknowledged as f64;
        let row = Row {
            subject,
            round,
            body_bytes: deliveries.body_bytes,
            rate,
            per_second: outcome.per_second(),
            settled_per_second,
            percentiles: [0.5, 0.99, 0.999].map(|part| outcome.percentile(part)),
            cpu_us: an_event(cpu),
            generator_us: an_event(own),
            rss_bytes,
            rss_peak_bytes,
            acknowledged,
            arrived: arrivals.as_ref().map(arrivals::Arrivals::count),
            lost: arrivals.as_ref().map_or(0, |arrivals| arrivals.missing(&outcome.acknowledged)),
            refused: outcome.refused.values().sum::<usize>() + outcome.broken,
            used_up: outcome.used_up,
            syncs,
        };
        let [p50, p99, _] = row.percentiles;
        eprintln!(
            "round {round}, {} bytes, {}: {:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms, {:.1} us an event",
            row.body_bytes,
            subject.title(),
            row.per_second,
            row.cpu_us
        );
        if row.refused > 0 || row.lost > 0 {
            eprintln!(
                "  {} lost, refused by status: {:?}, broken: {}\n{words}",
                row.lost, outcome.refused, outcome.broken
            );
        }
        self.report.rows.push(row);
        Ok(())
    }

    /// Runs the load; at a rate, with times of the disk beside it.
    fn load(
        &self,
        server: &Server,
        subject: Subject,
        deliveries: &Arc<Deliveries>,
        pace: Pace,
    ) -> anyhow::Result<(Outcome, Option<[f64; 2]>)> {
        let run = || generator::run(server.address, self.args.connections, deliveries, pace, subject.is_stateless());
        let ending = AtomicBool::new(false);
        let (outcome, times) = std::thread::scope(|scope| {
            let paced = matches!(pace, Pace::Open { .. });
            let beside = paced.then(|| scope.spawn(|| self.disk.times_until(&ending)));
            let outcome = run();
            ending.store(true, Ordering::Relaxed);
            (outcome, beside.map(std::thread::ScopedJoinHandle::join))
        });
        let outcome = outcome.with_context(|| format!("\"{}\":\n{}", subject.title(), server.last_words()))?;
        let Some(times) = times else { return Ok((outcome, None)) };
        let mut times = times.ok().context("the thread that times the disk broke")??;
        Ok((outcome, Some([0.5, 0.99].map(|part| disk::percentile(&mut times, part)))))
    }
}

/// The size that the Bars speak of.
const SIZE_OF_BARS: usize = 4096;
/// The Bars' open loop.
const PART_OF_MAXIMUM: f64 = 0.3;
/// Long enough for connections, buffers and the first segments of a store.
const WARM_UP: Duration = Duration::from_millis(500);
/// More than a server that keeps something takes; those that keep nothing get them again.
const PREPARED_A_SECOND: usize = 60_000;
/// For large bodies: signing takes a nanosecond a byte.
const PREPARED_BYTES_A_SECOND: usize = 400 << 20;
/// How long a sink may take to settle what was acknowledged.
const SETTLE_MAX: Duration = Duration::from_mins(1);
