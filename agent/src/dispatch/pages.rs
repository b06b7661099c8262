//! `/metrics` and `/healthz` of the dispatcher.

use hyper::{Method, Request, StatusCode, body::Incoming};

use crate::{
    http::{Answer, Service, not_allowed, text},
    metrics::Page,
};

const READING: [Method; 2] = [Method::GET, Method::HEAD];

/// All pages.
#[derive(Debug)]
pub struct Pages(pub Page);

impl Service for Pages {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let is_reading = READING.contains(request.method());
        match request.uri().path() {
            "/metrics" | "/healthz" if !is_reading => not_allowed(&READING),
            "/metrics" => self.0.answer(),
            "/healthz" => text(StatusCode::OK, "ok\n"),
            _ => text(
                StatusCode::NOT_FOUND,
                "no such page; there are /metrics and /healthz\n",
            ),
        }
    }
}
