//! What is published: topics, values, and which topic is next.

use std::collections::VecDeque;

use anyhow::Context as _;
use futures::FutureExt as _;

use crate::cli::output;
use crate::client::{Answered, Client, Detail, Pending, RequestError, SetTopic, Target, Value};
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::specification::{Specification, TopicType};

/// Every topic of a benchmark stands below this one.
pub(super) const ROOT: &str = "quorate-bench";
/// Selects every topic of a benchmark.
pub(super) const EVERYTHING: &str = "?quorate-bench//";
/// Where the numbers start, so that every run publishes the same.
const SEED: u64 = 0x9E37_79B9_7F4A_7C15;
/// Topics that may be on their way while they are added.
const ADDITIONS_MAX: usize = 1_024;

/// Numbers that look random and are the same in every run (xorshift).
#[derive(Debug, Clone)]
pub(super) struct Draws {
    state: u64,
}

impl Draws {
    /// The series of this program.
    pub(super) fn new() -> Self {
        Self { state: SEED }
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// The next number, uniform below `bound`; 0 if that is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next()) * bound as u128;
        // At most the bound, which was a usize.
        (wide >> 64) as usize
    }
}

/// A value of so many bytes that is another one each time it is marked.
#[derive(Debug, Clone)]
pub(super) struct Payload {
    bytes: Vec<u8>,
}

impl Payload {
    /// A value of this length.
    pub(super) fn new(length: usize) -> Self {
        Self { bytes: vec![b'v'; length] }
    }

    /// The value with this mark at its beginning; a short value holds only its end.
    pub(super) fn marked(&mut self, mark: u64) -> Value<'_> {
        let mark = mark.to_be_bytes();
        let length = self.bytes.len().min(mark.len());
        if let (Some(place), Some(mark)) =
            (self.bytes.get_mut(..length), mark.get(mark.len() - length..))
        {
            place.copy_from_slice(mark);
        }
        Value::Binary(&self.bytes)
    }
}

/// The mark of a value that was long enough to hold all of it.
pub(super) fn mark_of(value: &[u8]) -> Option<u64> {
    value.first_chunk().copied().map(u64::from_be_bytes)
}

/// The path of the benchmark's topic with this number.
///
/// # Errors
/// Never: all of them are legal.
pub(super) fn path_of(number: u64) -> anyhow::Result<TopicPath> {
    Ok(TopicPath::parse(&format!("{ROOT}/{number}"))?)
}

/// What the benchmark's topics are: bytes of which no subscriber may miss a value.
///
/// # Errors
/// Never: it is legal.
pub(super) fn specification() -> anyhow::Result<Specification> {
    Ok(Specification::new(TopicType::Binary, [("CONFLATION", "off")])?)
}

/// Adds so many topics, each with a value, and gives what updates of them name.
///
/// # Errors
/// When a topic is refused or the session ends.
pub(super) async fn add_topics(
    client: &Client,
    count: u64,
    value_bytes: usize,
) -> anyhow::Result<Vec<Target>> {
    let specification = specification()?;
    let progress = output::progress(Some(count), "topics");
    let mut payload = Payload::new(value_bytes);
    let mut draws = Draws::new();
    let mut targets = Vec::with_capacity(usize::try_from(count)?);
    let mut pending: VecDeque<Pending> = VecDeque::with_capacity(ADDITIONS_MAX);
    for number in 0..count {
        let path = path_of(number)?;
        let set = SetTopic {
            path: &path,
            specification: Some(&specification),
            constraint: &[],
            value: payload.marked(draws.next()),
        };
        pending.push_back(client.begin_set_topic(set).await?);
        while let Some(answer) = pending.front_mut().and_then(|pending| pending.now_or_never()) {
            pending.pop_front();
            targets.push(target(answer, targets.len())?);
            progress.inc(1);
        }
        if pending.len() >= ADDITIONS_MAX
            && let Some(first) = pending.pop_front()
        {
            targets.push(target(first.await, targets.len())?);
            progress.inc(1);
        }
    }
    for pending in pending {
        targets.push(target(pending.await, targets.len())?);
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(targets)
}

/// What updates of the topic with this number name, once it is there.
fn target(answer: Result<Answered, RequestError>, number: usize) -> anyhow::Result<Target> {
    match answer.context("a topic cannot be added")?.detail {
        Detail::Topic { topic, .. } => Ok(Target::Topic(topic)),
        // It was left there by a run before, with the same value.
        _ => Ok(Target::Path(path_of(number as u64)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_uniform_and_the_same_each_time() {
        let mut draws = Draws::new();
        let mut counts = [0_u32; 10];
        for _ in 0..100_000 {
            counts[draws.below(10)] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        let (mut one, mut other) = (Draws::new(), Draws::new());
        assert!((0..100).all(|_| one.next() == other.next()));
        assert_eq!(one.below(0), 0);
    }

    #[test]
    fn marks_are_read_back() {
        let mut payload = Payload::new(100);
        let Value::Binary(bytes) = payload.marked(77) else { unreachable!() };
        assert_eq!((bytes.len(), mark_of(bytes)), (100, Some(77)));
        let mut short = Payload::new(2);
        assert_eq!(short.marked(0x0102_0304), Value::Binary(&[3, 4]));
        assert_eq!(mark_of(&[3, 4]), None);
        assert_eq!(Payload::new(0).marked(1), Value::Binary(&[]));
    }

    #[test]
    fn everything_is_selected() {
        let selector = crate::domain::selector::Selector::parse(EVERYTHING).unwrap();
        assert!(selector.matches(&path_of(10_000).unwrap()));
        assert!(!selector.matches(&TopicPath::parse("other/1").unwrap()));
    }
}
