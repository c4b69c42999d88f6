//! Verdict Relay.

pub mod adapter;
pub mod delivery;
pub mod event;
pub mod secret;
pub mod setting;
pub mod sink;
pub mod tls;
pub mod verify;
