//! What one session wants to hear, as one value that sessions of equal interest share.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::domain::effect::{Selected, TopicInfo};
use crate::domain::id::TopicId;
use crate::domain::selector::Selections;
use crate::domain::session::record::Session;
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::path_range::PathRange;

/// What one session wants to hear. Equal and hashed by its canonical text.
#[derive(Debug, Clone, Default)]
pub struct Interest {
    key: String,
    selections: Arc<Selections>,
    listeners: Vec<Listener>,
    /// Selected, but unsubscribed since the session was too slow (conflation `unsubscribe`).
    except: BTreeSet<TopicId>,
    /// Selected at other times that the session may still hear of.
    also: Vec<Arc<Selections>>,
}

/// A topic notification listener and what it listens to.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Chosen by the client.
    pub id: u32,
    /// The paths that it is told about.
    pub selections: Arc<Selections>,
}

impl Interest {
    /// The interest of a session with these selections and listeners.
    #[must_use]
    pub fn new(selections: Arc<Selections>, listeners: Vec<Listener>) -> Self {
        let interest = Self { selections, listeners, ..Self::default() };
        Self { key: interest.text(), ..interest }
    }

    /// The same and the topics of these.
    #[must_use]
    pub fn or<'a>(&self, others: impl IntoIterator<Item = &'a Arc<Self>>) -> Self {
        let mut wider = self.clone();
        for other in others {
            for selections in std::iter::once(&other.selections).chain(&other.also) {
                if *selections != wider.selections && !wider.also.contains(selections) {
                    wider.also.push(Arc::clone(selections));
                }
            }
        }
        wider.key = wider.text();
        wider
    }

    /// The same without these topics.
    #[must_use]
    pub fn without(&self, topics: impl IntoIterator<Item = TopicId>) -> Self {
        let mut narrowed = self.clone();
        narrowed.except.extend(topics);
        narrowed.key = narrowed.text();
        narrowed
    }

    /// The canonical text: equal for equal interests only.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The interest that a session's record holds.
    #[must_use]
    pub fn of(session: &Session) -> Self {
        Self::in_selected(&session.selected())
    }

    /// The interest in what was selected.
    #[must_use]
    pub fn in_selected(selected: &Selected) -> Self {
        let listeners = (selected.listeners.iter())
            .map(|(id, selections)| Listener { id: *id, selections: Arc::clone(selections) })
            .collect();
        Self::new(Arc::clone(&selected.selections), listeners)
    }

    /// The session hears of nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.selected().all(|selections| selections.is_empty()) && self.listeners.is_empty()
    }

    fn selected(&self) -> impl Iterator<Item = &Selections> {
        std::iter::once(&self.selections).chain(&self.also).map(AsRef::as_ref)
    }

    /// Both select the same topics.
    #[must_use]
    pub fn selects_as(&self, other: &Self) -> bool {
        self.selections == other.selections
            && self.except == other.except
            && self.also == other.also
    }

    /// The session is subscribed to this topic.
    #[must_use]
    pub fn wants(&self, topic: &TopicInfo) -> bool {
        self.selected().any(|selections| selections.matches(&topic.path))
            && !self.except.contains(&topic.id)
    }

    /// The listeners, in the order of their identifiers.
    #[must_use]
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// The listener of this identifier.
    #[must_use]
    pub fn listener(&self, id: u32) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.id == id)
    }

    /// Topics that are selected but not sent.
    #[must_use]
    pub fn except(&self) -> &BTreeSet<TopicId> {
        &self.except
    }

    /// Literal paths that all selected topics are at or below; the empty text is the whole tree.
    #[must_use]
    pub fn prefixes(&self) -> BTreeSet<&str> {
        let entries = self.selected().flat_map(Selections::scopes).flat_map(|(_, entries)| entries);
        entries
            .filter(|entry| entry.select)
            .map(|entry| entry.selector.prefix().map_or("", TopicPath::as_str))
            .collect()
    }

    /// Disjoint stretches of the path order, in that order, that hold all selected topics.
    #[must_use]
    pub fn ranges(&self) -> Vec<PathRange> {
        PathRange::merged(self.selected().flat_map(selected_ranges).collect())
    }

    fn text(&self) -> String {
        let mut text = String::new();
        put_selections(&mut text, &self.selections);
        // Writing to a string cannot fail.
        for listener in &self.listeners {
            let _ = write!(text, "|{}", listener.id);
            put_selections(&mut text, &listener.selections);
        }
        for topic in &self.except {
            let _ = write!(text, "!{topic}");
        }
        for selections in &self.also {
            text.push('&');
            put_selections(&mut text, selections);
        }
        text
    }
}

impl PartialEq for Interest {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Interest {}

impl Hash for Interest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// Disjoint stretches of the path order, in that order, that hold all that is selected.
#[must_use]
pub fn selected_ranges(selections: &Selections) -> Vec<PathRange> {
    let entries = selections.scopes().flat_map(|(_, entries)| entries);
    let ranges =
        entries.filter(|entry| entry.select).flat_map(|entry| entry.selector.ranges()).collect();
    PathRange::merged(ranges)
}

fn put_selections(text: &mut String, selections: &Selections) {
    for (scope, entries) in selections.scopes() {
        for entry in entries {
            let sign = if entry.select { '+' } else { '-' };
            let selector = entry.selector.as_str();
            // Lengths keep the texts apart whatever they hold. Writing to a string cannot fail.
            let _ = write!(text, "{sign}{}:{scope}{}:{selector}", scope.len(), selector.len());
        }
    }
}
