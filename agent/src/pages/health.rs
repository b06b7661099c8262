//! What `/healthz` and `/readyz` say, and the listener that has nothing else.

use std::time::{Duration, Instant};

use hyper::{Request, StatusCode, body::Incoming};

use crate::{
    http::{Answer, Service, not_allowed, text},
    model::{Coverage, NodeReport, Reports},
};

use super::READING;

/// Attaching on a slow machine takes this long before anything is amiss.
const SLOWEST_START: Duration = Duration::from_secs(60);

/// How the agent is, as its reports tell.
#[derive(Clone, Debug)]
pub struct Health {
    reports: Reports,
    /// Time between two reports.
    interval: Duration,
}

impl Health {
    /// Of these reports, which come at this interval.
    pub fn new(reports: Reports, interval: Duration) -> Self {
        Self { reports, interval }
    }

    /// `/healthz`
    pub(super) fn alive(&self) -> Answer {
        let last = self.reports.borrow().as_ref().map(|last| last.taken);
        state(alive(last, Instant::now(), self.interval))
    }

    /// `/readyz`
    pub(super) fn ready(&self) -> Answer {
        let last = self.reports.borrow().clone();
        state(ready(last.as_ref().map(|snapshot| &*snapshot.report)))
    }
}

impl Service for Health {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let is_reading = READING.contains(request.method());
        match request.uri().path() {
            "/healthz" | "/readyz" if !is_reading => not_allowed(&READING),
            "/healthz" => self.alive(),
            "/readyz" => self.ready(),
            _ => text(
                StatusCode::NOT_FOUND,
                "no such page; there are /healthz and /readyz\n",
            ),
        }
    }
}

/// 200, or 503 with what is wrong.
fn state(state: Result<(), String>) -> Answer {
    match state {
        Ok(()) => text(StatusCode::OK, "ok\n"),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// Whether reports keep coming. The error is for whoever restarts the agent.
pub(super) fn alive(last: Option<Instant>, now: Instant, interval: Duration) -> Result<(), String> {
    let Some(last) = last else { return Ok(()) };
    let age = now.saturating_duration_since(last);
    if age > SLOWEST_START + interval * 3 {
        return Err(format!("the last report is {} s old", age.as_secs()));
    }
    Ok(())
}

/// Whether every ailment is attached or has said why it is not. An ailment that
/// has been so once never goes back, so the answer does not either.
pub(super) fn ready(report: Option<&NodeReport>) -> Result<(), String> {
    let Some(report) = report else {
        return Err("the first tick is under way".to_owned());
    };
    let starting: Vec<_> = report
        .ailments
        .iter()
        .filter(|ailment| ailment.coverage == Coverage::Starting)
        .map(|ailment| ailment.name.as_str())
        .collect();
    if starting.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "probes are being attached: {}",
            starting.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::model::AilmentReport;

    const INTERVAL: Duration = Duration::from_secs(5);

    #[test]
    fn an_agent_lives_as_long_as_its_reports_come() {
        let start = Instant::now();
        assert_eq!(alive(None, start, INTERVAL), Ok(()));
        assert_eq!(alive(Some(start), start + INTERVAL * 2, INTERVAL), Ok(()));
        let late = alive(Some(start), start + Duration::from_secs(100), INTERVAL);
        assert_eq!(late, Err("the last report is 100 s old".to_owned()));
    }

    fn report(coverages: [Coverage; 2]) -> NodeReport {
        let ailment = |coverage| AilmentReport::unmeasured("fake", coverage, Vec::new());
        Identity::fake().report(coverages.map(ailment).into(), 0)
    }

    #[test]
    fn readiness_waits_for_every_ailment() {
        assert!(ready(None).is_err());
        let starting = report([Coverage::Full, Coverage::Starting]);
        assert_eq!(
            ready(Some(&starting)),
            Err("probes are being attached: fake".to_owned())
        );
    }

    #[test]
    fn an_ailment_that_says_why_not_is_no_reason_to_wait() {
        let why = "no".to_owned();
        assert_eq!(
            ready(Some(&report([Coverage::Failed { why }, Coverage::Off]))),
            Ok(())
        );
    }
}
