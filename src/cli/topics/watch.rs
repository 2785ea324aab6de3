//! `quorate topics watch`: events as they happen, one a line.

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;

use crate::cli::failure::Failure;
use crate::cli::profile::ProfileArguments;
use crate::cli::{output, runtime};
use crate::client::{
    ConnectionState, Event, EventStream, ResetReason, StartFrom, UnsubscribeReason,
};
use crate::domain::id::{Lineage, Position};
use crate::domain::topic::specification::TopicType;
use crate::domain::topic::value;
use crate::supervisor::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "With --json each line is {\"position\", \"index\", \"ordinal\", \"topic\", \
\"kind\", \"value\"}; kind is one of value, added, removed, subscribed, unsubscribed, reset.
With --topics a topic that stood there before is \"added\" with \"reason\": \"selected\"."
)]
pub(super) struct Watch {
    /// Which topics, now and in future.
    selector: String,
    /// The node to try first; after its death any other.
    #[arg(long)]
    node: Option<String>,
    /// Events after this position instead of present values: `[LINEAGE:]POSITION` or `start`.
    #[arg(long, value_name = "POSITION", value_parser = start_from)]
    from: Option<StartFrom>,
    /// Topics being added and removed instead of their values.
    #[arg(long, conflicts_with = "from")]
    topics: bool,
    /// End after so many events.
    #[arg(long)]
    count: Option<u64>,
    /// A JSON object for each event.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(profile: &ProfileArguments, watch: Watch) -> anyhow::Result<ExitCode> {
    let mut config = profile.configuration()?;
    if let Some(from) = watch.from {
        config = config.from(from);
    }
    let client = profile.connect_with(config, watch.node.as_deref()).await?;
    let events = if watch.topics {
        client.listen(&watch.selector).await
    } else {
        client.subscribe(&watch.selector).await
    };
    let mut events = events.with_context(|| format!("cannot watch {}", watch.selector))?;
    // Whoever waits to change something until it is seen can wait for this line.
    output::note(format!("watching {} on {}", watch.selector, client.node()));
    let ended = tokio::select! {
        () = runtime::stop_signal() => None,
        ended = print(&mut events, &watch) => ended,
        () = tell_moves(client.states()) => None,
    };
    client.close().await;
    match ended {
        Some(reason) => Err(Failure::with(ExitCode::CONNECTION, reason)),
        None => Ok(ExitCode::DONE),
    }
}

/// Says on standard error when the session has to wait, and where it goes on. Never completes.
async fn tell_moves(mut states: Receiver<ConnectionState>) {
    states.mark_unchanged();
    while states.changed().await.is_ok() {
        let state = states.borrow_and_update().clone();
        if let Some(text) = state_text(&state) {
            output::note(text);
        }
    }
    std::future::pending().await
}

/// A change of the connection for people; its end is told by the exit.
fn state_text(state: &ConnectionState) -> Option<String> {
    Some(match state {
        ConnectionState::Connected { node } => format!("{node} serves this session"),
        ConnectionState::Parked { node, code } => {
            format!("{node} takes no commands: {code}; waiting for it, or for another node")
        }
        ConnectionState::Reconnecting => "the node is gone; trying the others".to_owned(),
        ConnectionState::Ended(_) => return None,
    })
}

/// Prints until there were enough events; why the session ended, if it did before.
async fn print(events: &mut EventStream, watch: &Watch) -> Option<String> {
    let mut left = watch.count.unwrap_or(u64::MAX);
    let mut batch = String::new();
    while left > 0 {
        let Some(event) = events.next().await else {
            let reason = events.ended().map(|ended| ended.to_string());
            return Some(reason.unwrap_or_else(|| "the session has ended".to_owned()));
        };
        let mut next = Some(event);
        // What has arrived is printed in one write.
        while let Some(event) = next.take() {
            let line = if watch.json { json_line(&event) } else { text_line(&event) };
            if let Some(line) = line {
                batch.push_str(&line);
                batch.push('\n');
                left -= 1;
            }
            if left > 0 && batch.len() < 64 * 1024 {
                next = events.try_next();
            }
        }
        if !batch.is_empty() {
            output::lines(&batch);
            batch.clear();
        }
    }
    None
}

/// The word for an event, or none for those that are not printed.
fn kind(event: &Event) -> Option<&'static str> {
    Some(match event {
        Event::Subscribed { .. } => "subscribed",
        Event::Value { .. } => "value",
        Event::Unsubscribed { .. } => "unsubscribed",
        // Readers know these words only; the reason tells the events of one word apart.
        Event::Added { .. } | Event::Selected { .. } => "added",
        Event::Removed { .. } | Event::Deselected { .. } => "removed",
        Event::Reset { .. } => "reset",
        Event::Current { .. } | Event::Lagged { .. } | Event::Moved { .. } => return None,
    })
}

/// What else there is to know about an event of its kind.
fn reason(event: &Event) -> Option<&'static str> {
    Some(match event {
        Event::Unsubscribed { reason, .. } => match reason {
            UnsubscribeReason::Requested => "requested",
            UnsubscribeReason::Control => "control",
            UnsubscribeReason::Removed => "removed",
            UnsubscribeReason::Authorization => "authorization",
            UnsubscribeReason::BackPressure => "back-pressure",
            _ => "unknown",
        },
        Event::Reset { reason, .. } => match reason {
            ResetReason::Asked => "asked",
            ResetReason::Purged => "purged",
            ResetReason::OtherLineage => "other-lineage",
            ResetReason::SnapshotInstalled => "snapshot-installed",
            ResetReason::NotIndexed => "not-indexed",
            ResetReason::SelectionsChanged => "selections-changed",
        },
        Event::Selected { .. } => "selected",
        Event::Deselected { .. } => "deselected",
        _ => return None,
    })
}

