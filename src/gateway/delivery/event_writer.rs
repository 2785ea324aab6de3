//! One session's events: from its queue, or from the journal while it is behind, to its stream.
//!
//! A batch is taken only when the stream has taken the last one, so a slow client shows as a stream
//! that waits, its queue fills, and it falls behind; nobody else waits for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::watch;

use crate::domain::id::{Position, SessionId};
use crate::gateway::delivery::event_frames::put_notice;
use crate::gateway::delivery::journal_cursor::{JournalCursor, put_lagged};
use crate::gateway::delivery::outgoing::Outgoing;
use crate::gateway::delivery::subscriber::{BulkOrder, Subscriber};
use crate::gateway::fanout::Joined;
use crate::gateway::fanout::outbox::Outbox;
use crate::gateway::fanout::session_queue::{Next, ReadOrder};
use crate::gateway::hosting::Hosting;
use crate::protocol::delivery::{Event, EventMessage};
use crate::protocol::handshake::ResetReason;
use crate::replication::{JournalReader, Read};
use crate::telemetry::metrics;
use crate::transport::{Connection, FrameSender, SendError};

/// Blocks that are read from the journal at once.
const BLOCKS_PER_READ: usize = 64;

/// The writer of one session's event stream.
#[derive(Debug)]
pub(in crate::gateway) struct EventWriter {
    hosting: Arc<Hosting>,
    connection: Connection,
    subscriber: Arc<Subscriber>,
    outbox: Arc<Outbox>,
    journal: JournalReader,
    applied: watch::Receiver<u64>,
    cursor: JournalCursor,
    outgoing: Outgoing,
    /// The newest position that the client can know of.
    told: Position,
    linger: Duration,
    beat: Duration,
}

impl EventWriter {
    /// A writer that says how far it has come at least every `beat`.
    #[must_use]
    pub(in crate::gateway) fn new(
        hosting: &Arc<Hosting>,
        connection: &Connection,
        subscriber: &Arc<Subscriber>,
        cursor: JournalCursor,
        beat: Duration,
    ) -> Self {
        let journal = hosting.replication.journal_reader();
        Self {
            hosting: Arc::clone(hosting),
            connection: connection.clone(),
            subscriber: Arc::clone(subscriber),
            outbox: Arc::clone(subscriber.outbox()),
            applied: hosting.replication.journal().applied(),
            journal,
            cursor,
            outgoing: Outgoing::default(),
            told: Position::START,
            linger: Duration::ZERO,
            beat,
        }
    }

    /// Runs until the connection is over or the client wants no more events.
    #[expect(clippy::manual_async_fn, reason = "the future of one would keep the writer twice")]
    pub(in crate::gateway) fn run(mut self, session: SessionId) -> impl Future<Output = ()> + Send {
        async move {
            if let Err(error) = self.tell().await {
                tracing::debug!(%session, %error, "the event stream has ended");
            }
        }
    }

    /// Tells the client of events; the error says how it ended.
    async fn tell(&mut self) -> Result<(), SendError> {
        let mut stream = self.connection.open_uni().await?;
        self.told = self.outbox.lock().cursor();
        let lineage = self.hosting.replication.member().lineage;
        let begin = EventMessage::Begin { lineage, after: self.told };
        self.outgoing.write(|buffer| begin.put(buffer));
        loop {
            let next = self.outbox.lock().next(&mut self.outgoing);
            match next {
                Next::Write { blocks } => {
                    self.observe_turn();
                    let waited = self.send(&mut stream).await?;
                    self.pause(blocks, waited).await;
                }
                Next::Idle => {
                    self.send(&mut stream).await?;
                    let woken = self.outbox.woken();
                    if tokio::time::timeout(self.beat, woken).await.is_err() {
                        self.put_progress();
                    }
                }
                Next::Turn(mut turn) => {
                    while !turn.write(&mut self.outgoing) {
                        self.send(&mut stream).await?;
                        tokio::task::yield_now().await;
                    }
                    self.send(&mut stream).await?;
                    for order in turn.take_bulks() {
                        spawn_bulk(&self.hosting, &self.connection, order);
                    }
                }
                Next::Read(order) => self.read(&mut stream, &order).await?,
            }
        }
    }

