//! As much of HTTP as it takes to ask the agent something.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

const LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// As sent, without the status line.
    pub headers: String,
    pub body: String,
}

/// The body of a page that must be there.
pub fn get(address: SocketAddr, path: &str) -> Result<String> {
    let response = request("GET", address, path, "")?;
    ensure!(
        response.status == 200,
        "GET {address}{path}: status {}: {}",
        response.status,
        response.body
    );
    Ok(response.body)
}

/// One request on a connection of its own. HTTP/1.0, so the answer ends where the connection does.
pub fn request(method: &str, address: SocketAddr, path: &str, body: &str) -> Result<Response> {
    exchange(method, address, path, "", body).with_context(|| format!("{method} {address}{path}"))
}

/// The same with a body in JSON.
pub fn post_json(address: SocketAddr, path: &str, json: &str) -> Result<Response> {
    let headers = "Content-Type: application/json\r\n";
    exchange("POST", address, path, headers, json).with_context(|| format!("POST {address}{path}"))
}

fn exchange(
    method: &str,
    address: SocketAddr,
    path: &str,
    headers: &str,
    body: &str,
) -> Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    parse(&answer)
}

fn parse(answer: &str) -> Result<Response> {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("no end of the headers in {answer:?}"))?;
    let (status_line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = status_line
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .with_context(|| format!("no status in {status_line:?}"))?;
    Ok(Response {
        status,
        headers: headers.to_owned(),
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let answer = parse("HTTP/1.0 404 Not Found\r\nContent-Length: 2\r\n\r\nno").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (404, "no"));
        assert_eq!(answer.headers, "Content-Length: 2");
    }

    #[test]
    fn half_an_answer_is_an_error() {
        assert!(parse("HTTP/1.0 200 OK\r\nContent-").is_err());
        assert!(parse("hello\r\n\r\n").is_err());
    }
}
