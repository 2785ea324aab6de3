//! The replicated state, and the one way to change it.
//!
//! [`Machine`] only dispatches: what a command does stands in its file under `apply/`, what a part
//! must keep true stands with the part. A clone is O(1) and stands still, so readers never lock
//! apply and apply never waits for a reader.

use super::apply::found::Charter;
use super::apply::move_session::Claim;
use super::apply::set_topic::Target;
use super::apply::{self, Context, Decision, Effects};
use super::command::{Command, Sender};
use super::configuration::{Configuration, Founding};
use super::effect::Event;
use super::entry::{Origin, Payload, Proposal};
use super::hash::{ItemKind, item};
use super::id::{Index, NodeId, SessionId, TopicId};
use super::outcome::{Outcome, Rejection};
use super::session::admission::{Admission, admit};
use super::session::record::{Host, Session};
use super::session::table::SessionTable;
use super::topic::path::TopicPath;
use super::topic::record::Topic;
use super::topic::tree::TopicTree;

/// The replicated state at an exact index.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    pub(super) clock: LogClock,
    pub(super) topics: TopicTree,
    pub(super) sessions: SessionTable,
    pub(super) configuration: Configuration,
}

/// How far the machine has come in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LogClock {
    /// The newest applied entry. Not part of the state hash, which is compared at equal entries.
    pub(super) applied: u64,
    /// Of the newest entry that carried a time.
    pub(super) log_time_ms: u64,
    /// Of the newest entry that carried a time.
    pub(super) wall_time_ms: u64,
}

/// What came of one entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// One for each command, in order.
    pub outcomes: Vec<Answered>,
    /// In the order of their positions.
    pub events: Vec<Event>,
}

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Who asked.
    pub origin: Origin,
    /// Where the command stands in the log: its first application when it is a repeat.
    pub index: Index,
    /// What became of it, then.
    pub outcome: Outcome,
}

impl Machine {
    /// The state before the first entry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies the entry of index `entry`. Total: a rejection is an outcome.
    pub fn apply(&mut self, entry: u64, payload: &Payload) -> Applied {
        self.clock.applied = entry;
        // Leaders keep log time rising; the machine does not depend on it.
        self.clock.log_time_ms = self.clock.log_time_ms.max(payload.log_time_ms);
        self.clock.wall_time_ms = payload.wall_time_ms;
        let mut applied = Applied {
            outcomes: Vec::with_capacity(payload.proposals.len()),
            events: Vec::with_capacity(payload.proposals.len()),
        };
        // An index has 16 bits for the place in the entry, and so has the count of a payload.
        for (offset, proposal) in (0..=u16::MAX).zip(&payload.proposals) {
            let at = Index::new(entry, offset);
            let (index, outcome) = self.apply_one(at, proposal, &mut applied.events);
            applied.outcomes.push(Answered { origin: proposal.origin, index, outcome });
        }
        applied
    }

    /// Passes an entry that carries no commands: blank or membership.
    pub fn pass(&mut self, entry: u64) {
        self.clock.applied = entry;
    }

    /// The state hash: equal on all nodes that have applied the same entries.
    #[must_use]
    pub fn hash(&self) -> u64 {
        [self.topics.hash(), self.sessions.hash(), self.configuration.hash()]
            .into_iter()
            .fold(self.clock.hash(), u64::wrapping_add)
    }

