//! The disk: its power is cut, it is full, it refuses to sync. And what the program asks of it before it answers.
//!
//! All of these need root (a disk in a file, strace).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::service::{Book, Load, Message, PATIENCE, Sender, Service, Site, get, run, wait_until};

/// A disk in a file, mounted. Unmounted when it is dropped.
struct Disk {
    image: PathBuf,
    mounted: PathBuf,
    /// Of the image; goes after it is unmounted.
    folder: Option<tempfile::TempDir>,
}

impl Disk {
    fn new(bytes: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let image = folder.path().join("image");
        File::create(&image).and_then(|file| file.set_len(bytes)).expect("made");
        run("mkfs.ext4", &["-q", "-F", "-m", "0", text(&image)]);
        let mut disk = Self::mount(image);
        disk.folder = Some(folder);
        disk
    }

    fn mount(image: PathBuf) -> Self {
        let mounted = image.with_extension("mounted");
        fs::create_dir(&mounted).expect("made");
        run("mount", &["-o", "loop", text(&image), text(&mounted)]);
        Self { image, mounted, folder: None }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let umount = || Command::new("umount").arg(&self.mounted).status().is_ok_and(|status| status.success());
        // Whoever still looks at it (a process that was just killed) is gone in a moment.
        for _ in 0..50 {
            if umount() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// How often the power is cut: `VERDICT_RELAY_CUTS=200` for the long run.
fn cuts() -> usize {
    std::env::var("VERDICT_RELAY_CUTS").map_or(10, |number| number.parse().expect("VERDICT_RELAY_CUTS is a number"))
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let disk = Disk::new(1 << 30);
    let (mut site, book) = (Site::with_store(&disk.mounted.join("data")), Arc::new(Book::default()));
    site.sink = disk.mounted.join("verdicts.ndjson");
    site.store_keys = "size_max = \"40MiB\"".to_owned();
    let service = site.start();
    let load = Load::start(service.receiver, 8, &book);
    let copies = tempfile::tempdir().expect("a folder");
    let (mut kept, mut repeated) = (0, 0);
    for cut in 0..cuts() {
        std::thread::sleep(Duration::from_millis(fastrand::u64(50..200)));
        // What is acknowledged now was synced before; a frozen service writes nothing while the disk is copied.
        let acknowledged = book.snapshot();
        service.signal(Signal::STOP);
        let image = copies.path().join(format!("image-{cut}"));
        run("cp", &["--sparse=always", text(&disk.image), text(&image)]);
        let copy = Disk::mount(image.clone());
        let mut later = Site::with_store(&copy.mounted.join("data"));
        later.sink = copy.mounted.join("verdicts.ndjson");
        later.store_keys.clone_from(&site.store_keys);
        let second = later.start();
        wait_until("all is delivered from the copy", PATIENCE, || {
            second.counts("local").pending == 0 && later.arrived().events.len() >= acknowledged.len()
        });
        let arrived = later.arrived();
        let ids = arrived.ids();
        let lost: Vec<_> = acknowledged.iter().filter(|id| !ids.contains(id.as_str())).collect();
        assert!(lost.is_empty(), "cut {cut}: {} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
        second.counts("local").assert_they_add_up();
        kept = acknowledged.len();
        repeated += arrived.repeated();
        second.kill();
        drop(copy);
        fs::remove_file(image).expect("removed");
        // Only now, so that it does not fill its disk while the copy is looked at.
        service.signal(Signal::CONT);
    }
    load.stop();
    book.settle(&site, &service);
    println!("{} power cuts: all of up to {kept} acknowledged kept, {repeated} arrived twice", cuts());
    drop(service);
}

#[test]
fn a_disk_that_fills_up_refuses_senders_and_takes_them_again_when_there_is_space() {
    println!("{}", full_disk(|mut file| while file.write_all(&[7; 8 << 10]).is_ok() {}));
}

#[test]
fn a_disk_that_is_full_at_once_refuses_senders_and_takes_them_again_when_there_is_space() {
    let told = full_disk(|file| {
        // Down to the last block, by ever smaller pieces.
        let (mut at, mut piece) = (0, 64 << 20);
        while piece >= 1024 {
            match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), at, piece) {
                Ok(()) => at += piece,
                Err(_) => piece /= 2,
            }
        }
    });
    println!("{told}");
}

/// Something else fills the disk of the store while senders go on.
fn full_disk(fill: impl Fn(&File)) -> String {
    let disk = Disk::new(64 << 20);
    let (mut site, book) = (Site::with_store(&disk.mounted.join("data")), Arc::new(Book::default()));
    "size_max = \"10GiB\"".clone_into(&mut site.store_keys);
    let service = site.start();
    book.post_all(&service, 90, 0..20);
    let load = Load::start(service.receiver, 8, &book);
    let foreign = disk.mounted.join("foreign");
    let file = File::create(&foreign).expect("made");
    fill(&file);
    wait_until("senders are refused", PATIENCE, || book.unavailable() > 20);
    wait_until("the service says so", Duration::from_secs(2), || {
        get(service.receiver, "/readyz").expect("an answer").status == 503
    });
    // The sink is on another disk and drains.
    let acknowledged = book.snapshot();
    wait_until("the sink has all of it", PATIENCE, || {
        let arrived = site.arrived();
        let ids = arrived.ids();
        acknowledged.iter().all(|id| ids.contains(id.as_str()))
    });
    wait_until("the cursor has moved", PATIENCE, || service.counts("local").pending == 0);
    // A while in this state: nothing gives up, nothing is taken.
    std::thread::sleep(Duration::from_secs(3));
    drop(file);
    fs::remove_file(&foreign).expect("removed");
    let before = book.acknowledged();
    let freed = Instant::now();
    wait_until("senders are taken again", Duration::from_secs(5), || book.acknowledged() > before + 100);
    let told = format!("full disk: {} refused, taken again after {:?}", book.unavailable(), freed.elapsed());
    load.stop();
    book.settle(&site, &service);
    let (status, _) = service.stop();
    assert!(status.success());
    told
}

#[test]
fn a_service_starts_on_a_full_disk_and_drains() {
    let disk = Disk::new(64 << 20);
    let (mut site, book) = (Site::with_store(&disk.mounted.join("data")), Arc::new(Book::default()));
    let folder = site.folder.path().join("later");
    site.sink = folder.join("verdicts.ndjson");
    let service = site.start();
    book.post_all(&service, 0, 0..200);
    wait_until("all is normalized", PATIENCE, || service.counts("local").entered == 200);
    service.kill();
    let mut file = File::create(disk.mounted.join("foreign")).expect("made");
    while file.write_all(&[7; 4 << 10]).is_ok() {}
    fs::create_dir(&folder).expect("made");
    // It is alive and delivers; it is ready only when there is space.
    let service = site.start_without_waiting();
    assert_eq!(get(service.receiver, "/readyz").expect("an answer").status, 503);
    wait_until("all is delivered", PATIENCE, || site.arrived().ids().len() == 200);
    let mut sender = Sender::connect(service.receiver).expect("connects");
    assert_eq!(book.offer(&mut sender, &Message::new(1, 0)).status, 503);
    drop(file);
    fs::remove_file(disk.mounted.join("foreign")).expect("removed");
    wait_until("it is ready", Duration::from_secs(5), || {
        get(service.receiver, "/readyz").is_ok_and(|answer| answer.status == 200)
    });
    book.post_all(&service, 2, 0..10);
    book.settle(&site, &service);
}

/// strace, attached to a running service; detached when it is dropped.
struct Strace {
    child: Child,
}

impl Strace {
    fn attach(service: &Service, arguments: &[&str]) -> Self {
        let mut child = Command::new("strace")
            .args(["-f", "-p", &service.pid().to_string()])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run strace: {error}; install it"));
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let first = lines.next().unwrap_or_default();
        assert!(first.contains("attached"), "strace: {first}; this test needs root, because it makes disk errors");
        // Its words would block it once the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child }
    }

    fn detach(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("not zero");
        kill_process(pid, Signal::INT).expect("it runs");
        self.child.wait().expect("a child of ours");
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _ended_before = self.child.wait();
    }
}

#[test]
fn a_sync_that_fails_once_costs_no_acknowledged_message_and_the_service_goes_on() {
    let (site, book) = (Site::new(), Arc::new(Book::default()));
    let service = site.start();
    book.post_all(&service, 90, 0..5);
    let segment = site.segments().pop().expect("one");
    let strace = Strace::attach(&service, &["-P", text(&segment), "-e", "inject=fdatasync:error=EIO:when=3"]);
    let load = Load::start(service.receiver, 8, &book);
    wait_until("the segment is left behind", PATIENCE, || site.segments().len() > 1);
    let then = book.acknowledged();
    wait_until("the service goes on", PATIENCE, || book.acknowledged() > then + 100);
    strace.detach();
    load.stop();
    book.settle(&site, &service);
    assert!(service.log().contains("going on in a new segment"), "{}", service.log());
    // And over a restart, which reads the segment that failed.
    service.kill();
    let service = site.start();
    book.settle(&site, &service);
}

#[test]
fn a_disk_that_refuses_every_sync_ends_the_service_and_loses_nothing() {
    let (site, book) = (Site::new(), Arc::new(Book::default()));
    let mut service = site.start();
    let load = Load::start(service.receiver, 8, &book);
    wait_until("messages are acknowledged", PATIENCE, || book.acknowledged() > 100);
    let strace =
        Strace::attach(&service, &["-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO:when=5+"]);
    let began = Instant::now();
    let status = service.ended_within(Duration::from_secs(10));
    println!("every sync fails: ended with {status} after {:?}", began.elapsed());
    assert_eq!(status.code(), Some(1));
    drop(strace);
    let service = site.start();
    load.moved_to(&service);
    let then = book.acknowledged();
    wait_until("the service goes on", PATIENCE, || book.acknowledged() > then + 100);
    load.stop();
    book.settle(&site, &service);
}

#[test]
fn every_answer_leaves_after_the_sync_of_its_record_and_one_sync_serves_many() {
    let (site, book) = (Site::new(), Arc::new(Book::default()));
    let service = site.start();
    book.post_all(&service, 90, 0..5);
    let trace = site.folder.path().join("trace");
    let filter = "trace=pwrite64,fdatasync,write,writev,sendto,sendmsg";
    let strace = Strace::attach(&service, &["-y", "-s", "200000", "-o", text(&trace), "-e", filter]);
    let load = Load::start(service.receiver, 32, &book);
    wait_until("messages are acknowledged", PATIENCE, || book.acknowledged() > 600);
    load.stop();
    strace.detach();
    let order = Order::read(&trace);
    let mut shown = 0;
    for (message, delivery) in book.deliveries() {
        // The first ones were sent before strace looked.
        let Some(answered) = order.answered.get(&delivery) else { continue };
        let written = order.written.iter().find(|(_, data)| data.contains(&message)).map(|(line, _)| *line);
        let written = written.unwrap_or_else(|| panic!("{message} was answered and not written"));
        let synced = order.syncs.iter().find(|(begun, _)| *begun > written).map(|(_, ended)| *ended);
        assert!(
            synced.is_some_and(|synced| synced < *answered),
            "{message}: written {written}, synced {synced:?}, answered {answered}"
        );
        shown += 1;
    }
    println!("{shown} answers, each after its sync; {} syncs of the journal", order.syncs.len());
    assert!(shown > 500, "{shown} answers were seen");
    // How many depends on how busy the machine is; with a sync for each it could not be fewer by a quarter.
    assert!(order.syncs.len() * 4 < shown * 3, "{} syncs for {shown} requests", order.syncs.len());
}

/// What strace saw, by line.
#[derive(Default)]
struct Order {
    /// Writes to segments: where they began, and what.
    written: Vec<(usize, String)>,
    /// Syncs of segments: where they began and ended.
    syncs: Vec<(usize, usize)>,
    /// Where each delivery was answered.
    answered: HashMap<String, usize>,
}

impl Order {
    fn read(trace: &Path) -> Self {
        let mut order = Self::default();
        let mut begun: HashMap<String, usize> = HashMap::new();
        let lines = BufReader::new(File::open(trace).expect("written")).split(b'\n');
        for (at, line) in lines.enumerate() {
            let line = String::from_utf8_lossy(&line.expect("readable")).into_owned();
            let (thread, call) = line.split_once(' ').unwrap_or_default();
            let call = call.trim_start();
            if call.starts_with("pwrite64(") && call.contains(".seg>") {
                order.written.push((at, call.to_owned()));
            } else if call.starts_with("fdatasync(") && call.contains(".seg>") {
                if call.ends_with("= 0") {
                    order.syncs.push((at, at));
                } else {
                    begun.insert(thread.to_owned(), at);
                }
            } else if call.starts_with("<... fdatasync resumed>") && call.ends_with("= 0") {
                order.syncs.extend(begun.remove(thread).map(|begun| (begun, at)));
            } else if call.contains("HTTP/1.1 202") {
                let id = call.split("{\\\"id\\\":\\\"").nth(1).and_then(|rest| rest.split("\\\"").next());
                order.answered.extend(id.map(|id| (id.to_owned(), at)));
            }
        }
        order
    }
}
