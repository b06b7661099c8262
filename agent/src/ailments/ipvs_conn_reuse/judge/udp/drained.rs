//! UDP flows in use stay on a destination of weight 0.

use super::{NAMED, UDP_DRAINED, flows_on, value};
use crate::{
    ailments::ipvs_conn_reuse::{
        Settings, advice,
        measure::{DestinationState, Reading, Traffic, UdpDestination},
    },
    model::{Evidence, Finding, Party, Severity},
};

/// With fewer datagrams than this in a turn nothing is said of answers.
const ENOUGH_TO_TELL: u64 = 3;

/// Whether a drained destination answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    Yes,
    /// It answered earlier, while the agent looked.
    NoMore,
    /// It did not while the agent looked: its protocol may need no answer.
    No,
    Unknown,
}

fn answers(destination: &UdpDestination) -> Answers {
    match destination.traffic {
        Some(it) if it.datagrams < ENOUGH_TO_TELL && it.answers == 0 => Answers::Unknown,
        Some(it) if it.answers > 0 => Answers::Yes,
        Some(it) if it.has_answered => Answers::NoMore,
        Some(_) => Answers::No,
        None => Answers::Unknown,
    }
}

/// Flows in use on drained destinations. Operators drain on purpose, so a finding needs flows that
/// last, or that get no answers, or it is not known whether they do either.
pub(in super::super) fn drained(reading: &Reading, settings: &Settings) -> Option<Finding> {
    let limit = settings.udp_drained_after.as_secs_f64();
    let is_wrong = |it: &&UdpDestination| {
        it.state.is_drained()
            && it.flows.in_use > 0
            && match answers(it) {
                Answers::No | Answers::NoMore => true,
                Answers::Unknown if !it.is_since_change => true,
                Answers::Unknown | Answers::Yes => it.in_use_seconds >= limit,
            }
    };
    let destinations: Vec<_> = reading.udp.destinations.iter().filter(is_wrong).collect();
    if destinations.is_empty() {
        return None;
    }
    let flows: u64 = destinations.iter().map(|it| it.flows.in_use).sum();
    let lasts = destinations.iter().map(|it| it.in_use_seconds);
    let stopped = destinations.iter().any(|it| answers(it) == Answers::NoMore);
    let mut evidence = vec![
        value(
            "UDP flows in use on drained servers",
            flows as f64,
            Some(0.0),
        ),
        value(
            "longest time that such flows were seen in use, seconds",
            lasts.fold(0.0, f64::max),
            Some(limit),
        ),
    ];
    evidence.extend(rates(&destinations));
    let victims = destinations.iter().filter(|it| answers(it) != Answers::Yes);
    Some(Finding {
        kind: UDP_DRAINED.to_owned(),
        severity: if stopped {
            Severity::Critical
        } else {
            Severity::Warning
        },
        summary: format!(
            "{flows} UDP flows in use stay on {} drained servers (weight 0); {}",
            destinations.len(),
            say_answers(&destinations)
        ),
        evidence,
        culprits: destinations
            .iter()
            .take(NAMED)
            .map(|it| culprit(reading, it))
            .collect(),
        victims: victims
            .flat_map(|it| clients(reading, it))
            .take(NAMED)
            .collect(),
        remedies: advice::udp_drained(reading, destinations[0]),
        follows_load: false,
    })
}

fn say_answers(destinations: &[&UdpDestination]) -> String {
    let count = |wanted: &[Answers]| {
        let all = destinations.iter();
        all.filter(|it| wanted.contains(&answers(it))).count()
    };
    let [no_more, no, unknown] = [
        count(&[Answers::NoMore]),
        count(&[Answers::No]),
        count(&[Answers::Unknown]),
    ];
    let mut words = Vec::new();
    if no_more > 0 {
        words.push(format!("{no_more} of them stopped answering"));
    }
    if no > 0 {
        words.push(format!("{no} of them answered no datagram"));
    }
    if unknown > 0 {
        words.push(format!("whether {unknown} of them answer is unknown"));
    }
    if words.is_empty() {
        "they still answer".to_owned()
    } else {
        words.join(", ")
    }
}

/// Of the last turn of the probe.
fn rates(destinations: &[&UdpDestination]) -> Vec<Evidence> {
    let turns: Vec<_> = destinations.iter().filter_map(|it| it.traffic).collect();
    if turns.is_empty() {
        return Vec::new();
    }
    let rate = |count: fn(&Traffic) -> u64| {
        let rates = turns
            .iter()
            .map(|it| count(it) as f64 / it.seconds.max(1.0));
        rates.sum::<f64>()
    };
    vec![
        value(
            "UDP datagrams to them a second",
            rate(|it| it.datagrams),
            None,
        ),
        value("answers of them a second", rate(|it| it.answers), None),
    ]
}

