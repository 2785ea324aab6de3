//! Commands of a client: topics, values, removals.

use bytes::{BufMut, BytesMut};
use tokio::sync::oneshot;

use super::Client;
use super::error::RequestError;
use super::outbox::{Outbox, weight};
use super::pending::{Answered, Detail, Pending, Waiter};
use super::shared::Shared;
use super::update_stream::UpdateStream;
use super::value::Value;
use crate::domain::id::{Index, TopicId};
use crate::domain::selector::Selector;
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::specification::Specification;
use crate::protocol::ClientMessage;
use crate::protocol::command::ClientCommand;
use crate::protocol::frame::{OVERHEAD_BYTES, put_frame};
use crate::protocol::kind;
use crate::protocol::record::{self, Target};
use crate::protocol::topic::{ConstraintNode, WireSpecification};

/// A topic that exists for sure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddedTopic {
    /// Its identifier: the target of cheap updates.
    pub topic: TopicId,
    /// False: it was there before.
    pub created: bool,
    /// Where the command stands in the log.
    pub index: Index,
}

/// An update with everything that can be said of one.
#[derive(Debug, Clone, PartialEq)]
pub struct SetTopic<'a> {
    /// Which topic.
    pub path: &'a TopicPath,
    /// Add it like this when it is missing.
    pub specification: Option<&'a Specification>,
    /// Must hold at the moment of the update; in prefix order, empty always holds.
    pub constraint: &'a [ConstraintNode],
    /// What to set.
    pub value: Value<'a>,
}

impl Client {
    /// Adds a topic, or finds it there with the same specification.
    ///
    /// # Errors
    /// [`RequestError`]; refused with 302 if the topic exists with another specification.
    pub async fn add_topic(
        &self,
        path: &TopicPath,
        specification: &Specification,
    ) -> Result<AddedTopic, RequestError> {
        let command = ClientCommand::AddTopic {
            path: path.as_str().to_owned(),
            specification: wire(specification),
        };
        added(self.answer(&command).await?)
    }

    /// As [`add_topic`](Self::add_topic), without waiting for the answer, which is a
    /// [`Detail::Topic`].
    ///
    /// # Errors
    /// [`RequestError`] if the session is over.
    pub async fn begin_add_topic(
        &self,
        path: &TopicPath,
        specification: &Specification,
    ) -> Result<Pending, RequestError> {
        let command = ClientCommand::AddTopic {
            path: path.as_str().to_owned(),
            specification: wire(specification),
        };
        self.command(&command, None).await
    }

    /// Finds an existing topic.
    ///
    /// # Errors
    /// [`RequestError`]; refused with 301 if there is none.
    pub async fn open_topic(&self, path: &TopicPath) -> Result<AddedTopic, RequestError> {
        let command = ClientCommand::OpenTopic { path: path.as_str().to_owned() };
        added(self.answer(&command).await?)
    }

    /// Sends an update; waits only for a place in the window. Updates of one client are applied in
    /// the order of these calls.
    ///
    /// # Errors
    /// [`RequestError`] if the value is too large or the session is over; the outcome is in the
    /// [`Pending`].
    pub async fn update(&self, target: &Target, value: Value<'_>) -> Result<Pending, RequestError> {
        let weight = self.admit_value(&value)?;
        self.shared().place(weight).await?;
        let (sender, answer) = oneshot::channel();
        let request = self.lay_update(target, &value, weight, Waiter::One(sender))?;
        Ok(Pending { request, answer })
    }

    /// Sets an existing topic and waits for the outcome, at most
    /// [`Patience::request`](super::Patience::request).
    ///
    /// # Errors
    /// [`RequestError`]; refused with 301 if there is no such topic, with 305 if the value is not
    /// of its type.
    pub async fn set(&self, path: &TopicPath, value: Value<'_>) -> Result<Answered, RequestError> {
        let pending = self.update(&Target::Path(path.clone()), value).await?;
        self.answer_of(pending).await
    }

