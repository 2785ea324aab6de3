//! From a new connection to an open session: version, credentials, open or resume.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::clock::milliseconds;
use crate::domain::command::{Command, OpenSession};
use crate::domain::effect::{CloseReason, Effect};
use crate::domain::id::{Position, SessionId};
use crate::domain::limits;
use crate::domain::machine::Answered;
use crate::domain::outcome::{Outcome, Rejection};
use crate::gateway::delivery::interest::Interest;
use crate::gateway::delivery::subscriber::{Beginning, Changes, Subscriber};
use crate::gateway::entrance::authenticate::authenticate;
use crate::gateway::entrance::look;
use crate::gateway::entrance::secret::{self, Secret};
use crate::gateway::farewell;
use crate::gateway::hosting::{
    BEAT, BEAT_MAX, BEAT_MIN, Hosting, READS_MAX, RECONNECT_TIMEOUT_MAX,
};
use crate::gateway::registry::Registration;
use crate::gateway::reply_code::{self, PARKED_RETRY_MS, RETRY_MS};
use crate::gateway::request::roles_of;
use crate::protocol::frame::PAYLOAD_BYTES_MAX;
use crate::protocol::handshake::{
    Hello, Look, Refused, ResetReason, Resume, SessionLimits, StartFrom, Verdict, Welcome,
};
use crate::protocol::kind::SMALL_BODY_BYTES_MAX;
use crate::protocol::{ClientMessage, ErrorCode, ServerMessage, VERSION};
use crate::replication::{Read, Replication, SessionProposer};
use crate::transport::{Connection, FrameReceiver, FrameSender, ReceiveError};

/// What a client may take to take its refusal.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Changes of its selections that a session may have missed and goes on with; one more and it starts
/// over.
const CHANGES_MAX: usize = 4_096;
/// Blocks of the journal that are looked through for them at once.
const CHANGES_READ_BLOCKS: usize = 256;

/// An open session and everything that its task needs.
#[derive(Debug)]
pub(in crate::gateway) struct Opened {
    /// Which session.
    pub(in crate::gateway) session: SessionId,
    /// Its epoch on this connection.
    pub(in crate::gateway) epoch: u32,
    /// What it may do.
    pub(in crate::gateway) roles: Arc<[String]>,
    /// Node to client.
    pub(in crate::gateway) sender: FrameSender,
    /// Client to node.
    pub(in crate::gateway) receiver: FrameReceiver,
    /// Its commands' way into the log.
    pub(in crate::gateway) proposer: SessionProposer,
    /// Their answers.
    pub(in crate::gateway) answers: mpsc::Receiver<Vec<Answered>>,
    /// Its place among the hosted sessions.
    pub(in crate::gateway) registration: Registration,
    /// Its subscriptions.
    pub(in crate::gateway) subscriber: Subscriber,
    /// Events begin here with the first selection.
    pub(in crate::gateway) past: Option<Position>,
    /// The highest request number applied.
    pub(in crate::gateway) last_request: u64,
    /// Between two signs of life.
    pub(in crate::gateway) beat: Duration,
}

/// Why no session was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) struct NotOpened {
    code: ErrorCode,
    text: String,
    retry_ms: Option<u32>,
}

impl NotOpened {
    pub(super) fn new(code: ErrorCode, text: impl ToString) -> Self {
        let retry_ms = code.is_transient().then_some(match code {
            ErrorCode::Inquorate | ErrorCode::DiskFull | ErrorCode::NotReady => PARKED_RETRY_MS,
            _ => RETRY_MS,
        });
        Self { code, text: text.to_string(), retry_ms }
    }

    /// The same, and when to come again.
    pub(super) fn later(code: ErrorCode, text: impl ToString, wait: Duration) -> Self {
        let retry_ms = Some(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX));
        Self { code, text: text.to_string(), retry_ms }
    }

    /// What it is counted as.
    #[must_use]
    pub(in crate::gateway) fn code(&self) -> ErrorCode {
        self.code
    }
}

/// A stranger's control stream.
struct Greeting {
    sender: FrameSender,
    receiver: FrameReceiver,
}

/// What a stranger wants.
enum First {
    /// A session.
    Hello(Hello),
    /// One read, and no session.
    Look(Look),
}

