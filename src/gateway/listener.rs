//! Accepts clients: a task for each, bounded in number while they are strangers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::gateway::entrance::handshake;
use crate::gateway::hosting::Hosting;
use crate::gateway::session_task;
use crate::protocol::ErrorCode;
use crate::supervisor::StopSignal;
use crate::telemetry::metrics;
use crate::transport::{Accepting, CloseCode, Connection, Endpoint};

/// How long a client that has its answer may take to close.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

/// Accepts until `stop`.
pub(super) async fn run(hosting: Arc<Hosting>, endpoint: Endpoint, mut stop: StopSignal) {
    loop {
        let accepting = tokio::select! {
            () = stop.stopped() => return,
            accepting = endpoint.accept() => match accepting {
                Some(accepting) => accepting,
                None => return,
            },
        };
        if hosting.handshakes.available_permits() == 0 {
            accepting.refuse();
            continue;
        }
        let shared = Arc::clone(&hosting);
        hosting.supervisor.spawn("client", serve(shared, accepting));
    }
}

/// One client, from its knock to its end.
async fn serve(hosting: Arc<Hosting>, accepting: Accepting) {
    let Ok(permit) = hosting.handshakes.try_acquire() else { return accepting.refuse() };
    let remote = accepting.remote();
    // A handshake that fails is counted by the transport.
    let Ok(connection) = accepting.complete().await else { return };
    let number = hosting.connections.fetch_add(1, Ordering::Relaxed);
    // Each in a box of its own: a session that lasts does not keep the room of its handshake.
    let opened = Box::pin(handshake::open(&hosting, &connection)).await;
    drop(permit);
    if opened.is_ok() {
        connection.introduced();
    }
    match opened {
        Ok(Some(opened)) => {
            tracing::debug!(number, %remote, session = %opened.session, "a session is connected");
            metrics::sessions_hosted(hosting.registry.len());
            Box::pin(session_task::run(Arc::clone(&hosting), connection, opened)).await;
            metrics::sessions_hosted(hosting.registry.len());
        }
        Ok(None) => {
            tracing::debug!(number, %remote, "a look was answered");
            let _ = tokio::time::timeout(LAST_WORDS_MAX, connection.closed()).await;
            connection.close(CloseCode(0), "answered");
        }
        Err(refusal) => {
            tracing::debug!(number, %remote, code = %refusal.code(), "no session was opened");
            metrics::session_refused(refusal.code().number());
            if is_fault(&connection, refusal.code()) {
                connection.at_fault();
            }
            // The client has the refusal, and closes; one that does not is closed.
            let _ = tokio::time::timeout(LAST_WORDS_MAX, connection.closed()).await;
            connection.close(CloseCode(u32::from(refusal.code().number())), "refused");
        }
    }
}

/// Whether a client that is refused for this has done what a client in good order does not. One of
/// another version, or whose session has expired, is in good order, and may be one of thousands.
fn is_fault(connection: &Connection, code: ErrorCode) -> bool {
    match code {
        ErrorCode::FrameTooLong
        | ErrorCode::UnknownKind
        | ErrorCode::Malformed
        | ErrorCode::OutOfPlace
        | ErrorCode::TooManyRequests
        | ErrorCode::BadCredentials
        | ErrorCode::AnonymousRefused
        | ErrorCode::WrongSecret => true,
        // One that thought better of it is gone; one that is silent is still there.
        ErrorCode::HelloTimeout => connection.close_reason().is_none(),
        _ => false,
    }
}
