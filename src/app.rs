//! The composition root: from a plan to live parts, and back. The only place that names every part.
//!
//! `App::build` opens and binds, `App::run` runs until it is told to stop or a part fails, then drains: no new requests, half-sent
//! ones are refused, batches in flight are settled, the store is closed.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::adapter::Adapter;
use crate::api::{self, Api, ApiPlan};
use crate::config::{Plan, SourcePlan};
use crate::deliver::{Condition, Deliverer, Parts, State};
use crate::event::{Name, SourceId};
use crate::format::Style;
use crate::normalize::{Jobs, Normalizer, Reading};
use crate::ops::{Ops, PollHandle, Redrives, Submissions};
use crate::poll::{self, PollPlan, PollState, Poller, Submitter};
use crate::receive::{self, Receiver, ReceiverPlan, ServerTls, Source};
use crate::sandbox::Sandbox;
use crate::secret::{KeyRing, SecretRef};
use crate::sink::{SinkPlan, Start};
use crate::store::folder::Folder;
use crate::store::journal::{DiskJournal, Options};
use crate::store::keeper::Keeper;
use crate::store::ledger::Ledger;
use crate::telemetry::Metrics;
use crate::trust::Trust;
use crate::verify::Scheme;

/// Which loops this process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Take messages in.
    pub receive: bool,
    /// Turn them into events.
    pub normalize: bool,
    /// Deliver events to sinks.
    pub deliver: bool,
}

impl Default for Roles {
    fn default() -> Self {
        Self { receive: true, normalize: true, deliver: true }
    }
}

/// The service, built and bound, not yet running.
pub struct App {
    ops: Arc<Ops>,
    receiver: Option<Arc<Receiver>>,
    receiver_server: Option<actix_server::Server>,
    receiver_address: Option<SocketAddr>,
    api_server: actix_web::dev::Server,
    api_address: SocketAddr,
    loops: JoinSet<anyhow::Result<&'static str>>,
    /// What has nothing to finish: it ends with the process.
    _background: JoinSet<()>,
    stop: watch::Sender<bool>,
    failed: watch::Receiver<bool>,
}

impl App {
    /// Opens the store, binds the listeners and starts the loops. Nothing is received before [`App::run`].
    pub async fn build(plan: Plan, roles: Roles) -> anyhow::Result<Self> {
        let Plan { receiver, api, store, sources, sinks, .. } = plan;
        let folder = Folder::open(&store.path)?;
        let ledger = Arc::new(Ledger::open(&store.path)?);
        let journal = Arc::new(open_journal(&store.path, store.segment_size.0, &ledger)?);
        let metrics = Arc::new(Metrics::default());
        let (stop, stopped) = watch::channel(false);
        let (ready, ready_seen) = watch::channel(!begins_full(&folder, &journal)?);
        let (mut loops, mut background) = (JoinSet::new(), JoinSet::new());
        let mut secrets = Vec::new();

        let sources = Sources::open(sources, &metrics, &mut secrets, &mut background).await;
        let sink_names: Vec<Name> = sinks.iter().map(|(name, _)| name.clone()).collect();
        let mut states = BTreeMap::new();
        for (name, sink) in sinks {
            let keys = open_keys(sink.secrets(), true, &mut secrets, &mut background).await;
            let (state, state_seen) = watch::channel(State { word: "ok", reason: String::new() });
            states.insert(name.clone(), state_seen);
            let deliverer = deliverer(name, sink, keys, ledger.clone(), metrics.clone(), state)?;
            if roles.deliver {
                let stopped = stopped.clone();
                loops.spawn(async move { deliverer.run(stopped).await.context("deliver").map(|()| "deliver") });
            }
        }
        // After the sinks have their cursors: a new one that begins "now" gets what a crash left to normalize.
        let mut polls = BTreeMap::new();
        if roles.normalize {
            for asked in sources.asked {
                let source = asked.id.clone();
                polls.insert(source, asked.start(&journal, &ledger, &metrics, &stopped, &mut loops)?);
            }
            start_normalize(&journal, &ledger, sources.readings, &metrics, &stopped, &mut loops)?;
        }
        let keeper = Keeper {
            folder,
            journal: journal.clone(),
            ledger: ledger.clone(),
            sinks: sink_names,
            bytes_max: store.size_max.0,
            retention: store.retention.0,
            dedup: store.dedup.0,
            verdicts: store.verdicts.0,
            dead_letters: store.dead_letters.age.0,
            dead_letters_bytes: store.dead_letters.size.0,
            ready,
        };
        loops.spawn(async move { keeper.run(stopped).await.context("the keeper of the store").map(|()| "keeper") });

        let tls = receiver.tls.clone().filter(|_| roles.receive).map(ServerTls::open).transpose()?.map(Arc::new);
        if let Some(tls) = &tls {
            background.spawn(tls.clone().run());
        }
        let submissions = Submissions::new(store.path.clone(), sources.submitters);
        let failed = journal.failed();
        let ops = Arc::new(Ops {
            journal: journal.clone(),
            ledger,
            sinks: states,
            sources: sources.kinds,
            polls,
            secrets,
            metrics: metrics.clone(),
            redrives: Redrives::default(),
            ready: ready_seen.clone(),
            certificate: tls.clone(),
        });
        let (api_server, api_address) = bind_api(api, ops.clone(), submissions, &store.path, &mut background).await?;
        let mut app = Self {
            ops,
            receiver: None,
            receiver_server: None,
            receiver_address: None,
            api_server,
            api_address,
            loops,
            _background: background,
            stop,
            failed,
        };
        if roles.receive {
            let live = Arc::new(Receiver::new(&receiver, sources.live, journal, metrics, ready_seen));
            app.bind_receiver(&receiver, live, tls)?;
        }
        Ok(app)
    }