/// Opens or resumes a session on a new connection, or answers its one read; tells the client if it
/// cannot.
///
/// # Errors
/// [`NotOpened`], after the client has been told as far as it can be reached.
pub(in crate::gateway) async fn open(
    hosting: &Arc<Hosting>,
    connection: &Connection,
) -> Result<Option<Box<Opened>>, NotOpened> {
    let deadline = hosting.clock.now() + hosting.limits.handshake_timeout;
    let late = |text: &str| NotOpened::new(ErrorCode::HelloTimeout, text);
    let (mut greeting, first) = tokio::time::timeout_at(deadline, greet(connection))
        .await
        .unwrap_or_else(|_| Err(late("no hello came in time")))?;
    let refusal = match first {
        Ok(First::Hello(hello)) => match claim(hosting, connection, &hello, deadline).await {
            Ok(claimed) => match attach(hosting, greeting, &hello, claimed).await {
                Ok(opened) => return Ok(Some(Box::new(opened))),
                Err((returned, refusal)) => {
                    greeting = returned;
                    refusal
                }
            },
            Err(refusal) => refusal,
        },
        Ok(First::Look(look)) => {
            let answer = look::answer(hosting, connection, &mut greeting.sender, &look);
            // One that reads its answer slowly holds a place that others want.
            match tokio::time::timeout_at(deadline, answer).await {
                Ok(Ok(())) => return Ok(None),
                Ok(Err(refusal)) => refusal,
                Err(_) => return Err(late("the answer was not taken in time")),
            }
        }
        Err(refusal) => refusal,
    };
    // A client that takes nothing is not told.
    let told = refuse(hosting, &mut greeting.sender, &refusal);
    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, told).await;
    Err(refusal)
}

/// Waits for the control stream and its first frame.
async fn greet(connection: &Connection) -> Result<(Greeting, Result<First, NotOpened>), NotOpened> {
    let gone = |error: &dyn std::fmt::Display| NotOpened::new(ErrorCode::HelloTimeout, error);
    let (sender, mut receiver) = connection.accept_bi().await.map_err(|error| gone(&error))?;
    // Strangers get little room.
    receiver.limit_frames(SMALL_BODY_BYTES_MAX + 1);
    let frame = match receiver.next().await {
        Ok(Some(frame)) => frame,
        Ok(None) => return Err(gone(&"the stream ended before a hello")),
        Err(ReceiveError::Frame(error)) => {
            let refusal = NotOpened::new(ErrorCode::FrameTooLong, error);
            return Ok((Greeting { sender, receiver }, Err(refusal)));
        }
        Err(error) => return Err(gone(&error)),
    };
    receiver.limit_frames(PAYLOAD_BYTES_MAX);
    let greeting = Greeting { sender, receiver };
    let other_version = |version: u16| {
        let text = format!("this node speaks version {VERSION}, not {version}");
        Err(NotOpened::new(ErrorCode::Version, text))
    };
    let first = match ClientMessage::decode(frame.kind, frame.body) {
        Ok(ClientMessage::Hello(hello)) if hello.version == VERSION => Ok(First::Hello(hello)),
        Ok(ClientMessage::Look(look)) if look.version == VERSION => Ok(First::Look(look)),
        Ok(ClientMessage::Hello(hello)) => other_version(hello.version),
        Ok(ClientMessage::Look(look)) => other_version(look.version),
        Ok(_) => Err(NotOpened::new(ErrorCode::OutOfPlace, "a connection begins with a hello")),
        Err(error) => Err(NotOpened::new(error.code(), error)),
    };
    Ok((greeting, first))
}

/// A session that the log has given to this node.
struct Claimed {
    session: SessionId,
    epoch: u32,
    secret: Secret,
    beginning: Beginning,
    verdict: Verdict,
}

async fn claim(
    hosting: &Arc<Hosting>,
    connection: &Connection,
    hello: &Hello,
    deadline: Instant,
) -> Result<Claimed, NotOpened> {
    let state = *hosting.replication.state().borrow();
    if let Some(code) = reply_code::state(state) {
        return Err(NotOpened::new(code, format!("the node is {state}")));
    }
    if hosting.registry.is_full() {
        let text = "the node holds as many sessions as it may";
        return Err(NotOpened::new(ErrorCode::TooManySessions, text));
    }
    match &hello.resume {
        Some(resume) => move_here(hosting, resume, deadline).await,
        None => open_new(hosting, connection, hello, deadline).await,
    }
}

