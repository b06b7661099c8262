//! What goes back to whoever asked.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use serde::Serialize;
use tracing::error;

/// An answer, whole in memory.
pub type Answer = Response<Full<Bytes>>;

const TEXT: &str = "text/plain; charset=utf-8";
/// The content type of a page for people.
pub const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// A sentence for whoever reads the answer.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    answer(status, TEXT, text)
}

/// A value as JSON.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(json) => answer(status, JSON, json),
        Err(error) => failed("the answer", &error),
    }
}

/// The methods that there are, in place of the one that was used.
pub fn not_allowed(methods: &[Method]) -> Answer {
    let names: Vec<_> = methods.iter().map(Method::as_str).collect();
    let sentence = format!("this page takes {}\n", names.join(" and "));
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, sentence);
    if let Ok(names) = HeaderValue::from_str(&names.join(", ")) {
        answer.headers_mut().insert(ALLOW, names);
    }
    answer
}

/// A 503 after which the same request is welcome again.
pub(super) fn later(why: &str, wait: Duration) -> Answer {
    let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
    let sentence = format!("{why}; try again in {seconds} s\n");
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, sentence);
    answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    answer
}

/// A page that cannot be written, for this error.
pub fn failed(page: &str, error: &dyn std::error::Error) -> Answer {
    error!(page, "cannot be written: {error}");
    text(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("{page} cannot be written: {error}\n"),
    )
}

/// An answer of this content type, which nobody is to store.
pub fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    answer
}
