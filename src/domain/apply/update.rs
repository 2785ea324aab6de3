//! Set a topic by its identifier: the update record, the hot path.

use super::publish::{check_value, publish};
use super::{Context, Decision, Effects};
use crate::domain::command::TypedValue;
use crate::domain::id::{StreamId, TopicId};
use crate::domain::outcome::{Outcome, Rejection};
use crate::domain::topic::tree::TopicTree;

pub(in crate::domain) fn apply(
    topics: &mut TopicTree,
    context: &Context,
    effects: &mut Effects<'_>,
    topic: TopicId,
    stream: Option<StreamId>,
    value: &TypedValue,
) -> Decision {
    let found = topics.get(topic);
    if let Some(stream) = stream {
        // The hold is of this session in this epoch, so another session that guesses the number,
        // or the same one after a move, does not get in. A removed topic took its stream with it.
        let origin = &context.origin;
        let holds = found.and_then(|topic| topic.stream()).is_some_and(|hold| {
            hold.id == stream && hold.session == origin.session && hold.epoch == origin.epoch
        });
        if !holds {
            return Err(Rejection::InvalidStream);
        }
    }
    let found = found.ok_or(Rejection::NoSuchTopic)?;
    if let Err(reason) = check_value(&found.info().specification, value) {
        if stream.is_some() {
            // What was pipelined behind a value that is refused must not be applied.
            topics.set_stream(topic, None);
        }
        return Err(reason);
    }
    let published = publish(topics, context, effects, topic, value, stream.is_some());
    Ok(if published { Outcome::Done } else { Outcome::Unchanged })
}