    /// Where senders reach the receiver; none if this process does not receive.
    pub const fn receiver_address(&self) -> Option<SocketAddr> {
        self.receiver_address
    }

    /// Where operators reach the API.
    pub const fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// What an operator may ask of the running parts.
    pub fn ops(&self) -> Arc<Ops> {
        self.ops.clone()
    }

    /// Runs until `shutdown` is done or a part fails, then drains.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let api = self.api_server.handle();
        let server = self.receiver_server.as_ref().map(actix_server::Server::handle);
        let listener = self.api_server;
        self.loops.spawn(async move { listener.await.context("the API's listener").map(|()| "the API's listener") });
        if let Some(listener) = self.receiver_server.take() {
            let name = "the receiver's listener";
            self.loops.spawn(async move { listener.await.context(name).map(|()| name) });
        }

        let result = tokio::select! {
            () = shutdown => Ok(()),
            Some(ended) = self.loops.join_next() => Err(ended_early(ended)),
            _ = self.failed.wait_for(|failed| *failed) => {
                Err(anyhow::anyhow!("the disk refuses the journal; the service ends so that the next start recovers from what is on disk"))
            }
        };
        tracing::info!("stopping: senders are sent away, batches in flight are settled");
        if let Some(receiver) = &self.receiver {
            receiver.drain();
        }
        if let Some(server) = server {
            server.stop(true).await;
        }
        api.stop(true).await;
        self.stop.send_replace(true);
        let mut drained = result;
        let deadline = tokio::time::Instant::now() + DRAIN_MAX;
        while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, self.loops.join_next()).await {
            if let Ok(Err(error)) = ended
                && drained.is_ok()
            {
                drained = Err(error);
            }
        }
        // Once more, now that no cursor moves: with a ledger that is lost after this, no sink gets anything twice.
        if let Err(error) = self.ops.ledger.save_mirror() {
            tracing::warn!(%error, "the cursors could not be mirrored on the way out");
        }
        drained
    }

    fn bind_receiver(
        &mut self,
        plan: &ReceiverPlan,
        live: Arc<Receiver>,
        tls: Option<Arc<ServerTls>>,
    ) -> anyhow::Result<()> {
        let socket = bind(plan.listen, "receiver.listen")?;
        self.receiver_address = Some(socket.local_addr()?);
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        self.receiver_server = Some(receive::listen(&live, socket, tls, workers)?);
        self.receiver = Some(live);
        Ok(())
    }
}

