//! One read without a session: what can be seen of a node that cannot open one, for want of a quorum.

use std::sync::Arc;

use bytes::BytesMut;

use crate::domain::id::{Index, SessionId};
use crate::gateway::entrance::authenticate::authenticate;
use crate::gateway::entrance::handshake::NotOpened;
use crate::gateway::hosting::Hosting;
use crate::gateway::reply_code;
use crate::gateway::request::reads::{self, Reader};
use crate::gateway::request::roles_of;
use crate::protocol::handshake::Look;
use crate::protocol::read::{INLINE_ROWS_MAX, Level, Limit, Query, Read};
use crate::protocol::{ErrorCode, ServerMessage};
use crate::replication::NodeState;
use crate::transport::{Connection, FrameSender};

/// Bytes of rows in one answer; more are fetched page by page.
const ROWS_BYTES_MAX: u32 = 512 * 1024;

/// Answers a look and ends the stream.
///
/// # Errors
/// [`NotOpened`], which the client is still to be told.
pub(super) async fn answer(
    hosting: &Arc<Hosting>,
    connection: &Connection,
    sender: &mut FrameSender,
    look: &Look,
) -> Result<(), NotOpened> {
    let state = *hosting.replication.state().borrow();
    let shows = match (&look.read.query, look.read.level) {
        (Query::ClusterStatus | Query::Ping, _) => true,
        (_, Level::Stale) => matches!(
            state,
            NodeState::Ready
                | NodeState::ReadOnly
                | NodeState::Inquorate
                | NodeState::CatchingUp
                | NodeState::Draining
        ),
        _ => matches!(state, NodeState::Ready | NodeState::ReadOnly),
    };
    if !shows {
        let code = reply_code::state(state).unwrap_or(ErrorCode::NotReady);
        return Err(NotOpened::new(code, format!("the node is {state}")));
    }
    let principal = authenticate(hosting, connection, &look.credentials).await?;
    let roles = roles_of(&principal).into();
    let reader = Reader { session: SessionId(0), roles, answered: Index::default() };
    let found = reads::answer(hosting, &reader, &bounded(&look.read)).await;
    let mut buffer = BytesMut::new();
    ServerMessage::ReadReply { correlation: 0, reply: found.reply }.put(&mut buffer);
    // Whether the client still listens is its own affair.
    let _ = sender.send_frames(buffer.freeze()).await;
    let _ = sender.finish().await;
    Ok(())
}

/// The same read, its rows few enough for one frame.
fn bounded(read: &Read) -> Read {
    let mut read = read.clone();
    if let Query::Fetch(fetch) = &mut read.query {
        let rows_max = INLINE_ROWS_MAX as u32;
        fetch.bytes_max = Some(fetch.bytes_max.unwrap_or(u32::MAX).min(ROWS_BYTES_MAX));
        fetch.limit = Some(match fetch.limit {
            None => Limit::First(rows_max),
            Some(Limit::First(count)) => Limit::First(count.min(rows_max)),
            Some(Limit::Last(count)) => Limit::Last(count.min(rows_max)),
        });
    }
    read
}
