//! What clients ask for as commands: every text is parsed into a domain type here, once.

use bytes::Bytes;

use super::constraint::constraint;
use crate::domain::command::{Command, CommandError, TypedValue};
use crate::domain::limits;
use crate::domain::selector::Selector;
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::specification::{Specification, TopicType};
use crate::domain::topic::value;
use crate::gateway::request::authorize::{self, Action};
use crate::protocol::ErrorCode;
use crate::protocol::command::ClientCommand;
use crate::protocol::topic::{WireSpecification, WireValue};

/// A command that is refused for good, whoever asks again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) struct Unfit {
    /// Its wire code.
    pub(in crate::gateway) code: ErrorCode,
    /// For people.
    pub(in crate::gateway) text: String,
}

impl Unfit {
    fn new(code: ErrorCode, text: impl ToString) -> Self {
        Self { code, text: text.to_string() }
    }

    /// The command that uses its number up.
    #[must_use]
    pub(in crate::gateway) fn command(&self) -> Command {
        Command::Refused { code: self.code.number() }
    }
}

/// A command that may be proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) struct Fit {
    /// Its bytes, as they will stand in the log.
    pub(in crate::gateway) bytes: Bytes,
    /// What its answer needs.
    pub(in crate::gateway) follow_up: Option<FollowUp>,
    /// To compile its selector may take milliseconds, here and wherever it is applied.
    pub(in crate::gateway) is_dear: bool,
}

/// What a session does besides answering when a command of its has been applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum FollowUp {
    /// Its selections have grown: initial values are sent before the answer.
    Selected,
    /// Its selections have shrunk, or its listeners have changed.
    Changed,
}

/// Checks an update record; the bytes are passed on as they are.
///
/// # Errors
/// [`Unfit`] names the reason.
pub(in crate::gateway) fn update(record: Bytes, roles: &[String]) -> Result<Fit, Unfit> {
    let command = Command::decode(record.clone()).map_err(|error| undecodable(&error))?;
    let (Command::Update { value, .. } | Command::SetByPath { value, .. }) = &command else {
        return Err(Unfit::new(ErrorCode::Undecodable, "not an update record"));
    };
    check_value(value)?;
    permit(roles, authorize::action_of(&command))?;
    Ok(Fit { bytes: record, follow_up: None, is_dear: false })
}

/// Turns the body of a command frame into a command.
///
/// # Errors
/// [`Unfit`] names the reason.
pub(in crate::gateway) fn command(body: &Bytes, roles: &[String]) -> Result<Fit, Unfit> {
    let asked =
        ClientCommand::decode(body).map_err(|error| Unfit::new(ErrorCode::Undecodable, error))?;
    let command = domain_command(asked)?;
    permit(roles, authorize::action_of(&command))?;
    let follow_up = match &command {
        Command::Select { select: true, .. } => Some(FollowUp::Selected),
        Command::Select { .. } | Command::Listen { .. } | Command::Unlisten { .. } => {
            Some(FollowUp::Changed)
        }
        _ => None,
    };
    let is_dear = match &command {
        Command::Select { selector, .. }
        | Command::Listen { selector, .. }
        | Command::RemoveTopics { selector, .. } => !Selector::is_quick(selector),
        _ => false,
    };
    Ok(Fit { bytes: command.encode(), follow_up, is_dear })
}

/// A selector that was given as text.
///
/// # Errors
/// [`Unfit`] names the reason.
pub(in crate::gateway) fn selector(text: &str) -> Result<Selector, Unfit> {
    Selector::parse(text).map_err(|error| Unfit::new(ErrorCode::InvalidSelector, error))
}

/// A path that was given as text.
///
/// # Errors
/// [`Unfit`] names the reason.
pub(in crate::gateway) fn path(text: &str) -> Result<TopicPath, Unfit> {
    TopicPath::parse(text).map_err(|error| Unfit::new(ErrorCode::InvalidPath, error))
}

fn domain_command(asked: ClientCommand) -> Result<Command, Unfit> {
    Ok(match asked {
        ClientCommand::AddTopic { path: text, specification } => {
            let specification = self::specification(&specification)?;
            Command::AddTopic { path: path(&text)?, specification }
        }
        ClientCommand::OpenTopic { path: text } => Command::OpenTopic { path: path(&text)? },
        ClientCommand::SetTopic { path: text, specification, constraint: nodes, value } => {
            Command::SetTopic {
                path: path(&text)?,
                specification: specification.as_ref().map(self::specification).transpose()?,
                constraint: constraint(&nodes)?,
                value: typed_value(value)?,
            }
        }
        ClientCommand::OpenStream { path: text, specification, constraint: nodes, value } => {
            Command::OpenStream {
                path: path(&text)?,
                specification: specification.as_ref().map(self::specification).transpose()?,
                constraint: constraint(&nodes)?,
                value: value.map(typed_value).transpose()?,
            }
        }
        ClientCommand::RemoveTopics { selector: text, from } => Command::RemoveTopics {
            selector: selector(&text)?.to_string(),
            from: from.as_deref().map(path).transpose()?,
        },
        ClientCommand::Select { scope, selector: text, select } => {
            if scope.len() > limits::SCOPE_BYTES_MAX || scope.starts_with('$') {
                let text = format!(
                    "a scope may have {} bytes and not begin with $",
                    limits::SCOPE_BYTES_MAX
                );
                return Err(Unfit::new(ErrorCode::InvalidScope, text));
            }
            Command::Select { scope, selector: selector(&text)?.to_string(), select }
        }
        ClientCommand::Listen { listener, selector: text, select } => {
            Command::Listen { listener, selector: selector(&text)?.to_string(), select }
        }
        ClientCommand::Unlisten { listener } => Command::Unlisten { listener },
    })
}

fn permit(roles: &[String], action: Option<Action>) -> Result<(), Unfit> {
    match action {
        Some(action) if !authorize::may(roles, action) => {
            Err(Unfit::new(ErrorCode::PermissionDenied, format!("not permitted: {action:?}")))
        }
        _ => Ok(()),
    }
}

fn undecodable(error: &CommandError) -> Unfit {
    Unfit::new(crate::gateway::reply_code::code(error.rejection()), error)
}

fn topic_type(code: u8) -> Result<TopicType, Unfit> {
    TopicType::from_code(code).ok_or_else(|| {
        Unfit::new(ErrorCode::InvalidSpecification, format!("there is no topic type {code}"))
    })
}

fn specification(wire: &WireSpecification) -> Result<Specification, Unfit> {
    Specification::new(topic_type(wire.topic_type)?, &wire.properties)
        .map_err(|error| Unfit::new(ErrorCode::InvalidSpecification, error))
}

fn typed_value(wire: WireValue) -> Result<TypedValue, Unfit> {
    let value_type = TopicType::from_code(wire.value_type).ok_or_else(|| {
        let text = format!("there is no value type {}", wire.value_type);
        Unfit::new(ErrorCode::IncompatibleValue, text)
    })?;
    let value = TypedValue { value_type, bytes: wire.bytes };
    check_value(&value)?;
    Ok(value)
}

fn check_value(value: &TypedValue) -> Result<(), Unfit> {
    let bytes = value.bytes.as_ref().map_or(0, Bytes::len);
    if bytes > limits::VALUE_BYTES_MAX {
        let text = format!("a value of {bytes} bytes; the limit is {}", limits::VALUE_BYTES_MAX);
        return Err(Unfit::new(ErrorCode::ValueTooLarge, text));
    }
    value::check(value.value_type, value.bytes.as_deref())
        .map_err(|error| Unfit::new(ErrorCode::IncompatibleValue, error))
}
