//! Takes connections that peers dial.

use std::sync::Arc;

use super::book::Shared;
use super::error::Refusal;
use super::handshake::{Failure, certified_name, hear};
use super::link::{self, Link};
use crate::domain::node_name::NodeName;
use crate::protocol::peer_message::HELLO;
use crate::transport::{AcceptError, Accepting, Closed, Connection};

/// Accepts until the mesh stops; each handshake runs in a task of its own.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut stop = shared.supervisor.stop_signal();
    loop {
        let accepting = tokio::select! {
            () = stop.stopped() => return,
            accepting = shared.endpoint.accept() => accepting,
        };
        // None once the endpoint is closed.
        let Some(accepting) = accepting else { return };
        shared.supervisor.spawn("peer link", receive(Arc::clone(&shared), accepting));
    }
}

async fn receive(shared: Arc<Shared>, accepting: Accepting) {
    let remote = accepting.remote();
    let connection = match accepting.complete().await {
        Ok(connection) => connection,
        Err(AcceptError::Handshake { source: Closed::Tls { alert, reason }, .. }) => {
            return shared.kept_out(remote, alert, &reason);
        }
        Err(error) => {
            // Counted by the transport.
            tracing::debug!(%remote, %error, "peer handshake failed");
            return;
        }
    };
    let certified = certified_name(&connection);
    // Before the hello is read: what changes from here on is said again on the control lane.
    let mut ours = shared.hello.subscribe();
    let result = async {
        let mut greeting = hear(&shared, &connection, certified.as_ref()).await?;
        let number = shared
            .take_place(&connection, &greeting.theirs, false)
            .map_err(Failure::RefusedHere)?;
        connection.introduced();
        let hello = ours.borrow_and_update().encode();
        // A failure shows as the end of the connection, which the link then sees.
        let _ = greeting.sender.send(HELLO, &hello).await;
        Ok(Link { connection: connection.clone(), number, greeting, ours })
    }
    .await;
    match result {
        Ok(link) => link::run(shared, link).await,
        Err(failure) => turn_away(&shared, &connection, certified.as_ref(), &failure),
    }
}

/// Ends a connection that gets no place, and counts why.
pub(super) fn turn_away(
    shared: &Shared,
    connection: &Connection,
    peer: Option<&NodeName>,
    failure: &Failure,
) {
    if let Some((refusal, by_us)) = failure.refusal() {
        if by_us && is_fault(refusal) {
            connection.at_fault();
        }
        shared.refused(connection.remote(), peer, refusal, by_us);
        refusal.close(connection);
    } else {
        Refusal::BadHello.close(connection);
    }
}

/// Whether a node in good order is never refused for this.
fn is_fault(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::BadHello | Refusal::Silent | Refusal::CertificateName)
}
