//! Takes requests in: receives a body, unpacks and decodes it, and adds its spans or log records to the store. Limits the memory of all requests
//! together, because a small body can unpack and decode to a hundred times its size.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;
use tokio::time::timeout;
use traces::otlp::{self, Rejected, Signal};

use crate::forward;
use crate::store::Store;

/// The most bytes of bodies that are being received or wait to be decoded, over all connections. A request past it is refused.
pub const RECEIVING_LIMIT: usize = 64 * 1024 * 1024;

/// The most bytes of unpacked bodies that are decoded at the same time, over all connections. A request past it waits.
pub const DECODING_LIMIT: usize = 16 * 1024 * 1024;

/// How long a request may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// How long a body may take to arrive.
    pub body: Duration,
    /// How long a request may wait to be decoded. An exporter gives up after ten seconds.
    pub turn: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { body: Duration::from_secs(30), turn: Duration::from_secs(5) }
    }
}

/// The largest body, in bytes, that is decoded without the blocking pool.
const INLINE_LIMIT: usize = 256 * 1024;

/// How many times its size a packed body is expected to unpack to. One that is packed more tightly is unpacked again, with more room.
const EXPECTED_RATIO: usize = 32;

/// The reasons why nothing of a request is taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Unreadable(String),
    #[error("{0}")]
    Unsupported(String),
    #[error("a body has at most {0} bytes")]
    TooLarge(usize),
    #[error("the body unpacks to more than {0} bytes")]
    UnpacksTooLarge(usize),
    #[error("the lab is decoding as many requests as it can hold; send this one again")]
    Busy,
    #[error("the body didn't arrive within {0:?}")]
    Late(Duration),
    #[error("the body broke off: {0}")]
    BrokenOff(axum::Error),
    #[error(transparent)]
    Failed(JoinError),
}

/// The memory that requests may still take.
pub(crate) struct Intake {
    receiving: Arc<Semaphore>,
    decoding: Arc<Semaphore>,
    timeouts: Timeouts,
}

impl Default for Intake {
    fn default() -> Self {
        Intake::with(Timeouts::default())
    }
}

impl Intake {
    pub fn with(timeouts: Timeouts) -> Self {
        Intake {
            receiving: Arc::new(Semaphore::new(RECEIVING_LIMIT)),
            decoding: Arc::new(Semaphore::new(DECODING_LIMIT)),
            timeouts,
        }
    }
}

/// A body as it arrived, and the right to hold it.
pub(crate) struct Received {
    pub bytes: Bytes,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Intake {
    /// Receives a body of at most `limit` bytes.
    pub async fn receive(&self, body: Body, limit: usize) -> Result<Received, Refusal> {
        let mut received = Vec::new();
        let mut permit: Option<OwnedSemaphorePermit> = None;
        self.read(body, limit, |chunk| {
            let more = Arc::clone(&self.receiving).try_acquire_many_owned(weight(chunk.len()));
            let more = more.map_err(|_| Refusal::Busy)?;
            match &mut permit {
                Some(permit) => permit.merge(more),
                None => permit = Some(more),
            }
            received.extend_from_slice(&chunk);
            Ok(())
        })
        .await?;
        Ok(Received { bytes: received.into(), _permit: permit })
    }

    /// Waits until this number of bytes may be decoded.
    async fn turn(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let turn = Arc::clone(&self.decoding).acquire_many_owned(weight(bytes));
        match timeout(self.timeouts.turn, turn).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Refusal::Busy),
        }
    }

    /// Reads a body and drops it, as an exporter expects before the answer.
    pub async fn drop_body(&self, body: Body, limit: usize) -> Result<(), Refusal> {
        self.read(body, limit, |_| Ok(())).await
    }

    async fn read(
        &self,
        mut body: Body,
        limit: usize,
        mut take: impl FnMut(Bytes) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut length = 0;
        let whole = async {
            while let Some(frame) = body.frame().await {
                let Ok(chunk) = frame.map_err(Refusal::BrokenOff)?.into_data() else { continue };
                length += chunk.len();
                if length > limit {
                    return Err(Refusal::TooLarge(limit));
                }
                take(chunk)?;
            }
            Ok(())
        };
        let limit = self.timeouts.body;
        timeout(limit, whole).await.unwrap_or(Err(Refusal::Late(limit)))
    }
}

fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// The encoding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    /// The media type over HTTP.
    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Protobuf => "application/x-protobuf",
            Encoding::Json => "application/json",
        }
    }

    /// Decodes a request and adds what is in it to the store. Returns what was rejected.
    fn add(self, signal: Signal, body: Bytes, store: &Store) -> Result<Option<Rejected>, Refusal> {
        let unreadable = |error: otlp::Error| Refusal::Unreadable(error.to_string());
        match signal {
            Signal::Traces => {
                let batch = match self {
                    Encoding::Protobuf => otlp::from_protobuf(body),
                    Encoding::Json => otlp::from_json(&body),
                };
                let batch = batch.map_err(unreadable)?;
                store.add(batch.items);
                Ok(batch.rejected)
            }
            Signal::Logs => {
                let batch = match self {
                    Encoding::Protobuf => otlp::logs_from_protobuf(body),
                    Encoding::Json => otlp::logs_from_json(&body),
                };
                let batch = batch.map_err(unreadable)?;
                store.count_without_trace(batch.without_trace);
                store.add_logs(batch.items);
                Ok(batch.rejected)
            }
        }
    }
}

/// A body, and how to read it.
pub(crate) struct Packed {
    pub received: Received,
    pub packing: Option<Packing>,
    pub encoding: Encoding,
    pub signal: Signal,
}

/// The compression of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Gzip,
    Deflate,
    Zstd,
}

impl Packing {
    /// The packing with this name in HTTP and gRPC; `None` for an unknown one.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "gzip" => Some(Packing::Gzip),
            "deflate" => Some(Packing::Deflate),
            "zstd" => Some(Packing::Zstd),
            _ => None,
        }
    }

    /// The name in HTTP and gRPC.
    pub fn name(self) -> &'static str {
        match self {
            Packing::Gzip => "gzip",
            Packing::Deflate => "deflate",
            Packing::Zstd => "zstd",
        }
    }

    /// Unpacks a body. Returns `None` if it has more than `limit` bytes.
    fn unpack(self, packed: &[u8], limit: usize) -> Result<Option<Bytes>, Refusal> {
        let unreadable = |error| Refusal::Unreadable(format!("not {}: {error}", self.name()));
        let unpacked: Box<dyn Read + '_> = match self {
            Packing::Gzip => Box::new(MultiGzDecoder::new(packed)),
            Packing::Deflate => Box::new(ZlibDecoder::new(packed)),
            Packing::Zstd => Box::new(zstd::Decoder::new(packed).map_err(unreadable)?),
        };
        let mut bytes = Vec::with_capacity(limit + 1);
        unpacked.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        Ok((bytes.len() <= limit).then(|| bytes.into()))
    }
}

/// Decodes a body of at most `limit` unpacked bytes and adds what is in it to the store. Returns what was rejected. If
/// the store has a queue to forward requests, a body that could be read is also added to that, as it arrived.
pub(crate) async fn take(
    store: &Store,
    body: Packed,
    limit: usize,
) -> Result<Option<Rejected>, Refusal> {
    let Packed { ref received, packing, encoding, signal } = body;
    let forwarded = store.forward().map(|queue| (queue, received.bytes.clone()));
    let rejected = decode(store, body, limit).await?;
    if let Some((queue, bytes)) = forwarded {
        queue.push(forward::path(signal), encoding, packing, &bytes);
    }
    Ok(rejected)
}

/// Decodes a body and adds what is in it to the store. Bodies that are large or packed are decoded on the blocking pool, so that they
/// don't delay other requests, and so are those that are written to a file.
async fn decode(store: &Store, body: Packed, limit: usize) -> Result<Option<Rejected>, Refusal> {
    let Packed { received, packing, encoding, signal } = body;
    let length = received.bytes.len();
    if packing.is_none() && length <= INLINE_LIMIT && !store.is_recorded() {
        return encoding.add(signal, received.bytes, store);
    }
    let received = Arc::new(received);
    let mut room = match packing {
        None => length,
        Some(_) => limit.min(EXPECTED_RATIO * length),
    };
    loop {
        // A small body takes as much as a few: each has a thread of its own.
        let turn = store.intake().turn(room.max(INLINE_LIMIT)).await?;
        let (store, received) = (store.clone(), Arc::clone(&received));
        let work = move || {
            let body = match packing {
                None => received.bytes.clone(),
                Some(packing) => match packing.unpack(&received.bytes, room)? {
                    Some(body) => body,
                    None if room < limit => return Ok(None),
                    None => return Err(Refusal::UnpacksTooLarge(limit)),
                },
            };
            let rejected = encoding.add(signal, body, &store)?;
            drop(turn);
            Ok(Some(rejected))
        };
        match tokio::task::spawn_blocking(work).await.map_err(Refusal::Failed)?? {
            Some(rejected) => return Ok(rejected),
            None => room = limit,
        }
    }
}
