//! One client's connection, from welcome to farewell: waits in one place, decides in [`Session`].

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::domain::effect::CloseReason;
use crate::domain::id::{Index, Position, SessionId};
use crate::domain::machine::Answered;
use crate::domain::outcome::{Outcome, Rejection};
use crate::gateway::delivery::event_writer::EventWriter;
use crate::gateway::delivery::journal_cursor::JournalCursor;
use crate::gateway::delivery::subscriber::Subscriber;
use crate::gateway::entrance::handshake::Opened;
use crate::gateway::farewell;
use crate::gateway::hosting::{Hosting, READS_MAX};
use crate::gateway::registry::Ending;
use crate::gateway::reply_code::{self, Answer, PARKED_RETRY_MS, RETRY_MS};
use crate::gateway::request::numbers::{Admission, Note, Requests};
use crate::gateway::request::reads::{self, Reader};
use crate::gateway::request::translate::{self, Fit, FollowUp, Unfit};
use crate::gateway::tolerance::{Allowance, Tolerance};
use crate::protocol::conversation::Conversation;
use crate::protocol::delivery::BulkPurpose;
use crate::protocol::read::{Answer as ReadAnswer, Read, ReadReply};
use crate::protocol::server_message::{Acknowledged, AcknowledgementWriter};
use crate::protocol::{ClientMessage, DecodeError, ErrorCode, ServerMessage};
use crate::replication::SessionProposer;
use crate::supervisor::OwnedTask;
use crate::telemetry::{event, metrics};
use crate::transport::{CloseCode, Connection, Frame, FrameReceiver, FrameSender, ReceiveError};

/// Requests of one session that cannot be what they claim to be, or whose selectors are dear. To find
/// out that a selector, a path or a value is none costs the node what a good one costs, and to compile
/// an expression may cost a thousand times more. A session over it is not cut off: nothing more is read
/// of it until enough is forgiven, and the stream's window holds it back.
const UNFIT_OR_DEAR: Allowance = Allowance { count: 64, per_s: 32 };
/// Bytes that wait on the control stream from which on no more requests are read.
const BACKLOG_BYTES_MAX: usize = 256 * 1024;
/// Frames that are handled before answers have a turn.
const FRAMES_PER_TURN: usize = 256;
/// Rows of a fetch that are answered on the control stream; more go on a stream of their own.
const INLINE_ROWS_BYTES_MAX: usize = 64 * 1024;
/// What the last frames may take to leave.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How a connection ends.
#[derive(Debug)]
enum End {
    /// The client is gone.
    Lost,
    /// The client has said goodbye.
    Goodbye,
    /// The client broke the protocol.
    Violation(ErrorCode, String),
    /// The node ends it.
    Told(Ending),
}

/// The deciding half of one connection.
struct Session {
    hosting: Arc<Hosting>,
    connection: Connection,
    session: SessionId,
    epoch: u32,
    roles: Arc<[String]>,
    proposer: SessionProposer,
    subscriber: Arc<Subscriber>,
    past: Option<Position>,
    writer: Option<OwnedTask>,
    requests: Requests,
    tolerance: Tolerance,
    conversation: Conversation,
    /// Commands that have come and are to be submitted together.
    batch: Vec<(u64, Bytes)>,
    answered: Index,
    reads: usize,
    /// The reason for which the client was told that commands are refused here.
    parked: Option<ErrorCode>,
    acknowledgements: AcknowledgementWriter,
    out: BytesMut,
    /// Replies of reads that this session's own tasks carry out; boxed, since a channel sets room
    /// aside for 32 of these.
    done: mpsc::Sender<Box<ServerMessage>>,
    beat: Duration,
}

