//! A UDP client that keeps its port, as a resolver that pools its sockets does, and servers
//! that say which one they are.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::reuse::Name;
use crate::guest::NetNs;

/// From one datagram of the client to the next.
const GAP: Duration = Duration::from_millis(100);

/// How long a server waits before it looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(100);

/// A thread that runs until it is dropped.
#[derive(Debug)]
struct Worker {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(mut step: impl FnMut() + Send + 'static) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&end);
        let thread = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                step();
            }
        });
        Self {
            end,
            thread: Some(thread),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of its is the scenario's, which fails for want of answers.
            let _ = thread.join();
        }
    }
}

/// A server: it answers each datagram with its name, until it is dropped.
#[derive(Debug)]
pub struct Server(#[expect(dead_code, reason = "it is held for as long as it serves")] Worker);

impl Server {
    pub fn start(namespace: &NetNs, address: SocketAddr, name: Name) -> Result<Self> {
        Self::serve(bind(namespace, address)?, name)
    }

    /// As [`Self::start`], on a socket of any namespace.
    pub fn serve(socket: UdpSocket, name: Name) -> Result<Self> {
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut datagram = [0; 16];
        Ok(Self(Worker::start(move || {
            if let Ok((_, client)) = socket.recv_from(&mut datagram) {
                // A client that is gone needs no answer.
                let _ = socket.send_to(&[name.byte()], client);
            }
        })))
    }
}

/// What a client sent, and who answered.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU32,
    old: AtomicU32,
    new: AtomicU32,
}

/// A client that sends from one port until it is dropped.
#[derive(Debug)]
pub struct Client {
    counts: Arc<Counts>,
    worker: Option<Worker>,
}

impl Client {
    pub fn start(namespace: &NetNs, from: SocketAddr, to: SocketAddr) -> Result<Self> {
        Self::send(bind(namespace, from)?, to)
    }

    /// As [`Self::start`], from a socket of any namespace.
    pub fn send(socket: UdpSocket, to: SocketAddr) -> Result<Self> {
        socket.set_read_timeout(Some(GAP))?;
        let counts = Arc::new(Counts::default());
        let counting = Arc::clone(&counts);
        let worker = Worker::start(move || {
            if socket.send_to(b"?", to).is_ok() {
                counting.sent.fetch_add(1, Ordering::Relaxed);
            }
            let until = std::time::Instant::now() + GAP;
            while std::time::Instant::now() < until {
                let mut answer = [0];
                match socket.recv(&mut answer).map(|_| Name::of(answer[0])) {
                    Ok(Ok(Name::Old)) => counting.old.fetch_add(1, Ordering::Relaxed),
                    Ok(Ok(Name::New)) => counting.new.fetch_add(1, Ordering::Relaxed),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // An error that ICMP brought is no answer.
                    Ok(Err(_)) | Err(_) => continue,
                };
            }
        });
        Ok(Self {
            counts,
            worker: Some(worker),
        })
    }

    /// Sends no more.
    pub fn pause(&mut self) {
        self.worker = None;
    }

    /// Datagrams that it sent.
    pub fn sent(&self) -> u32 {
        self.counts.sent.load(Ordering::Relaxed)
    }

    /// Answers of a server.
    pub fn answers(&self, name: Name) -> u32 {
        let count = match name {
            Name::Old => &self.counts.old,
            Name::New => &self.counts.new,
        };
        count.load(Ordering::Relaxed)
    }
}

fn bind(namespace: &NetNs, address: SocketAddr) -> Result<UdpSocket> {
    namespace.within(|| UdpSocket::bind(address).with_context(|| format!("bind UDP {address}")))
}
