//! All sessions: by identifier, by the host that serves them, by the time at which they expire.

use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::lifecycle::{Next, SessionState, SessionStep};
use super::record::{Host, Interests, Session};
use crate::domain::effect::Selected;
use crate::domain::id::{Index, NodeId, SessionId};
use crate::domain::machine::hash::ItemSum;
use crate::domain::outcome::Outcome;
use crate::domain::selector::{SelectionsError, Selector};

/// All sessions. Active ones stand in the order of hosts, detached ones in the order of expiry.
#[derive(Debug, Clone, Default)]
pub struct SessionTable {
    by_id: OrdMap<SessionId, Arc<Session>>,
    by_host: OrdSet<(Host, SessionId)>,
    by_expiry: OrdSet<(u64, SessionId)>,
    sum: ItemSum,
}

impl SessionTable {
    /// How many sessions there are, active and detached.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The session of an identifier.
    #[must_use]
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.by_id.get(&id).map(Arc::as_ref)
    }

    /// All sessions, in the order of their identifiers.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.by_id.values().map(Arc::as_ref)
    }

    /// The active sessions that a node serves, of any of its incarnations.
    pub fn hosted_by(&self, node: NodeId) -> impl Iterator<Item = &Session> {
        self.hosted(Host { node, incarnation: 0 }, Bound::Included(u64::MAX))
    }

    /// The active sessions that a node serves, of its incarnations before `incarnation`.
    pub(in crate::domain) fn hosted_before(
        &self,
        node: NodeId,
        incarnation: u64,
    ) -> impl Iterator<Item = &Session> {
        self.hosted(Host { node, incarnation: 0 }, Bound::Excluded(incarnation))
    }

    /// The active sessions that one incarnation of a node serves.
    pub(in crate::domain) fn hosted_at(&self, host: Host) -> impl Iterator<Item = &Session> {
        self.hosted(host, Bound::Included(host.incarnation))
    }

    fn hosted(&self, from: Host, to: Bound<u64>) -> impl Iterator<Item = &Session> {
        let ends = move |host: Host| match to {
            Bound::Included(last) => host.incarnation > last,
            Bound::Excluded(end) => host.incarnation >= end,
            Bound::Unbounded => false,
        };
        self.by_host
            .range((from, SessionId(0))..)
            .take_while(move |(host, _)| host.node == from.node && !ends(*host))
            .filter_map(|(_, id)| self.get(*id))
    }

    /// The detached sessions whose reconnect timeout has run out at a log time, the first to expire
    /// first.
    pub fn expired(&self, log_time_ms: u64) -> impl Iterator<Item = &Session> {
        self.by_expiry
            .iter()
            .take_while(move |(at_ms, _)| *at_ms <= log_time_ms)
            .filter_map(|(_, id)| self.get(*id))
    }

    /// When the next detached session expires, in log time.
    #[must_use]
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.by_expiry.get_min().map(|(at_ms, _)| *at_ms)
    }

    /// Computes the part's share of the state hash from nothing.
    pub(in crate::domain) fn recomputed_hash(&self) -> u64 {
        self.iter().flat_map(Session::items).collect::<ItemSum>().value()
    }

    /// What the two orders must have in common with the table; the first thing that is not so.
    pub(in crate::domain) fn check(&self) -> Result<(), &'static str> {
        let active = self.by_id.values().filter(|session| session.expires_at_ms().is_none());
        let mut hosts: Vec<_> = active.map(|session| (session.host, session.id)).collect();
        hosts.sort_unstable();
        if !hosts.iter().eq(self.by_host.iter()) {
            return Err("the order of hosts is not that of the active sessions");
        }
        let expiries = self.by_id.values();
        let mut expiries: Vec<_> =
            expiries.filter_map(|session| Some((session.expires_at_ms()?, session.id))).collect();
        expiries.sort_unstable();
        if !expiries.iter().eq(self.by_expiry.iter()) {
            return Err("the order of expiry is not that of the detached sessions");
        }
        if self.by_id.iter().any(|(id, session)| *id != session.id) {
            return Err("a session stands under another identifier");
        }
        self.iter().try_for_each(Session::check)
    }

    /// The part's share of the state hash.
    pub(in crate::domain) fn hash(&self) -> u64 {
        self.sum.value()
    }

    /// Puts a session in; there is none of its identifier.
    pub(in crate::domain) fn insert(&mut self, session: Session) {
        for item in session.items() {
            self.sum.add(item);
        }
        self.index(&session);
        self.by_id.insert(session.id, Arc::new(session));
    }

    /// Changes a session in anything but its answers.
    pub(in crate::domain) fn change(&mut self, id: SessionId, change: impl FnOnce(&mut Session)) {
        let Some(session) = self.by_id.get_mut(&id) else { return };
        let session = Arc::make_mut(session);
        let before = (session.host, session.state);
        self.sum.remove(session.record_item());
        change(session);
        self.sum.add(session.record_item());
        if before != (session.host, session.state) {
            let after = session.clone();
            self.unindex(before.0, expiry(before.1, &after), id);
            self.index(&after);
        }
    }

    /// Adds a selection to a session.
    pub(in crate::domain) fn select(
        &mut self,
        id: SessionId,
        scope: &str,
        select: bool,
        selector: Selector,
    ) -> Result<(), SelectionsError> {
        self.change_interests(id, |interests| interests.select(scope, select, selector))
    }

    /// What a session hears of; nothing if there is no such session.
    pub(in crate::domain) fn selected(&self, id: SessionId) -> Selected {
        self.get(id).map(Session::selected).unwrap_or_default()
    }

    /// Adds an entry to a session's listener; the first registers it.
    pub(in crate::domain) fn listen(
        &mut self,
        id: SessionId,
        listener: u32,
        select: bool,
        selector: Selector,
    ) -> Result<(), SelectionsError> {
        self.change_interests(id, |interests| interests.listen(listener, select, selector))
    }

    /// Removes a session's listener; false if there was none.
    pub(in crate::domain) fn unlisten(&mut self, id: SessionId, listener: u32) -> bool {
        self.change_interests(id, |interests| Ok(interests.unlisten(listener))).unwrap_or(false)
    }

    fn change_interests<T: Default>(
        &mut self,
        id: SessionId,
        change: impl FnOnce(&mut Interests) -> Result<T, SelectionsError>,
    ) -> Result<T, SelectionsError> {
        let mut done = Ok(T::default());
        self.change(id, |session| done = change(&mut session.interests));
        done
    }

    /// Takes a step of a session's life; tells where it led.
    pub(in crate::domain) fn step(&mut self, id: SessionId, step: SessionStep) -> Next {
        let Some(session) = self.get(id) else { return Next::Stay };
        let next = session.state.next(step);
        match next {
            Next::State(state) => self.change(id, |session| session.state = state),
            Next::Ended => self.remove(id),
            Next::Stay => {}
        }
        next
    }

    /// Keeps the answer to a session's next request. A session that has just ended keeps none.
    pub(in crate::domain) fn answer(
        &mut self,
        id: SessionId,
        index: Index,
        outcome: &Outcome,
        answered_below: u64,
    ) {
        let Some(session) = self.by_id.get_mut(&id) else { return };
        let sum = &mut self.sum;
        Arc::make_mut(session).ring.push(id, index, outcome, answered_below, |item, comes| {
            if comes { sum.add(item) } else { sum.remove(item) }
        });
    }

    fn remove(&mut self, id: SessionId) {
        let Some(session) = self.by_id.remove(&id) else { return };
        for item in session.items() {
            self.sum.remove(item);
        }
        self.unindex(session.host, session.expires_at_ms(), id);
    }

    fn index(&mut self, session: &Session) {
        match session.expires_at_ms() {
            Some(at_ms) => self.by_expiry.insert((at_ms, session.id)).is_some(),
            None => self.by_host.insert((session.host, session.id)).is_some(),
        };
    }

    fn unindex(&mut self, host: Host, expires_at_ms: Option<u64>, id: SessionId) {
        match expires_at_ms {
            Some(at_ms) => self.by_expiry.remove(&(at_ms, id)).is_some(),
            None => self.by_host.remove(&(host, id)).is_some(),
        };
    }
}

/// When a session in this state expires.
fn expiry(state: SessionState, session: &Session) -> Option<u64> {
    match state {
        SessionState::Active => None,
        SessionState::Detached { at_ms } => {
            Some(at_ms.saturating_add(session.profile.reconnect_timeout_ms))
        }
    }
}
