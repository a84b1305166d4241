//! A link that can be told to misbehave: it stands between a process and its store and passes bytes on, late, in one direction
//! only, or not at all.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What the link does to the connections through it, those that are open and those to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Every piece of bytes comes so much later, in either direction.
    Delay(Duration),
    /// Answers to commands come so much later, and what subscribers are told not at all.
    LateAnswers(Duration),
    /// Requests are kept back; answers to earlier ones pass.
    StallRequests,
    /// Requests pass and are acted upon; what is answered is kept back.
    StallAnswers,
    StallBoth,
    /// What subscribers are told is kept back; commands and their answers pass.
    MuteSubscriptions,
    /// Open connections are reset, and new ones as soon as they come.
    Reset,
}

/// Ends with its owner, and so do the connections through it.
pub struct FaultyLink {
    pub address: SocketAddr,
    fault: watch::Sender<Fault>,
    _runtime: Runtime,
}

impl FaultyLink {
    pub fn to(target: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (fault, seen) = watch::channel(Fault::None);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(pass(near, target, seen.clone()));
            }
        });
        Self { address, fault, _runtime: runtime }
    }

    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Request,
    Answer,
}

async fn pass(near: TcpStream, target: SocketAddr, mut fault: watch::Receiver<Fault>) {
    if *fault.borrow() == Fault::Reset {
        return reset(&near);
    }
    let Ok(far) = TcpStream::connect(target).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (subscribes, subscriber) = watch::channel(false);
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let requests = pump(near_in, far_out, Way::Request, fault.clone(), Some(subscribes), subscriber.clone());
    let answers = pump(far_in, near_out, Way::Answer, fault.clone(), None, subscriber);
    tokio::select! {
        // Either end has closed: so does the other.
        () = requests => {}
        () = answers => {}
        _ = fault.wait_for(|fault| *fault == Fault::Reset) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Way,
    mut fault: watch::Receiver<Fault>,
    subscribes: Option<watch::Sender<bool>>,
    subscriber: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let piece = &bytes[..read];
        if let Some(subscribes) = &subscribes
            && piece.windows(9).any(|word| word.eq_ignore_ascii_case(b"SUBSCRIBE"))
        {
            subscribes.send_replace(true);
        }
        let now = *fault.borrow();
        match now {
            Fault::Delay(by) => tokio::time::sleep(by).await,
            Fault::LateAnswers(by) if way == Way::Answer => tokio::time::sleep(by).await,
            _ => {}
        }
        let passes = |fault: &Fault| match fault {
            Fault::StallRequests => way == Way::Answer,
            Fault::StallAnswers => way == Way::Request,
            Fault::StallBoth => false,
            Fault::MuteSubscriptions | Fault::LateAnswers(_) => way == Way::Request || !*subscriber.borrow(),
            Fault::None | Fault::Delay(_) | Fault::Reset => true,
        };
        if fault.wait_for(passes).await.is_err() || to.write_all(piece).await.is_err() {
            return;
        }
    }
}

/// With a pending linger of nothing, closing is a reset.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// Answers every byte with itself.
    fn echo() -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().take(10).flatten() {
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while let Ok(1) = stream.read(&mut byte) {
                        let _ = stream.write_all(&byte);
                    }
                });
            }
        });
        address
    }

    struct Ends(std::net::TcpStream);

    impl Ends {
        fn of(link: &FaultyLink) -> Self {
            let stream = std::net::TcpStream::connect(link.address).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            Self(stream)
        }

        fn send(&mut self, bytes: &[u8]) {
            self.0.write_all(bytes).unwrap();
        }

        /// Whether so many bytes come back in time.
        fn hears(&mut self, bytes: usize) -> bool {
            self.0.read_exact(&mut vec![0; bytes]).is_ok()
        }
    }

    #[test]
    fn what_is_kept_back_comes_once_the_fault_is_over() {
        let link = FaultyLink::to(echo());
        for stall in [Fault::StallRequests, Fault::StallAnswers, Fault::StallBoth] {
            let mut ends = Ends::of(&link);
            ends.send(b"1");
            assert!(ends.hears(1));
            link.set(stall);
            ends.send(b"2");
            assert!(!ends.hears(1), "{stall:?}");
            link.set(Fault::None);
            assert!(ends.hears(1), "{stall:?}");
        }
        link.set(Fault::MuteSubscriptions);
        let (mut subscriber, mut other) = (Ends::of(&link), Ends::of(&link));
        subscriber.send(b"SUBSCRIBE");
        other.send(b"1");
        assert!(other.hears(1) && !subscriber.hears(1));
    }

    #[test]
    fn a_delay_is_at_least_that_and_a_reset_ends_old_and_new_connections() {
        let link = FaultyLink::to(echo());
        let mut ends = Ends::of(&link);
        link.set(Fault::Delay(Duration::from_millis(50)));
        let began = std::time::Instant::now();
        ends.send(b"1");
        assert!(ends.hears(1) && began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
        link.set(Fault::Reset);
        let mut more = Ends::of(&link);
        for ends in [&mut ends, &mut more] {
            let _ = ends.0.write_all(b"1");
            let ended = ends.0.read(&mut [0]);
            assert!(
                ended.as_ref().is_ok_and(|read| *read == 0)
                    || ended.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
            );
        }
    }
}
