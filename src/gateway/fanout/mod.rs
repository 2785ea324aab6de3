//! Blocks of the journal to the queues of the sessions that want their events.
//!
//! Sync and without I/O: one task per node drives [`Fanout::fan_out`] block by block, session
//! writers call [`Fanout::join`] when they have caught up. An event is encoded once, however many
//! sessions hear it; a block costs each group of equal interest one walk, and each session of the
//! group one push.

pub mod audience;
pub mod batch;
pub mod outbox;
pub mod session_queue;
pub(in crate::gateway) mod task;

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use self::audience::{Audience, GroupId};
use self::batch::{Batch, BatchDraft};
use self::outbox::Outbox;
use self::session_queue::{Pushed, ReadOrder};
use crate::domain::effect::{Effect, SessionChange};
use crate::domain::id::SessionId;
use crate::domain::topic::specification::Conflation;
use crate::entropy::HashMap;
use crate::gateway::delivery::event_frames::{put_event, put_notifications, topic_of};
use crate::gateway::delivery::interest::Interest;
use crate::replication::Block;
use crate::telemetry::metrics;

/// Groups without members that are kept, since their sessions are likely to come back.
const EMPTY_GROUPS_MAX: usize = 256;
/// Bytes of blocks between two looks for sessions whose queue has grown too old.
const SWEEP_BYTES: u64 = 8 * 1024 * 1024;

/// The hosted sessions that are live, by what they want.
#[derive(Debug, Default)]
pub struct Fanout {
    /// Every block up to this entry has been fanned out.
    fanned: u64,
    /// Bytes of all blocks fanned out.
    mark: u64,
    swept_mark: u64,
    audience: Audience,
    groups: HashMap<GroupId, Vec<Member>>,
    by_interest: HashMap<Arc<Interest>, GroupId>,
    places: HashMap<SessionId, (GroupId, usize)>,
    empty_groups: usize,
}

#[derive(Debug)]
struct Member {
    outbox: Arc<Outbox>,
    /// It has heard of everything up to this entry by itself.
    live_after: u64,
}

/// A session that changed in this block, for whoever keeps the hosted ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangedSession {
    /// Which.
    pub session: SessionId,
    /// What happened to it.
    pub change: SessionChange,
}

/// Whether a session was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// It gets pushes from here on.
    Live,
    /// Blocks after what it has read have been fanned out already: read on.
    ReadOn,
    /// Its order was overtaken: look again.
    Overtaken,
}

impl Fanout {
    /// A fan-out that begins after `entry`.
    #[must_use]
    pub fn new(entry: u64) -> Self {
        Self { fanned: entry, ..Self::default() }
    }

    /// Every block up to this entry has been fanned out.
    #[must_use]
    pub fn fanned(&self) -> u64 {
        self.fanned
    }

    /// Sessions that get pushes.
    #[must_use]
    pub fn live(&self) -> usize {
        self.places.len()
    }

    /// Lets a session in that has read everything it wants up to and including `entry`.
    pub fn join(&mut self, outbox: &Arc<Outbox>, order: &ReadOrder, entry: u64) -> Joined {
        if entry < self.fanned {
            return Joined::ReadOn;
        }
        if !outbox.lock().join(order, entry) {
            return Joined::Overtaken;
        }
        let group = self.group_of(&order.interest);
        let members = self.groups.entry(group).or_default();
        if members.is_empty() {
            self.empty_groups = self.empty_groups.saturating_sub(1);
        }
        let former = self.places.insert(outbox.session(), (group, members.len()));
        debug_assert!(former.is_none(), "a session joined twice");
        members.push(Member { outbox: Arc::clone(outbox), live_after: entry });
        Joined::Live
    }

    /// Lets a session go; nothing happens if it is not in, or if another outbox has its place.
    pub fn leave(&mut self, outbox: &Arc<Outbox>) {
        let Some((group, place)) = self.places.get(&outbox.session()).copied() else { return };
        let Some(members) = self.groups.get_mut(&group) else { return };
        if members.get(place).is_none_or(|member| !Arc::ptr_eq(&member.outbox, outbox)) {
            return;
        }
        members.swap_remove(place);
        self.places.remove(&outbox.session());
        if let Some(moved) = members.get(place) {
            self.places.insert(moved.outbox.session(), (group, place));
        }
        if members.is_empty() {
            self.empty_groups += 1;
            if self.empty_groups > EMPTY_GROUPS_MAX {
                self.drop_empty_groups();
            }
        }
    }

    /// Entries up to this one, without events of their own, are done.
    pub fn pass(&mut self, entry: u64) {
        self.fanned = self.fanned.max(entry);
    }

    /// Fans a block out and says which sessions changed in it. `now_us`: the time, for those that
    /// are woken.
    pub fn fan_out(&mut self, block: &Block, now_us: u64) -> Vec<ChangedSession> {
        self.mark += block.bytes as u64;
        let (drafts, frames, changed) = self.encode(block);
        for (group, draft) in drafts {
            let batch = Arc::new(draft.finish(block.entry, self.mark, frames.clone()));
            self.push(group, &batch, now_us);
        }
        self.fanned = self.fanned.max(block.entry);
        if self.mark - self.swept_mark >= SWEEP_BYTES {
            self.sweep();
        }
        changed
    }