    /// The newest applied entry; zero before the first.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.clock.applied
    }

    /// Log time of the newest entry that carried one, in milliseconds.
    #[must_use]
    pub fn log_time_ms(&self) -> u64 {
        self.clock.log_time_ms
    }

    /// The leader's wall clock at the newest entry that carried one, in milliseconds since 1970.
    #[must_use]
    pub fn wall_time_ms(&self) -> u64 {
        self.clock.wall_time_ms
    }

    /// All topics.
    #[must_use]
    pub fn topics(&self) -> &TopicTree {
        &self.topics
    }

    /// The topic of an identifier.
    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(id)
    }

    /// The topic at a path.
    #[must_use]
    pub fn topic_at(&self, path: &TopicPath) -> Option<&Topic> {
        self.topics.at(path)
    }

    /// The topics from a path on, in path order.
    pub fn topics_from(&self, path: &TopicPath) -> impl Iterator<Item = &Topic> {
        self.topics.range(path.clone()..)
    }

    /// All sessions.
    #[must_use]
    pub fn sessions(&self) -> &SessionTable {
        &self.sessions
    }

    /// The session of an identifier.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(id)
    }

    /// The active sessions that a node serves.
    pub fn sessions_hosted_by(&self, node: NodeId) -> impl Iterator<Item = &Session> {
        self.sessions.hosted_by(node)
    }

    /// At most `limit` detached sessions whose reconnect timeout has run out at `log_time_ms`.
    #[must_use]
    pub fn expired_sessions(&self, log_time_ms: u64, limit: usize) -> Vec<SessionId> {
        self.sessions.expired(log_time_ms).take(limit).map(Session::id).collect()
    }

    /// Replicated configuration.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Whether a topic's OWNER property names a session's principal: such a session may read,
    /// modify and update the topic whatever the path permissions say.
    #[must_use]
    pub fn owns(&self, session: SessionId, topic: TopicId) -> bool {
        let principal = self.session(session).map(Session::principal);
        let owner = self.topic(topic).and_then(|topic| topic.info().specification.owner());
        // Anonymous sessions have no principal and own nothing.
        owner.is_some_and(|owner| !owner.is_empty() && principal == Some(owner))
    }

    fn apply_one(
        &mut self,
        index: Index,
        proposal: &Proposal,
        events: &mut Vec<Event>,
    ) -> (Index, Outcome) {
        let origin = proposal.origin;
        let context = Context { index, origin, log_time_ms: self.clock.log_time_ms };
        if origin.session == SessionId::CLUSTER {
            return (index, self.execute(&context, proposal, events));
        }
        let outcome = match admit(&self.sessions, &origin) {
            Admission::Apply => self.execute(&context, proposal, events),
            Admission::Spend(reason) => Outcome::Rejected(reason),
            Admission::Repeat(first, outcome) => return (first, outcome),
            Admission::Void(reason) => return (index, Outcome::Rejected(reason)),
        };
        self.sessions.answer(origin.session, index, &outcome, origin.answered_below);
        (index, outcome)
    }

    fn execute(
        &mut self,
        context: &Context,
        proposal: &Proposal,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let command = match Command::decode(proposal.command.clone()) {
            Ok(command) => command,
            Err(error) => return Outcome::Rejected(error.rejection()),
        };
        let is_cluster = context.origin.session == SessionId::CLUSTER;
        let allowed = match command.sender() {
            Sender::Session => !is_cluster,
            Sender::Cluster => is_cluster,
            Sender::Either => true,
        };
        if !allowed {
            return Outcome::Rejected(Rejection::PermissionDenied);
        }
        let mut effects = Effects::new(events, context.index);
        let decision = self.dispatch(context, command, &mut effects);
        effects.finish();
        decision.unwrap_or_else(Outcome::Rejected)
    }

    fn dispatch(
        &mut self,
        context: &Context,
        command: Command,
        effects: &mut Effects<'_>,
    ) -> Decision {
        let Self { topics, sessions, configuration, clock: _ } = self;
        match command {
            Command::Update { topic, stream, value } => {
                apply::update::apply(topics, context, effects, topic, stream, &value)
            }
            Command::SetByPath { path, value } => {
                apply::set_by_path::apply(topics, context, effects, &path, &value)
            }
            Command::Refused { code } => apply::refused::apply(code),
            Command::AddTopic { path, specification } => {
                apply::add_topic::apply(topics, context, effects, path, specification)
            }
            Command::OpenTopic { path } => apply::open_topic::apply(topics, &path),
            Command::SetTopic { path, specification, constraint, value } => {
                let target = Target { path, specification, constraint };
                apply::set_topic::apply(topics, context, effects, target, &value)
            }
            Command::OpenStream { path, specification, constraint, value } => {
                let target = Target { path, specification, constraint };
                apply::open_stream::apply(topics, context, effects, target, value.as_ref())
            }
            Command::RemoveTopics { selector, from } => {
                apply::remove_topics::apply(topics, effects, &selector, from.as_ref())
            }
            Command::OpenSession(open) => {
                apply::open_session::apply(sessions, configuration, context, effects, open)
            }
            Command::MoveSession { session, secret_hash, next_secret_hash, host, incarnation } => {
                let host = Host { node: host, incarnation };
                let claim = Claim { session, shown: secret_hash, next: next_secret_hash, host };
                apply::move_session::apply(sessions, configuration, effects, &claim)
            }
            Command::DetachSession { session, epoch } => {
                apply::detach_session::apply(sessions, context, effects, session, epoch)
            }
            Command::CloseSession { session, reason } => {
                apply::close_session::apply(sessions, context, effects, session, reason)
            }
            Command::ExpireSessions { sessions: candidates } => {
                apply::expire_sessions::apply(sessions, context, effects, &candidates)
            }
            Command::NodeStarted { node, incarnation } => {
                let host = Host { node, incarnation };
                apply::node_started::apply(sessions, configuration, context, effects, host)
            }
            Command::NodeLost { node, incarnation } => {
                apply::node_lost::apply(sessions, context, effects, Host { node, incarnation })
            }
            Command::Select { scope, selector, select } => {
                apply::select::apply(sessions, context, effects, &scope, &selector, select)
            }
            Command::Listen { listener, selector, select } => {
                apply::listen::apply(sessions, context, effects, listener, &selector, select)
            }
            Command::Unlisten { listener } => {
                apply::unlisten::apply(sessions, context, effects, listener)
            }
            Command::Found { cluster, lineage, names, admin_password, anonymous } => {
                let founding = Founding { cluster, lineage };
                let charter = Charter { founding, names, admin_password, anonymous };
                apply::found::apply(configuration, effects, charter)
            }
            Command::SetPassword { principal, password } => {
                apply::set_password::apply(configuration, effects, principal, password)
            }
            Command::SetAnonymous { allowed } => {
                apply::set_anonymous::apply(configuration, effects, allowed)
            }
        }
    }
}