    /// Carries out one order to read the journal.
    async fn read(&mut self, stream: &mut FrameSender, order: &ReadOrder) -> Result<(), SendError> {
        // What had been applied before the read is certainly part of it.
        let applied = *self.applied.borrow_and_update();
        // In a box of its own, which a session that keeps up does not need.
        match Box::pin(self.journal.after(order.after, BLOCKS_PER_READ)).await {
            Read::Blocks(blocks) => {
                let view = self.hosting.replication.view();
                let progress = self.cursor.read(order, &blocks, &view, &mut self.outgoing);
                drop((blocks, view));
                let narrowed = (!progress.unsubscribed.is_empty())
                    .then(|| Arc::new(order.interest.without(progress.unsubscribed)));
                if !self.outbox.lock().advance(order, progress.to, narrowed) {
                    drop(self.outgoing.take());
                    return Ok(());
                }
                if progress.skipped > 0 {
                    metrics::events_skipped(progress.skipped);
                    put_lagged(&mut self.outgoing, progress.to, progress.skipped);
                }
                self.send(stream).await?;
                tokio::task::yield_now().await;
                Ok(())
            }
            Read::CaughtUp => self.caught_up(stream, order, applied).await,
            Read::Gone { .. } => {
                self.subscriber.start_over(ResetReason::Purged);
                Ok(())
            }
        }
    }

    /// Everything up to the end of the entry `applied` has been read.
    async fn caught_up(
        &mut self,
        stream: &mut FrameSender,
        order: &ReadOrder,
        applied: u64,
    ) -> Result<(), SendError> {
        if order.may_join {
            let joined = self.hosting.fanout().join(&self.outbox, order, applied);
            match joined {
                Joined::Live => self.cursor.rest(),
                Joined::ReadOn => tokio::task::yield_now().await,
                Joined::Overtaken => {}
            }
            return Ok(());
        }
        let to = Position::end_of_entry(applied).min(order.until);
        // Refused when overtaken: the next look shows by what.
        let advanced = self.outbox.lock().advance(order, to.max(order.after), None);
        if advanced && to < order.until {
            self.send(stream).await?;
            // The turn ahead stands at an entry that the machine has applied and the journal will
            // show at once.
            if self.applied.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        Ok(())
    }

    /// Hands everything to the stream; true if it did not take it at once.
    async fn send(&mut self, stream: &mut FrameSender) -> Result<bool, SendError> {
        if self.outgoing.is_empty() {
            return Ok(false);
        }
        for chunk in self.outgoing.take() {
            stream.queue_frames(chunk)?;
        }
        let started = self.hosting.now_us();
        stream.flush().await?;
        self.told = self.told.max(self.outbox.lock().cursor());
        Ok(self.hosting.now_us() - started > 1_000)
    }

    fn observe_turn(&self) {
        if let Some(rung_us) = self.outbox.take_rung() {
            let waited = self.hosting.now_us().saturating_sub(rung_us);
            self.hosting.pressure.observe(Duration::from_micros(waited));
        }
    }

    /// Waits a little before the next batch while the node is saturated.
    async fn pause(&mut self, blocks: usize, stream_waited: bool) {
        // A stream that waits batches by itself; a single block means that nothing has piled up.
        if stream_waited || blocks < 2 && self.linger.is_zero() {
            self.linger = Duration::ZERO;
            return;
        }
        self.linger = self.hosting.pressure.linger(self.linger);
        if !self.linger.is_zero() {
            tokio::time::sleep(self.linger).await;
            // The wait was of the writer's own choice and says nothing about the node.
            self.outbox.take_rung();
        }
    }

    /// Tells how far the session has come without an event of its own.
    fn put_progress(&mut self) {
        // Blocks are pushed before the fan-out counts them: what it has counted and is not in the
        // queue was not wanted.
        let fanned = self.hosting.fanout().fanned();
        let position = Position::end_of_entry(fanned);
        if self.outbox.lock().is_drained() && position > self.told {
            self.told = position;
            self.outgoing.write(|buffer: &mut BytesMut| {
                put_notice(buffer, position, Event::Progress);
            });
        }
    }
}

/// Sends a bulk stream in a task of its own.
fn spawn_bulk(hosting: &Arc<Hosting>, connection: &Connection, order: BulkOrder) {
    let (shared, connection) = (Arc::clone(hosting), connection.clone());
    hosting.supervisor.spawn("bulk stream", async move {
        let sent = crate::gateway::delivery::bulk_stream::send_initial_values(
            &shared,
            &connection,
            order.begin,
            order.values,
        );
        // A failure means that the connection ends, which its own task notices.
        let _ = sent.await;
    });
}
