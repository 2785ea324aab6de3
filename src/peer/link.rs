//! One connection to a peer while it stands: its streams come in, hellos go both ways.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;

use super::book::{CONTROL, Shared};
use super::error::Refusal;
use super::handshake::{Failure, Greeting, next_hello};
use super::mesh::{IncomingStream, Lane};
use crate::protocol::peer_message::{HELLO, Hello};
use crate::transport::{Connection, FrameReceiver, FrameSender};

/// A connection that has its place in the book.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) number: u64,
    pub(super) greeting: Greeting,
    /// Our hello; marked as seen up to what was said on this connection.
    pub(super) ours: watch::Receiver<Hello>,
}

/// Serves the connection until it ends, then takes it off the book.
pub(super) async fn run(shared: Arc<Shared>, link: Link) {
    let peer = link.greeting.theirs.name.clone();
    let number = link.number;
    let connection = link.connection.clone();
    if let Err(Failure::RefusedHere(refusal)) = serve(&shared, link).await {
        shared.refused(connection.remote(), Some(&peer), refusal, true);
        refusal.close(&connection);
    }
    let closed = connection.closed().await;
    shared.leave_place(&peer, number, &closed);
}

/// Ends only with a failure: a connection has no other end.
async fn serve(shared: &Arc<Shared>, link: Link) -> Result<(), Failure> {
    let Link { connection, number, greeting, mut ours } = link;
    let Greeting { theirs, mut sender, mut receiver } = greeting;
    let mut stop = shared.supervisor.stop_signal();
    let mut arriving = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = stop.stopped() => return Err(Failure::RefusedHere(Refusal::Stopping)),
            stream = connection.accept_bi() => {
                let (sender, receiver) = stream?;
                arriving.push(announce(shared, &theirs, number, sender, receiver));
            }
            Some(()) = arriving.next() => {}
            hello = next_hello(&mut receiver) => {
                let hello = hello?;
                let same = hello.name == theirs.name
                    && hello.directory_nonce == theirs.directory_nonce
                    && hello.incarnation == theirs.incarnation;
                if !same {
                    return Err(Failure::RefusedHere(Refusal::BadHello));
                }
                shared.hello_changed(number, &hello);
            }
            // The sender lives in `shared`.
            Ok(()) = ours.changed() => {
                let hello = ours.borrow_and_update().encode();
                sender.send(HELLO, &hello).await?;
            }
        }
    }
}

/// Reads the lane byte of a stream and hands it on; waits while nobody takes it, which holds back
/// the peer once it has as many streams open as it may.
async fn announce(
    shared: &Shared,
    theirs: &Hello,
    connection: u64,
    mut sender: FrameSender,
    mut receiver: FrameReceiver,
) {
    match receiver.next_byte().await {
        Ok(Some(lane)) if Lane(lane) != CONTROL => {
            let peer = theirs.name.clone();
            let stream = IncomingStream { peer, connection, lane: Lane(lane), sender, receiver };
            // Fails only when the layer above is gone, and with it the reason for the stream.
            let _ = shared.incoming.send(stream).await;
        }
        // A stream without a lane, or a second control lane, serves nothing.
        Ok(_) => {
            sender.reset(Refusal::BadHello.code());
            receiver.stop(Refusal::BadHello.code());
        }
        Err(_) => {}
    }
}
