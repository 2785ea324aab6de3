//! What one run of a cluster looked like from outside: plain data, written down while the world
//! turns and judged afterwards by the [oracles](crate::oracles), which are pure functions of it.
//!
//! The history knows nothing of sockets, tasks or disks, so that the same oracles can judge a
//! simulated run, a run of real processes and a history that a test makes up. Everything stands in
//! the order in which it was seen; times are of one clock, which is virtual in simulation.
//!
//! Who writes what: the [workload](crate::workload) writes operations, streams and deliveries; the
//! world writes logs, state hashes, states, leaders, votes, progress, queues and incidents.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use quorate::client::{ResetReason, UnsubscribeReason};
use quorate::domain::id::{Index, Position, SessionId, TopicId};
use quorate::domain::machine::Machine;
use quorate::domain::topic::record::Topic;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

/// Microseconds since the run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Time(pub(crate) u64);

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{:06} s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// A node of the cluster: `n1` is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Node(pub(crate) u8);

impl fmt::Display for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "n{}", self.0)
    }
}

/// A program with one session, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClientId(pub(crate) u16);

impl fmt::Display for ClientId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "client {}", self.0)
    }
}

/// One run.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// What clients asked for and were told, in the order of their calls.
    pub(crate) operations: Vec<Operation>,
    /// The streams of events that clients had.
    pub(crate) streams: Vec<Stream>,
    /// The sessions that have ended.
    pub(crate) sessions: Vec<SessionEnd>,
    /// What the nodes' logs held, each time that somebody looked; the last look at each node is
    /// after everything has come to rest.
    pub(crate) logs: Vec<LogView>,
    /// What the nodes' machines held.
    pub(crate) states: StateHistory,
    /// What the nodes were and promised in consensus.
    pub(crate) consensus: Consensus,
    /// What happened to nodes and between them.
    pub(crate) incidents: Vec<Incident>,
    /// The fullest that queues have been.
    pub(crate) queues: Vec<QueueLevel>,
    /// How the run ended: faults off, everything to come to rest.
    pub(crate) ending: Option<Ending>,
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Add a topic of 64-bit numbers, or find it there.
    Add,
    /// Set it, whatever it is; none is the null value.
    Set(Option<i64>),
    /// Set it if it is `expected` (none: if it has no value).
    SetIf {
        /// What it must be.
        expected: Option<i64>,
        /// What to set.
        value: i64,
    },
    /// Remove it.
    Remove,
    /// Read it; linearizable, or else at least as new as what the session has seen.
    Read {
        /// A quorum is asked.
        linearizable: bool,
    },
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The command was carried out, at this place of the log.
    Applied {
        /// Where; none if the client library does not say, as of removals.
        index: Option<Index>,
        /// False: the value was the topic's already, or the topic was there, or gone.
        changed: bool,
    },
    /// The command was refused for this reason and has changed nothing.
    Refused {
        /// The wire code.
        code: u16,
    },
    /// What was read.
    Read(Seen),
    /// The read was not answered or refused. It has changed nothing.
    NotRead,
    /// The session ended, or the run, before an answer came: carried out or not.
    Unknown,
}

/// What a read has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The state that was read had applied everything up to here.
    pub(crate) index: Index,
    /// The topic was there.
    pub(crate) found: bool,
    /// Its value, if it had one.
    pub(crate) value: Option<i64>,
    /// The command that set the value.
    pub(crate) version: Option<Index>,
}

/// One request of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    /// Whose.
    pub(crate) client: ClientId,
    /// In which session.
    pub(crate) session: SessionId,
    /// Its number in the session; none for a read, and where the client library does not say.
    pub(crate) request: Option<u64>,
    /// The path of the topic that it is about.
    pub(crate) topic: String,
    /// What was asked.
    pub(crate) action: Action,
    /// When.
    pub(crate) called: Time,
    /// When the answer came; none if none did.
    pub(crate) answered: Option<Time>,
    /// The node that served the session when the answer came, or when it was asked.
    pub(crate) node: Option<Node>,
    /// What was told.
    pub(crate) outcome: Outcome,
}

