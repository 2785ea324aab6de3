//! One connection, from its welcome to its end.
//!
//! | part | waits for | wakes |
//! |---|---|---|
//! | writer | something to send, or the watcher's next check | the node |
//! | reader | the control stream | callers, the writer |
//! | delivery | events, bulk streams, room in local streams | local streams, callers of fetches |
//! | racer | a silent or parked node | the driver, with another connection |
//!
//! They are one task: when one ends, all do, and the driver decides what is next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::delivery::deliver;
use super::dial::{Dialer, Link};
use super::driver::{self, Purpose};
use super::life::{Heard, Thresholds, Verdict, Watcher};
use crate::client::error::SessionEnded;
use crate::client::outbox::Outbox;
use crate::client::pending::Completions;
use crate::client::shared::{ConnectionState, Shared};
use crate::protocol::command::ClientCommand;
use crate::protocol::conversation::Conversation;
use crate::protocol::{ClientMessage, ErrorCode, ServerMessage};
use crate::transport::{CloseCode, Connection, Frame, FrameReceiver, FrameSender};

/// How long a goodbye may take before the connection is simply closed.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(2);
/// A slow network gets at least so many round trips before its node is suspected.
const ROUND_TRIPS_MIN: u32 = 4;

/// Why a connection is of no further use.
#[derive(Debug)]
pub(in crate::client) enum End {
    /// It broke, or its node is silent, stopping, or no longer the session's host.
    Lost,
    /// The node does not keep to the protocol.
    Broken(ErrorCode),
    /// Another node has taken the session over already.
    Switched(Box<driver::Welcomed>),
    /// The session is over.
    Over(SessionEnded),
}

/// What makes a client look for another node while the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unease {
    None,
    Silent,
    Parked(Duration),
}

/// Serves the session over this connection until it ends.
pub(in crate::client) async fn run(shared: &Arc<Shared>, dialer: &Dialer, link: Link) -> End {
    let Link { address, connection, mut sender, mut receiver, mut conversation, welcome } = link;
    let heard = Heard::new(shared.clock.now());
    let (unease, uneasy) = watch::channel(Unease::None);
    let patience = shared.config.patience;
    let beat = Duration::from_millis(welcome.limits.beat_ms.into());
    let thresholds = Thresholds {
        unanswered: patience.unanswered,
        beat: if beat.is_zero() { patience.beat } else { beat },
        dead: patience.dead,
    };
    let reader = Reader { shared, heard: &heard, unease: &unease, node: &welcome.node };
    let mut stop = shared.stop.subscribe();
    let end = tokio::select! {
        end = reader.run(&mut receiver, &mut conversation) => end,
        end = write(shared, &connection, &heard, thresholds, &unease, &mut sender) => end,
        end = deliver(shared, &heard, &connection) => end,
        end = race(shared, dialer, uneasy, &address) => end,
        _ = connection.closed() => End::Lost,
        () = async {
            // The sender lives in `shared`.
            let _ = stop.wait_for(|stop| *stop).await;
            shared.outbox().close();
            shared.to_send.notify_one();
            tokio::time::sleep(GOODBYE_PATIENCE).await;
        } => End::Over(SessionEnded::Closed),
    };
    let code = match &end {
        End::Broken(code) => code.number(),
        End::Lost | End::Switched(_) | End::Over(_) => 0,
    };
    connection.close(CloseCode(code.into()), "");
    end
}

/// The reader of the control stream.
struct Reader<'a> {
    shared: &'a Shared,
    heard: &'a Heard,
    unease: &'a watch::Sender<Unease>,
    node: &'a str,
}

