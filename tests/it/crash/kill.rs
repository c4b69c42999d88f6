//! The process is killed, stopped, or started twice.

use std::sync::Arc;
use std::time::Duration;

use crate::service::{Book, Load, Site};

/// Longest time from the start of the process to the first good answer of `/readyz`.
const READY_WITHIN: Duration = Duration::from_secs(2);

/// How often the process is killed: `VERDICT_RELAY_KILLS=1000` for the long run.
fn kills() -> usize {
    std::env::var("VERDICT_RELAY_KILLS").map_or(50, |number| number.parse().expect("VERDICT_RELAY_KILLS is a number"))
}

#[test]
fn what_was_acknowledged_survives_kills_at_any_moment() {
    let (site, book) = (Site::new(), Arc::new(Book::default()));
    let mut service = site.start();
    let load = Load::start(service.receiver, 16, &book);
    let mut slowest = Duration::ZERO;
    for _ in 0..kills() {
        std::thread::sleep(Duration::from_millis(fastrand::u64(5..500)));
        service.kill();
        service = site.start();
        load.moved_to(&service);
        slowest = slowest.max(service.ready_after);
        assert!(service.ready_after < READY_WITHIN, "ready only after {:?}", service.ready_after);
    }
    load.stop();
    let arrived = book.settle(&site, &service);
    println!(
        "{} kills: {} acknowledged, {} arrived, {} of them again, {} torn lines, ready within {slowest:?}",
        kills(),
        book.acknowledged(),
        arrived.ids().len(),
        arrived.repeated(),
        arrived.torn
    );
    assert!(book.acknowledged() > 5 * kills(), "the load was no load");
}