/// Serves an open session until its connection ends. A block and no async function, whose future
/// would keep each of its arguments twice: one of a session that lasts stays for as long.
pub(super) fn run(
    hosting: Arc<Hosting>,
    connection: Connection,
    opened: Box<Opened>,
) -> impl Future<Output = ()> + Send {
    let Opened { mut sender, mut receiver, mut answers, mut registration, .. } = *opened;
    let (done, mut finished) = mpsc::channel(READS_MAX);
    let mut session = Session {
        session: opened.session,
        epoch: opened.epoch,
        roles: opened.roles,
        proposer: opened.proposer,
        subscriber: Arc::new(opened.subscriber),
        past: opened.past,
        writer: None,
        requests: Requests::new(opened.last_request),
        tolerance: Tolerance::default(),
        conversation: Conversation::Live,
        batch: Vec::new(),
        answered: Index::default(),
        reads: 0,
        parked: None,
        acknowledgements: AcknowledgementWriter::default(),
        out: BytesMut::new(),
        done,
        beat: opened.beat,
        hosting: Arc::clone(&hosting),
        connection: connection.clone(),
    };
    async move {
        session.begin();
        let mut beat = tokio::time::interval(session.beat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut quorum, mut state) = (hosting.replication.quorum(), hosting.replication.state());
        let mut stop = hosting.supervisor.stop_signal();
        let mut stray = pin!(stray_stream(&connection));
        let end = loop {
            if let Err(end) = session.hand_over(&mut sender) {
                break end;
            }
            let backlog = sender.queued_bytes();
            let waits_until = session.waits_until();
            tokio::select! {
                ending = registration.ending() => break End::Told(ending),
                () = stop.stopped() => break End::Told(draining()),
                frame = receiver.next(), if backlog < BACKLOG_BYTES_MAX && waits_until.is_none() => {
                    if let Err(end) = session.take_frames(frame, &mut receiver) {
                        break end;
                    }
                }
                batch = answers.recv() => match batch {
                    Some(batch) => if let Err(end) = session.take_answers(&batch) {
                        break end;
                    },
                    // Attached anew by a later connection, or the node stops: both say so themselves.
                    None => break End::Told(registration.ending().await),
                },
                Some(reply) = finished.recv() => session.take_read_reply(&reply),
                flushed = sender.flush(), if backlog > 0 => if flushed.is_err() {
                    break End::Lost;
                },
                Ok(()) = quorum.changed() => session.tell_parked(),
                Ok(()) = state.changed() => session.tell_parked(),
                () = &mut stray => break End::Violation(
                    ErrorCode::OutOfPlace,
                    "a second stream was opened".to_owned(),
                ),
                () = wait_until(waits_until), if waits_until.is_some() => {}
                _ = beat.tick() => session.put_beat(),
            }
        };
        session.subscriber.leave();
        drop(session.writer.take());
        // The place is free from here on; what the log is told names the epoch.
        drop(registration);
        session.finish(end, &mut sender).await;
    }
}

impl Session {
    /// Starts what goes on from an earlier connection.
    fn begin(&mut self) {
        if let Some(cursor) = self.subscriber.begins_with() {
            self.start_writer(cursor);
        }
        self.tell_parked();
    }

    /// Hands what has been laid to the control stream.
    fn hand_over(&mut self, sender: &mut FrameSender) -> Result<(), End> {
        self.acknowledgements.put(&mut self.out);
        if self.out.is_empty() {
            return Ok(());
        }
        // Full: the client sends requests and reads no answers, for megabytes.
        sender
            .queue_frames(self.out.split().freeze())
            .map_err(|error| End::Violation(ErrorCode::TooManyRequests, error.to_string()))
    }

    /// Handles a frame and those that have come behind it.
    fn take_frames(
        &mut self,
        first: Result<Option<Frame>, ReceiveError>,
        receiver: &mut FrameReceiver,
    ) -> Result<(), End> {
        let mut next = first;
        for turn in 1.. {
            match next {
                Ok(Some(frame)) => self.take_frame(frame)?,
                Ok(None) => return Err(End::Lost),
                Err(ReceiveError::Frame(error)) => {
                    return Err(End::Violation(ErrorCode::FrameTooLong, error.to_string()));
                }
                Err(_) => return Err(End::Lost),
            }
            if turn == FRAMES_PER_TURN || self.waits_until().is_some() {
                break;
            }
            next = match receiver.buffered() {
                Ok(None) => break,
                other => other,
            };
        }
        self.submit();
        Ok(())
    }