async fn open_new(
    hosting: &Arc<Hosting>,
    connection: &Connection,
    hello: &Hello,
    deadline: Instant,
) -> Result<Claimed, NotOpened> {
    let principal = authenticate(hosting, connection, &hello.credentials).await?;
    let entropy = |error| NotOpened::new(ErrorCode::Internal, error);
    let secret = Secret::draw().map_err(entropy)?;
    let session = secret::draw_session_id().map_err(entropy)?;
    let member = hosting.replication.member();
    let command = Command::OpenSession(OpenSession {
        session,
        secret_hash: secret.hash(),
        roles: roles_of(&principal),
        properties: properties(hello, &principal),
        principal,
        reconnect_timeout_ms: hello.reconnect_timeout_ms.min(milliseconds(RECONNECT_TIMEOUT_MAX)),
        host: member.id,
        incarnation: member.incarnation,
    });
    let epoch = propose(hosting, &command, deadline).await?;
    let begun = match hello.from {
        None => Ok((Beginning::Fresh, Verdict::Fresh)),
        Some(from) => begin_in_the_past(hosting, from, deadline).await,
    };
    // A session that its client never hears of is nobody's.
    let (beginning, verdict) =
        begun.inspect_err(|_| farewell::close(hosting, session, CloseReason::ByClient))?;
    Ok(Claimed { session, epoch, secret, beginning, verdict })
}

async fn begin_in_the_past(
    hosting: &Arc<Hosting>,
    from: StartFrom,
    deadline: Instant,
) -> Result<(Beginning, Verdict), NotOpened> {
    let lineage = hosting.replication.member().lineage;
    let found = match from.lineage {
        Some(other) if other != lineage => Err(ResetReason::OtherLineage),
        _ => find(hosting, from.position, deadline).await?,
    };
    Ok(match found {
        Ok(position) => (Beginning::Past(position), Verdict::Continuous { position }),
        Err(reason) => (Beginning::Fresh, reset_here(&hosting.replication, reason)),
    })
}

async fn move_here(
    hosting: &Arc<Hosting>,
    resume: &Resume,
    deadline: Instant,
) -> Result<Claimed, NotOpened> {
    let member = hosting.replication.member();
    let next = Secret::draw().map_err(|error| NotOpened::new(ErrorCode::Internal, error))?;
    let command = Command::MoveSession {
        session: resume.session,
        secret_hash: Secret::shown(resume.secret).hash(),
        next_secret_hash: next.hash(),
        host: member.id,
        incarnation: member.incarnation,
    };
    let epoch = propose(hosting, &command, deadline).await?;
    let begun = go_on(hosting, resume, deadline).await;
    let (beginning, verdict) =
        begun.inspect_err(|_| farewell::detach(hosting, resume.session, epoch))?;
    Ok(Claimed { session: resume.session, epoch, secret: next, beginning, verdict })
}

/// Where a session that has been moved here goes on.
async fn go_on(
    hosting: &Arc<Hosting>,
    resume: &Resume,
    deadline: Instant,
) -> Result<(Beginning, Verdict), NotOpened> {
    let lineage = hosting.replication.member().lineage;
    if let Some(seen) = resume.seen
        && resume.lineage == lineage
    {
        wait_for(hosting, seen.entry(), deadline).await?;
    }
    let found = match resume.position {
        None => Err(ResetReason::Asked),
        Some(_) if resume.lineage != lineage => Err(ResetReason::OtherLineage),
        Some(position) => find(hosting, position, deadline).await?,
    };
    let (beginning, verdict) = match found {
        Ok(position) => match continuous(hosting, resume, position, deadline).await? {
            Ok(beginning) => (beginning, Verdict::Continuous { position }),
            Err(reason) => (Beginning::Reset(reason), reset_here(&hosting.replication, reason)),
        },
        Err(reason) => (Beginning::Reset(reason), reset_here(&hosting.replication, reason)),
    };
    let view = hosting.replication.view();
    let selects = view.session(resume.session).is_some_and(|session| {
        !session.selections().is_empty() || session.listeners().next().is_some()
    });
    // Nothing was selected, before or now: there is nothing to go on with.
    let beginning = match beginning {
        // Its first selection is still to be made.
        Beginning::Replaying(position, changes) if !selects && changes.is_empty() => {
            Beginning::Past(position)
        }
        Beginning::Continuous(_) if !selects => Beginning::Fresh,
        Beginning::Reset(_) if !selects && !resume.initial_missing => Beginning::Fresh,
        beginning => beginning,
    };
    Ok((beginning, verdict))
}