/// The sources of the config, each for whom it concerns.
#[derive(Default)]
struct Sources {
    /// For the receiver.
    live: Vec<Source>,
    /// For normalize.
    readings: HashMap<SourceId, Reading>,
    /// For operators: the platform, and how it is proven in a word.
    kinds: BTreeMap<SourceId, (String, &'static str)>,
    /// Those whose platform is asked.
    asked: Vec<AskedSource>,
    /// Those that may be sent files.
    submitters: BTreeMap<SourceId, Submitter>,
}

/// A source whose platform is asked.
struct AskedSource {
    id: SourceId,
    plan: PollPlan,
    keys: KeyRing,
    adapter: Arc<dyn Adapter>,
}

impl Sources {
    async fn open(
        plans: Vec<SourcePlan>,
        metrics: &Metrics,
        secrets: &mut Vec<KeyRing>,
        background: &mut JoinSet<()>,
    ) -> Self {
        let mut sources = Self::default();
        for plan in plans {
            let keys = open_keys(plan.secrets.clone(), plan.allow_short_secret, secrets, background).await;
            // To the receiver a source whose results are only fetched is none.
            if !matches!(plan.scheme, Scheme::Closed) {
                sources.live.push(live_source(&plan, keys, metrics));
            }
            sources.kinds.insert(plan.id.clone(), plan.kind());
            let SourcePlan { id, adapter, poll, .. } = plan;
            let (asks, remembers) = (poll.is_some(), poll.as_ref().is_some_and(PollPlan::remembers));
            sources.readings.insert(id.clone(), Reading { adapter: adapter.clone(), asks, remembers });
            if let Some(plan) = poll {
                let keys = open_keys(plan.secrets(), true, secrets, background).await;
                sources.submitters.extend(Submitter::new(&plan, keys.clone()).map(|submitter| (id.clone(), submitter)));
                sources.asked.push(AskedSource { id, plan, keys, adapter });
            }
        }
        sources
    }
}

impl AskedSource {
    /// Starts the loop that asks.
    fn start(
        self,
        journal: &Arc<DiskJournal>,
        ledger: &Arc<Ledger>,
        metrics: &Arc<Metrics>,
        stopped: &watch::Receiver<bool>,
        loops: &mut JoinSet<anyhow::Result<&'static str>>,
    ) -> anyhow::Result<PollHandle> {
        let Self { id: source, plan, keys, adapter } = self;
        let (state, seen) = watch::channel(PollState::default());
        let handle = PollHandle { state: seen, asks_by_hash: plan.can_ask_by_hash() };
        let (journal, ledger, metrics) = (journal.clone(), ledger.clone(), metrics.clone());
        let parts = poll::Parts { source, plan, keys, adapter, journal, ledger, metrics, state };
        let (poller, stopped) = (Poller::new(parts, Timestamp::now())?, stopped.clone());
        loops.spawn(async move { poller.run(stopped).await.context("poll").map(|()| "poll") });
        Ok(handle)
    }
}

/// Longest wait for the loops to end: a sink has five seconds to flush.
const DRAIN_MAX: std::time::Duration = std::time::Duration::from_secs(8);

/// When the receiver's certificate expires, if it has one; reads its files as the service would, for `check --online`.
pub fn certificate_expiry(receiver: &ReceiverPlan) -> anyhow::Result<Option<Timestamp>> {
    let tls = receiver.tls.clone().map(ServerTls::open).transpose()?;
    Ok(tls.map(|tls| tls.expires_at()))
}

/// What a platform says to each of our keys, for `check --online`.
pub async fn probe_keys(plan: &PollPlan, keys: &KeyRing) -> Vec<(SecretRef, Result<String, String>)> {
    poll::probe(plan, keys, Timestamp::now()).await
}

fn ended_early(ended: Result<anyhow::Result<&'static str>, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(name)) => anyhow::anyhow!("{name} ended by itself"),
        Ok(Err(error)) => error,
        Err(error) => anyhow::Error::new(error).context("a loop panicked"),
    }
}

fn open_journal(store: &Path, segment_bytes: u64, ledger: &Ledger) -> anyhow::Result<DiskJournal> {
    let options = Options { folder: store.join("journal"), segment_bytes, sequence_floor: ledger.sequence_floor() };
    DiskJournal::open(&options).with_context(|| format!("cannot open the journal in {}", options.folder.display()))
}

