//! The body of a request, or of an answer: as much as it may be, as soon as it should be.

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::time::timeout;

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoBody {
    /// It is larger than it may be.
    TooLarge,
    /// It did not come in time.
    Late,
    /// It ended before its end, or was none.
    Broken(String),
}

impl fmt::Display for NoBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("it is too large"),
            Self::Late => f.write_str("it did not come in time"),
            Self::Broken(why) => write!(f, "it ended before its end: {why}"),
        }
    }
}

/// A body that is too large is read on and thrown away up to so many times the cap: a
/// peer that is still sending would not see the answer.
const PATIENCE: usize = 16;

/// Reads to the end.
pub(crate) async fn read<B>(body: B, most: usize, within: Duration) -> Result<Bytes, NoBody>
where
    B: Body<Data = Bytes, Error: fmt::Display> + Unpin,
{
    let whole = timeout(within, collect(body, most)).await;
    whole.unwrap_or(Err(NoBody::Late))
}

async fn collect<B>(mut body: B, most: usize) -> Result<Bytes, NoBody>
where
    B: Body<Data = Bytes, Error: fmt::Display> + Unpin,
{
    let mut whole = BytesMut::new();
    let mut seen = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| NoBody::Broken(error.to_string()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        seen = seen.saturating_add(data.len());
        if seen <= most {
            whole.extend_from_slice(&data);
        } else if seen > most.saturating_mul(PATIENCE) {
            break;
        }
    }
    if seen > most {
        return Err(NoBody::TooLarge);
    }
    Ok(whole.freeze())
}