impl LogClock {
    pub(super) fn hash(self) -> u64 {
        item(ItemKind::Clock, [self.log_time_ms, self.wall_time_ms])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::apply::stage::{
        NODE, ONE, Stage, TWO, open, opening, path, plain, string, update, with,
    };
    use crate::domain::effect::CloseReason;
    use crate::domain::fuzzing;
    use crate::domain::id::{ClusterId, Lineage};
    use crate::domain::limits;
    use crate::domain::topic::specification::TopicType;

    #[test]
    fn a_repeat_has_the_first_answer_and_no_effects() {
        let mut stage = Stage::new();
        let topic = stage.add("a", plain(TopicType::String));
        let origin = stage.origin(ONE);
        let command = update(topic, "one").encode();
        let (first, effects) = stage.propose(origin, command.clone());
        assert_eq!(effects.len(), 1);
        stage.send(TWO, update(topic, "two"));
        let (again, effects) = stage.propose(origin, command);
        assert_eq!((again, effects), (first, vec![]));
        assert_eq!(stage.text(topic).as_deref(), Some("two"));
    }

    #[test]
    fn the_order_of_checks() {
        let mut stage = Stage::new();
        let topic = stage.add("a", plain(TopicType::String));
        let next = stage.origin(ONE);
        let rejected = |reason| Outcome::Rejected(reason);
        let unknown = Origin { session: SessionId(9), epoch: 9, ..next };
        let stale = Origin { epoch: 0, role_version: 9, ..next };
        let gap = Origin { request: next.request + 1, role_version: 9, ..next };
        for (origin, reason) in [
            (unknown, Rejection::NoSuchSession),
            (stale, Rejection::StaleEpoch),
            (Origin { request: 1, ..stale }, Rejection::StaleEpoch),
            (gap, Rejection::Gap),
            (Origin { request: u64::MAX, ..next }, Rejection::Gap),
            (Origin { request: 0, ..next }, Rejection::Forgotten),
        ] {
            let (answered, _) = stage.propose(origin, update(topic, "x").encode());
            assert_eq!(answered.outcome, rejected(reason), "{origin:?}");
            assert_eq!(stage.origin(ONE), next, "the number stays open");
        }
        // A repeat is answered before roles are looked at, and revoked rights use the number.
        let (answered, _) = stage
            .propose(Origin { request: 1, role_version: 9, ..next }, update(topic, "x").encode());
        assert!(matches!(answered.outcome, Outcome::Topic { created: true, .. }));
        let (answered, _) =
            stage.propose(Origin { role_version: 9, ..next }, update(topic, "x").encode());
        assert_eq!(answered.outcome, rejected(Rejection::StaleRoles));
        assert_eq!(stage.text(topic), None);
        assert_eq!(stage.origin(ONE).request, next.request + 1);
        let (again, _) = stage.propose(next, update(topic, "x").encode());
        assert_eq!(again, Answered { origin: next, ..answered }, "void for good");
    }

    #[test]
    fn bytes_that_are_no_command_use_the_number() {
        let mut stage = Stage::new();
        for (bytes, reason) in [
            (&b""[..], Rejection::Undecodable),
            (b"\xff\x00", Rejection::Undecodable),
            (b"\x80\x00\x01\x00\x63\x00", Rejection::Undecodable),
            (b"\x03\x01\x02\x00//", Rejection::InvalidPath),
        ] {
            let origin = stage.origin(ONE);
            let (answered, _) = stage.propose(origin, bytes::Bytes::from_static(bytes));
            assert_eq!(answered.outcome, Outcome::Rejected(reason));
            assert_eq!(stage.origin(ONE).request, origin.request + 1);
        }
        let (answered, _) = stage.propose(Origin::default(), bytes::Bytes::new());
        assert_eq!(answered.outcome, Outcome::Rejected(Rejection::Undecodable));
    }

    #[test]
    fn who_may_send_what() {
        let mut stage = Stage::new();
        let topic = stage.add("a", plain(TopicType::String));
        for command in fuzzing::every_command() {
            let denied = Outcome::Rejected(Rejection::PermissionDenied);
            let sender = command.sender();
            let (from_cluster, _) = stage.clone().cluster(command.clone());
            assert_eq!(from_cluster == denied, sender == Sender::Session, "{command:?}");
            if sender == Sender::Cluster {
                assert_eq!(stage.clone().send(ONE, command).0, denied);
            }
        }
        assert_eq!(stage.text(topic), None);
    }

    #[test]
    fn answers_are_dropped_on_the_clients_word_and_at_the_bound() {
        let mut stage = Stage::new();
        let topic = stage.add("a", plain(TopicType::String));
        let kept = |stage: &Stage| stage.machine.session(ONE).unwrap().answered().len();
        for text in ["1", "2", "3"] {
            stage.send(ONE, update(topic, text));
        }
        assert_eq!(kept(&stage), 4);
        let origin = Origin { answered_below: 4, ..stage.origin(ONE) };
        stage.propose(origin, update(topic, "4").encode());
        assert_eq!(kept(&stage), 2, "requests 4 and 5");
        let ask = |stage: &mut Stage, request| {
            let origin = Origin { request, ..stage.origin(ONE) };
            stage.propose(origin, update(topic, "x").encode()).0.outcome
        };
        assert_eq!(ask(&mut stage, 3), Outcome::Rejected(Rejection::Forgotten));
        assert_eq!(ask(&mut stage, 4), Outcome::Done);
        // A word beyond what can be true drops no more than what was answered before.
        let origin = Origin { answered_below: u64::MAX, ..stage.origin(ONE) };
        stage.propose(origin, update(topic, "5").encode());
        assert_eq!(kept(&stage), 1);

        let many = limits::SESSION_IN_FLIGHT_MAX + 10;
        stage.send_all(ONE, (0..many).map(|i| update(topic, &i.to_string())));
        assert_eq!(kept(&stage), limits::SESSION_IN_FLIGHT_MAX + 1);
        let last = stage.machine.session(ONE).unwrap().answered().last();
        let oldest = last - limits::SESSION_IN_FLIGHT_MAX as u64;
        assert_eq!(ask(&mut stage, oldest), Outcome::Done);
        assert_eq!(ask(&mut stage, oldest - 1), Outcome::Rejected(Rejection::Forgotten));
    }

    #[test]
    fn owners() {
        let mut stage = Stage::new();
        let owner = with(TopicType::Json, &[("OWNER", "$Principal is \"principal 1\"")]);
        let owned = stage.add("a", owner);
        let other = stage.add("b", plain(TopicType::Json));
        assert!(stage.machine.owns(ONE, owned));
        assert!(!stage.machine.owns(TWO, owned));
        assert!(!stage.machine.owns(ONE, other));
        assert!(!stage.machine.owns(SessionId(9), owned));
        assert!(!stage.machine.owns(ONE, TopicId(99)));
    }

    #[test]
    fn time_does_not_go_back_and_blank_entries_pass() {
        let mut stage = Stage::new();
        stage.log_time_ms = 500;
        stage.cluster(Command::SetAnonymous { allowed: true });
        assert_eq!(stage.machine.log_time_ms(), 1_000);
        let hash = stage.machine.hash();
        stage.machine.pass(stage.entry + 1);
        assert_eq!(stage.machine.applied(), stage.entry + 1);
        assert_eq!(stage.machine.hash(), hash, "hashes are compared at equal entries");
    }

    /// Two machines that differ in one field differ in their hash.
    #[test]
    fn every_field_counts() {
        type Change = fn(&mut Stage);
        let found = |cluster, lineage, names: &[(u64, &str)], password: &str| Command::Found {
            cluster: ClusterId(cluster),
            lineage: Lineage(lineage),
            names: names.iter().map(|(node, name)| (NodeId(*node), (*name).to_owned())).collect(),
            admin_password: password.to_owned(),
            anonymous: false,
        };
        let mut hashes = Vec::new();
        let mut put = |what: &str, machine: &Machine| {
            let hash = machine.hash();
            let double = hashes.iter().find(|(_, other)| *other == hash);
            assert_eq!(double, None, "{what}");
            hashes.push((what.to_owned(), hash));
        };
        put("nothing", &Machine::new());
        for (what, command) in [
            ("founding", found(1, 2, &[(1, "a")], "p")),
            ("cluster", found(9, 2, &[(1, "a")], "p")),
            ("lineage", found(1, 9, &[(1, "a")], "p")),
            ("node", found(1, 2, &[(9, "a")], "p")),
            ("name", found(1, 2, &[(1, "z")], "p")),
            ("password", found(1, 2, &[(1, "a")], "z")),
            ("anonymous", Command::SetAnonymous { allowed: true }),
            ("incarnation", Command::NodeStarted { node: NODE, incarnation: 2 }),
            ("its node", Command::NodeStarted { node: NodeId(12), incarnation: 2 }),
            ("session", Command::OpenSession(opening(ONE))),
            ("id", Command::OpenSession(opening(TWO))),
        ] {
            let mut stage = Stage::empty();
            stage.cluster(command);
            put(what, &stage.machine);
        }
        let opened = |change: fn(&mut crate::domain::command::OpenSession)| {
            let mut opening = opening(ONE);
            change(&mut opening);
            let mut stage = Stage::empty();
            stage.cluster(Command::OpenSession(opening));
            stage.machine
        };
        put("secret", &opened(|open| open.secret_hash = [9; 32]));
        put("principal", &opened(|open| open.principal = "other".to_owned()));
        put("roles", &opened(|open| open.roles.push("other".to_owned())));
        put(
            "property key",
            &opened(|open| {
                open.properties = [("other".to_owned(), "OTHER".to_owned())].into();
            }),
        );
        put(
            "property value",
            &opened(|open| {
                open.properties = [("$Transport".to_owned(), "other".to_owned())].into();
            }),
        );
        put("reconnect timeout", &opened(|open| open.reconnect_timeout_ms += 1));
        put("host", &opened(|open| open.host = NodeId(12)));
        put("host's incarnation", &opened(|open| open.incarnation += 1));
        let changes: [(&str, Change); 20] = [
            ("log time", |stage| stage.machine.clock.log_time_ms += 1),
            ("wall time", |stage| stage.machine.clock.wall_time_ms += 1),
            ("topic counter", |stage| stage.machine.topics.restore_next_id(77)),
            ("topic", |stage| _ = stage.add("b", plain(TopicType::Json))),
            ("path", |stage| _ = stage.add("c", plain(TopicType::Json))),
            ("type", |stage| _ = stage.add("b", plain(TopicType::Binary))),
            ("property", |stage| {
                _ = stage.add("b", with(TopicType::Json, &[("PRIORITY", "high")]));
            }),
            ("value", |stage| drop(stage.send(ONE, update(TopicId(1), "x")))),
            ("other value", |stage| drop(stage.send(ONE, update(TopicId(1), "y")))),
            ("empty value", |stage| drop(stage.send(ONE, update(TopicId(1), "")))),
            ("version", |stage| {
                stage.entry += 1;
                stage.send(ONE, update(TopicId(1), "x"));
            }),
            ("unchanged answer", |stage| {
                stage.send(ONE, Command::Refused { code: 1 });
            }),
            ("answer", |stage| drop(stage.send(ONE, Command::Refused { code: 401 }))),
            ("whose answer", |stage| drop(stage.send(TWO, Command::Refused { code: 401 }))),
            ("kept answers", |stage| {
                let origin = Origin { answered_below: 2, ..stage.origin(ONE) };
                stage.propose(origin, Command::Refused { code: 401 }.encode());
            }),
            ("epoch and secrets", |stage| drop(stage.cluster(claim(50)))),
            ("next secret", |stage| drop(stage.cluster(claim(51)))),
            ("detached", |stage| {
                stage.cluster(Command::DetachSession { session: ONE, epoch: 1 });
            }),
            ("closed", |stage| {
                let reason = CloseReason::ByClient;
                stage.cluster(Command::CloseSession { session: ONE, reason });
            }),
            ("role version", |stage| {
                stage.machine.sessions.change(ONE, |session| session.raise_role_version());
            }),
        ];
        for (what, change) in changes {
            let mut stage = Stage::new();
            stage.add("a", plain(TopicType::String));
            change(&mut stage);
            put(what, &stage.machine);
        }
        let interests: [(&str, &[Command]); 9] = [
            ("selection", &[select("", ">a", true)]),
            ("other selector", &[select("", ">b", true)]),
            ("scope", &[select("s", ">a", true)]),
            ("deselection", &[select("", "?a//", true), select("", ">a/b", false)]),
            ("selection there", &[select("", "?a//", true), select("", ">b", true)]),
            ("listener", &[listen(1, ">a", true)]),
            ("other listener", &[listen(2, ">a", true)]),
            ("listener's selector", &[listen(1, ">b", true)]),
            ("listener's deselection", &[listen(1, "?a//", true), listen(1, ">a/b", false)]),
        ];
        for (what, commands) in interests {
            let mut stage = Stage::new();
            for command in commands {
                stage.send(ONE, command.clone());
            }
            put(what, &stage.machine);
        }
    }

    #[test]
    fn a_stream_counts_in_the_hash() {
        let mut stage = Stage::new();
        stage.add("a", plain(TopicType::String));
        let mut hashes = std::collections::BTreeSet::from([stage.machine.hash()]);
        for (id, session, epoch) in [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)] {
            use crate::domain::topic::record::StreamHold;
            let id = crate::domain::id::StreamId(id);
            let hold = StreamHold { id, session: SessionId(session), epoch };
            stage.machine.topics.set_stream(TopicId(1), Some(hold));
            assert!(hashes.insert(stage.machine.hash()));
        }
    }

