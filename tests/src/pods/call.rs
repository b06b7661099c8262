//! gRPC as curl speaks it: one message there, one back.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use prost::Message;

use crate::guest::Guest;

/// A message is preceded by a byte that says whether it is compressed, and by its length.
const PREFIX: usize = 5;

/// Calls a method of the runtime.
pub(super) fn unary<Q: Message, A: Message + Default>(
    guest: &Guest,
    socket: &str,
    method: &str,
    request: &Q,
) -> Result<A> {
    let encoded = request.encode_to_vec();
    let length = u32::try_from(encoded.len()).context("a message of this size")?;
    let folder = tempfile::tempdir().context("make a folder")?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let message = [&[0], &length.to_be_bytes()[..], &encoded].concat();
    fs::write(path("request"), message).context("write the request")?;
    guest
        .sh(&format!(
            "curl -sS --http2-prior-knowledge --unix-socket {socket} -H 'te: trailers' \
             -H 'content-type: application/grpc' --data-binary @{} -D {} -o {} \
             http://localhost/runtime.v1.RuntimeService/{method}",
            path("request"),
            path("headers"),
            path("answer"),
        ))
        .with_context(|| method.to_owned())?;
    let headers = fs::read_to_string(path("headers")).context("read the headers")?;
    let header = |name: &str| {
        let mut lines = headers.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(key, value)| (key == name).then(|| value.trim().to_owned()))
    };
    match header("grpc-status").as_deref() {
        Some("0") => {}
        status => bail!(
            "{method}: status {status:?}: {}",
            header("grpc-message").unwrap_or_default()
        ),
    }
    let answer = fs::read(path("answer")).context("read the answer")?;
    ensure!(answer.len() >= PREFIX, "{method}: the answer is cut short");
    A::decode(&answer[PREFIX..]).with_context(|| format!("{method}: decode the answer"))
}
