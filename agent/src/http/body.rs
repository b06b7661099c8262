//! Bodies of requests and answers: each bounded, all together bounded, and each peer's.

use std::{
    collections::HashMap,
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::time::timeout;

use super::peer::Peer;

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoBody {
    /// It is larger than it may be.
    TooLarge,
    /// Other bodies have the memory.
    NoRoom,
    /// It did not come in time.
    Late,
    /// It ended before its end, or was none.
    Broken(String),
}

impl fmt::Display for NoBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("it is too large"),
            Self::NoRoom => f.write_str("other bodies have all the memory for bodies"),
            Self::Late => f.write_str("it did not come in time"),
            Self::Broken(why) => write!(f, "it ended before its end: {why}"),
        }
    }
}

/// A body that is refused is read on and thrown away up to so many times the cap.
const PATIENCE: usize = 16;

/// The memory for the bodies of a listener, bytes, and who has how much of it.
#[derive(Debug)]
pub(super) struct Memory {
    most: usize,
    most_of_a_peer: usize,
    held: Mutex<HashMap<Peer, usize>>,
}

impl Memory {
    /// For so many bytes. One peer gets half, so that a second one can always be heard.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            most_of_a_peer: most / 2,
            held: Mutex::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Peer, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Some of the memory, which is given back at the end.
#[derive(Debug)]
struct Share {
    memory: Arc<Memory>,
    peer: Peer,
    bytes: usize,
}

impl Share {
    /// Takes more; whether there was as much.
    fn grow(&mut self, by: usize) -> bool {
        let mut held = self.memory.held();
        let all: usize = held.values().sum();
        let own = held.get(&self.peer).copied().unwrap_or(0);
        let fits = |held: usize, most| held.checked_add(by).is_some_and(|sum| sum <= most);
        let is_free = fits(all, self.memory.most) && fits(own, self.memory.most_of_a_peer);
        if is_free {
            held.insert(self.peer, own + by);
            self.bytes += by;
        }
        is_free
    }
}

impl Share {
    /// Gives all of it back; there is none then.
    fn give_back(&mut self) -> bool {
        let bytes = std::mem::take(&mut self.bytes);
        let mut held = self.memory.held();
        match held.get_mut(&self.peer) {
            Some(own) if *own > bytes => *own -= bytes,
            Some(_) => drop(held.remove(&self.peer)),
            None => {}
        }
        false
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// A whole body. Its memory counts until it is dropped.
#[derive(Debug)]
pub struct Received {
    bytes: Bytes,
    _share: Share,
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the body of a request to its end.
pub(super) async fn receive<B>(
    body: B,
    most: usize,
    within: Duration,
    memory: &Arc<Memory>,
    peer: Peer,
) -> Result<Received, NoBody>
where
    B: Body<Data = Bytes, Error: fmt::Display> + Unpin,
{
    let mut share = Share {
        memory: Arc::clone(memory),
        peer,
        bytes: 0,
    };
    let has_room = |size| match size {
        Some(size) => share.grow(size),
        None => share.give_back(),
    };
    let whole = timeout(within, collect(body, most, has_room)).await;
    let bytes = whole.unwrap_or(Err(NoBody::Late))?;
    Ok(Received {
        bytes,
        _share: share,
    })
}

/// Reads the body of an answer to its end.
pub(super) async fn read<B>(body: B, most: usize, within: Duration) -> Result<Bytes, NoBody>
where
    B: Body<Data = Bytes, Error: fmt::Display> + Unpin,
{
    let whole = timeout(within, collect(body, most, |_| true)).await;
    whole.unwrap_or(Err(NoBody::Late))
}

/// Throws away what a refused client is still sending, so that it sees the answer: so many bytes
/// at most, and not for long.
pub(super) async fn discard<B>(mut body: B, most: usize, within: Duration)
where
    B: Body<Data = Bytes> + Unpin,
{
    let rest = async {
        let mut seen = 0_usize;
        while let Some(Ok(frame)) = body.frame().await {
            seen = seen.saturating_add(frame.data_ref().map_or(0, Bytes::len));
            if seen > most {
                break;
            }
        }
    };
    // A client that sends slower finds the connection closed.
    let _ = timeout(within, rest).await;
}

/// `has_room` is asked before each part is kept, with its size, and told by `None` that nothing is
/// kept.
async fn collect<B>(
    mut body: B,
    most: usize,
    mut has_room: impl FnMut(Option<usize>) -> bool,
) -> Result<Bytes, NoBody>
where
    B: Body<Data = Bytes, Error: fmt::Display> + Unpin,
{
    // Its length is often announced. Memory that nothing is written to costs nothing.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut refused = (announced > most).then_some(NoBody::TooLarge);
    let mut whole = BytesMut::with_capacity(if refused.is_some() { 0 } else { announced });
    let mut seen = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| NoBody::Broken(error.to_string()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        seen = seen.saturating_add(data.len());
        if seen > most {
            refused = Some(NoBody::TooLarge);
        } else if refused.is_none() && !has_room(Some(data.len())) {
            refused = Some(NoBody::NoRoom);
        }
        if refused.is_none() {
            whole.extend_from_slice(&data);
            continue;
        }
        // A client that is still sending would not see the answer.
        whole = BytesMut::new();
        has_room(None);
        if seen > most.saturating_mul(PATIENCE) {
            break;
        }
    }
    refused.map_or_else(|| Ok(whole.freeze()), Err)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use http_body_util::Full;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(5);

    fn peer(last: u8) -> Peer {
        Peer::of(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)))
    }

    async fn take(memory: &Arc<Memory>, size: usize, from: u8) -> Result<Received, NoBody> {
        let body = Full::new(Bytes::from(vec![0; size]));
        receive(body, 100, WITHIN, memory, peer(from)).await
    }

    #[tokio::test]
    async fn bodies_share_the_memory_and_no_peer_has_all_of_it() {
        let memory = Arc::new(Memory::new(200));
        let first = take(&memory, 60, 1).await.unwrap();
        assert_eq!(first.len(), 60);
        assert_eq!(take(&memory, 60, 1).await.unwrap_err(), NoBody::NoRoom);
        let _second = take(&memory, 40, 1).await.unwrap();
        let _third = take(&memory, 60, 2).await.unwrap();
        assert_eq!(take(&memory, 60, 3).await.unwrap_err(), NoBody::NoRoom);
        drop(first);
        assert!(take(&memory, 60, 3).await.is_ok());
        assert!(take(&memory, 60, 1).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_refused_gives_its_memory_back() {
        let memory = Arc::new(Memory::new(200));
        for _ in 0..10 {
            assert_eq!(take(&memory, 101, 1).await.unwrap_err(), NoBody::TooLarge);
            assert!(take(&memory, 100, 1).await.is_ok());
        }
        assert!(memory.held().is_empty());
    }
}
