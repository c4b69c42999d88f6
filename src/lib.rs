//! # The way of one event
//!
//! 1. [`receive`]: a sender's message comes in; its body is read as it was sent, within its limits.
//! 2. [`verify`]: its proof is checked against the source's [`secret`]s, or against public keys that [`trust`] brings. Only this makes a
//!    [`delivery::Delivery`].
//! 3. [`store`]: the journal makes it durable, with one sync for many requests; then the sender gets its 202.
//! 4. [`normalize`]: the source's [`adapter`] reads it into findings; [`ranking`] sets each into its subject's history; the ledger
//!    keeps the [`event`]s, in one transaction a batch.
//! 5. [`deliver`]: one loop a sink reads on from its cursor, takes what its [`route`] wants, has it written in a [`mod@format`], hands it to
//!    the [`sink`], and moves the cursor when the receiver has taken it. What a receiver refuses alone becomes a dead letter.
//!
//! What a message only points to, or what no message told, [`poll`] asks the platform for, and appends at step 3.
//!
//! Around that way: [`config`] and [`setting`] say what there is, [`app`] puts the parts together, [`ops`] and [`api`] answer
//! operators, [`telemetry`] counts, [`cli`] is the command line, [`backoff`] and [`tls`] serve the sinks, [`sandbox`] runs what users wrote in jq,
//! [`upload`] serves whoever sends files.
//!
//! # Invariants
//!
//! - A 2xx means durable: the sync that covers the message returned before the first byte of the answer.
//! - A `Delivery` is proof that its source sent it; an `Event` never changes.
//! - A cursor never passes an event that was neither taken, nor filtered by a named rule, nor dead-lettered after it was refused alone.
//! - The ledger is a function of the journal and the cursors: it may be lost and comes back.
//! - Every queue, body and batch has a stated maximum. Secrets are never in a log, an error, a metric or a `Debug`.
//!
//! # Words
//!
//! *source*: who sends. *sink*: who receives events. *delivery*: one proven message. *finding*: what one analysis says. *event*: a finding
//! with its identity and its place in history. *subject*: what a verdict is about. *position*: where an event stands, by journal
//! sequence. *cursor*: how far a sink has come. *dead letter*: what could not be read or delivered, until an operator decides.

// The domain: pure, without tokio, I/O or a clock.
pub mod adapter;
pub mod backoff;
pub mod delivery;
pub mod event;
pub mod format;
mod json;
pub mod ranking;
pub mod route;
pub mod setting;
pub mod verify;

// The loops, in the order an event meets them.
pub mod deliver;
pub mod normalize;
pub mod poll;
pub mod receive;

// The edges.
pub mod sandbox;
pub mod secret;
pub mod sink;
pub mod store;
pub mod tls;
pub mod trust;
pub mod upload;

// What holds it together.
pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod ops;
pub mod telemetry;
