//! One session as the machine holds it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BufMut;
use imbl::OrdMap;

use super::answered::{ANSWERS_MAX, AnsweredRing};
use super::lifecycle::SessionState;
use crate::domain::apply::move_session::Claim;
use crate::domain::command::OpenSession;
use crate::domain::effect::Selected;
use crate::domain::id::{Index, NodeId, SessionId};
use crate::domain::limits;
use crate::domain::machine::hash::{ItemKind, ItemSum, digest, item};
use crate::domain::selector::{Selections, SelectionsError, Selector};

/// A session. Its secrets are known here as hashes only.
#[derive(Debug, Clone)]
pub struct Session {
    pub(super) id: SessionId,
    pub(super) epoch: u32,
    pub(super) role_version: u32,
    pub(super) profile: Arc<Profile>,
    pub(super) secrets: Secrets,
    pub(super) host: Host,
    pub(super) state: SessionState,
    pub(super) interests: Interests,
    pub(super) ring: AnsweredRing,
}

/// What a session was opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Empty is anonymous.
    pub principal: String,
    /// Sorted, without doubles.
    pub roles: Vec<String>,
    /// Fixed (`$…`) and user properties.
    pub properties: BTreeMap<String, String>,
    /// How long the session outlives its connection, in log time.
    pub reconnect_timeout_ms: u64,
    /// The command that opened it.
    pub opened: Index,
}

/// The node that serves a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    /// Which node.
    pub node: NodeId,
    /// Which run of it.
    pub incarnation: u64,
}

/// Hashes of the secrets that resume a session.
///
/// A client that never received the newest secret still holds the previous one, so that stays valid
/// until the newest has been shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::domain) struct Secrets {
    pub(in crate::domain) current: [u8; 32],
    pub(in crate::domain) previous: Option<[u8; 32]>,
}

/// What a snapshot holds of a session beside what it was opened with.
#[derive(Debug)]
pub(in crate::domain) struct Restored {
    pub(in crate::domain) epoch: u32,
    pub(in crate::domain) role_version: u32,
    pub(in crate::domain) secrets: Secrets,
    pub(in crate::domain) state: SessionState,
    pub(in crate::domain) ring: AnsweredRing,
}

/// What a session wants to hear of. The digests stand beside what they cover, so a change of the
/// session's other fields costs the same however much it has selected.
#[derive(Debug, Clone)]
pub(super) struct Interests {
    selections: Arc<Selections>,
    selections_digest: u64,
    listeners: OrdMap<u32, Arc<Selections>>,
    listeners_digest: ItemSum,
}

impl Default for Interests {
    fn default() -> Self {
        let mut none = Self {
            selections: Arc::default(),
            selections_digest: 0,
            listeners: OrdMap::new(),
            listeners_digest: ItemSum::default(),
        };
        none.seal();
        none
    }
}

impl Interests {
    /// Adds a selection.
    pub(super) fn select(
        &mut self,
        scope: &str,
        select: bool,
        selector: Selector,
    ) -> Result<(), SelectionsError> {
        Arc::make_mut(&mut self.selections).add(scope, select, selector)?;
        self.seal();
        Ok(())
    }

    fn seal(&mut self) {
        self.selections_digest = digest(&canonical(&self.selections));
    }

    /// Adds an entry to a listener; the first registers it.
    pub(super) fn listen(
        &mut self,
        listener: u32,
        select: bool,
        selector: Selector,
    ) -> Result<(), SelectionsError> {
        let mut entries = self.listeners.get(&listener).map_or_else(Arc::default, Arc::clone);
        Arc::make_mut(&mut entries).add("", select, selector)?;
        self.put_listener(listener, entries)
    }

    /// Puts a listener's entries in place of those that it has. Without entries it is gone: it would
    /// hear of nothing.
    fn put_listener(
        &mut self,
        listener: u32,
        entries: Arc<Selections>,
    ) -> Result<(), SelectionsError> {
        let before = self.listeners.get(&listener);
        let others = self.listeners.iter().filter(|(other, _)| **other != listener);
        let others = others.map(|(_, entries)| entries);
        let kept = others.clone().map(|entries| entries.len()).sum::<usize>() + entries.len();
        let room = before.is_some() || self.listeners.len() < limits::LISTENERS_MAX;
        if !room || kept > limits::SELECTIONS_MAX {
            return Err(SelectionsError::TooMany);
        }
        // What only shrinks is always taken.
        let grows = before.map_or(0, |before| compiled_bytes(before)) < compiled_bytes(&entries);
        let all =
            others.map(|entries| compiled_bytes(entries)).sum::<usize>() + compiled_bytes(&entries);
        if grows && all > limits::SELECTIONS_COMPILED_BYTES_MAX {
            return Err(SelectionsError::TooComplex);
        }
        if let Some(before) = before {
            self.listeners_digest.remove(listener_item(listener, before));
        }
        if entries.is_empty() {
            self.listeners.remove(&listener);
        } else {
            self.listeners_digest.add(listener_item(listener, &entries));
            self.listeners.insert(listener, entries);
        }
        Ok(())
    }

