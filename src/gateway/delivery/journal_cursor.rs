//! The reader of a session that is behind: blocks of the journal, filtered by what the session
//! wants, with values that have been overtaken left out where the topic's policy allows it.

use std::collections::BTreeSet;

use crate::domain::effect::{Effect, Event, TopicInfo};
use crate::domain::id::{Position, TopicId};
use crate::domain::machine::Machine;
use crate::domain::topic::specification::Conflation;
use crate::entropy::HashMap;
use crate::gateway::delivery::event_frames::put_unsubscribed;
use crate::gateway::delivery::event_frames::{
    put_event, put_notice, put_notifications, put_subscribed, topic_of,
};
use crate::gateway::delivery::outgoing::Outgoing;
use crate::gateway::fanout::session_queue::ReadOrder;
use crate::protocol::delivery::{self, UnsubscribeReason};
use crate::replication::Block;

/// Topics of which a reader remembers whether the session wants them.
const REMEMBERED_TOPICS_MAX: usize = 65_536;

/// One session's reader.
#[derive(Debug, Default)]
pub(in crate::gateway) struct JournalCursor {
    wanted: HashMap<TopicId, bool>,
    /// The interest that `wanted` is about.
    interest_text: String,
    /// Topics that were announced before their first event.
    announced: BTreeSet<TopicId>,
    announce_until: Option<Position>,
}

/// How far one read has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) struct Progress {
    /// Everything up to here is in the outgoing chunks or not wanted.
    pub(in crate::gateway) to: Position,
    /// Values that were left out.
    pub(in crate::gateway) skipped: u64,
    /// Topics that the session is unsubscribed from since it is too slow for them.
    pub(in crate::gateway) unsubscribed: BTreeSet<TopicId>,
}

impl JournalCursor {
    /// A reader for a session that starts in the past: until `position` it announces a topic that
    /// is gone by now before its first event, since no bulk stream can.
    #[must_use]
    pub(in crate::gateway) fn replaying_until(position: Position) -> Self {
        Self { announce_until: Some(position), ..Self::default() }
    }

    /// The session is live: nothing is remembered for it any more.
    pub(in crate::gateway) fn rest(&mut self) {
        self.wanted = HashMap::default();
        self.interest_text = String::new();
    }

    /// Carries an order out on `blocks`, which follow its position without a gap, until the chunks
    /// are full. `view` has applied at least the last block.
    pub(in crate::gateway) fn read(
        &mut self,
        order: &ReadOrder,
        blocks: &[std::sync::Arc<Block>],
        view: &Machine,
        outgoing: &mut Outgoing,
    ) -> Progress {
        if self.interest_text != order.interest.key() {
            self.wanted.clear();
            order.interest.key().clone_into(&mut self.interest_text);
        }
        let mut progress = Progress { to: order.after, skipped: 0, unsubscribed: BTreeSet::new() };
        for block in blocks {
            if Position::end_of_entry(block.entry) > order.until {
                progress.to = order.until;
                return progress;
            }
            for event in block.after(order.after) {
                if outgoing.is_full() {
                    return progress;
                }
                self.deliver(order, event, view, outgoing, &mut progress);
                progress.to = event.position;
            }
            progress.to = Position::end_of_entry(block.entry);
        }
        progress
    }

    fn deliver(
        &mut self,
        order: &ReadOrder,
        event: &Event,
        view: &Machine,
        outgoing: &mut Outgoing,
        progress: &mut Progress,
    ) {
        let Some(topic) = topic_of(event) else { return };
        if !matches!(event.effect, Effect::Value { .. }) {
            outgoing.write(|buffer| put_notifications(buffer, event, &order.interest));
        }
        if !self.wants(order, topic) || progress.unsubscribed.contains(&topic.id) {
            return;
        }
        if self.announce_until.is_some() && matches!(event.effect, Effect::TopicAdded(_)) {
            // Its addition announces it.
            self.announced.insert(topic.id);
        }
        if matches!(event.effect, Effect::Value { .. }) {
            if event.position > order.conflate_after {
                match topic.specification.conflation() {
                    Conflation::Off => {}
                    Conflation::Unsubscribe => {
                        progress.unsubscribed.insert(topic.id);
                        let reason = UnsubscribeReason::BackPressure;
                        outgoing.write(|buffer| {
                            put_unsubscribed(buffer, event.position, false, topic.id, reason);
                        });
                        return;
                    }
                    Conflation::Conflate | Conflation::Always => {
                        // What overtook it, a newer value or the removal, is still to be read.
                        let overtaken = view
                            .topic(topic.id)
                            .is_none_or(|now| now.version() > event.position.index);
                        if overtaken {
                            progress.skipped += 1;
                            return;
                        }
                    }
                }
            }
            self.announce(event, topic, view, outgoing);
        }
        outgoing.write(|buffer| put_event(buffer, event));
    }

    /// Tells of a topic that may be unknown, before its first event in a replay.
    fn announce(
        &mut self,
        event: &Event,
        topic: &TopicInfo,
        view: &Machine,
        outgoing: &mut Outgoing,
    ) {
        let Some(until) = self.announce_until else { return };
        if event.position > until {
            self.announce_until = None;
            self.announced.clear();
            return;
        }
        if self.announced.len() >= REMEMBERED_TOPICS_MAX {
            // What is announced twice is passed over.
            self.announced.clear();
        }
        if view.topic(topic.id).is_none() && self.announced.insert(topic.id) {
            outgoing.write(|buffer| put_subscribed(buffer, event.position, false, topic));
        }
    }

    fn wants(&mut self, order: &ReadOrder, topic: &TopicInfo) -> bool {
        if let Some(wanted) = self.wanted.get(&topic.id) {
            return *wanted;
        }
        if self.wanted.len() >= REMEMBERED_TOPICS_MAX {
            self.wanted.clear();
        }
        let wanted = order.interest.wants(topic);
        self.wanted.insert(topic.id, wanted);
        wanted
    }
}

/// Tells that values were left out.
pub(in crate::gateway) fn put_lagged(outgoing: &mut Outgoing, position: Position, skipped: u64) {
    let event = delivery::Event::Lagged { skipped };
    outgoing.write(|buffer| put_notice(buffer, position, event));
}