    /// Events were lost between the last block and `entry` (the state was replaced): every session
    /// finds out from the journal by itself.
    pub fn skip_to(&mut self, entry: u64) {
        let members = self.groups.values().flatten();
        let outboxes: Vec<_> = members.map(|member| Arc::clone(&member.outbox)).collect();
        for outbox in outboxes {
            self.expel(&outbox);
        }
        self.audience.forget_all();
        self.fanned = entry;
    }

    /// Makes a live session read the journal by itself again, from where it stands.
    pub fn expel(&mut self, outbox: &Arc<Outbox>) {
        self.leave(outbox);
        let mut queue = outbox.lock();
        let cursor = queue.cursor();
        queue.fall_behind(cursor);
        drop(queue);
        outbox.wake();
    }

    /// The frames of a block, and for each group those that it wants.
    fn encode(
        &mut self,
        block: &Block,
    ) -> (HashMap<GroupId, BatchDraft>, Bytes, Vec<ChangedSession>) {
        let mut frames = BytesMut::new();
        let mut drafts: HashMap<GroupId, BatchDraft> = HashMap::default();
        let mut changed = Vec::new();
        for event in &block.events {
            if let Effect::Session { session, change } = event.effect {
                changed.push(ChangedSession { session, change });
            }
            let Some(topic) = topic_of(event) else { continue };
            if self.places.is_empty() {
                continue;
            }
            // Notifications come first: the frame of the subscription may be the command's last.
            if !matches!(event.effect, Effect::Value { .. }) {
                for group in self.audience.listening() {
                    let Some(interest) = self.audience.interest(*group) else { continue };
                    let range =
                        append(&mut frames, |buffer| put_notifications(buffer, event, interest));
                    if !range.is_empty() && self.has_members(*group) {
                        drafts.entry(*group).or_default().add(range, None);
                    }
                }
            }
            let groups = self.audience.of(topic);
            if groups.iter().any(|group| self.has_members(*group)) {
                let range = append(&mut frames, |buffer| put_event(buffer, event));
                let is_value = matches!(event.effect, Effect::Value { .. });
                let replaceable = (is_value
                    && topic.specification.conflation() == Conflation::Always)
                    .then_some(topic.id);
                for group in groups.iter().filter(|group| self.has_members(**group)) {
                    drafts.entry(*group).or_default().add(range.clone(), replaceable);
                }
            }
            if let Effect::TopicRemoved(topic) = &event.effect {
                self.audience.forget(topic.id);
            }
        }
        (drafts, frames.freeze(), changed)
    }

    fn has_members(&self, group: GroupId) -> bool {
        self.groups.get(&group).is_some_and(|members| !members.is_empty())
    }

    fn push(&mut self, group: GroupId, batch: &Arc<Batch>, now_us: u64) {
        let Some(members) = self.groups.get(&group) else { return };
        let mut overflown = Vec::new();
        for member in members {
            if batch.entry() <= member.live_after {
                continue;
            }
            match member.outbox.lock().push(batch) {
                Pushed::Wake => member.outbox.ring(now_us),
                Pushed::Queued => {}
                Pushed::Overflow => overflown.push(Arc::clone(&member.outbox)),
            }
        }
        for outbox in overflown {
            metrics::session_lagged();
            self.leave(&outbox);
            outbox.wake();
        }
    }

    /// Makes sessions fall behind whose oldest reference would outlive the ring.
    fn sweep(&mut self) {
        self.swept_mark = self.mark;
        let members = self.groups.values().flatten();
        let stale = members.filter(|member| member.outbox.lock().is_stale(self.mark));
        let stale: Vec<_> = stale.map(|member| Arc::clone(&member.outbox)).collect();
        for outbox in stale {
            metrics::session_lagged();
            self.expel(&outbox);
        }
    }

    fn group_of(&mut self, interest: &Arc<Interest>) -> GroupId {
        if let Some(group) = self.by_interest.get(interest) {
            return *group;
        }
        let group = self.audience.add(interest);
        self.by_interest.insert(Arc::clone(interest), group);
        self.groups.insert(group, Vec::new());
        self.empty_groups += 1;
        group
    }

    fn drop_empty_groups(&mut self) {
        let empty: Vec<GroupId> = self
            .groups
            .iter()
            .filter(|(_, members)| members.is_empty())
            .map(|(group, _)| *group)
            .collect();
        for group in empty {
            if let Some(interest) = self.audience.interest(group).cloned() {
                self.by_interest.remove(&interest);
            }
            self.audience.remove(group);
            self.groups.remove(&group);
        }
        self.empty_groups = 0;
    }
}

/// Appends and says where.
fn append(buffer: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) -> Range<usize> {
    let start = buffer.len();
    write(buffer);
    start..buffer.len()
}