/// How a session goes on after a position that can be gone on from.
async fn continuous(
    hosting: &Arc<Hosting>,
    resume: &Resume,
    position: Position,
    deadline: Instant,
) -> Result<Result<Beginning, ResetReason>, NotOpened> {
    if !resume.initial_missing && !resume.replaying {
        return Ok(Ok(Beginning::Continuous(position)));
    }
    let changes = selections_changed(hosting, position, resume.session);
    let Ok(changes) = tokio::time::timeout_at(deadline, changes).await else {
        let text = format!("the journal after {position} was not read in time");
        return Err(NotOpened::new(ErrorCode::Deadline, text));
    };
    Ok(changes.map(|changes| match resume.replaying {
        true => Beginning::Replaying(position, changes),
        false => Beginning::Unfinished(position, changes),
    }))
}

/// Waits until this node has come to a position, and looks whether the events after it can be read.
async fn find(
    hosting: &Arc<Hosting>,
    position: Position,
    deadline: Instant,
) -> Result<Result<Position, ResetReason>, NotOpened> {
    wait_for(hosting, position.index.entry(), deadline).await?;
    // Log entries count from 1.
    let position = position.max(Position::end_of_entry(0));
    let remembered = hosting.replication.remembers(position);
    Ok(if remembered { Ok(position) } else { Err(ResetReason::Purged) })
}

