//! The exchange of hellos, from both ends.

use std::time::Duration;

use bytes::Bytes;

use super::book::{CONTROL, Shared, refusal_of};
use super::directory::check_hello;
use super::error::Refusal;
use crate::domain::node_name::NodeName;
use crate::protocol::peer_message::{HELLO, HELLO_BYTES_MAX, Hello};
use crate::transport::tls::node_name_in;
use crate::transport::{
    Closed, Connection, FrameReceiver, FrameSender, Priority, ReceiveError, SendError,
};

/// What an exchange of hellos may take.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// The control lane of a connection, and what the other side said first.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) theirs: Hello,
    pub(super) sender: FrameSender,
    pub(super) receiver: FrameReceiver,
}

/// Why no hellos were exchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// This side does not want the other.
    RefusedHere(Refusal),
    /// The connection is over; the other side may have said why.
    Closed(Closed),
}

impl Failure {
    /// The refusal in it, and whether it was ours.
    pub(super) fn refusal(&self) -> Option<(Refusal, bool)> {
        match self {
            Self::RefusedHere(refusal) => Some((*refusal, true)),
            Self::Closed(closed) => refusal_of(closed).map(|refusal| (refusal, false)),
        }
    }
}

impl From<Closed> for Failure {
    fn from(closed: Closed) -> Self {
        Self::Closed(closed)
    }
}

impl From<ReceiveError> for Failure {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Closed(closed) => Self::Closed(closed),
            _ => Self::RefusedHere(Refusal::BadHello),
        }
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Closed(closed) => Self::Closed(closed),
            _ => Self::RefusedHere(Refusal::BadHello),
        }
    }
}

/// The node that the certificate at the other end is for.
pub(super) fn certified_name(connection: &Connection) -> Option<NodeName> {
    node_name_in(&connection.certificate_names())
}

/// The dialler's side: says hello, and checks the answer.
pub(super) async fn greet(
    shared: &Shared,
    connection: &Connection,
    certified: &NodeName,
) -> Result<Greeting, Failure> {
    in_time(async {
        let ours = shared.hello.borrow().clone();
        let (mut sender, mut receiver) = connection.open_bi().await?;
        sender.set_priority(Priority::High);
        sender.queue_raw(Bytes::copy_from_slice(&[CONTROL.0]));
        sender.send(HELLO, &ours.encode()).await?;
        receiver.limit_frames(HELLO_BYTES_MAX);
        let theirs = next_hello(&mut receiver).await?;
        check_hello(&ours, &theirs, Some(certified)).map_err(Failure::RefusedHere)?;
        Ok(Greeting { theirs, sender, receiver })
    })
    .await
}

/// The other side: hears the hello and checks it. The answer is the caller's to give, once it knows
/// that it wants the connection.
pub(super) async fn hear(
    shared: &Shared,
    connection: &Connection,
    certified: Option<&NodeName>,
) -> Result<Greeting, Failure> {
    in_time(async {
        let (sender, mut receiver) = connection.accept_bi().await?;
        sender.set_priority(Priority::High);
        receiver.limit_frames(HELLO_BYTES_MAX);
        if receiver.next_byte().await? != Some(CONTROL.0) {
            return Err(Failure::RefusedHere(Refusal::BadHello));
        }
        let theirs = next_hello(&mut receiver).await?;
        let ours = shared.hello.borrow().clone();
        check_hello(&ours, &theirs, certified).map_err(Failure::RefusedHere)?;
        Ok(Greeting { theirs, sender, receiver })
    })
    .await
}

/// The next hello on a control lane.
pub(super) async fn next_hello(receiver: &mut FrameReceiver) -> Result<Hello, Failure> {
    let bad = Failure::RefusedHere(Refusal::BadHello);
    match receiver.next().await? {
        Some(frame) if frame.kind == HELLO => Hello::decode(&frame.body).map_err(|_| bad),
        _ => Err(bad),
    }
}

async fn in_time<T>(exchange: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(HELLO_TIMEOUT, exchange)
        .await
        .unwrap_or(Err(Failure::RefusedHere(Refusal::Silent)))
}