/// Whether senders have to wait from the first moment: the disk is full.
fn begins_full(folder: &Folder, journal: &DiskJournal) -> anyhow::Result<bool> {
    let full = folder.lacking().context("cannot look at the space of the store")? > 0;
    if full {
        tracing::error!("the disk of the store is full, senders are answered 503");
        journal.set_full(true);
    }
    Ok(full)
}

/// Reads the secrets and keeps them fresh.
async fn open_keys(
    references: Vec<SecretRef>,
    allow_short: bool,
    rings: &mut Vec<KeyRing>,
    background: &mut JoinSet<()>,
) -> KeyRing {
    let fixed = references.is_empty();
    let ring = KeyRing::open(references, allow_short, Timestamp::now()).await;
    if !fixed {
        rings.push(ring.clone());
        background.spawn(ring.clone().run());
    }
    ring
}

/// A source as the receiver needs it.
fn live_source(source: &SourcePlan, keys: KeyRing, metrics: &Metrics) -> Source {
    let trust = source.trust.as_ref().map(|plan| Trust::new(&source.id, plan));
    let kept = source.adapter.headers();
    Source::new(source.id.clone(), source.scheme.clone(), keys, kept, source.rate_limit, metrics)
        .trusting(trust)
        .allowing(source.codings.clone())
}

/// Starts the loop that reads messages, and the one that does what an operator asked for.
fn start_normalize(
    journal: &Arc<DiskJournal>,
    ledger: &Arc<Ledger>,
    sources: HashMap<SourceId, Reading>,
    metrics: &Arc<Metrics>,
    stopped: &watch::Receiver<bool>,
    loops: &mut JoinSet<anyhow::Result<&'static str>>,
) -> anyhow::Result<()> {
    let jobs = Jobs::new(journal.clone(), ledger.clone(), sources.clone(), Style::new(&hostname()))?;
    let stopping = stopped.clone();
    loops.spawn(async move { jobs.run(stopping).await.context("jobs").map(|()| "jobs") });
    let normalizer = Normalizer {
        reader: journal.reader(ledger.head().borrow().sequence),
        durable: journal.durable(),
        ledger: ledger.clone(),
        sources,
        metrics: metrics.clone(),
        waiting: Vec::new(),
    };
    let stopping = stopped.clone();
    loops.spawn(async move { normalizer.run(stopping).await.context("normalize").map(|()| "normalize") });
    Ok(())
}

fn deliverer(
    name: Name,
    sink: SinkPlan,
    keys: KeyRing,
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    state: watch::Sender<State>,
) -> anyhow::Result<Deliverer> {
    let from_now = sink.start == Start::Now;
    let condition = sink.route.condition().map(|script| Condition {
        sink: name.clone(),
        evaluate: Arc::new(Sandbox::new(script.clone())),
        style: Style::new(&hostname()),
        metrics,
        failing: AtomicBool::new(false),
    });
    let parts = Parts {
        render: sink.render(Style::new(&hostname())),
        route: sink.route.clone(),
        condition,
        batch: sink.batch,
        sink: sink.build(&name, keys),
        name,
        ledger,
        state,
    };
    Ok(Deliverer::new(parts, from_now)?)
}

/// This machine's name, for receivers that want one and sinks whose config names none.
fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

async fn bind_api(
    plan: ApiPlan,
    ops: Arc<Ops>,
    submissions: Submissions,
    store: &Path,
    background: &mut JoinSet<()>,
) -> anyhow::Result<(actix_web::dev::Server, SocketAddr)> {
    let socket = bind(plan.listen, "api.listen")?;
    let address = socket.local_addr()?;
    let mut keys = Vec::new();
    for token in &plan.tokens {
        keys.push(open_keys(vec![token.secret.clone()], false, &mut Vec::new(), background).await);
    }
    let own_token =
        write_own_token(&api::token_file(store)).context("cannot write the API token of the command line")?;
    let api = Api { ops, submissions, plan: ApiPlan { listen: address, ..plan }, keys, own_token };
    Ok((api::listen(Arc::new(api), socket)?, address))
}

/// Makes a new token for the command line of this user; its SHA-256.
fn write_own_token(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut random = [0; 32];
    std::io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut random)?;
    let token = format!("vr_{}", hex::encode(random));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(token.as_bytes())?;
    Ok(Sha256::digest(&token).into())
}

fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address}: is another process there? Set {key}"))
}