    /// Sets a topic under a constraint, adding it first where a specification is given.
    ///
    /// # Errors
    /// [`RequestError`]; refused with 306 if the constraint does not hold.
    pub async fn set_topic(&self, set: SetTopic<'_>) -> Result<Answered, RequestError> {
        let pending = self.begin_set_topic(set).await?;
        self.answer_of(pending).await
    }

    /// As [`set_topic`](Self::set_topic), without waiting for the answer.
    ///
    /// # Errors
    /// [`RequestError`] if the value is too large or the session is over.
    pub async fn begin_set_topic(&self, set: SetTopic<'_>) -> Result<Pending, RequestError> {
        self.admit_value(&set.value)?;
        let command = ClientCommand::SetTopic {
            path: set.path.as_str().to_owned(),
            specification: set.specification.map(wire),
            constraint: set.constraint.to_vec(),
            value: set.value.to_wire(),
        };
        self.command(&command, None).await
    }

    /// Opens an update stream: the exclusive writer of a topic, until another one is opened or the
    /// topic is set otherwise.
    ///
    /// # Errors
    /// [`RequestError`]; refused with 301 without a specification if there is no such topic, with
    /// 306 if the constraint does not hold.
    pub async fn open_stream(
        &self,
        path: &TopicPath,
        specification: Option<&Specification>,
        constraint: &[ConstraintNode],
    ) -> Result<UpdateStream, RequestError> {
        let command = ClientCommand::OpenStream {
            path: path.as_str().to_owned(),
            specification: specification.map(wire),
            constraint: constraint.to_vec(),
            value: None,
        };
        match self.answer(&command).await?.detail {
            Detail::Stream { stream, topic, created } => {
                Ok(UpdateStream::new(self.clone(), topic, stream, created))
            }
            _ => Err(RequestError::Mismatched),
        }
    }

    /// Removes all topics that `selector` matches, page by page; how many there were. Not one
    /// change: others may see some of the topics gone and some not.
    ///
    /// # Errors
    /// [`RequestError`]; pages before the one that failed are done.
    pub async fn remove(&self, selector: &str) -> Result<u64, RequestError> {
        Selector::parse(selector)?;
        let (mut removed, mut from) = (0, None);
        loop {
            let command =
                ClientCommand::RemoveTopics { selector: selector.to_owned(), from: from.take() };
            let Detail::Removed { count, next } = self.answer(&command).await?.detail else {
                return Err(RequestError::Mismatched);
            };
            removed += u64::from(count);
            match next {
                Some(next) => from = Some(next),
                None => return Ok(removed),
            }
        }
    }

