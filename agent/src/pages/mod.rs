//! The pages of the agent. They only read: none changes anything or starts a measurement. What
//! may change something, the webhook, has a server of its own behind a
//! [`Gate`](crate::http::Gate).
//!
//! - `/`: the verdicts as a page for people
//! - `/metrics`: everything for Prometheus
//! - `/report`: the last report, as JSON
//! - `/healthz`: 200 while the agent ticks, else 503
//! - `/readyz`: 200 once every ailment is attached or has said why not, until then 503
//!
//! Each takes GET and HEAD. `/` and `/report` show addresses of the node's clients, and answer only
//! to names of the node ([`Hosts`]): else a web page could have a browser read them.

mod health;
mod hosts;

pub use health::Health;
pub use hosts::Hosts;

use std::{
    fmt,
    hash::{BuildHasher as _, Hasher as _, RandomState},
};

use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    header::{CONTENT_SECURITY_POLICY, HeaderValue},
};

use crate::{
    http::{Answer, HTML, Service, answer, json, not_allowed, text},
    metrics::Page,
    model::{NodeReport, Reports, Routing, Snapshot},
    render,
    treatment::Runs,
};

/// No page takes more.
const READING: [Method; 2] = [Method::GET, Method::HEAD];

/// All pages.
pub struct Pages {
    reports: Reports,
    metrics: Page,
    health: Health,
    hosts: Hosts,
    /// Which process this is.
    instance: String,
    /// Who routes alerts to it, where it takes any.
    routing: Option<Box<dyn Fn() -> Routing + Send + Sync>>,
    /// Treatments as they are now, which may be newer than the report.
    runs: Runs,
}

impl Pages {
    /// Pages of these reports, for clients that name one of these hosts.
    pub fn new(reports: Reports, metrics: Page, health: Health, hosts: Hosts, runs: Runs) -> Self {
        Self {
            reports,
            metrics,
            health,
            hosts,
            // The standard library seeds each process with numbers of the kernel's.
            instance: format!("{:016x}", RandomState::new().build_hasher().finish()),
            routing: None,
            runs,
        }
    }

    /// With who routes alerts to the node in the report.
    pub fn with_routing(mut self, routing: impl Fn() -> Routing + Send + Sync + 'static) -> Self {
        self.routing = Some(Box::new(routing));
        self
    }

    /// Answers a request. Its body is never read.
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Answer {
        let page = match request.uri().path() {
            "/" => Self::status,
            "/metrics" => Self::metrics,
            "/report" => Self::report,
            "/healthz" => Self::health,
            "/readyz" => Self::readiness,
            _ => {
                return text(
                    StatusCode::NOT_FOUND,
                    "no such page; / lists those that are\n",
                );
            }
        };
        let shows_addresses = ["/", "/report"].contains(&request.uri().path());
        if shows_addresses && let Some(refused) = self.hosts.refuse(request) {
            return refused;
        }
        if READING.contains(request.method()) {
            page(self)
        } else {
            not_allowed(&READING)
        }
    }

    fn status(&self) -> Answer {
        let last = self.last();
        let page = render::status_page(last.as_ref().map(|snapshot| &*snapshot.report));
        let mut answer = answer(StatusCode::OK, HTML, page);
        let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
        answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
        answer
    }

    fn metrics(&self) -> Answer {
        self.metrics.answer()
    }

