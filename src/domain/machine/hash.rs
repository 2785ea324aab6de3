//! The state hash: 64 bits, the wrapping sum of one xxh3 per item of replicated state.
//!
//! A sum forgets order, so any part can add and remove its own items in constant time, and a restore
//! that meets them in another order arrives at the same number. Every item begins with its own key
//! (a topic's identifier, a session's, a request number), so no two items of a state are equal.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// What an item is. Numbers are part of the hash on every node: never reused, never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::domain) enum ItemKind {
    /// Log and wall time.
    Clock = 1,
    /// The next topic identifier.
    TopicCounter = 2,
    /// What never changes while a topic lives.
    Topic = 3,
    /// A topic's value, version and stream.
    Content = 4,
    /// A session without its answers.
    Session = 5,
    /// One topic notification listener, a part of its session's item.
    Listener = 6,
    /// A session's last request number.
    Progress = 7,
    /// One kept answer.
    Answer = 8,
    /// The founding of the cluster.
    Founding = 9,
    /// The name of a member.
    Name = 10,
    /// The incarnation of a member.
    Incarnation = 11,
    /// The password of a principal.
    Principal = 12,
    /// Whether anonymous clients may connect.
    Anonymous = 13,
}

/// The hash of an item that is a few numbers.
pub(in crate::domain) fn item<const WORDS: usize>(kind: ItemKind, words: [u64; WORDS]) -> u64 {
    let bytes = words.map(u64::to_le_bytes);
    xxh3_64_with_seed(bytes.as_flattened(), kind as u64)
}

/// The hash of a text or value, to be a word of an item.
pub(in crate::domain) fn digest(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The sum of the items that one part of the machine holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::domain) struct ItemSum(u64);

impl ItemSum {
    /// Takes an item in.
    pub(in crate::domain) fn add(&mut self, item: u64) {
        self.0 = self.0.wrapping_add(item);
    }

    /// Takes an item out again.
    pub(in crate::domain) fn remove(&mut self, item: u64) {
        self.0 = self.0.wrapping_sub(item);
    }

    /// The sum.
    pub(in crate::domain) fn value(self) -> u64 {
        self.0
    }
}

impl FromIterator<u64> for ItemSum {
    fn from_iter<I: IntoIterator<Item = u64>>(items: I) -> Self {
        Self(items.into_iter().fold(0, u64::wrapping_add))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::apply::stage::{NODE, ONE, Stage, TWO, opening, plain, update, with};
    use crate::domain::command::{Command, OpenSession};
    use crate::domain::effect::CloseReason;
    use crate::domain::entry::Origin;
    use crate::domain::id::{ClusterId, Lineage, NodeId, SessionId, StreamId, TopicId};
    use crate::domain::machine::Machine;
    use crate::domain::topic::record::StreamHold;
    use crate::domain::topic::specification::TopicType;

    #[test]
    fn a_sum_forgets_order_and_takes_items_out_again() {
        let items = [
            item(ItemKind::Topic, [1, 2]),
            item(ItemKind::Content, [1, 2]),
            item(ItemKind::Topic, [2, 1]),
        ];
        let mut sum: ItemSum = items.iter().rev().copied().collect();
        assert_eq!(sum, items.iter().copied().collect());
        for item in items {
            assert_ne!(sum, ItemSum::default());
            sum.remove(item);
        }
        assert_eq!(sum, ItemSum::default());
    }

    #[test]
    fn kind_and_every_word_count() {
        let hash = item(ItemKind::Topic, [1, 2]);
        for other in [
            item(ItemKind::Content, [1, 2]),
            item(ItemKind::Topic, [3, 2]),
            item(ItemKind::Topic, [1, 3]),
            item(ItemKind::Topic, [1]),
        ] {
            assert_ne!(hash, other);
        }
        // The same on every node and in every release.
        assert_eq!(format!("{hash:016x}"), "0dc8b45684f61ed8");
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
        let opened = |change: fn(&mut OpenSession)| {
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
        let mut hashes = BTreeSet::from([stage.machine.hash()]);
        for (id, session, epoch) in [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)] {
            let id = StreamId(id);
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
}
