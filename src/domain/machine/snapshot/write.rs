//! From a machine to records.

use bytes::{BufMut, Bytes, BytesMut};

use super::{VERSION, kind};
use crate::domain::id::{Index, NodeId};
use crate::domain::machine::Machine;
use crate::domain::outcome::Outcome;
use crate::domain::selector::Selection;
use crate::domain::session::record::Session;
use crate::domain::topic::record::Topic;

/// Packs items into records.
pub(super) struct Records<'a> {
    items: Box<dyn Iterator<Item = Item<'a>> + 'a>,
    record_bytes: usize,
    /// Begins the next record: an item that did not fit into the last.
    carried: BytesMut,
}

/// One item of a snapshot.
enum Item<'a> {
    Head(&'a Machine),
    Founding(&'a Machine),
    Name(NodeId, &'a str),
    Run(NodeId, u64),
    Principal(&'a str, &'a str),
    Topic(&'a Topic),
    Session(&'a Session),
    Selection(&'a str, &'a Selection),
    Listening(u32, &'a Selection),
    Answer(Index, Outcome),
    End(&'a Machine),
}

impl<'a> Records<'a> {
    pub(super) fn new(machine: &'a Machine, record_bytes: usize) -> Self {
        let configuration = machine.configuration();
        let items = std::iter::once(Item::Head(machine))
            .chain(configuration.founding().map(|_| Item::Founding(machine)))
            .chain(configuration.names().map(|(node, name)| Item::Name(node, name)))
            .chain(configuration.incarnations().map(|(node, number)| Item::Run(node, number)))
            .chain(configuration.principals().map(|(name, word)| Item::Principal(name, word)))
            .chain(machine.topics().iter().map(Item::Topic))
            .chain(machine.sessions().iter().flat_map(session_items))
            .chain(std::iter::once(Item::End(machine)));
        Self { items: Box::new(items), record_bytes, carried: BytesMut::new() }
    }
}

impl Iterator for Records<'_> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut record = BytesMut::new();
        record.put_u8(VERSION);
        record.unsplit(std::mem::take(&mut self.carried));
        let mut is_empty = record.len() == 1;
        for item in self.items.by_ref() {
            let start = record.len();
            item.put(&mut record);
            if record.len() > self.record_bytes && !is_empty {
                self.carried = record.split_off(start);
                return Some(record.freeze());
            }
            is_empty = false;
            if record.len() >= self.record_bytes {
                return Some(record.freeze());
            }
        }
        (!is_empty).then(|| record.freeze())
    }
}

fn session_items(session: &Session) -> impl Iterator<Item = Item<'_>> {
    let selections = session.selections().scopes().flat_map(|(scope, entries)| {
        entries.iter().map(move |entry| Item::Selection(scope, entry))
    });
    let listeners = session.listeners().flat_map(|(listener, entries)| {
        let entries = entries.scopes().flat_map(|(_, entries)| entries);
        entries.map(move |entry| Item::Listening(listener, entry))
    });
    let answers = session.answered().iter();
    std::iter::once(Item::Session(session))
        .chain(selections)
        .chain(listeners)
        .chain(answers.map(|(_, index, outcome)| Item::Answer(index, outcome)))
}

impl Item<'_> {
    fn kind(&self) -> u8 {
        match self {
            Self::Head(_) => kind::HEAD,
            Self::Founding(_) => kind::FOUNDING,
            Self::Name(..) => kind::NAME,
            Self::Run(..) => kind::RUN,
            Self::Principal(..) => kind::PRINCIPAL,
            Self::Topic(_) => kind::TOPIC,
            Self::Session(_) => kind::SESSION,
            Self::Selection(..) => kind::SELECTION,
            Self::Listening(..) => kind::LISTENING,
            Self::Answer(..) => kind::ANSWER,
            Self::End(_) => kind::END,
        }
    }

    fn put(&self, record: &mut BytesMut) {
        record.put_u8(self.kind());
        let at = record.len();
        record.put_u32_le(0);
        self.put_body(record);
        let length = (record.len() - at - 4) as u32;
        if let Some(mut place) = record.get_mut(at..at + 4) {
            place.put_u32_le(length);
        }
    }

    fn put_body(&self, record: &mut BytesMut) {
        match self {
            Self::Head(machine) => {
                record.put_u64_le(machine.applied());
                record.put_u64_le(machine.log_time_ms());
                record.put_u64_le(machine.wall_time_ms());
                record.put_u64_le(machine.topics().next_id());
                record.put_u8(u8::from(machine.configuration().anonymous()));
            }
            Self::Founding(machine) => {
                if let Some(founding) = machine.configuration().founding() {
                    record.put_u64_le(founding.cluster.0);
                    record.put_u64_le(founding.lineage.0);
                }
            }
            Self::Name(node, name) => {
                record.put_u64_le(node.0);
                put_text(record, name);
            }
            Self::Run(node, incarnation) => {
                record.put_u64_le(node.0);
                record.put_u64_le(*incarnation);
            }
            Self::Principal(principal, password) => {
                put_text(record, principal);
                put_text(record, password);
            }
            Self::Topic(topic) => put_topic(record, topic),
            Self::Session(session) => put_session(record, session),
            Self::Selection(scope, entry) => {
                record.put_u8(u8::from(entry.select));
                put_text(record, scope);
                put_text(record, entry.selector.as_str());
            }
            Self::Listening(listener, entry) => {
                record.put_u32_le(*listener);
                record.put_u8(u8::from(entry.select));
                put_text(record, entry.selector.as_str());
            }
            Self::Answer(index, outcome) => {
                record.put_u64_le(index.0);
                record.put_slice(&outcome.encode());
            }
            Self::End(machine) => {
                record.put_u64_le(machine.topics().len() as u64);
                record.put_u64_le(machine.sessions().len() as u64);
                record.put_u64_le(machine.hash());
                record.put_u64_le(machine.applied());
            }
        }
    }
}

fn put_topic(record: &mut BytesMut, topic: &Topic) {
    let info = topic.info();
    record.put_u64_le(info.id.0);
    record.put_u64_le(info.added.0);
    record.put_u64_le(topic.version().0);
    let has_value = u8::from(topic.value().is_some());
    record.put_u8(has_value | u8::from(topic.stream().is_some()) << 1);
    record.put_u8(info.specification.topic_type().code());
    let properties = info.specification.properties();
    put_pairs(record, properties.len(), &properties);
    put_text(record, info.path.as_str());
    if let Some(hold) = topic.stream() {
        record.put_u64_le(hold.id.0);
        record.put_u64_le(hold.session.0);
        record.put_u32_le(hold.epoch);
    }
    record.put_slice(topic.value().map_or(&[], |value| &value[..]));
}

fn put_session(record: &mut BytesMut, session: &Session) {
    let secrets = session.secrets();
    record.put_u64_le(session.id().0);
    record.put_u32_le(session.epoch());
    record.put_u32_le(session.role_version());
    record.put_slice(&secrets.current);
    let detached_at_ms = session.detached_at_ms();
    let has_previous = u8::from(secrets.previous.is_some());
    record.put_u8(has_previous | u8::from(detached_at_ms.is_some()) << 1);
    if let Some(previous) = &secrets.previous {
        record.put_slice(previous);
    }
    if let Some(at_ms) = detached_at_ms {
        record.put_u64_le(at_ms);
    }
    record.put_u64_le(session.host().0);
    record.put_u64_le(session.incarnation());
    record.put_u64_le(session.opened_at().0);
    record.put_u64_le(session.reconnect_timeout_ms());
    record.put_u64_le(session.answered().last());
    put_text(record, session.principal());
    record.put_u32_le(session.roles().len() as u32);
    for role in session.roles() {
        put_text(record, role);
    }
    put_pairs(record, session.properties().len(), session.properties());
}

fn put_text(record: &mut BytesMut, text: &str) {
    record.put_u32_le(text.len() as u32);
    record.put_slice(text.as_bytes());
}

fn put_pairs<'a>(
    record: &mut BytesMut,
    count: usize,
    pairs: impl IntoIterator<Item = (&'a String, &'a String)>,
) {
    record.put_u32_le(count as u32);
    for (key, value) in pairs {
        put_text(record, key);
        put_text(record, value);
    }
}
