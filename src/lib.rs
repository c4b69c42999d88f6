//! Verdict Relay.

pub mod adapter;
pub mod backoff;
pub mod delivery;
pub mod event;
pub mod receive;
pub mod secret;
pub mod setting;
pub mod sink;
pub mod store;
pub mod telemetry;
pub mod verify;
