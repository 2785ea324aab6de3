//! Every reason of the layers below as its wire code and its message: the one mapping.

use crate::domain::effect::CloseReason;
use crate::domain::machine::Answered;
use crate::domain::outcome::{Outcome, Rejection};
use crate::gateway::request::translate::Unfit;
use crate::protocol::server_message::{Acknowledged, Reply};
use crate::protocol::{ErrorCode, ServerMessage};
use crate::replication::{NodeState, ProposeError, ReadError, Refusal};

/// What the client is told in place of a permit, in milliseconds.
pub(super) const RETRY_MS: u32 = 50;
/// When a client of an inquorate node may try another one, in milliseconds.
pub(super) const PARKED_RETRY_MS: u32 = 1_000;

/// An answer as it is sent: gathered into an acknowledgement, or a message of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing more to tell.
    Plain(Acknowledged),
    /// With detail.
    Detailed(Reply),
}

/// What a session is told of its command.
#[must_use]
pub(super) fn answer(outcome: &Outcome) -> Answer {
    match outcome {
        Outcome::Done | Outcome::Session { .. } | Outcome::Sessions { .. } => {
            Answer::Plain(Acknowledged::Done)
        }
        Outcome::Unchanged => Answer::Plain(Acknowledged::Unchanged),
        Outcome::Rejected(reason) => Answer::Plain(Acknowledged::Refused(code(*reason))),
        Outcome::Topic { id, created } => {
            Answer::Detailed(Reply::Topic { topic: *id, created: *created })
        }
        Outcome::Stream { id, topic, created } => {
            Answer::Detailed(Reply::Stream { stream: *id, topic: *topic, created: *created })
        }
        Outcome::Removed { count, next } => Answer::Detailed(Reply::Removed {
            count: *count,
            next: next.as_ref().map(ToString::to_string),
        }),
    }
}

/// The message for a command that the host found unfit, once its number has been used up.
#[must_use]
pub(super) fn unfit_reply(answered: &Answered, unfit: &Unfit) -> ServerMessage {
    ServerMessage::Reply {
        request: answered.origin.request,
        index: answered.index,
        reply: Reply::Refused { code: unfit.code.number(), text: unfit.text.clone() },
    }
}

/// The code of a rejection: the same number.
#[must_use]
pub(super) fn code(reason: Rejection) -> ErrorCode {
    ErrorCode::from(reason.code())
}

/// The code and retry hint of a refusal before the log.
#[must_use]
pub(super) fn refusal(refusal: Refusal) -> (ErrorCode, u32) {
    match refusal {
        Refusal::Overloaded { retry_ms } => (ErrorCode::Overloaded, retry_ms),
        Refusal::Inquorate => (ErrorCode::Inquorate, PARKED_RETRY_MS),
        Refusal::DiskFull => (ErrorCode::DiskFull, PARKED_RETRY_MS),
        Refusal::Stopped => (ErrorCode::Draining, RETRY_MS),
    }
}

/// The code and retry hint of a proposal of the node's own on behalf of a client.
#[must_use]
pub(super) fn propose_error(error: ProposeError) -> (ErrorCode, u32) {
    match error {
        ProposeError::Refused(reason) => refusal(reason),
        ProposeError::OutcomeUnknown => (ErrorCode::Deadline, RETRY_MS),
    }
}

/// The code and retry hint of a read that could not be placed.
#[must_use]
pub(super) fn read_error(error: ReadError) -> (ErrorCode, u32) {
    match error {
        ReadError::Deadline { .. } => (ErrorCode::Deadline, RETRY_MS),
        ReadError::Inquorate => (ErrorCode::Inquorate, PARKED_RETRY_MS),
    }
}

/// Why a node in this state takes no sessions; none if it does.
#[must_use]
pub(super) fn state(state: NodeState) -> Option<ErrorCode> {
    match state {
        NodeState::Ready => None,
        NodeState::ReadOnly => Some(ErrorCode::DiskFull),
        NodeState::Inquorate => Some(ErrorCode::Inquorate),
        NodeState::Quarantined => Some(ErrorCode::Quarantined),
        NodeState::Draining | NodeState::Stopped => Some(ErrorCode::Draining),
        NodeState::Starting
        | NodeState::Replaying
        | NodeState::Joining
        | NodeState::CatchingUp
        | NodeState::Poisoned => Some(ErrorCode::NotReady),
    }
}

/// Why a node takes no commands of the sessions that it has, though it keeps them; none if it does.
#[must_use]
pub(super) fn parked(state: NodeState, quorate: bool) -> Option<ErrorCode> {
    match state {
        NodeState::ReadOnly => Some(ErrorCode::DiskFull),
        _ if !quorate => Some(ErrorCode::Inquorate),
        _ => None,
    }
}

/// The code under which a connection ends when its session has.
#[must_use]
pub(super) fn close_reason(reason: CloseReason) -> ErrorCode {
    match reason {
        CloseReason::ByClient => ErrorCode::None,
        CloseReason::Expired => ErrorCode::Expired,
        CloseReason::ByController => ErrorCode::ClosedByController,
        CloseReason::ProtocolError => ErrorCode::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::TopicId;

    #[test]
    fn rejections_keep_their_numbers() {
        for reason in Rejection::ALL {
            let answered = answer(&Outcome::Rejected(reason));
            let expected = Acknowledged::Refused(ErrorCode::from(reason.code()));
            assert_eq!(answered, Answer::Plain(expected));
            assert!(!matches!(code(reason), ErrorCode::Unknown(_)), "{reason:?}");
        }
        let topic = Outcome::Topic { id: TopicId(3), created: true };
        let reply = Reply::Topic { topic: TopicId(3), created: true };
        assert_eq!(answer(&topic), Answer::Detailed(reply));
    }

    #[test]
    fn what_passes_by_itself_is_transient() {
        let refusals = [Refusal::Inquorate, Refusal::DiskFull, Refusal::Stopped];
        for refused in refusals.into_iter().chain([Refusal::Overloaded { retry_ms: 3 }]) {
            assert!(refusal(refused).0.is_transient(), "{refused:?}");
        }
        assert!(propose_error(ProposeError::OutcomeUnknown).0.is_transient());
        assert!(state(NodeState::CatchingUp).is_some_and(ErrorCode::is_transient));
        assert_eq!(state(NodeState::Ready), None);
    }
}