    fn take_frame(&mut self, frame: Frame) -> Result<(), End> {
        let out_of_place =
            |error: &dyn ToString| End::Violation(ErrorCode::OutOfPlace, error.to_string());
        self.conversation.client_says(frame.kind).map_err(|error| out_of_place(&error))?;
        let message = ClientMessage::decode(frame.kind, frame.body)
            .map_err(|error| End::Violation(error.code(), error.to_string()))?;
        match message {
            ClientMessage::Update { request, record } => {
                self.take_request(request, |roles| translate::update(record, roles))
            }
            ClientMessage::Command { request, body } => {
                self.take_request(request, |roles| translate::command(&body, roles))
            }
            ClientMessage::Read { correlation, read } => {
                self.submit();
                self.take_read(correlation, read);
                Ok(())
            }
            ClientMessage::Answered { below } => {
                self.requests.answered(below);
                Ok(())
            }
            ClientMessage::Goodbye => {
                self.submit();
                Err(End::Goodbye)
            }
            // The conversation lets one of them through, and that was taken before.
            ClientMessage::Hello(_) | ClientMessage::Look(_) => {
                Err(out_of_place(&"a second hello"))
            }
        }
    }

    fn take_request(
        &mut self,
        request: u64,
        translate: impl FnOnce(&[String]) -> Result<Fit, Unfit>,
    ) -> Result<(), End> {
        match self.requests.admit(request) {
            Admission::Take => {}
            Admission::PassOver => return Ok(()),
            Admission::Unheeding => {
                let text = format!("request {request} came long after those before it were shed");
                return Err(End::Violation(ErrorCode::TooManyRequests, text));
            }
            Admission::Gap { expected } => {
                let text = format!("request {request} came where {expected} was due");
                return Err(End::Violation(ErrorCode::Gap, text));
            }
        }
        let bytes = match translate(&self.roles) {
            Ok(Fit { bytes, follow_up, is_dear }) => {
                if is_dear {
                    self.tolerance.count(UNFIT_OR_DEAR, self.hosting.clock.now());
                }
                if let Some(follow_up) = follow_up {
                    self.requests.note(request, Note::FollowUp(follow_up));
                }
                bytes
            }
            Err(unfit) => {
                metrics::request_refused(unfit.code.number());
                self.tolerance.count(UNFIT_OR_DEAR, self.hosting.clock.now());
                let bytes = unfit.command().encode();
                self.requests.note(request, Note::Unfit(unfit));
                bytes
            }
        };
        self.batch.push((request, bytes));
        Ok(())
    }

    /// When the session is heard again; none: it is heard now.
    fn waits_until(&self) -> Option<Instant> {
        self.tolerance.waits_until(UNFIT_OR_DEAR, self.hosting.clock.now())
    }

    /// Submits what has come.
    fn submit(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let mut last = 0;
        let commands = self.batch.drain(..).inspect(|(request, _)| last = *request);
        let submitted = self.proposer.submit_all(self.requests.answered_below(), commands);
        if let Err(refusal) = submitted {
            let (code, retry_ms) = reply_code::refusal(refusal);
            metrics::request_refused(code.number());
            self.requests.shed_from(last);
            self.put(&ServerMessage::Shed { first: last, code, retry_ms });
        }
    }

    fn take_answers(&mut self, batch: &[Answered]) -> Result<(), End> {
        for answered in batch {
            self.take_answer(answered)?;
        }
        Ok(())
    }

    fn take_answer(&mut self, answered: &Answered) -> Result<(), End> {
        let Answered { origin, index, outcome } = answered;
        if let Outcome::Rejected(reason @ (Rejection::StaleEpoch | Rejection::NoSuchSession)) =
            outcome
        {
            let code = match reason {
                Rejection::StaleEpoch => ErrorCode::TakenOver,
                other => reply_code::code(*other),
            };
            return Err(End::Told(Ending { code, retry_ms: 0, settled: true }));
        }
        self.answered = self.answered.max(*index);
        match self.requests.take_note(origin.request) {
            Some(Note::Unfit(unfit)) if matches!(outcome, Outcome::Rejected(_)) => {
                let message = reply_code::unfit_reply(answered, &unfit);
                self.put(&message);
                return Ok(());
            }
            Some(Note::FollowUp(follow_up)) if !matches!(outcome, Outcome::Rejected(_)) => {
                self.follow(origin.request, *index, follow_up);
            }
            _ => {}
        }
        match reply_code::answer(outcome) {
            Answer::Plain(result) => self.acknowledge(origin.request, *index, result),
            Answer::Detailed(reply) => {
                let (request, index) = (origin.request, *index);
                self.put(&ServerMessage::Reply { request, index, reply });
            }
        }
        Ok(())
    }

