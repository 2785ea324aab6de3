//! A machine as records, and back.
//!
//! ```text
//! record     = version u8 · item*
//! item       = kind u8 · length u32 · body
//! 1 head       applied u64 · log time u64 · wall time u64 · next topic u64 · anonymous u8
//! 2 founding   cluster u64 · lineage u64
//! 3 name       node u64 · text
//! 4 run        node u64 · incarnation u64
//! 5 principal  text · text
//! 6 topic      id u64 · added u64 · version u64 · flags u8 (1 value, 2 stream) · type u8 · pairs
//!              · text path · [stream u64 · session u64 · epoch u32] · [value]
//! 7 session    id u64 · epoch u32 · role version u32 · secret 32 · flags u8 (1 previous, 2 detached)
//!              · [previous 32] · [detached at u64] · host u64 · incarnation u64 · opened u64
//!              · reconnect timeout u64 · last request u64 · text principal · texts roles · pairs
//! 8 selection  select u8 · text scope · text selector          of the session before
//! 9 listening  listener u32 · select u8 · text selector        of the session before
//! 10 answer    index u64 · outcome                             of the session before, oldest first
//! 11 end       topics u64 · sessions u64 · state hash u64 · applied u64
//! text       = length u32 · bytes        texts = count u32 · text*        pairs = count u32 · (text · text)*
//! ```
//!
//! All integers are little-endian. The order is fixed (kinds rise but for the items of a session,
//! topics by path, sessions by identifier), so equal machines make equal records. A record is at most
//! [`SNAPSHOT_RECORD_BYTES`] long, unless one item alone is longer. Reading allocates by the bytes
//! that are there, never by a number that they claim, and ends with the state hash recomputed.

mod read;
mod write;

pub use read::RestoreError;

use bytes::Bytes;

use super::Machine;
use crate::domain::limits::SNAPSHOT_RECORD_BYTES;

/// The only version there is.
const VERSION: u8 = 1;

/// Kinds of items. Stored: never reused, never changed.
mod kind {
    pub(super) const HEAD: u8 = 1;
    pub(super) const FOUNDING: u8 = 2;
    pub(super) const NAME: u8 = 3;
    pub(super) const RUN: u8 = 4;
    pub(super) const PRINCIPAL: u8 = 5;
    pub(super) const TOPIC: u8 = 6;
    pub(super) const SESSION: u8 = 7;
    pub(super) const SELECTION: u8 = 8;
    pub(super) const LISTENING: u8 = 9;
    pub(super) const ANSWER: u8 = 10;
    pub(super) const END: u8 = 11;
}

impl Machine {
    /// The records that rebuild this machine, made one by one as they are asked for. To write them
    /// in the background, iterate over a clone.
    pub fn to_records(&self) -> impl Iterator<Item = Bytes> {
        write::Records::new(self, SNAPSHOT_RECORD_BYTES)
    }

