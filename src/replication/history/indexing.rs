//! What the index is told: which topics a record speaks of, and what an entry left behind that is
//! not simply "each update published".
//!
//! ```text
//! posting key   = topic id u64 BE, of update records; its position is the command's index
//! effects       = version u8 · cut u8 · effect*
//! effect        = offset u16 · ordinal u32 · kind u8 · …
//!                 kind 1 topic added, 2 removed     topic id u64 · length u16 · path
//!                 kind 3 selections, 4 session      session u64 (· change u8)
//!                 kind 5 configuration              –
//! session row   = key: session u64 BE · value: change u8 (0 selections, 1 opened, 2 moved,
//!                 3 detached, 4 closed) · close reason u8
//! config row    = key: "configuration" · value: –
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use quorate_storage::index::{
    Applied, History as HistoryRow, HistoryKind, Index, IndexOptions, IndexPlace, IndexStep,
    IndexWorker, Replay, ReplayRequest, Replayed,
};
use quorate_storage::snapshot::{Catalogue, Owner};
use quorate_storage::{Log, Record, RecordKind};

use crate::domain::command::Command;
use crate::domain::effect::{Effect, Event, SessionChange};
use crate::domain::entry::commands_of;
use crate::domain::id::{Index as CommandIndex, SessionId};
use crate::replication::history::scratch::{Scratch, ScratchFault};
use crate::replication::journal::Journal;
use crate::supervisor::{Next, SpawnError, Supervisor, Waiting};
use crate::telemetry::event;

/// How long the worker gathers before it writes.
const GATHER: Duration = Duration::from_secs(2);
/// How often it looks for work where it may not wait.
const IDLE_PAUSE: Duration = Duration::from_millis(200);
/// Bytes of effects of one entry; what is over is cut and marked as such.
const EFFECTS_BYTES: usize = 8 * 1024 * 1024;
const VERSION: u8 = 1;

/// Where the index gets what it needs.
#[derive(Debug)]
pub(in crate::replication) struct IndexSources {
    pub(in crate::replication) place: IndexPlace,
    pub(in crate::replication) log: Log,
    pub(in crate::replication) catalogue: Arc<Catalogue>,
    pub(in crate::replication) journal: Journal,
    pub(in crate::replication) owner: Owner,
}

/// Starts the index's thread.
pub(in crate::replication) fn start(
    sources: IndexSources,
    supervisor: &Supervisor,
) -> Result<Index, SpawnError> {
    let IndexSources { place, log, catalogue, journal, owner } = sources;
    let options = IndexOptions {
        owner,
        keys: Arc::new(post_topics),
        replay: Some(replay(log.clone(), Arc::clone(&catalogue), journal)),
        on_progress: None,
    };
    let (index, worker) = IndexWorker::new(place, log, Some(catalogue), options);
    let mut driver = Driver { worker, index: index.clone(), told_off: false };
    supervisor.spawn_steps("index", move |stop, waiting| {
        if stop.is_stopped() {
            driver.index.close();
        }
        driver.step(waiting)
    })?;
    Ok(index)
}

/// The worker, and what was said about it.
struct Driver {
    worker: IndexWorker,
    index: Index,
    told_off: bool,
}

impl Driver {
    fn step(&mut self, waiting: Waiting) -> Next {
        let step = self.worker.step((waiting == Waiting::Allowed).then_some(GATHER));
        match step {
            IndexStep::Idle | IndexStep::Indexed { .. } => return Next::Idle(IDLE_PAUSE),
            IndexStep::Working => {}
            IndexStep::Segment(segment) => {
                tracing::debug!(?segment, "a segment is indexed");
            }
            IndexStep::Rebuilding(report) => tracing::warn!(
                event = event::INDEX_REBUILT,
                damage = %report.damage,
                moved_to = report.moved_to.as_deref().map(Path::display).map(tracing::field::display),
                "the index is rebuilt"
            ),
            IndexStep::Unreadable { segment, error } => {
                tracing::warn!(event = event::INDEX_TROUBLE, segment, %error, "a segment cannot be indexed");
            }
            IndexStep::Refused { call, error } => {
                tracing::warn!(event = event::INDEX_TROUBLE, call, %error, "the index's disk refuses");
                return Next::Idle(IDLE_PAUSE);
            }
            IndexStep::Off => {
                if !std::mem::replace(&mut self.told_off, true) {
                    tracing::warn!(
                        event = event::INDEX_TROUBLE,
                        "the index stays off until the next start"
                    );
                }
                return Next::Idle(IDLE_PAUSE);
            }
            IndexStep::Closed => return Next::Done,
        }
        Next::Again
    }
}