    fn report(&self) -> Answer {
        let Some(snapshot) = self.last() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "no report yet\n");
        };
        // Whoever asks right after a treatment was begun, as a dispatcher that counts, has
        // to see it.
        let mut report = NodeReport::clone(&snapshot.report);
        report.instance = Some(self.instance.clone());
        // Before the runs: what is no longer being decided on is among those.
        report.routing = self.routing.as_ref().map(|routing| routing());
        report.treatments.clone_from(&self.runs.borrow());
        json(StatusCode::OK, &report)
    }

    fn health(&self) -> Answer {
        self.health.alive()
    }

    fn readiness(&self) -> Answer {
        self.health.ready()
    }

    fn last(&self) -> Option<Snapshot> {
        self.reports.borrow().clone()
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

impl Service for Pages {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        Self::answer(self, &request)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, Instant},
    };

    use http_body_util::BodyExt as _;
    use hyper::{body::Body as _, header::ALLOW};
    use tokio::sync::watch;

    use super::*;
    use crate::{collector::fake, identity::Identity};

    /// Pages of a node with a high rate.
    fn pages() -> (Pages, watch::Sender<Option<Snapshot>>) {
        let report = Arc::new(Identity::fake().report(vec![fake::report(120)], 0));
        let snapshot = Snapshot {
            report,
            taken: Instant::now(),
        };
        let (sender, reports) = watch::channel(Some(snapshot));
        let metrics = Page::new(reports.clone(), vec![fake::collector().about()]).unwrap();
        let (_, runs) = watch::channel(Vec::new());
        let health = Health::new(reports.clone(), Duration::from_secs(5));
        let hosts = Hosts::new(Identity::fake(), Vec::new());
        (Pages::new(reports, metrics, health, hosts, runs), sender)
    }

    fn ask(method: Method, path: &str) -> Answer {
        pages().0.answer(
            &Request::builder()
                .method(method)
                .uri(path)
                .body(())
                .unwrap(),
        )
    }

    async fn body(answer: Answer) -> String {
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// The paths that a source file names in lines of one form.
    fn paths<'s>(source: &'s str, before: &str, after: &str) -> Vec<&'s str> {
        let path = |line: &'s str| line.trim().strip_prefix(before)?.split_once(after);
        source
            .lines()
            .filter_map(|line| Some(path(line)?.0))
            .collect()
    }

    #[test]
    fn the_list_of_routes_is_the_list_of_routes() {
        let mut listed = paths(include_str!("mod.rs"), "//! - `", "`:");
        let mut matched = paths(include_str!("mod.rs"), "\"", "\" => Self::");
        listed.sort_unstable();
        matched.sort_unstable();
        assert_eq!(listed, matched);
        assert_eq!(listed.len(), 5);
    }

    #[test]
    fn every_page_is_there() {
        for path in [
            "/",
            "/metrics",
            "/report",
            "/healthz",
            "/readyz",
            "/metrics?x=1",
        ] {
            let answer = ask(Method::GET, path);
            assert_eq!(answer.status(), StatusCode::OK, "{path}");
            assert!(answer.body().size_hint().exact() > Some(0), "{path}");
        }
    }

    #[test]
    fn no_other_page_is() {
        for path in ["/metric", "/metrics/", "/../etc/passwd", "/%6detrics"] {
            assert_eq!(
                ask(Method::GET, path).status(),
                StatusCode::NOT_FOUND,
                "{path}"
            );
        }
    }

    #[test]
    fn other_methods_are_refused_with_those_allowed() {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let answer = ask(method, "/metrics");
            assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(answer.headers()[ALLOW], "GET, HEAD");
        }
        assert_eq!(ask(Method::HEAD, "/metrics").status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn the_report_reads_back() {
        let json = body(ask(Method::GET, "/report")).await;
        let report: NodeReport = serde_json::from_str(&json).unwrap();
        assert_eq!(report.ailments[0].findings[0].kind, "rate_high");
    }

    #[tokio::test]
    async fn before_the_first_report_the_pages_say_so() {
        let (pages, reports) = pages();
        reports.send_replace(None);
        for (path, status) in [
            ("/", 200),
            ("/metrics", 200),
            ("/healthz", 200),
            ("/report", 503),
            ("/readyz", 503),
        ] {
            let request = Request::builder().uri(path).body(()).unwrap();
            assert_eq!(pages.answer(&request).status(), status, "{path}");
        }
    }
}