impl Operation {
    /// Where an acknowledged command stands.
    pub(crate) fn index(&self) -> Option<Index> {
        match self.outcome {
            Outcome::Applied { index, .. } => index,
            _ => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, session, topic, action, called, outcome, .. } = self;
        write!(formatter, "{client} (session {session}")?;
        if let Some(request) = self.request {
            write!(formatter, ", request {request}")?;
        }
        if let Some(node) = self.node {
            write!(formatter, ", {node}")?;
        }
        write!(formatter, ") {action:?} of {topic:?} at {called}: {outcome:?}")?;
        match self.answered {
            Some(answered) => write!(formatter, " at {answered}"),
            None => formatter.write_str(", no answer"),
        }
    }
}

/// The events of one subscription, over all nodes that have served it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stream {
    /// Whose.
    pub(crate) client: ClientId,
    /// In which session.
    pub(crate) session: SessionId,
    /// Which of the client's.
    pub(crate) number: u32,
    /// What it selects.
    pub(crate) selector: String,
    /// When it was asked for.
    pub(crate) opened: Time,
    /// What was heard, in order.
    pub(crate) deliveries: Vec<Delivery>,
    /// When its reader stopped reading, or the session ended; none: never.
    pub(crate) closed: Option<Time>,
}

impl fmt::Display for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, session, number, selector, opened, .. } = self;
        write!(
            formatter,
            "stream {number} of {client} (session {session}) on {selector:?} since {opened}"
        )
    }
}

/// One event as a program was handed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// When.
    pub(crate) at: Time,
    /// By which node.
    pub(crate) node: Option<Node>,
    /// Where the event stands.
    pub(crate) position: Position,
    /// What it says.
    pub(crate) heard: Heard,
}

impl fmt::Display for Delivery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, position, heard, .. } = self;
        write!(formatter, "{heard:?} at {position}, heard at {at}")?;
        self.node.map_or(Ok(()), |node| write!(formatter, " from {node}"))
    }
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The topic is subscribed from here on.
    Subscribed { topic: TopicId, path: String },
    /// The topic has this value; none is null.
    Value { topic: TopicId, value: Option<i64>, initial: bool },
    /// The topic is no longer subscribed.
    Unsubscribed { topic: TopicId, reason: UnsubscribeReason },
    /// All initial values have been heard.
    Current,
    /// What was heard does not hold any more; everything is introduced again.
    Reset { reason: ResetReason },
    /// Values of conflatable topics were left out.
    Lagged { skipped: u64 },
    /// The session goes on over another connection; nothing is missing. A resume mark.
    Moved,
}

/// A session that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionEnd {
    /// Whose.
    pub(crate) client: ClientId,
    /// Which.
    pub(crate) session: SessionId,
    /// Since when no node had served it; when it ended, if one did until then.
    pub(crate) lost: Time,
    /// When its client learnt of the end.
    pub(crate) ended: Time,
    /// How long it is to outlive its connection.
    pub(crate) reconnect_us: u64,
    /// The cluster's reason; none: its client found no node in time.
    pub(crate) by_cluster: Option<String>,
}

/// One look at a node's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LogView {
    /// Whose; none only of a log that was put together.
    pub(crate) node: Option<Node>,
    /// When.
    pub(crate) at: Time,
    /// The first entry that the node still held: what is before it was purged, or came as a snapshot.
    pub(crate) first: u64,
    /// In ascending order without a hole. May begin later than `first`: where the last look at the
    /// same node ended, less what may have changed since.
    pub(crate) entries: Vec<Entry>,
    /// What the node knew as committed.
    pub(crate) committed: u64,
    /// Everything had come to rest: what is missing now is missing for good.
    pub(crate) is_final: bool,
}

/// One entry of a log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where it stands.
    pub(crate) index: u64,
    /// Of the leader that proposed it.
    pub(crate) term: u64,
    /// The chain after it, over everything up to and including it.
    pub(crate) chain: u64,
    /// What it carries.
    pub(crate) body: Body,
}

