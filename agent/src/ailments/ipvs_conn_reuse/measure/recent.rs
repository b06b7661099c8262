//! What was counted lately. A SYN that is dropped is over in a moment, and who looks a
//! little later should still be told.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{ClientReading, Counts, ServiceReading, Syns};

/// Those that a report may name.
const TOP: usize = 20;

/// The ticks that are not too long ago, oldest first.
#[derive(Debug)]
pub(super) struct Recent {
    remember: Duration,
    ticks: VecDeque<Tick>,
}

/// What one tick has brought.
#[derive(Debug)]
pub(super) struct Tick {
    /// When the tick before was.
    pub(super) began: Instant,
    pub(super) counts: Counts,
    pub(super) services: Vec<ServiceReading>,
    pub(super) clients: Vec<ClientReading>,
}

impl Recent {
    pub(super) fn new(remember: Duration) -> Self {
        Self {
            remember,
            ticks: VecDeque::new(),
        }
    }

    /// Takes in a tick, and forgets those that began too long ago, but for the last.
    pub(super) fn push(&mut self, now: Instant, tick: Tick) {
        self.ticks.push_back(tick);
        let old = |tick: &Tick| now - tick.began > self.remember;
        while self.ticks.len() > 1 && self.ticks.front().is_some_and(old) {
            self.ticks.pop_front();
        }
    }

    /// How long the ticks cover.
    pub(super) fn length(&self, now: Instant) -> Duration {
        self.ticks
            .front()
            .map_or(Duration::ZERO, |tick| now - tick.began)
    }

    pub(super) fn counts(&self) -> Counts {
        let mut sum = Counts::empty();
        for tick in &self.ticks {
            sum.add(&tick.counts);
        }
        sum
    }

    /// Those with most SYNs, with what is known of them last.
    pub(super) fn services(&self) -> Vec<ServiceReading> {
        let mut sums: BTreeMap<(u32, SocketAddr, SocketAddr), ServiceReading> = BTreeMap::new();
        for service in self.ticks.iter().flat_map(|tick| &tick.services) {
            let key = (service.netns, service.service, service.old_destination);
            let before = sums.get(&key).map(|sum| sum.syns).unwrap_or_default();
            let syns = before.plus(&service.syns);
            sums.insert(
                key,
                ServiceReading {
                    syns,
                    ..service.clone()
                },
            );
        }
        most(sums.into_values(), |service| &service.syns)
    }

    /// Those with most SYNs.
    pub(super) fn clients(&self) -> Vec<ClientReading> {
        let mut sums: BTreeMap<(u32, IpAddr), ClientReading> = BTreeMap::new();
        for client in self.ticks.iter().flat_map(|tick| &tick.clients) {
            let key = (client.netns, client.client);
            let before = sums.get(&key).map(|sum| sum.syns).unwrap_or_default();
            let syns = before.plus(&client.syns);
            sums.insert(
                key,
                ClientReading {
                    syns,
                    ..client.clone()
                },
            );
        }
        most(sums.into_values(), |client| &client.syns)
    }
}

fn most<T>(all: impl Iterator<Item = T>, syns: impl Fn(&T) -> &Syns) -> Vec<T> {
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|it| std::cmp::Reverse(syns(it).total()));
    all.truncate(TOP);
    all
}

#[cfg(test)]
mod tests {
    use ebpf::ipvs_conn_reuse::{Outcome, Reason};

    use super::*;

    fn tick(began: Instant, dropped: u64) -> Tick {
        let mut counts = Counts::empty();
        counts.syns[Outcome::Dropped as usize][Reason::Close as usize] = dropped;
        let syns = counts.outcomes();
        Tick {
            began,
            counts,
            services: Vec::new(),
            clients: vec![ClientReading {
                netns: 1,
                client: IpAddr::from([10, 0, 0, 1]),
                syns,
            }],
        }
    }

    #[test]
    fn what_is_recent_is_summed_and_what_is_not_is_forgotten() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut recent = Recent::new(Duration::from_secs(60));
        for (began, dropped) in [(0, 1), (10, 2), (20, 4)] {
            recent.push(at(began + 10), tick(at(began), dropped));
        }
        assert_eq!(recent.counts().outcomes().dropped, 7);
        assert_eq!(recent.clients()[0].syns.dropped, 7);
        assert_eq!(recent.length(at(30)), Duration::from_secs(30));
        recent.push(at(75), tick(at(30), 8));
        assert_eq!(recent.counts().outcomes().dropped, 12);
    }

    #[test]
    fn a_tick_that_took_longer_than_is_remembered_is_recent() {
        let begin = Instant::now();
        let mut recent = Recent::new(Duration::from_secs(1));
        recent.push(begin + Duration::from_secs(10), tick(begin, 3));
        assert_eq!(recent.counts().outcomes().dropped, 3);
    }
}