    /// Follows a change of what the session hears of. The answer does not wait until it has been
    /// told, which takes as long as the client takes to read it.
    fn follow(&mut self, request: u64, index: Index, follow_up: FollowUp) {
        let begin = self.writer.is_none();
        let past = if begin { self.past.take() } else { None };
        self.subscriber.change((request, index), follow_up, begin, past);
        if begin {
            let cursor = match past {
                Some(_) => {
                    let entry = self.hosting.replication.journal().applied_now();
                    JournalCursor::replaying_until(Position::end_of_entry(entry))
                }
                None => JournalCursor::default(),
            };
            self.start_writer(cursor);
        }
    }

    fn start_writer(&mut self, cursor: JournalCursor) {
        let writer =
            EventWriter::new(&self.hosting, &self.connection, &self.subscriber, cursor, self.beat);
        let task = self.hosting.supervisor.spawn("event writer", writer.run(self.session));
        self.writer = Some(task.abort_on_drop());
    }

    fn take_read(&mut self, correlation: u64, read: Result<Read, DecodeError>) {
        let read = match read {
            Ok(read) if self.reads < READS_MAX => read,
            Ok(_) => {
                let text = format!("{READS_MAX} reads wait already");
                let retry_ms = Some(RETRY_MS);
                let answer = reads::refused(ErrorCode::TooManyRequests, &text, retry_ms);
                return self.put_read_refusal(correlation, answer);
            }
            Err(error) => {
                self.tolerance.count(UNFIT_OR_DEAR, self.hosting.clock.now());
                let answer = reads::refused(error.code(), &error.to_string(), None);
                return self.put_read_refusal(correlation, answer);
            }
        };
        self.reads += 1;
        let reader = Reader {
            session: self.session,
            roles: Arc::clone(&self.roles),
            answered: self.answered,
        };
        let (hosting, connection) = (Arc::clone(&self.hosting), self.connection.clone());
        let (subscriber, done) = (Arc::clone(&self.subscriber), self.done.clone());
        self.hosting.supervisor.spawn("read", async move {
            let found = reads::answer(&hosting, &reader, &read).await;
            let mut reply = found.reply;
            if let ReadAnswer::Refused { code, .. } = &reply.answer {
                metrics::request_refused(*code);
            }
            let rows = match &mut reply.answer {
                ReadAnswer::Rows { rows, more }
                    if crate::gateway::request::fetch::rows_bytes(rows) > INLINE_ROWS_BYTES_MAX =>
                {
                    Some((std::mem::take(rows), *more))
                }
                _ => None,
            };
            let bulk = rows.is_some().then(|| subscriber.next_bulk());
            if let Some(bulk) = bulk {
                reply.answer = ReadAnswer::Bulk { bulk };
            }
            // As many as may wait fit; a closed channel means that the session is over.
            let reply = ServerMessage::ReadReply { correlation, reply };
            let _ = done.try_send(Box::new(reply));
            if let Some((bulk, (rows, more))) = bulk.zip(rows) {
                let purpose = BulkPurpose::Fetch(correlation);
                let begin =
                    crate::gateway::delivery::bulk_stream::begin(bulk, purpose, found.entry);
                // A failure means that the connection ends, which its own task notices.
                let _ = crate::gateway::delivery::bulk_stream::send_rows(
                    &hosting,
                    &connection,
                    begin,
                    rows,
                    more,
                )
                .await;
            }
        });
    }

    fn put_read_refusal(&mut self, correlation: u64, answer: ReadAnswer) {
        if let ReadAnswer::Refused { code, .. } = &answer {
            metrics::request_refused(*code);
        }
        let index = self.answered;
        let reply = ReadReply { index, age_ms: 0, stale: false, answer };
        self.put(&ServerMessage::ReadReply { correlation, reply });
    }