/// What an entry carries.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// An encoded [payload](quorate::domain::entry::Payload).
    Commands(Bytes),
    /// Nothing, or a membership: these bytes if any.
    Passes(Bytes),
}

impl Entry {
    /// A number that tells entries with different bytes apart.
    pub(crate) fn digest(&self) -> u64 {
        let (kind, bytes) = match &self.body {
            Body::Commands(bytes) => (1, bytes),
            Body::Passes(bytes) => (2, bytes),
        };
        xxh3_64_with_seed(bytes, kind)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, term, chain, .. } = self;
        let digest = self.digest();
        write!(formatter, "entry {index} of term {term}, chain {chain:016x}, bytes {digest:016x}")
    }
}

/// What the nodes' machines held.
#[derive(Debug, Clone, Default)]
pub(crate) struct StateHistory {
    /// State hashes, as often as somebody looked.
    pub(crate) hashes: Vec<StateHash>,
    /// The topics of each node after everything had come to rest.
    pub(crate) finals: Vec<FinalState>,
}

/// A node's state hash after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StateHash {
    pub(crate) node: Node,
    pub(crate) at: Time,
    /// The newest entry that the state had applied.
    pub(crate) entry: u64,
    pub(crate) hash: u64,
}

/// A node's topics at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FinalState {
    pub(crate) node: Node,
    /// The newest entry that it had applied.
    pub(crate) entry: u64,
    /// Of the whole state, see [`content_of`].
    pub(crate) content: u64,
    /// By path: the value, and the command that set it.
    pub(crate) topics: BTreeMap<String, (Option<i64>, Index)>,
}

impl FinalState {
    /// What `node` holds; its topics must be of 64-bit numbers.
    pub(crate) fn of(node: Node, machine: &Machine) -> Self {
        let topic = |topic: &Topic| {
            let value = topic.value().and_then(number_of);
            (topic.info().path.to_string(), (value, topic.version()))
        };
        let topics = machine.topics().iter().map(topic).collect();
        Self { node, entry: machine.applied(), content: content_of(machine), topics }
    }
}

/// A digest of everything that a machine holds, computed from its records: unlike the state hash it
/// is not kept up change by change, so it finds a field that the state hash leaves out.
pub(crate) fn content_of(machine: &Machine) -> u64 {
    let mut digest = Xxh3::new();
    for record in machine.to_records() {
        digest.update(&record);
    }
    digest.digest()
}

/// The number that a value of a topic of 64-bit numbers is.
pub(crate) fn number_of(value: &Bytes) -> Option<i64> {
    value[..].try_into().ok().map(i64::from_le_bytes)
}

/// What the nodes were and promised in consensus.
#[derive(Debug, Clone, Default)]
pub(crate) struct Consensus {
    /// Each time that a node was seen to lead.
    pub(crate) leaders: Vec<Leading>,
    /// Each vote that was kept or given.
    pub(crate) votes: Vec<Vote>,
    /// How far nodes had come.
    pub(crate) progress: Vec<Progress>,
}

/// A node that held itself for the leader of a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leading {
    pub(crate) node: Node,
    pub(crate) term: u64,
    pub(crate) at: Time,
}

/// What a node has promised: seen when it had been told to somebody else, or was read back from the
/// node's disk; never a vote that was still to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vote {
    pub(crate) node: Node,
    pub(crate) term: u64,
    /// The candidate or leader; none: nobody in this term.
    pub(crate) voted_for: Option<Node>,
    /// It is known to have won: a quorum has voted for it.
    pub(crate) elected: bool,
    pub(crate) at: Time,
}

/// How far a node had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) node: Node,
    /// Counts the node's starts: commit and applied begin anew with each.
    pub(crate) life: u32,
    pub(crate) at: Time,
    pub(crate) term: u64,
    pub(crate) committed: u64,
    pub(crate) applied: u64,
}

