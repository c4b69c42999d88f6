//! The integration tests, in one binary: one link instead of many.
//!
//! Tests that talk to a program nobody here wrote are compiled only with the feature `peers`, which `make test` switches on after it
//! has installed them. So `cargo test` runs all that needs no server, `make test` runs everything, and nothing decides at run time to skip.
//!
//! Not here: tests of one module, which stand at its end; the rules of the house (`tests/tidy.rs`).

#![allow(unreachable_pub, reason = "a test binary exports nothing; here `pub` marks what the other test files use")]

mod configs;
mod crash;
#[cfg(feature = "peers")]
mod hostile;
#[cfg(feature = "peers")]
mod isolation;
mod jq;
#[cfg(feature = "peers")]
mod kafka;
#[cfg(feature = "peers")]
mod peers;
#[cfg(feature = "peers")]
mod peers_answer;
mod platform;
mod poll;
mod proofs;
mod readme;
mod replay;
mod service;
#[cfg(feature = "peers")]
mod splunk;
#[cfg(feature = "peers")]
mod submit;
#[cfg(feature = "peers")]
mod syslog_loss;
#[cfg(feature = "peers")]
mod virustotal;
#[cfg(feature = "peers")]
mod way;
mod webhook;
