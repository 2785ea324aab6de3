//! The replicated state, and the one way to change it.
//!
//! [`Machine`] only dispatches: what a command does stands in its file under `apply/`, what a part
//! must keep true stands with the part. A clone is O(1) and stands still, so readers never lock
//! apply and apply never waits for a reader.

#[doc(hidden)]
pub mod fuzzing;
pub(in crate::domain) mod hash;
pub mod invariants;
pub mod snapshot;

use crate::domain::apply::found::Charter;
use crate::domain::apply::move_session::Claim;
use crate::domain::apply::set_topic::Target;
use crate::domain::apply::{self, Context, Decision, Effects};
use crate::domain::command::{Command, Sender};
use crate::domain::configuration::{Configuration, Founding};
use crate::domain::effect::Event;
use crate::domain::entry::{Origin, Payload, Proposal};
use crate::domain::id::{Index, NodeId, SessionId, TopicId};
use crate::domain::outcome::{Outcome, Rejection};
use crate::domain::session::admission::{Admission, admit};
use crate::domain::session::record::{Host, Session};
use crate::domain::session::table::SessionTable;
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::record::Topic;
use crate::domain::topic::tree::TopicTree;
use hash::{ItemKind, item};

/// The replicated state at an exact index.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    clock: LogClock,
    topics: TopicTree,
    sessions: SessionTable,
    configuration: Configuration,
}

/// How far the machine has come in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct LogClock {
    /// The newest applied entry. Not part of the state hash, which is compared at equal entries.
    applied: u64,
    /// Of the newest entry that carried a time.
    log_time_ms: u64,
    /// Of the newest entry that carried a time.
    wall_time_ms: u64,
}

/// Commands whose topics are looked at before the first of them is applied.
const LOOKED_AHEAD: usize = 16;

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
        let mut offsets = 0..=u16::MAX;
        for together in payload.proposals.chunks(LOOKED_AHEAD) {
            self.look_at_topics_of(together);
            for (proposal, offset) in together.iter().zip(&mut offsets) {
                let at = Index::new(entry, offset);
                let (index, outcome) = self.apply_one(at, proposal, &mut applied.events);
                applied.outcomes.push(Answered { origin: proposal.origin, index, outcome });
            }
        }
        applied
    }

    /// Reads the topics that these update, and does nothing with them: memory is slow, and a processor
    /// waits for many reads at once, but not for those beyond the applying of a whole command.
    fn look_at_topics_of(&self, proposals: &[Proposal]) {
        let topics = proposals.iter().filter_map(|one| Command::updated_topic(&one.command));
        let kinds = topics.filter_map(|id| self.topics.get(id)).map(Topic::topic_type);
        std::hint::black_box(kinds.fold(0, |seen, kind| seen ^ kind.code()));
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
    pub fn topics_from<'a>(
        &'a self,
        path: &TopicPath,
    ) -> impl Iterator<Item = &'a Topic> + use<'a> {
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
    fn hash(self) -> u64 {
        item(ItemKind::Clock, [self.log_time_ms, self.wall_time_ms])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::apply::stage::{ONE, Stage, TWO, open, path, plain, string, with};
    use crate::domain::fuzzing;
    use crate::domain::topic::specification::TopicType;

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

    #[test]
    fn reads() {
        let mut stage = Stage::empty();
        stage.cluster(open(ONE));
        for at in ["b", "a/b", "a"] {
            stage.add(at, plain(TopicType::String));
        }
        let from =
            stage.machine.topics_from(&path("a/a")).map(|topic| topic.info().path.to_string());
        assert_eq!(from.collect::<Vec<_>>(), ["a/b", "b"]);
        let by_path = stage.machine.topic_at(&path("a")).unwrap();
        assert_eq!(stage.machine.topic(by_path.info().id), Some(by_path));
        assert!(stage.machine.topic_at(&path("c")).is_none());
        assert_eq!(string("x").value_type, TopicType::String);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(192))]

        #[test]
        fn random_commands_keep_the_invariants(
            input in prop::collection::vec(any::<u8>(), 0..3_000),
        ) {
            fuzzing::machine_commands(&input);
        }
    }
}