/// Something that happened to a node or between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Incident {
    pub(crate) at: Time,
    pub(crate) what: Happening,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Happening {
    /// The node was started; its life counts from 1.
    Started { node: Node, life: u32 },
    /// The node stopped in good order.
    Stopped { node: Node },
    /// The node's power went; what was not flushed is gone.
    Crashed { node: Node },
    /// The node gave up by itself, with this exit code.
    Ended { node: Node, code: i32 },
    /// A fault was put in; its kind for the count, and its words.
    Fault { kind: &'static str, text: String },
    /// All faults are off from here on.
    Calm,
}

/// The fullest that a queue has been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueLevel {
    pub(crate) node: Node,
    pub(crate) queue: &'static str,
    pub(crate) level: u64,
    pub(crate) bound: u64,
    pub(crate) at: Time,
}

/// How the run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    /// From when on there were no faults, and all nodes were up or coming up.
    pub(crate) calm_since: Time,
    /// How long an election takes at most when nothing is wrong, once.
    pub(crate) election_us: u64,
    /// The nodes that must be there in the end.
    pub(crate) nodes: Vec<Node>,
    /// When the last look was taken.
    pub(crate) at: Time,
    /// The stream that was opened in the calm to show that subscriptions work.
    pub(crate) probe: Option<(ClientId, u32)>,
}

/// Where a client's request stands in the history until its answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OperationId(usize);

/// Where a stream stands in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamId(usize);

/// Writes a history down; clones write the same one.
#[derive(Clone)]
pub(crate) struct Recorder {
    history: Arc<Mutex<History>>,
    now: Arc<dyn Fn() -> Time + Send + Sync>,
}

impl Recorder {
    /// An empty history whose times are of this clock.
    pub(crate) fn new(now: impl Fn() -> Time + Send + Sync + 'static) -> Self {
        Self { history: Arc::default(), now: Arc::new(now) }
    }

    /// The time by the history's clock.
    pub(crate) fn now(&self) -> Time {
        (self.now)()
    }

    /// Writes down anything.
    pub(crate) fn write<R>(&self, write: impl FnOnce(&mut History) -> R) -> R {
        write(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything that was written so far.
    pub(crate) fn history(&self) -> History {
        self.write(|history| history.clone())
    }

    /// A request was sent; its outcome is unknown. It may have been called for a while ago.
    pub(crate) fn called(&self, operation: Operation) -> OperationId {
        let operation = Operation { answered: None, outcome: Outcome::Unknown, ..operation };
        self.write(|history| {
            history.operations.push(operation);
            OperationId(history.operations.len() - 1)
        })
    }

    /// The answer to a request came just now.
    pub(crate) fn answered(&self, id: OperationId, node: Option<Node>, outcome: Outcome) {
        let answered = Some(self.now());
        self.write(|history| {
            if let Some(operation) = history.operations.get_mut(id.0) {
                operation.answered = answered;
                operation.node = node.or(operation.node);
                operation.outcome = outcome;
            }
        });
    }

    /// A stream was asked for just now.
    pub(crate) fn opened(&self, stream: Stream) -> StreamId {
        let opened = self.now();
        self.write(|history| {
            history.streams.push(Stream { opened, ..stream });
            StreamId(history.streams.len() - 1)
        })
    }

    /// A stream handed its program an event just now.
    pub(crate) fn heard(&self, id: StreamId, node: Option<Node>, position: Position, heard: Heard) {
        let at = self.now();
        self.write(|history| {
            if let Some(stream) = history.streams.get_mut(id.0) {
                stream.deliveries.push(Delivery { at, node, position, heard });
            }
        });
    }

    /// A stream's program stopped reading just now, or its session is over.
    pub(crate) fn closed(&self, id: StreamId) {
        let now = self.now();
        self.write(|history| {
            if let Some(stream) = history.streams.get_mut(id.0) {
                stream.closed = Some(now);
            }
        });
    }

    /// Something happened just now.
    pub(crate) fn happened(&self, what: Happening) {
        let at = self.now();
        self.write(|history| history.incidents.push(Incident { at, what }));
    }
}
