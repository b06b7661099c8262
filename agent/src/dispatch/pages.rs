//! `/metrics`, `/healthz` and `/readyz` of the dispatcher.

use std::sync::Arc;

use hyper::{Method, Request, StatusCode, body::Incoming};

use super::Router;
use crate::{
    http::{Answer, Service, not_allowed, text},
    metrics::Page,
};

const READING: [Method; 2] = [Method::GET, Method::HEAD];

/// All pages.
#[derive(Debug)]
pub struct Pages(pub Page, pub Health);

/// The pages of the health checks alone.
#[derive(Clone, Debug)]
pub struct Health(pub Arc<Router>);

impl Health {
    fn page(&self, path: &str) -> Option<Answer> {
        match path {
            "/healthz" => Some(text(StatusCode::OK, "ok\n")),
            "/readyz" => Some(match self.0.unknown_agents() {
                None => text(StatusCode::OK, "ok\n"),
                Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
            }),
            _ => None,
        }
    }
}

impl Service for Pages {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        answer(
            &request,
            "/metrics, /healthz and /readyz",
            |path| match path {
                "/metrics" => Some(self.0.answer()),
                path => self.1.page(path),
            },
        )
    }
}

impl Service for Health {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        answer(&request, "/healthz and /readyz", |path| self.page(path))
    }
}

fn answer(
    request: &Request<Incoming>,
    known: &str,
    page: impl Fn(&str) -> Option<Answer>,
) -> Answer {
    match page(request.uri().path()) {
        Some(_) if !READING.contains(request.method()) => not_allowed(&READING),
        Some(page) => page,
        None => text(
            StatusCode::NOT_FOUND,
            format!("no such page; there are {known}\n"),
        ),
    }
}