    /// Adds a selection to a scope of the session without a stream of its own: events of its topics
    /// go to every [`subscribe`](Self::subscribe)d stream whose selector matches. Returns when the
    /// cluster has taken the selection; the values follow on those streams, as fast as they are read.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn select(&self, scope: &str, selector: &str) -> Result<(), RequestError> {
        self.selection(scope, selector, true).await
    }

    /// Takes topics out of a scope of the session.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn deselect(&self, scope: &str, selector: &str) -> Result<(), RequestError> {
        self.selection(scope, selector, false).await
    }

    async fn selection(
        &self,
        scope: &str,
        selector: &str,
        select: bool,
    ) -> Result<(), RequestError> {
        Selector::parse(selector)?;
        let (scope, selector) = (scope.to_owned(), selector.to_owned());
        let command = ClientCommand::Select { scope, selector, select };
        let pending = self.command(&command, Some(0)).await?;
        self.answer_of(pending).await.map(drop)
    }

    /// Sends a command and waits for its outcome.
    async fn answer(&self, command: &ClientCommand) -> Result<Answered, RequestError> {
        let pending = self.command(command, None).await?;
        self.answer_of(pending).await
    }

    /// Sends a command; one that changes what the session hears of names the local stream that it
    /// is for, or 0.
    pub(super) async fn command(
        &self,
        command: &ClientCommand,
        select_for: Option<u64>,
    ) -> Result<Pending, RequestError> {
        let mut frame = BytesMut::new();
        ClientMessage::put_command(&mut frame, 0, command);
        let bytes = frame.len() - OVERHEAD_BYTES;
        let bytes_max = kind::body_bytes_max(kind::COMMAND);
        if bytes > bytes_max {
            return Err(RequestError::CommandTooLarge { bytes, bytes_max });
        }
        let shared = self.shared();
        let weight = weight(bytes).min(shared.window_places);
        shared.place(weight).await?;
        let (sender, answer) = oneshot::channel();
        let begun = shared.deliveries().begun();
        let request = shared.lay(weight, |outbox| {
            let request = outbox.command(weight, Waiter::One(sender), |buffer, request| {
                // The frame was laid with number 0: only the number differs.
                put_frame(buffer, kind::COMMAND, |body| {
                    body.put_u64_le(request);
                    body.put_slice(frame.get(OVERHEAD_BYTES + 8..).unwrap_or_default());
                });
            })?;
            if let Some(stream) = select_for {
                outbox.selects.sent(request, stream, begun);
            }
            Ok(request)
        })?;
        Ok(Pending { request, answer })
    }

    /// Checks a value's size; the places of the window that its update takes.
    pub(super) fn admit_value(&self, value: &Value<'_>) -> Result<u32, RequestError> {
        let bytes = value.len();
        let bytes_max = crate::domain::limits::VALUE_BYTES_MAX;
        if bytes > bytes_max {
            return Err(RequestError::ValueTooLarge { bytes, bytes_max });
        }
        Ok(weight(bytes).min(self.shared().window_places))
    }

    /// Lays an update for which the caller holds `weight` places of the window.
    pub(super) fn lay_update(
        &self,
        target: &Target,
        value: &Value<'_>,
        weight: u32,
        waiter: Waiter,
    ) -> Result<u64, RequestError> {
        self.shared().lay(weight, |outbox| {
            outbox.command(weight, waiter, |buffer, request| {
                put_frame(buffer, kind::UPDATE, |body| {
                    body.put_u64_le(request);
                    value.with_bytes(|bytes| {
                        record::put_record(body, target, value.value_type() as u8, bytes);
                    });
                });
            })
        })
    }
}

impl Shared {
    /// Waits for `weight` places of the window, which the command's answer gives back.
    pub(super) async fn place(&self, weight: u32) -> Result<(), RequestError> {
        match self.window.acquire_many(weight).await {
            Ok(places) => {
                places.forget();
                Ok(())
            }
            Err(_) => Err(self.over()),
        }
    }

    /// As [`place`](Self::place), without waiting.
    pub(super) fn try_place(&self, weight: u32) -> Result<(), RequestError> {
        match self.window.try_acquire_many(weight) {
            Ok(places) => {
                places.forget();
                Ok(())
            }
            Err(tokio::sync::TryAcquireError::NoPermits) => Err(RequestError::WindowFull),
            Err(tokio::sync::TryAcquireError::Closed) => Err(self.over()),
        }
    }

    /// Lays a command for which `weight` places are held, and wakes the writer.
    fn lay(
        &self,
        weight: u32,
        lay: impl FnOnce(&mut Outbox) -> Result<u64, RequestError>,
    ) -> Result<u64, RequestError> {
        let laid = lay(&mut self.outbox());
        match laid {
            Ok(_) => self.to_send.notify_one(),
            Err(_) => self.window.add_permits(weight as usize),
        }
        laid
    }

    /// The error of a call that comes too late.
    pub(super) fn over(&self) -> RequestError {
        let reason = self.ended();
        RequestError::SessionEnded(
            reason.unwrap_or_else(|| super::error::SessionEnded::Closed.into()),
        )
    }
}

fn added(answered: Answered) -> Result<AddedTopic, RequestError> {
    let index = answered.index;
    match answered.detail {
        Detail::Topic { topic, created } => Ok(AddedTopic { topic, created, index }),
        _ => Err(RequestError::Mismatched),
    }
}

fn wire(specification: &Specification) -> WireSpecification {
    WireSpecification {
        topic_type: specification.topic_type() as u8,
        properties: specification.properties(),
    }
}
