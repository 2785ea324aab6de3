//! What a session is told in its event stream when its interest changes, at the position of the
//! change: what it no longer hears of, that initial values follow, what its listeners find.

use std::sync::Arc;

use bytes::BytesMut;

use crate::domain::id::{Lineage, Position};
use crate::domain::machine::Machine;
use crate::domain::selector::Selections;
use crate::domain::topic::path_range::PathRange;
use crate::domain::topic::record::Topic;
use crate::gateway::delivery::event_frames::{put_notice, put_notified, put_unsubscribed};
use crate::gateway::delivery::interest::{Interest, selected_ranges};
use crate::gateway::delivery::outgoing::Outgoing;
use crate::gateway::delivery::subscriber::BulkOrder;
use crate::gateway::delivery::topic_walk::TopicWalk;
use crate::protocol::delivery::{Event, NotifiedChange, UnsubscribeReason};
use crate::protocol::handshake::ResetReason;

/// The notices of one change of interest, written page by page.
#[derive(Debug)]
pub struct Turn {
    position: Position,
    view: Machine,
    before: Arc<Interest>,
    after: Arc<Interest>,
    steps: Vec<Step>,
    walk: Option<TopicWalk>,
    /// What is sent on streams of their own once all of this has been told.
    bulks: Vec<BulkOrder>,
}

/// One kind of notice; the last of the list is told first.
#[derive(Debug)]
enum Step {
    Reset(ResetReason, Lineage),
    Unsubscribed,
    Initial { request: u64, bulk: u64 },
    Notified { listener: u32 },
}

impl Turn {
    /// A change from `before` to `after`, as of everything that `view` has applied. `initial`: which
    /// select commands have their initial values on which bulk streams.
    #[must_use]
    pub fn new(
        view: Machine,
        before: Arc<Interest>,
        after: Arc<Interest>,
        initial: &[(u64, u64)],
    ) -> Self {
        let mut listeners: Vec<u32> =
            before.listeners().iter().chain(after.listeners()).map(|one| one.id).collect();
        listeners.sort_unstable();
        listeners.dedup();
        // Told last: with it the client knows that it has heard all of the change.
        let mut steps: Vec<Step> = (initial.iter().rev())
            .map(|(request, bulk)| Step::Initial { request: *request, bulk: *bulk })
            .collect();
        steps.extend(listeners.into_iter().rev().map(|listener| Step::Notified { listener }));
        if !before.is_empty() && before != after {
            steps.push(Step::Unsubscribed);
        }
        let position = Position::end_of_entry(view.applied());
        Self { position, view, before, after, steps, walk: None, bulks: Vec::new() }
    }

    /// A new start: nothing that was said before holds.
    #[must_use]
    pub fn reset(
        view: Machine,
        after: Arc<Interest>,
        reason: ResetReason,
        lineage: Lineage,
        initial: &[(u64, u64)],
    ) -> Self {
        let mut turn = Self::new(view, Arc::default(), after, initial);
        turn.steps.push(Step::Reset(reason, lineage));
        turn
    }

    /// Gives initial values that this announces along: they are sent after their announcement, so
    /// that it never waits for room that they have taken.
    pub(in crate::gateway) fn carry(&mut self, bulk: impl IntoIterator<Item = BulkOrder>) {
        self.bulks.extend(bulk);
    }

    /// What is to be sent now that all has been told.
    pub(in crate::gateway) fn take_bulks(&mut self) -> Vec<BulkOrder> {
        std::mem::take(&mut self.bulks)
    }

    /// The initial values that it would have announced.
    pub(in crate::gateway) fn into_initial(self) -> (Vec<(u64, u64)>, Vec<BulkOrder>) {
        let initial = self.steps.into_iter().filter_map(|step| match step {
            Step::Initial { request, bulk } => Some((request, bulk)),
            _ => None,
        });
        (initial.collect(), self.bulks)
    }

    /// Tells everything at `position` instead of the end of the view's last entry.
    #[must_use]
    pub fn at(self, position: Position) -> Self {
        Self { position, ..self }
    }

    /// Appends the next notices; true when all have been told.
    pub fn write(&mut self, outgoing: &mut Outgoing) -> bool {
        while !outgoing.is_full() {
            let Some(step) = self.steps.pop() else { return true };
            match step {
                Step::Reset(reason, lineage) => {
                    let event = Event::Reset { reason, lineage };
                    outgoing.write(|buffer| put_notice(buffer, self.position, event));
                }
                Step::Initial { request, bulk } => {
                    let event = Event::Initial { request, bulk };
                    outgoing.write(|buffer| put_notice(buffer, self.position, event));
                }
                Step::Unsubscribed => {
                    let (before, after) = (Arc::clone(&self.before), Arc::clone(&self.after));
                    let position = self.position;
                    let ranges = before.ranges();
                    let more = self.page(ranges, outgoing, |topic, buffer| {
                        let topic = topic.info();
                        if before.wants(topic) && !after.wants(topic) {
                            let reason = UnsubscribeReason::Requested;
                            put_unsubscribed(buffer, position, false, topic.id, reason);
                        }
                    });
                    if more {
                        self.steps.push(step);
                        return false;
                    }
                }
                Step::Notified { listener } => {
                    if self.notify(listener, outgoing) {
                        self.steps.push(step);
                        return false;
                    }
                }
            }
        }
        self.steps.is_empty()
    }

    /// One page of what a listener finds; true when there is more.
    fn notify(&mut self, id: u32, outgoing: &mut Outgoing) -> bool {
        let (before, after) = (Arc::clone(&self.before), Arc::clone(&self.after));
        let nothing = Selections::default();
        let before = before.listener(id).map_or(&nothing, |listener| &listener.selections);
        let after = after.listener(id).map_or(&nothing, |listener| &listener.selections);
        // A listener that was removed hears of nothing any more, deselections included.
        if before == after || after.is_empty() && before.is_empty() {
            return false;
        }
        let position = self.position;
        let ranges = [selected_ranges(before), selected_ranges(after)].concat();
        self.page(PathRange::merged(ranges), outgoing, |topic, buffer| {
            let topic = topic.info();
            let change = match (before.matches(&topic.path), after.matches(&topic.path)) {
                (false, true) => NotifiedChange::Selected,
                (true, false) => NotifiedChange::Deselected,
                _ => return,
            };
            put_notified(buffer, position, false, id, change, topic);
        })
    }

    fn page(
        &mut self,
        ranges: Vec<PathRange>,
        outgoing: &mut Outgoing,
        mut visit: impl FnMut(&Topic, &mut BytesMut),
    ) -> bool {
        let view = &self.view;
        let walk = self.walk.get_or_insert_with(|| TopicWalk::new(view.clone(), ranges));
        let more = walk.page(|topic| {
            outgoing.write(|buffer| visit(topic, buffer));
            !outgoing.is_full()
        });
        if !more {
            self.walk = None;
        }
        more
    }
}
