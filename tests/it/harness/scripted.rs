//! A vector service that answers with exactly the bytes it is told, over HTTP/1.1.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::PATIENCE;

pub struct Scripted {
    pub at: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// `answer` gets the whole request as text and gives the bytes of the answer, after which the connection is closed.
    pub fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::serve(false, answer)
    }

    /// The same, with connections that stay open. What is read counts as one request.
    pub fn keeping(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::serve(true, answer)
    }

    fn serve(keeps: bool, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), Arc::clone(&seen));
        // Ends with the process: nobody connects to it after the test.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                thread::spawn(move || {
                    while let Some(request) = read(&stream) {
                        log.lock().unwrap().push(request.clone());
                        let written = (&stream).write_all(&answer(&request));
                        if !keeps || written.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { at, seen }
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// The head, and the body where its length is said. `None` where the connection ends before.
fn read(mut stream: &TcpStream) -> Option<String> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text);
            }
        }
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => bytes.extend_from_slice(&buffer[..read]),
            _ => return None,
        }
    }
}