    fn claim(next: u8) -> Command {
        Command::MoveSession {
            session: ONE,
            secret_hash: [1; 32],
            next_secret_hash: [next; 32],
            host: NODE,
            incarnation: 1,
        }
    }

    fn select(scope: &str, selector: &str, select: bool) -> Command {
        Command::Select { scope: scope.to_owned(), selector: selector.to_owned(), select }
    }

    fn listen(listener: u32, selector: &str, select: bool) -> Command {
        Command::Listen { listener, selector: selector.to_owned(), select }
    }

    #[test]
    fn reads() {
        let mut stage = Stage::empty();
        stage.cluster(open(ONE));
        for at in ["b", "a/b", "a"] {
            stage.add(at, plain(TopicType::String));
        }
        let from = path("a/a");
        let from = stage.machine.topics_from(&from).map(|topic| topic.info().path.to_string());
        assert_eq!(from.collect::<Vec<_>>(), ["a/b", "b"]);
        let by_path = stage.machine.topic_at(&path("a")).unwrap();
        assert_eq!(stage.machine.topic(by_path.info().id), Some(by_path));
        assert!(stage.machine.topic_at(&path("c")).is_none());
        assert_eq!(string("x").value_type, TopicType::String);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn random_commands_keep_the_invariants(
            input in prop::collection::vec(any::<u8>(), 0..2_000),
        ) {
            fuzzing::machine_commands(&input);
        }
    }
}
