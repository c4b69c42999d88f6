//! Analysis platforms on loopback: what each answers is a function of the path, and what it was asked is kept.
//!
//! Not here: VirusTotal, whose own client has to accept the fake (`tests/peers/virustotal`).

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::service::lock;

/// What a platform answers to a path with its query: a status and a body; nothing where it never answers.
type Answers = dyn Fn(&str) -> Option<(u16, String)> + Send + Sync;

/// A platform that runs until the test ends.
pub struct Platform {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Platform {
    /// Starts one. It takes requests with this header line only.
    pub fn start(key: &str, answers: impl Fn(&str) -> Option<(u16, String)> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answers, kept): (Arc<Answers>, _) = (Arc::new(answers), asked.clone());
        let key = key.to_ascii_lowercase();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answers, kept, key) = (answers.clone(), kept.clone(), key.clone());
                std::thread::spawn(move || answer(&stream, &key, &*answers, &kept));
            }
        });
        Self { address, asked }
    }

    /// `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The paths that it was asked for so far.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.asked).clone()
    }
}

fn answer(stream: &TcpStream, key: &str, answers: &Answers, asked: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(path) = lines.next().and_then(|line| line.split(' ').nth(1).map(str::to_owned)) else { return };
    let has_key = lines.take_while(|line| !line.is_empty()).any(|line| line.to_ascii_lowercase() == key);
    lock(asked).push(path.clone());
    let told = if has_key { answers(&path) } else { Some((401, r#"{"detail": "Invalid token."}"#.to_owned())) };
    let Some((status, body)) = told else {
        // It took the question and says nothing.
        std::thread::sleep(Duration::from_mins(10));
        return;
    };
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let mut stream = stream;
    // Whoever asked may be killed meanwhile.
    drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())));
}
