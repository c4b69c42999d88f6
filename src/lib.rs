//! Verdict Relay.

pub mod adapter;
pub mod backoff;
pub mod deliver;
pub mod delivery;
pub mod event;
pub mod format;
pub mod normalize;
pub mod ranking;
pub mod route;
pub mod secret;
pub mod setting;
pub mod sink;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod verify;
