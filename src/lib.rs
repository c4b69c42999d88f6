//! Verdict Relay.

pub mod adapter;
pub mod delivery;
pub mod event;
pub mod ranking;
pub mod route;
pub mod secret;
pub mod setting;
pub mod sink;
pub mod verify;