/// One posting for each update of a topic by its identifier.
fn post_topics(record: &Record, post: &mut dyn FnMut(&[u8], u64)) {
    if record.kind != RecordKind::Commands {
        return;
    }
    for (offset, command) in (0..=u16::MAX).zip(commands_of(&record.payload)) {
        if let Some(topic) = Command::updated_topic(command) {
            post(&topic.0.to_be_bytes(), CommandIndex::new(record.index, offset).0);
        }
    }
}

/// What an entry left behind.
pub(in crate::replication) fn left_behind(entry: u64, events: &[Event]) -> Applied {
    let mut effects = BytesMut::new();
    let mut is_cut = false;
    let mut histories = Vec::new();
    for event in events {
        histories.extend(history_row(event));
        if effects.len() >= EFFECTS_BYTES {
            is_cut = true;
        } else {
            put_effect(&mut effects, event);
        }
    }
    let effects = (!effects.is_empty()).then(|| {
        let mut whole = BytesMut::with_capacity(2 + effects.len());
        whole.put_u8(VERSION);
        whole.put_u8(u8::from(is_cut));
        whole.extend_from_slice(&effects);
        whole.freeze()
    });
    Applied { entry, effects, histories }
}

fn put_effect(buffer: &mut BytesMut, event: &Event) {
    let mut head = |kind: u8| {
        buffer.put_u16_le(event.position.index.offset());
        buffer.put_u32_le(event.position.ordinal);
        buffer.put_u8(kind);
    };
    match &event.effect {
        Effect::Value { .. } => {}
        Effect::TopicAdded(topic) | Effect::TopicRemoved(topic) => {
            head(if matches!(event.effect, Effect::TopicAdded(_)) { 1 } else { 2 });
            let path = topic.path.as_str();
            buffer.put_u64_le(topic.id.0);
            buffer.put_u16_le(path.len() as u16);
            buffer.put_slice(path.as_bytes());
        }
        Effect::SelectionsChanged { session, .. } => {
            head(3);
            buffer.put_u64_le(session.0);
        }
        Effect::Session { session, change } => {
            head(4);
            buffer.put_u64_le(session.0);
            buffer.put_u8(change_byte(*change));
        }
        Effect::Configuration => head(5),
    }
}

fn history_row(event: &Event) -> Option<HistoryRow> {
    let session_row = |session: SessionId, value: Bytes| {
        let key = Bytes::copy_from_slice(&session.0.to_be_bytes());
        (HistoryKind::Sessions, key, value)
    };
    let (kind, key, value) = match &event.effect {
        Effect::SelectionsChanged { session, .. } => {
            session_row(*session, Bytes::from_static(&[0, 0]))
        }
        Effect::Session { session, change } => {
            let reason = match change {
                SessionChange::Closed(reason) => *reason as u8,
                _ => 0,
            };
            session_row(*session, Bytes::copy_from_slice(&[change_byte(*change), reason]))
        }
        Effect::Configuration => {
            (HistoryKind::Config, Bytes::from_static(b"configuration"), Bytes::new())
        }
        Effect::TopicAdded(_) | Effect::TopicRemoved(_) | Effect::Value { .. } => return None,
    };
    Some(HistoryRow { kind, key, ordinal: event.position.index.offset(), value })
}

fn change_byte(change: SessionChange) -> u8 {
    match change {
        SessionChange::Opened { .. } => 1,
        SessionChange::Moved { .. } => 2,
        SessionChange::Detached => 3,
        SessionChange::Closed(_) => 4,
    }
}