    /// Removes a listener; false if there was none.
    pub(super) fn unlisten(&mut self, listener: u32) -> bool {
        let Some(before) = self.listeners.remove(&listener) else { return false };
        self.listeners_digest.remove(listener_item(listener, &before));
        true
    }
}

/// What the compiled forms of a list take, as estimated.
fn compiled_bytes(selections: &Selections) -> usize {
    let entries = selections.scopes().flat_map(|(_, entries)| entries);
    entries.map(|entry| entry.selector.compiled_bytes()).sum()
}

fn listener_item(listener: u32, entries: &Selections) -> u64 {
    item(ItemKind::Listener, [u64::from(listener), digest(&canonical(entries))])
}

/// One byte sequence per list of selections.
fn canonical(selections: &Selections) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (scope, entries) in selections.scopes() {
        put_text(&mut bytes, scope);
        bytes.put_u32_le(entries.len() as u32);
        for entry in entries {
            bytes.put_u8(u8::from(entry.select));
            put_text(&mut bytes, entry.selector.as_str());
        }
    }
    bytes
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.put_u32_le(text.len() as u32);
    bytes.extend_from_slice(text.as_bytes());
}

impl Session {
    /// A session that is opened now.
    pub(in crate::domain) fn opened(open: OpenSession, opened: Index) -> Self {
        let OpenSession {
            session,
            secret_hash,
            principal,
            roles,
            properties,
            reconnect_timeout_ms,
            host,
            incarnation,
        } = open;
        let profile = Profile { principal, roles, properties, reconnect_timeout_ms, opened };
        Self {
            id: session,
            epoch: 1,
            role_version: 1,
            profile: Arc::new(profile),
            secrets: Secrets { current: secret_hash, previous: None },
            host: Host { node: host, incarnation },
            state: SessionState::Active,
            interests: Interests::default(),
            ring: AnsweredRing::default(),
        }
    }

    /// A session of a snapshot, to be filled and sealed.
    pub(in crate::domain) fn restored(
        open: OpenSession,
        opened: Index,
        restored: Restored,
    ) -> Self {
        let Restored { epoch, role_version, secrets, state, ring } = restored;
        Self { epoch, role_version, secrets, state, ring, ..Self::opened(open, opened) }
    }

    /// The ring of a session of a snapshot, to be filled.
    pub(in crate::domain) fn restored_ring(&mut self) -> &mut AnsweredRing {
        &mut self.ring
    }

    /// Gives it what a snapshot says that it wants to hear of; false if that is more than it may be.
    pub(in crate::domain) fn restore_interests(
        &mut self,
        selections: Selections,
        listeners: Vec<(u32, Selections)>,
    ) -> bool {
        self.interests.selections = Arc::new(selections);
        self.interests.seal();
        listeners.into_iter().all(|(listener, entries)| {
            !entries.is_empty() && self.interests.put_listener(listener, Arc::new(entries)).is_ok()
        })
    }

    /// Its identifier, for its whole life.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Raised by each move; commands of an earlier one are void.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Raised by each change of its roles; commands checked against an earlier one are void.
    #[must_use]
    pub fn role_version(&self) -> u32 {
        self.role_version
    }

