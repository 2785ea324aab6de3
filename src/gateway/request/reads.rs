//! Reads: answered from a state that stands still, off the session's hot path.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::domain::id::{Index, SessionId};
use crate::domain::machine::Machine;
use crate::gateway::hosting::{Hosting, READ_TIMEOUT};
use crate::gateway::reply_code;
use crate::gateway::request::authorize::{self, Action};
use crate::gateway::request::status_json::status_json;
use crate::gateway::request::translate::Unfit;
use crate::protocol::ErrorCode;
use crate::protocol::read::{Answer, Level, Query, Read, ReadReply, SessionInfo};

/// Who reads.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct Reader {
    /// Which session.
    pub(in crate::gateway) session: SessionId,
    /// What it may do.
    pub(in crate::gateway) roles: Arc<[String]>,
    /// Of its newest answered command: a read is at least as new.
    pub(in crate::gateway) answered: Index,
}

/// What a read gives: an answer, or an answer that says that rows follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) struct Found {
    /// The reply, whose answer is replaced when rows are many.
    pub(in crate::gateway) reply: ReadReply,
    /// The state's newest entry.
    pub(in crate::gateway) entry: u64,
}

/// Answers a read. Never fails: a refusal is an answer.
pub(in crate::gateway) async fn answer(
    hosting: &Arc<Hosting>,
    reader: &Reader,
    read: &Read,
) -> Found {
    let patience = read
        .deadline_ms
        .map_or(READ_TIMEOUT, |ms| Duration::from_millis(ms.into()).min(READ_TIMEOUT));
    let deadline = hosting.clock.now() + patience;
    let outcome =
        match tokio::time::timeout_at(deadline, place(hosting, reader, read, patience)).await {
            Ok(Ok(view)) => evaluate(hosting, reader, &read.query, &view, patience)
                .await
                .map(|answer| (view, answer)),
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => Err(refused(ErrorCode::Deadline, "the read was not placed in time", None)),
        };
    let stale = !hosting.replication.quorum().borrow().is_quorate();
    let (entry, answer) = match outcome {
        Ok((view, answer)) => (view.applied(), answer),
        Err(refusal) => (hosting.replication.journal().applied_now(), refusal),
    };
    let age_ms = hosting.age_ms();
    let index = Index::new(entry, u16::MAX);
    Found { reply: ReadReply { index, age_ms, stale, answer }, entry }
}

/// Waits until the state is new enough, and takes it.
async fn place(
    hosting: &Arc<Hosting>,
    reader: &Reader,
    read: &Read,
    patience: Duration,
) -> Result<Machine, Answer> {
    let replication = &hosting.replication;
    let quorate = replication.quorum().borrow().is_quorate();
    if !quorate && read.level != Level::Stale {
        let text = "the node does not see a quorum; a stale read is answered";
        let retry_ms = Some(reply_code::PARKED_RETRY_MS);
        return Err(refused(ErrorCode::Inquorate, text, retry_ms));
    }
    if read.level == Level::Linearizable {
        replication.read_index(patience).await.map_err(|error| {
            let (code, retry_ms) = reply_code::read_error(error);
            refused(code, &error.to_string(), Some(retry_ms))
        })?;
    }
    let at_least = read.at_least.unwrap_or_default().max(reader.answered);
    if !replication.applied(at_least.entry(), patience).await {
        let text = format!("this node has not come to entry {} in time", at_least.entry());
        return Err(refused(ErrorCode::Deadline, &text, Some(reply_code::RETRY_MS)));
    }
    Ok(replication.view())
}

async fn evaluate(
    hosting: &Arc<Hosting>,
    reader: &Reader,
    query: &Query,
    view: &Machine,
    patience: Duration,
) -> Result<Answer, Answer> {
    match query {
        Query::Ping => Ok(Answer::Pong),
        Query::SessionInfo => session_info(hosting, reader, view),
        Query::ClusterStatus => {
            permit(reader, Action::Observe)?;
            let status = hosting.replication.status(patience).await;
            Ok(Answer::ClusterStatus { json: Bytes::from(status_json(&status)) })
        }
        Query::Fetch(fetch) => {
            permit(reader, Action::Read)?;
            crate::gateway::request::fetch::rows(hosting, fetch, view)
                .await
                .map_err(|unfit| unfit_answer(&unfit))
        }
    }
}

fn session_info(hosting: &Hosting, reader: &Reader, view: &Machine) -> Result<Answer, Answer> {
    let code = ErrorCode::NoSuchSession;
    let session =
        view.session(reader.session).ok_or_else(|| refused(code, "the session has ended", None))?;
    Ok(Answer::Session(SessionInfo {
        session: session.id(),
        epoch: session.epoch(),
        principal: session.principal().to_owned(),
        roles: session.roles().to_vec(),
        properties: session.properties().clone(),
        node: hosting.replication.member().name.to_string(),
    }))
}

fn permit(reader: &Reader, action: Action) -> Result<(), Answer> {
    if authorize::may(&reader.roles, action) {
        return Ok(());
    }
    Err(refused(ErrorCode::PermissionDenied, &format!("not permitted: {action:?}"), None))
}

fn unfit_answer(unfit: &Unfit) -> Answer {
    refused(unfit.code, &unfit.text, None)
}

/// A refusal as an answer.
#[must_use]
pub(in crate::gateway) fn refused(code: ErrorCode, text: &str, retry_ms: Option<u32>) -> Answer {
    Answer::Refused { code: code.number(), text: text.to_owned(), retry_ms }
}