fn culprit(reading: &Reading, destination: &UdpDestination) -> Party {
    let UdpDestination {
        netns,
        service,
        destination: address,
        state,
        flows,
        in_use_seconds,
        traffic,
        ..
    } = destination;
    let answers = match (traffic, state) {
        (Some(it), _) => format!(
            "{} datagrams and {} answers in {:.0} s",
            it.datagrams, it.answers, it.seconds
        ),
        (None, DestinationState::DrainedUntranslated) => {
            "answers unknown: they do not pass IPVS".to_owned()
        }
        (None, _) => "answers unknown: not traced".to_owned(),
    };
    Party {
        who: flows_on(reading, "drained", (*netns, *service, *address)),
        share: format!(
            "{} of {} flows in use, for {in_use_seconds:.0} s or longer; {answers}",
            flows.in_use,
            flows.total()
        ),
    }
}

fn clients(reading: &Reading, destination: &UdpDestination) -> Vec<Party> {
    let in_use = destination.flows.in_use;
    let clients = destination.clients.iter().take(in_use as usize);
    clients
        .map(|client| Party {
            who: format!(
                "client {} of service {} (UDP)",
                reading.neighbours.endpoint(*client),
                destination.service
            ),
            share: format!("1 of {in_use} flows in use"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            super::tests::{KUBE_PROXY, kinds},
            fixtures::{KEEPS, destination, found, with},
        },
        *,
    };

    fn traffic(datagrams: u64, answers: u64, has_answered: bool) -> Option<Traffic> {
        Some(Traffic {
            seconds: 10.0,
            flows: 2,
            datagrams,
            answers,
            has_answered,
        })
    }

    fn drained_for(seconds: f64, traffic: Option<Traffic>) -> Vec<Finding> {
        let mut destination = destination(DestinationState::Drained, 2, seconds);
        destination.traffic = traffic;
        found(&with(KUBE_PROXY, Some(destination)))
    }

    #[test]
    fn a_drained_server_that_answers_is_healthy_until_its_flows_last() {
        let answered = traffic(50, 50, true);
        assert_eq!(kinds(&drained_for(59.0, answered)), [""; 0]);
        let lasting = drained_for(60.0, answered);
        assert_eq!(kinds(&lasting), [UDP_DRAINED]);
        assert_eq!(lasting[0].severity, Severity::Warning);
        assert!(lasting[0].summary.contains("still answer"), "{lasting:?}");
        assert_eq!(lasting[0].victims, [], "they are served");
    }

    #[test]
    fn a_drained_server_that_does_not_answer_is_found_at_once() {
        let silent = drained_for(0.0, traffic(50, 0, false));
        assert_eq!(kinds(&silent), [UDP_DRAINED]);
        assert_eq!(
            silent[0].severity,
            Severity::Warning,
            "it may need no answer"
        );
        let named = format!("{:?} {:?}", silent[0].culprits, silent[0].victims);
        for name in [
            "10.96.0.10:53",
            "10.3.0.2:53",
            "10.1.0.2:5353",
            "2 of 6 flows",
        ] {
            assert!(named.contains(name), "{name} is not in {named}");
        }
        let stopped = drained_for(0.0, traffic(50, 0, true));
        assert_eq!(stopped[0].severity, Severity::Critical);
        assert_eq!(
            kinds(&drained_for(0.0, traffic(2, 0, false))),
            [""; 0],
            "too few"
        );
    }

    #[test]
    fn without_the_probe_only_what_lasts_is_found_and_answers_are_unknown() {
        assert_eq!(kinds(&drained_for(10.0, None)), [""; 0]);
        let lasting = drained_for(90.0, None);
        assert!(lasting[0].summary.contains("unknown"), "{lasting:?}");
    }

    #[test]
    fn where_neither_answers_nor_since_when_is_known_it_is_said_at_once() {
        let judged = |is_since_change, traffic| {
            let mut destination = destination(DestinationState::Drained, 2, 10.0);
            destination.is_since_change = is_since_change;
            destination.traffic = traffic;
            found(&with(KUBE_PROXY, Some(destination)))
        };
        let unknown = judged(false, None);
        assert_eq!(kinds(&unknown), [UDP_DRAINED]);
        assert!(unknown[0].summary.contains("unknown"), "{unknown:?}");
        assert_eq!(
            kinds(&judged(true, None)),
            [""; 0],
            "it was drained just now"
        );
        let answered = judged(false, traffic(50, 50, true));
        assert_eq!(kinds(&answered), [""; 0]);
    }

    #[test]
    fn idle_flows_to_drained_servers_are_healthy() {
        let idle = destination(DestinationState::Drained, 0, 500.0);
        assert_eq!(kinds(&found(&with(KUBE_PROXY, Some(idle)))), [""; 0]);
    }

    #[test]
    fn the_remedy_of_a_drained_flow_is_removal_and_never_without_the_setting() {
        let remedies = |settings| {
            let lasting = destination(DestinationState::Drained, 2, 90.0);
            found(&with(settings, Some(lasting)))[0].remedies.join("\n")
        };
        let text = remedies(KUBE_PROXY);
        assert!(
            text.contains("ipvsadm -d -u 10.96.0.10:53 -r 10.3.0.2:53"),
            "{text}"
        );
        assert!(!text.contains("sysctl -w"), "{text}");
        let text = remedies(KEEPS);
        let (before, after) = text.split_once("ipvsadm -d").expect("it is advised");
        assert!(before.contains("expire_nodest_conn=1"), "{before}{after}");
    }
}