    /// Its principal; empty is anonymous.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.profile.principal
    }

    /// Its roles, sorted, without doubles.
    #[must_use]
    pub fn roles(&self) -> &[String] {
        &self.profile.roles
    }

    /// Fixed (`$…`) and user properties.
    #[must_use]
    pub fn properties(&self) -> &BTreeMap<String, String> {
        &self.profile.properties
    }

    /// How long it outlives its connection, in log time.
    #[must_use]
    pub fn reconnect_timeout_ms(&self) -> u64 {
        self.profile.reconnect_timeout_ms
    }

    /// The command that opened it.
    #[must_use]
    pub fn opened_at(&self) -> Index {
        self.profile.opened
    }

    /// The node that serves it, or did last.
    #[must_use]
    pub fn host(&self) -> NodeId {
        self.host.node
    }

    /// The incarnation of that node.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.host.incarnation
    }

    /// Where it is in its life.
    #[must_use]
    pub fn state(&self) -> SessionState {
        self.state
    }

    /// Since when it is detached, in log time; none while it is active.
    #[must_use]
    pub fn detached_at_ms(&self) -> Option<u64> {
        match self.state {
            SessionState::Active => None,
            SessionState::Detached { at_ms } => Some(at_ms),
        }
    }

    /// When it ends unless it is claimed, in log time; none while it is active.
    #[must_use]
    pub fn expires_at_ms(&self) -> Option<u64> {
        Some(self.detached_at_ms()?.saturating_add(self.profile.reconnect_timeout_ms))
    }

    /// What it has selected, over all scopes.
    #[must_use]
    pub fn selections(&self) -> &Arc<Selections> {
        &self.interests.selections
    }

    /// All that it hears of, shared.
    #[must_use]
    pub fn selected(&self) -> Selected {
        let Interests { selections, listeners, .. } = &self.interests;
        Selected { selections: Arc::clone(selections), listeners: listeners.clone() }
    }

    /// Its topic notification listeners, in the order of their numbers.
    pub fn listeners(&self) -> impl Iterator<Item = (u32, &Arc<Selections>)> {
        self.interests.listeners.iter().map(|(listener, entries)| (*listener, entries))
    }

    /// The answers that its client may ask for again.
    #[must_use]
    pub fn answered(&self) -> &AnsweredRing {
        &self.ring
    }

    /// The secrets that resume it.
    pub(in crate::domain) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// It is what this command opened, and still as it was then.
    pub(in crate::domain) fn was_opened_by(&self, open: &OpenSession) -> bool {
        let opened = Self::opened(open.clone(), self.profile.opened);
        (self.id, self.epoch, self.secrets, self.host)
            == (opened.id, opened.epoch, opened.secrets, opened.host)
            && self.profile == opened.profile
    }

    /// This very claim is the one that moved it last.
    pub(in crate::domain) fn was_moved_by(&self, claim: &Claim) -> bool {
        self.host == claim.host && self.secrets == Secrets::advanced(claim.shown, claim.next)
    }

    /// Its roles have changed: commands that were checked against the former ones are void.
    #[cfg(test)]
    pub(in crate::domain) fn raise_role_version(&mut self) {
        self.role_version += 1;
    }

    /// Takes over the claim's host and secrets.
    pub(in crate::domain) fn claimed(&mut self, claim: &Claim, epoch: u32) {
        self.epoch = epoch;
        self.host = claim.host;
        self.secrets = Secrets::advanced(claim.shown, claim.next);
    }

    /// The items of the state hash.
    pub(super) fn items(&self) -> impl Iterator<Item = u64> {
        std::iter::once(self.record_item()).chain(self.ring.items(self.id))
    }

    /// What must hold in any session; the first thing that does not.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let interests = &self.interests;
        let entries = || interests.listeners.values().map(|entries| entries.len());
        let digests = (interests.listeners.iter())
            .map(|(listener, entries)| listener_item(*listener, entries))
            .collect::<ItemSum>();
        let roles_are_sorted = self.profile.roles.is_sorted_by(|one, next| one < next);
        for (holds, what) in [
            (self.id != SessionId::CLUSTER, "a session has the cluster's identifier"),
            (self.epoch > 0, "a session has no epoch"),
            (roles_are_sorted, "roles are out of order or double"),
            (self.ring.len() <= ANSWERS_MAX, "an answer ring is over its bound"),
            (self.ring.len() as u64 <= self.ring.last(), "more answers than requests are kept"),
            (interests.selections.len() <= limits::SELECTIONS_MAX, "too many selections"),
            (interests.listeners.len() <= limits::LISTENERS_MAX, "too many listeners"),
            (entries().sum::<usize>() <= limits::SELECTIONS_MAX, "too many listener entries"),
            (entries().all(|entries| entries > 0), "a listener has no entries"),
            (digests == interests.listeners_digest, "the digest of listeners is stale"),
            (
                digest(&canonical(&interests.selections)) == interests.selections_digest,
                "the digest of selections is stale",
            ),
        ] {
            if !holds {
                return Err(what);
            }
        }
        Ok(())
    }

    /// The item of everything but the answers.
    pub(super) fn record_item(&self) -> u64 {
        let words = [
            self.id.0,
            u64::from(self.epoch),
            u64::from(self.role_version),
            self.profile.digest(),
            self.secrets.digest(),
            self.host.node.0,
            self.host.incarnation,
            self.detached_at_ms().map_or(0, |at_ms| at_ms.wrapping_add(1)),
            self.interests.selections_digest,
            self.interests.listeners_digest.value(),
        ];
        item(ItemKind::Session, words)
    }
}

impl Profile {
    fn digest(&self) -> u64 {
        let mut bytes = Vec::with_capacity(256);
        bytes.put_u64_le(self.reconnect_timeout_ms);
        bytes.put_u64_le(self.opened.0);
        put_text(&mut bytes, &self.principal);
        bytes.put_u32_le(self.roles.len() as u32);
        for role in &self.roles {
            put_text(&mut bytes, role);
        }
        for (key, value) in &self.properties {
            put_text(&mut bytes, key);
            put_text(&mut bytes, value);
        }
        digest(&bytes)
    }
}

impl Secrets {
    /// Whether a secret of this hash opens the session.
    pub(in crate::domain) fn admit(&self, hash: &[u8; 32]) -> bool {
        self.current == *hash || self.previous.as_ref() == Some(hash)
    }

    /// After a secret was shown and the next one given out.
    pub(in crate::domain) fn advanced(shown: [u8; 32], next: [u8; 32]) -> Self {
        // Showing the current one proves that it arrived: it becomes the fallback. Showing the
        // previous one again leaves that the fallback, as the current one was never seen.
        Self { current: next, previous: Some(shown) }
    }

    fn digest(&self) -> u64 {
        let previous = self.previous.as_ref().map_or(&[][..], |hash| &hash[..]);
        digest(&[&self.current[..], previous].concat())
    }
}