    /// The machine of these records.
    ///
    /// # Errors
    /// [`RestoreError`] names what is wrong; the recomputed state hash must be the one at the end.
    pub fn from_records(records: impl IntoIterator<Item = Bytes>) -> Result<Self, RestoreError> {
        let mut reader = read::Reader::default();
        for record in records {
            reader.record(record)?;
        }
        reader.finish()
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use proptest::prelude::*;

    use super::*;
    use crate::domain::apply::stage::{ONE, Stage, TWO, open, plain, string, update, with};
    use crate::domain::command::{Command, TypedValue};
    use crate::domain::fuzzing;
    use crate::domain::id::{NodeId, SessionId};
    use crate::domain::invariants;
    use crate::domain::limits;
    use crate::domain::topic::specification::TopicType;

    /// A machine with something of everything.
    fn stage() -> Stage {
        let mut stage = Stage::new();
        stage.cluster(open(SessionId(3)));
        for command in fuzzing::every_command() {
            // As the cluster, then as a session: each command is refused by one of them at most.
            if matches!(command, Command::ExpireSessions { .. }) {
                continue;
            }
            stage.cluster(command.clone());
            stage.send(TWO, command);
        }
        let topic = stage.add("t", with(TopicType::String, &[("PRIORITY", "high")]));
        stage.send(ONE, update(topic, "value"));
        stage.cluster(Command::DetachSession { session: ONE, epoch: 1 });
        stage.cluster(Command::MoveSession {
            session: SessionId(3),
            secret_hash: [3; 32],
            next_secret_hash: [4; 32],
            host: NodeId(12),
            incarnation: 5,
        });
        stage
    }

    fn whole(machine: &Machine) -> Vec<u8> {
        machine.to_records().flat_map(|record| record.to_vec()).collect()
    }

    #[test]
    fn a_machine_comes_back() {
        for machine in [Machine::new(), stage().machine] {
            let restored = Machine::from_records(machine.to_records()).unwrap();
            assert_eq!(invariants::check(&restored), Ok(()));
            assert_eq!(restored.hash(), machine.hash());
            assert_eq!(restored.applied(), machine.applied());
            assert!(restored.to_records().eq(machine.to_records()));
        }
    }

    #[test]
    fn a_restored_value_has_an_allocation_of_its_own() {
        let stage = stage();
        let records: Vec<Bytes> = stage.machine.to_records().collect();
        let restored = Machine::from_records(records.clone()).unwrap();
        for topic in restored.topics().iter() {
            let Some(value) = topic.value() else { continue };
            let value = value.as_ptr() as usize;
            for record in &records {
                let at = record.as_ptr() as usize;
                assert!(!(at..at + record.len()).contains(&value));
            }
        }
    }

    #[test]
    fn records_are_pages() {
        let mut stage = Stage::new();
        let add = |i| Command::SetTopic {
            path: crate::domain::apply::stage::path(&format!("page/{i:05}")),
            specification: Some(plain(TopicType::String)),
            constraint: crate::domain::constraint::Constraint::unconstrained(),
            value: string(&"x".repeat(100)),
        };
        stage.send_all(ONE, (0..3_000).map(add));
        let large = Bytes::from(vec![b'x'; limits::VALUE_BYTES_MAX]);
        let value = TypedValue { value_type: TopicType::String, bytes: Some(large) };
        let topic = crate::domain::id::TopicId(2);
        stage.send(ONE, Command::Update { topic, stream: None, value });
        let records: Vec<Bytes> = stage.machine.to_records().collect();
        let over = records.iter().filter(|record| record.len() > SNAPSHOT_RECORD_BYTES).count();
        assert_eq!(over, 1, "only the large value stands alone");
        let full = records.iter().filter(|record| record.len() > SNAPSHOT_RECORD_BYTES / 2).count();
        assert!(full >= records.len() - 2, "the others are filled");
        let restored = Machine::from_records(records).unwrap();
        assert_eq!(restored.hash(), stage.machine.hash());
    }

    #[test]
    fn every_cut_and_every_damaged_byte_is_an_error() {
        let bytes = whole(&stage().machine);
        for cut in 0..bytes.len() {
            let cut = Bytes::copy_from_slice(&bytes[..cut]);
            assert!(Machine::from_records([cut.clone()]).is_err(), "cut at {}", cut.len());
        }
        for at in 0..bytes.len() {
            // Two bits of each byte, and each bit of some.
            for bit in [at % 8, (at + 3) % 8] {
                let mut damaged = BytesMut::from(&bytes[..]);
                damaged[at] ^= 1 << bit;
                let read = Machine::from_records([damaged.freeze()]);
                assert!(read.is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn errors_have_names() {
        let records = |items: &[(u8, &[u8])]| {
            let mut record = BytesMut::new();
            record.put_u8(VERSION);
            for (kind, body) in items {
                record.put_u8(*kind);
                record.put_u32_le(body.len() as u32);
                record.put_slice(body);
            }
            [record.freeze()]
        };
        let head = [0; 33];
        let read = |items: &[(u8, &[u8])]| Machine::from_records(records(items)).unwrap_err();
        assert_eq!(
            Machine::from_records([Bytes::from_static(&[9])]).unwrap_err(),
            RestoreError::Version { version: 9 }
        );
        assert_eq!(
            Machine::from_records([Bytes::from_static(&[1, 1, 0])]).unwrap_err(),
            RestoreError::Length { kind: 1 }
        );
        // A length that is claimed and not there allocates nothing.
        assert_eq!(
            Machine::from_records([Bytes::from_static(&[1, 1, 255, 255, 255, 255])]).unwrap_err(),
            RestoreError::Length { kind: 1 }
        );
        assert_eq!(read(&[]), RestoreError::NoEnd);
        assert_eq!(read(&[(kind::HEAD, &head)]), RestoreError::NoEnd);
        assert_eq!(read(&[(kind::HEAD, &head[1..])]), RestoreError::Length { kind: 1 });
        assert_eq!(
            read(&[(kind::HEAD, &head), (kind::HEAD, &head)]),
            RestoreError::Kind { kind: 1, after: 1 }
        );
        assert_eq!(read(&[(kind::END, &[0; 32])]), RestoreError::Kind { kind: 11, after: 0 });
        assert_eq!(
            read(&[(kind::HEAD, &head), (kind::ANSWER, &[])]),
            RestoreError::Kind { kind: 10, after: 1 }
        );
        let run = [1; 16];
        assert_eq!(
            read(&[(kind::HEAD, &head), (kind::RUN, &run), (kind::RUN, &run)]),
            RestoreError::Double { kind: 4 }
        );
        assert_eq!(
            read(&[(kind::HEAD, &head), (kind::TOPIC, &[0; 26])]),
            RestoreError::Illegal { kind: 6, field: "type" }
        );
        let mut end = [0; 32];
        assert!(matches!(
            read(&[(kind::HEAD, &head), (kind::END, &end)]),
            RestoreError::Hash { expected: 0, .. }
        ));
        end[0] = 5;
        assert_eq!(
            read(&[(kind::HEAD, &head), (kind::END, &end)]),
            RestoreError::Count { what: "topics", expected: 5, found: 0 }
        );
    }

    #[test]
    fn the_bytes_do_not_change() {
        // A released layout is for ever; another one is another version.
        let mut stage = Stage::new();
        let topic = stage.add("a/b", plain(TopicType::String));
        stage.send(ONE, update(topic, "x"));
        let hex: String = whole(&stage.machine).iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = include_str!("../../../../tests/fixtures/snapshots/v1.hex");
        assert_eq!(hex, golden.trim());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn hostile_records_are_a_machine_or_an_error(
            input in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            fuzzing::snapshot_restore(&input);
        }
    }
}