/// Changes of the session's selections after this position.
async fn selections_changed(
    hosting: &Arc<Hosting>,
    position: Position,
    session: SessionId,
) -> Result<Changes, ResetReason> {
    let mut after = position;
    let mut changes = Vec::new();
    let mut journal = hosting.replication.journal_reader();
    loop {
        match journal.after(after, CHANGES_READ_BLOCKS).await {
            Read::CaughtUp => return Ok(changes),
            Read::Gone { .. } => return Err(ResetReason::Purged),
            Read::Blocks(blocks) => {
                for event in blocks.iter().flat_map(|block| block.after(after)) {
                    if let Effect::SelectionsChanged { session: whose, before } = &event.effect
                        && *whose == session
                    {
                        let before = Arc::new(Interest::in_selected(before));
                        changes.push((event.position.index.entry(), before));
                    }
                }
                if changes.len() > CHANGES_MAX {
                    return Err(ResetReason::SelectionsChanged);
                }
                if let Some(last) = blocks.last() {
                    after = Position::end_of_entry(last.entry);
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn wait_for(hosting: &Arc<Hosting>, entry: u64, deadline: Instant) -> Result<(), NotOpened> {
    let patience = deadline.saturating_duration_since(hosting.clock.now());
    if hosting.replication.applied(entry, patience).await {
        return Ok(());
    }
    let text = format!("this node has not come to entry {entry} in time");
    Err(NotOpened::new(ErrorCode::Deadline, text))
}

/// Proposes an opening or a move; gives the epoch.
async fn propose(
    hosting: &Arc<Hosting>,
    command: &Command,
    deadline: Instant,
) -> Result<u32, NotOpened> {
    let patience = deadline.saturating_duration_since(hosting.clock.now());
    match hosting.replication.propose(command, patience).await {
        Ok((Outcome::Session { epoch }, _)) => Ok(epoch),
        Ok((Outcome::Rejected(reason @ Rejection::StaleEpoch), _)) => {
            // The claim was overtaken by the session's own changes; a new claim may succeed.
            Err(NotOpened {
                code: ErrorCode::NotReady,
                text: reason.to_string(),
                retry_ms: Some(0),
            })
        }
        Ok((Outcome::Rejected(reason), _)) => Err(NotOpened::new(reply_code::code(reason), reason)),
        Ok((other, _)) => {
            Err(NotOpened::new(ErrorCode::Internal, format!("an outcome of no sense: {other:?}")))
        }
        Err(error) => {
            let (code, retry_ms) = reply_code::propose_error(error);
            Err(NotOpened { code, text: error.to_string(), retry_ms: Some(retry_ms) })
        }
    }
}

/// Fixed properties, and those of the client's that are not fixed ones.
fn properties(hello: &Hello, principal: &str) -> BTreeMap<String, String> {
    let own = hello.properties.iter().filter(|(key, _)| !key.starts_with('$'));
    let mut properties: BTreeMap<_, _> =
        own.map(|(key, value)| (key.clone(), value.clone())).collect();
    properties.insert("$Principal".to_owned(), principal.to_owned());
    let client: String = hello.client.chars().take(128).collect();
    properties.insert("$Client".to_owned(), client);
    properties
}

fn reset_here(replication: &Replication, reason: ResetReason) -> Verdict {
    let position = Position::end_of_entry(replication.journal().applied_now());
    Verdict::Reset { reason, position }
}

/// Makes the claimed session this connection's and sends the welcome.
async fn attach(
    hosting: &Arc<Hosting>,
    mut greeting: Greeting,
    hello: &Hello,
    claimed: Claimed,
) -> Result<Opened, (Greeting, NotOpened)> {
    let Claimed { session, epoch, secret, beginning, mut verdict } = claimed;
    let taken_over = || NotOpened::new(ErrorCode::TakenOver, "the session has moved on");
    let Some(registration) = hosting.registry.register(session, epoch) else {
        return Err((greeting, taken_over()));
    };
    let view = hosting.replication.view();
    let Some(record) = view.session(session).filter(|record| record.epoch() == epoch) else {
        return Err((greeting, taken_over()));
    };
    let (proposer, answers) = hosting.replication.attach(session, epoch, record.role_version());
    let past = match &beginning {
        Beginning::Past(position) => Some(*position),
        _ => None,
    };
    let subscriber = Subscriber::new(hosting, session, beginning);
    if let Verdict::Reset { position, .. } = &mut verdict {
        *position = subscriber.outbox().lock().cursor();
    }
    let last_request = record.answered().last();
    let beat = match hello.beat_ms {
        0 => BEAT,
        wanted => Duration::from_millis(wanted.into()).clamp(BEAT_MIN, BEAT_MAX),
    };
    let member = hosting.replication.member();
    let welcome = Welcome {
        session,
        epoch,
        secret: secret.reveal(),
        last_request,
        lineage: member.lineage,
        cluster: member.cluster,
        node: member.name.to_string(),
        nodes: hosting.node_addresses(),
        limits: session_limits(record.reconnect_timeout_ms(), beat),
        verdict,
    };
    let mut buffer = BytesMut::new();
    ServerMessage::Welcome(welcome).put(&mut buffer);
    if let Err(error) = greeting.sender.queue_frames(buffer.freeze()) {
        return Err((greeting, NotOpened::new(ErrorCode::Internal, error)));
    }
    Ok(Opened {
        session,
        epoch,
        roles: record.roles().into(),
        sender: greeting.sender,
        receiver: greeting.receiver,
        proposer,
        answers,
        registration,
        subscriber,
        past,
        last_request,
        beat,
    })
}

fn session_limits(reconnect_timeout_ms: u64, beat: Duration) -> SessionLimits {
    SessionLimits {
        in_flight_max: limits::SESSION_IN_FLIGHT_MAX as u32,
        reads_max: READS_MAX as u32,
        value_bytes_max: limits::VALUE_BYTES_MAX as u32,
        payload_bytes_max: PAYLOAD_BYTES_MAX as u32,
        reconnect_timeout_ms,
        beat_ms: u32::try_from(milliseconds(beat)).unwrap_or(u32::MAX),
    }
}

async fn refuse(hosting: &Hosting, sender: &mut FrameSender, refusal: &NotOpened) {
    let message = ServerMessage::Refused(Refused {
        code: refusal.code.number(),
        text: refusal.text.clone(),
        retry_ms: refusal.retry_ms,
        nodes: hosting.node_addresses(),
    });
    let mut buffer = BytesMut::new();
    message.put(&mut buffer);
    // Whether the client still listens is its own affair.
    let _ = sender.send_frames(buffer.freeze()).await;
    let _ = sender.finish().await;
}