fn json_line(event: &Event) -> Option<String> {
    let position = event.position();
    let topic = event.topic();
    let head = json!({
        "position": position.to_string(),
        "index": position.index.0.to_string(),
        "ordinal": position.ordinal,
        "topic": topic.map(|topic| topic.path.as_str()),
        "kind": kind(event)?,
    })
    .to_string();
    let head = head.strip_suffix('}').unwrap_or(&head);
    let rest = match event {
        Event::Value { topic, value, .. } => {
            json_value(topic.topic_type.unwrap_or(TopicType::Binary), value.as_deref())
        }
        Event::Reset { lineage, .. } => format!("\"value\":null,\"lineage\":\"{lineage}\""),
        Event::Subscribed { topic, .. } | Event::Added { topic, .. } => format!(
            "\"value\":null,\"type\":{}",
            Value::from(topic.topic_type.map(TopicType::name))
        ),
        _ => "\"value\":null".to_owned(),
    };
    let reason = reason(event).map(|reason| format!(",\"reason\":\"{reason}\""));
    Some(format!("{head},{rest}{}}}", reason.unwrap_or_default()))
}

/// The field `value` of a line of JSON, and `encoding` beside it where it is needed.
pub(super) fn json_value(topic_type: TopicType, bytes: Option<&[u8]>) -> String {
    // It takes one line, however the value was written.
    let text = value::to_json(topic_type, bytes);
    let encoding = match (topic_type, bytes) {
        (TopicType::Binary, Some(_)) => ",\"encoding\":\"base64\"",
        _ => "",
    };
    format!("\"value\":{text}{encoding}")
}

fn text_line(event: &Event) -> Option<String> {
    let (position, kind) = (event.position(), kind(event)?);
    let path = event.topic().map_or("", |topic| topic.path.as_str());
    Some(match event {
        Event::Value { topic, value, .. } => {
            let topic_type = topic.topic_type.unwrap_or(TopicType::Binary);
            format!("{position}  {path}  {}", value::to_text(topic_type, value.as_deref()))
        }
        Event::Reset { lineage, .. } => {
            format!("{position}  {kind} {}, lineage {lineage}", reason(event).unwrap_or_default())
        }
        _ => match reason(event) {
            Some(reason) => format!("{position}  {path}  {kind} {reason}"),
            None => format!("{position}  {path}  {kind}"),
        },
    })
}

fn start_from(text: &str) -> Result<StartFrom, String> {
    if text == "start" {
        return Ok(StartFrom { lineage: None, position: Position::START });
    }
    let (lineage, position) = match text.split_once(':') {
        Some((lineage, position)) => {
            let lineage: Lineage = lineage.parse().map_err(|error| format!("{error}"))?;
            (Some(lineage), position)
        }
        None => (None, text),
    };
    let position = position.parse().map_err(|error| format!("{error}"))?;
    Ok(StartFrom { lineage, position })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_take_one_line() {
        assert_eq!(json_value(TopicType::Json, Some(b"{\n \"a\": 1}")), "\"value\":{ \"a\": 1}");
        assert_eq!(
            json_value(TopicType::Binary, Some(b"\x00\x01")),
            "\"value\":\"AAE=\",\"encoding\":\"base64\""
        );
        assert_eq!(json_value(TopicType::String, None), "\"value\":null");
    }

    #[test]
    fn events_are_told_in_six_words_and_a_reason() {
        let position = Position::START;
        let topic = std::sync::Arc::new(crate::client::Topic {
            id: crate::domain::id::TopicId(1),
            path: crate::domain::topic::path::TopicPath::parse("a/b").unwrap(),
            topic_type: Some(TopicType::Json),
            properties: std::sync::Arc::default(),
        });
        let selected = json_line(&Event::Selected { position, topic: topic.clone() }).unwrap();
        let selected: Value = serde_json::from_str(&selected).unwrap();
        assert_eq!((&selected["kind"], &selected["reason"]), (&json!("added"), &json!("selected")));
        let reason = UnsubscribeReason::BackPressure;
        let gone = json_line(&Event::Unsubscribed { position, topic, reason }).unwrap();
        let gone: Value = serde_json::from_str(&gone).unwrap();
        assert_eq!(gone["reason"], "back-pressure");
        let lineage = Lineage(7);
        let reset = Event::Reset { position, reason: ResetReason::OtherLineage, lineage };
        let reset: Value = serde_json::from_str(&json_line(&reset).unwrap()).unwrap();
        assert_eq!(reset["reason"], "other-lineage");
        assert_eq!(reset["lineage"], "0000000000000007");
    }

    #[test]
    fn starts_are_parsed() {
        assert_eq!(start_from("start").unwrap().position, Position::START);
        let from = start_from("00ab000000000001:78.3.2").unwrap();
        assert_eq!(from.lineage, Some(Lineage(0x00ab_0000_0000_0001)));
        assert_eq!(from.position.to_string(), "78.3.2");
        assert!(start_from("x:1.2").is_err());
        assert!(start_from("1.2.3.4").is_err());
    }
}
