//! A runtime for tests: gRPC over a Unix socket, with the answers that it is told, or with
//! what is no answer.

use std::{
    collections::HashMap,
    convert::Infallible,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::{
    HeaderMap, Request, Response,
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixListener, UnixStream},
};

/// What a call is answered with.
#[derive(Clone, Debug)]
pub(in crate::node) enum Answer {
    /// This message.
    Message(Vec<u8>),
    /// This status and no message.
    Status(u32, &'static str),
}

/// What is behind the socket.
#[derive(Clone, Debug)]
pub(in crate::node) enum Runtime {
    /// Answers by method; `Unimplemented` for the others.
    Answers(HashMap<&'static str, Answer>),
    /// Says what is no HTTP.
    Garbage,
}

/// Serves until it is dropped.
#[derive(Debug)]
pub(in crate::node) struct Fake {
    folder: TempDir,
    calls: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Answer {
    pub(in crate::node) fn of(message: &impl Message) -> Self {
        Self::Message(message.encode_to_vec())
    }
}

impl Fake {
    pub(in crate::node) fn serve(runtime: Runtime) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("sock")).unwrap();
        let calls = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&calls);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(talk(stream, runtime.clone(), Arc::clone(&count)));
            }
        });
        Self {
            folder,
            calls,
            task,
        }
    }

    pub(in crate::node) fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    /// How many calls there were.
    pub(in crate::node) fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn talk(mut stream: UnixStream, runtime: Runtime, calls: Arc<AtomicUsize>) {
    let answers = match runtime {
        Runtime::Answers(answers) => Arc::new(answers),
        Runtime::Garbage => {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
            return;
        }
    };
    let service = service_fn(move |request: Request<Incoming>| {
        calls.fetch_add(1, SeqCst);
        let answers = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(answer(request, &answers).await) }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = connection
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    answers: &HashMap<&'static str, Answer>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let _ = request.into_body().collect().await;
    let method = path.strip_prefix("/runtime.v1.RuntimeService/");
    let answer = method.and_then(|method| answers.get(method));
    let response = Response::builder().header("content-type", "application/grpc");
    match answer {
        Some(Answer::Message(message)) => {
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            let framed = [&[0], &length[..], message].concat();
            let trailers =
                HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
            let frames = [
                Ok(Frame::data(Bytes::from(framed))),
                Ok(Frame::trailers(trailers)),
            ];
            let body = StreamBody::new(futures_util::stream::iter(frames));
            response.body(body.boxed()).unwrap()
        }
        other => {
            let (code, message) = match other {
                Some(Answer::Status(code, message)) => (*code, *message),
                _ => (12, "unknown service runtime.v1.RuntimeService"),
            };
            response
                .header("grpc-status", code)
                .header("grpc-message", message)
                .body(Full::new(Bytes::new()).boxed())
                .unwrap()
        }
    }
}