/// Makes again what entries left behind, for an index that was lost or that could not keep up.
fn replay(log: Log, catalogue: Arc<Catalogue>, journal: Journal) -> Replay {
    let mut scratch: Option<Scratch> = None;
    Box::new(move |request: ReplayRequest, give: &mut dyn FnMut(Applied) -> bool| {
        // What is not applied is not committed, and may still be taken away.
        let end = request.end.min(journal.applied_now().saturating_add(1));
        if request.start >= end {
            return Replayed::NotNow;
        }
        let ready = match scratch.take() {
            Some(mut former) => former.seek(request.start).map(|()| former),
            None => Scratch::at(&log, &catalogue, request.start),
        };
        let mut machine = match ready {
            Ok(machine) => machine,
            Err(ScratchFault::StartsAt { entry }) => return Replayed::StartsAt(entry),
            Err(ScratchFault::Read(_)) => return Replayed::NotNow,
        };
        let mut left = request.entries_max;
        let mut wanted = true;
        while machine.next() < end && left > 0 && wanted {
            let stepped = machine.step(end, |entry, _, applied| {
                left -= 1;
                wanted = give(left_behind(entry, &applied.events));
                wanted && left > 0
            });
            match stepped {
                Ok(()) => {}
                Err(ScratchFault::StartsAt { entry }) => return Replayed::StartsAt(entry),
                Err(ScratchFault::Read(_)) => return Replayed::NotNow,
            }
        }
        let done = machine.next();
        // A rebuilt index goes on with what apply offers; the machine is kept only for the way.
        if done < end {
            scratch = Some(machine);
        }
        Replayed::UpTo(done)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::entry::{Origin, Payload, Proposal};
    use crate::domain::id::{Position, TopicId};

    fn event(offset: u16, effect: Effect) -> Event {
        let index = CommandIndex::new(9, offset);
        Event { position: Position { index, ordinal: 0 }, last: true, effect }
    }

    #[test]
    fn updates_are_posted_by_topic_and_other_commands_are_not() {
        let command = |kind: u8, id: u64| {
            let mut bytes = vec![kind, 0];
            bytes.extend_from_slice(&id.to_le_bytes());
            Proposal { origin: Origin::default(), command: bytes.into() }
        };
        let proposals = vec![command(1, 7), command(128, 8), command(2, 9)];
        let payload = Payload { proposals, ..Payload::default() }.encode();
        let record = Record { kind: RecordKind::Commands, index: 5, term: 1, payload };
        let mut posted = Vec::new();
        post_topics(&record, &mut |key, position| posted.push((key.to_vec(), position)));
        let key = |id: TopicId| id.0.to_be_bytes().to_vec();
        let position = |offset| CommandIndex::new(5, offset).0;
        assert_eq!(posted, [(key(TopicId(7)), position(0)), (key(TopicId(9)), position(2))]);
        let blank = Record { kind: RecordKind::Blank, payload: Bytes::new(), ..record };
        post_topics(&blank, &mut |_, _| panic!("a blank entry speaks of no topic"));
    }

    #[test]
    fn only_what_is_more_than_an_update_is_left_behind() {
        let before = Arc::default();
        let events = [
            event(0, Effect::SelectionsChanged { session: SessionId(3), before }),
            event(1, Effect::Session { session: SessionId(3), change: SessionChange::Detached }),
            event(2, Effect::Configuration),
        ];
        let left = left_behind(9, &events);
        let hex: String = left.effects.unwrap().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "0100\
             00000000000003\
             0300000000000000\
             01000000000004\
             030000000000000003\
             02000000000005"
        );
        let kinds: Vec<_> = left.histories.iter().map(|row| (row.kind, row.ordinal)).collect();
        assert_eq!(
            kinds,
            [(HistoryKind::Sessions, 0), (HistoryKind::Sessions, 1), (HistoryKind::Config, 2)]
        );
        assert!(left_behind(9, &[]).is_empty());
    }
}