    fn take_read_reply(&mut self, reply: &ServerMessage) {
        self.reads -= 1;
        if let ServerMessage::ReadReply { reply: ReadReply { answer, .. }, .. } = reply
            && let ReadAnswer::Refused { code, .. } = answer
            && !ErrorCode::from(*code).is_transient()
        {
            self.tolerance.count(UNFIT_OR_DEAR, self.hosting.clock.now());
        }
        self.put(reply);
    }

    /// Tells the client when commands begin to be refused here, or are taken again.
    fn tell_parked(&mut self) {
        let replication = &self.hosting.replication;
        let quorate = replication.quorum().borrow().is_quorate();
        let parked = reply_code::parked(*replication.state().borrow(), quorate);
        if parked == self.parked {
            return;
        }
        self.parked = parked;
        match parked {
            Some(code) => self.put(&ServerMessage::Parked { code, retry_ms: PARKED_RETRY_MS }),
            None => self.put(&ServerMessage::Unparked),
        }
    }

    fn put_beat(&mut self) {
        if self.writer.is_some() {
            let entry = self.hosting.replication.journal().applied_now();
            self.put(&ServerMessage::Beat { applied: Index::new(entry, u16::MAX) });
        }
    }

    fn acknowledge(&mut self, request: u64, index: Index, result: Acknowledged) {
        self.acknowledgements.push(request, index, result);
        if self.acknowledgements.is_full() {
            self.acknowledgements.put(&mut self.out);
        }
    }

    /// Lays one message behind what has been gathered.
    fn put(&mut self, message: &ServerMessage) {
        self.acknowledgements.put(&mut self.out);
        message.put(&mut self.out);
    }

    /// Tells the client and the log how it ends.
    async fn finish(&mut self, end: End, sender: &mut FrameSender) {
        let (session, epoch) = (self.session, self.epoch);
        let (code, retry_ms, text) = match end {
            End::Lost => {
                // Without a reason it is only the control stream that is over.
                let how = self.connection.close_reason().map_or("stream_ended", |end| end.label());
                metrics::connection_lost(how);
                farewell::detach(&self.hosting, session, epoch);
                self.connection.close(CloseCode(0), "lost");
                return;
            }
            End::Goodbye => {
                farewell::close(&self.hosting, session, CloseReason::ByClient);
                (ErrorCode::None, 0, String::new())
            }
            End::Violation(code, text) => {
                tracing::warn!(
                    event = event::CLIENT_REFUSED,
                    %session,
                    %code,
                    text,
                    "a client broke the protocol"
                );
                self.connection.at_fault();
                farewell::close(&self.hosting, session, CloseReason::ProtocolError);
                (code, 0, text)
            }
            End::Told(ending) => {
                if !ending.settled {
                    farewell::detach(&self.hosting, session, epoch);
                }
                (ending.code, ending.retry_ms, ending.code.to_string())
            }
        };
        metrics::connection_closed(code.number());
        self.put(&ServerMessage::Close { code, retry_ms, text: text.clone() });
        let last = async {
            self.hand_over(sender).map_err(drop)?;
            sender.finish().await.map_err(drop)?;
            // The client closes when it has read the last frame; closing here would drop it.
            self.connection.closed().await;
            Ok::<(), ()>(())
        };
        // A client that does not listen is closed below all the same.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, last).await;
        self.connection.close(CloseCode(u32::from(code.number())), &text);
    }
}

/// Waits until then, and without a time for nothing.
async fn wait_until(time: Option<Instant>) {
    if let Some(time) = time {
        tokio::time::sleep_until(time).await;
    }
}

/// Waits for a stream that the client opens beside the control stream, where there is no other. Of
/// a connection that is over the control stream says so.
async fn stray_stream(connection: &Connection) {
    let opened = tokio::select! {
        opened = connection.accept_bi() => opened.is_ok(),
        opened = connection.accept_uni() => opened.is_ok(),
    };
    if !opened {
        std::future::pending::<()>().await;
    }
}

/// The node stops in good order.
fn draining() -> Ending {
    Ending { code: ErrorCode::Draining, retry_ms: 0, settled: false }
}