impl Reader<'_> {
    async fn run(&self, receiver: &mut FrameReceiver, conversation: &mut Conversation) -> End {
        // The client's own side of the conversation is kept by construction.
        let mut completions = Completions::default();
        loop {
            let Ok(Some(frame)) = receiver.next().await else { return End::Lost };
            self.heard.now(self.shared.clock.now());
            let (places, end) = self.take(frame, receiver, conversation, &mut completions);
            completions.deliver();
            if places > 0 {
                self.shared.window.add_permits(places as usize);
                if self.shared.has_cleanups() {
                    self.shared.to_send.notify_one();
                }
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Takes in a frame and all that have come behind it, under one lock.
    fn take(
        &self,
        frame: Frame,
        receiver: &mut FrameReceiver,
        conversation: &mut Conversation,
        completions: &mut Completions,
    ) -> (u32, Option<End>) {
        let mut outbox = self.shared.outbox();
        let mut places = 0;
        let mut next = Some(frame);
        while let Some(frame) = next {
            if conversation.node_says(frame.kind).is_err() {
                return (places, Some(End::Broken(ErrorCode::OutOfPlace)));
            }
            let message = match ServerMessage::decode(frame.kind, frame.body) {
                Ok(message) => message,
                Err(error) => return (places, Some(End::Broken(error.code()))),
            };
            match self.hear(message, &mut outbox, completions) {
                Ok(given_back) => places += given_back,
                Err(end) => return (places, Some(end)),
            }
            next = match receiver.buffered() {
                Ok(next) => next,
                Err(_) => return (places, Some(End::Lost)),
            };
        }
        (places, None)
    }

    fn hear(
        &self,
        message: ServerMessage,
        outbox: &mut Outbox,
        completions: &mut Completions,
    ) -> Result<u32, End> {
        match message {
            ServerMessage::Acknowledged(entries) => {
                return Ok(outbox.acknowledged(&entries, completions));
            }
            ServerMessage::Reply { request, index, reply } => {
                return Ok(outbox.replied(request, index, reply, completions));
            }
            ServerMessage::ReadReply { correlation, reply } => {
                outbox.read_replied(correlation, reply);
            }
            ServerMessage::Shed { first, retry_ms, .. } => {
                let retry = Duration::from_millis(retry_ms.into());
                outbox.shed(first, retry, self.shared.clock.now());
                self.shared.counters.sheds.fetch_add(1, Ordering::Relaxed);
                self.shared.to_send.notify_one();
            }
            ServerMessage::Parked { code, retry_ms } => {
                let node = self.node.into();
                self.shared.state.send_replace(ConnectionState::Parked { node, code });
                let retry = Duration::from_millis(retry_ms.into());
                self.unease.send_replace(Unease::Parked(retry));
            }
            ServerMessage::Unparked => {
                let node = self.node.into();
                self.shared.state.send_replace(ConnectionState::Connected { node });
                self.unease.send_replace(Unease::None);
            }
            ServerMessage::Beat { .. } => {}
            ServerMessage::Close { code, text, .. } => return Err(closed(code, text)),
            // The conversation lets neither through.
            ServerMessage::Welcome(_) | ServerMessage::Refused(_) => {}
        }
        Ok(0)
    }
}

/// What a node's last word means for the session.
fn closed(code: ErrorCode, text: String) -> End {
    match code {
        ErrorCode::None => End::Over(SessionEnded::Closed),
        // The session goes on elsewhere: over a move of our own that was given up, as a rule.
        ErrorCode::TakenOver | ErrorCode::StaleEpoch => End::Lost,
        code if code.is_transient() => End::Lost,
        code => End::Over(SessionEnded::ByCluster { code, text }),
    }
}

/// Sends what there is to send and watches that the node answers.
async fn write(
    shared: &Shared,
    connection: &Connection,
    heard: &Heard,
    thresholds: Thresholds,
    unease: &watch::Sender<Unease>,
    sender: &mut FrameSender,
) -> End {
    let slow = connection.rtt() * ROUND_TRIPS_MIN;
    let unanswered = thresholds.unanswered.max(slow);
    let mut watcher = Watcher::new(Thresholds { unanswered, ..thresholds });
    loop {
        shared.not_still().await;
        clean_up(shared);
        let now = shared.clock.now();
        let taken = shared.outbox().take(now);
        if let Some(frames) = taken {
            if sender.send_frames(frames).await.is_err() {
                return End::Lost;
            }
            continue;
        }
        let listening = shared.deliveries().is_listening();
        let (waiting_since, paused) = {
            let outbox = shared.outbox();
            (outbox.waiting_since(), outbox.paused_until())
        };
        let (verdict, next) = watcher.check(now, heard.last(), waiting_since, listening);
        let silent = verdict == Verdict::Suspect;
        unease.send_if_modified(|unease| match *unease {
            Unease::None if silent => std::mem::replace(unease, Unease::Silent) != Unease::Silent,
            Unease::Silent if !silent => std::mem::replace(unease, Unease::None) != Unease::None,
            _ => false,
        });
        match verdict {
            Verdict::Ping => {
                shared.outbox().ping();
                continue;
            }
            Verdict::Dead => return End::Lost,
            Verdict::Well | Verdict::Suspect => {}
        }
        let wake = next.into_iter().chain(paused).min();
        tokio::select! {
            () = shared.to_send.notified() => {
                // Let those who are about to add to the batch do so.
                tokio::task::yield_now().await;
            }
            () = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }
}

/// Lays the commands that clean up after dropped streams, as far as the window has room.
fn clean_up(shared: &Shared) {
    while shared.has_cleanups() {
        let Ok(place) = shared.window.try_acquire() else { return };
        let Some(command) = shared.take_cleanup() else { return };
        place.forget();
        let lay = |buffer: &mut bytes::BytesMut, request| {
            ClientMessage::put_command(buffer, request, &command as &ClientCommand);
        };
        let begun = shared.deliveries().begun();
        let mut outbox = shared.outbox();
        match outbox.quietly(1, lay) {
            Ok(request) => outbox.selects.sent(request, 0, begun),
            Err(_) => {
                drop(outbox);
                shared.window.add_permits(1);
                return;
            }
        }
    }
}

/// Looks for another node while this one is silent or parked.
async fn race(
    shared: &Arc<Shared>,
    dialer: &Dialer,
    mut uneasy: watch::Receiver<Unease>,
    address: &str,
) -> End {
    let mut backoff = driver::Backoff::default();
    loop {
        let unease = match uneasy.wait_for(|unease| *unease != Unease::None).await {
            Ok(unease) => *unease,
            // The sender lives as long as the connection.
            Err(_) => return End::Lost,
        };
        let hint = match unease {
            Unease::Parked(retry) => retry,
            Unease::None | Unease::Silent => Duration::ZERO,
        };
        shared.counters.races.fetch_add(1, Ordering::Relaxed);
        let others = driver::addresses(shared, Some(address), false);
        let purpose = Purpose::Resume(shared);
        let attempt = async {
            tokio::time::sleep(hint).await;
            driver::round(dialer, &shared.config, &purpose, &others).await
        };
        let calm = uneasy.wait_for(|unease| *unease == Unease::None);
        tokio::select! {
            result = attempt => match result {
                Ok(welcomed) => return End::Switched(Box::new(welcomed)),
                Err(driver::RoundFailed::Over(ended)) => return End::Over(ended),
                Err(driver::RoundFailed::All(_)) => {}
            },
            // A move that was under way may still be carried out; this connection is then closed
            // by its node, and the session resumed.
            _ = calm => {}
        }
        tokio::time::sleep(backoff.next()).await;
    }
}
