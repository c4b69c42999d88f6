//! The promise under faults: what was acknowledged is still delivered, whatever becomes of the process, the disk and its bytes.
//!
//! Every test runs the real program. Those that need root make a disk or disk errors of their own, and fail with words without it.

mod damage;
mod disk;
mod kill;
mod sinks;
