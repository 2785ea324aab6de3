//! Fetch: rows of topics from a state that stands still.

use std::collections::BTreeSet;
use std::ops::Bound as RangeBound;
use std::sync::Arc;

use crate::domain::fetch::{Candidate, FetchPage, FetchRequest, Fetched, ReadAs};
use crate::domain::machine::Machine;
use crate::domain::selector::Selector;
use crate::domain::topic::path_range::PathRange;
use crate::domain::topic::specification::TopicType;
use crate::gateway::delivery::event_frames::wire_specification;
use crate::gateway::hosting::Hosting;
use crate::gateway::request::translate::{self, Unfit};
use crate::protocol::ErrorCode;
use crate::protocol::read::{Answer, Bound, Fetch, Limit, Row};
use crate::protocol::topic::WireSpecification;

/// A fetch that looks at no more topics than this is answered where it stands; a larger one, and one
/// whose expressions may take milliseconds, goes to a thread of its own.
const INLINE_VISITS_MAX: usize = 2_000;

/// Evaluates a fetch.
///
/// # Errors
/// [`Unfit`] names what is wrong with the request, or that too many large ones wait.
pub(in crate::gateway) async fn rows(
    hosting: &Arc<Hosting>,
    fetch: &Fetch,
    view: &Machine,
) -> Result<Answer, Unfit> {
    let stopped = || Unfit { code: ErrorCode::Overloaded, text: "fetches are stopped".to_owned() };
    let (request, page) = if Selector::is_quick(&fetch.selector) {
        let request = request(fetch)?;
        let short = request.clone().maximum_visits(INLINE_VISITS_MAX);
        let mut page = evaluate(&short, view);
        if page.has_more && page.visits >= INLINE_VISITS_MAX {
            let _turn = hosting.fetches.acquire().await.map_err(|_| stopped())?;
            let (request, view) = (request.clone(), view.clone());
            let evaluated = hosting.supervisor.blocking("fetch", move || evaluate(&request, &view));
            page = evaluated.await.map_err(|_| stopped())?;
        }
        (request, page)
    } else {
        let _turn = hosting.dear_fetches.acquire().await.map_err(|_| stopped())?;
        let (fetch, view) = (fetch.clone(), view.clone());
        let evaluated = hosting.supervisor.patiently("fetch", move || {
            let request = request(&fetch)?;
            let page = evaluate(&request, &view);
            Ok::<_, Unfit>((request, page))
        });
        evaluated.await.map_err(|_| stopped())??
    };
    let rows = page.topics.iter().map(|topic| row(&request, view, topic)).collect();
    Ok(Answer::Rows { rows, more: page.has_more })
}

/// What rows take in a message, roughly.
pub(in crate::gateway) fn rows_bytes(rows: &[Row]) -> usize {
    let bytes = |row: &Row| 64 + row.path.len() + row.value.as_ref().map_or(0, bytes::Bytes::len);
    rows.iter().map(bytes).sum()
}

fn evaluate(request: &FetchRequest, view: &Machine) -> FetchPage {
    request.evaluate(|range: PathRange| {
        view.topics()
            .range(range)
            .map(|topic| Candidate { info: topic.info(), value: topic.value() })
    })
}

fn row(request: &FetchRequest, view: &Machine, fetched: &Fetched) -> Row {
    let info = &fetched.info;
    let specification = if request.properties() {
        wire_specification(&info.specification)
    } else {
        let topic_type = info.specification.topic_type().code();
        WireSpecification { topic_type, properties: std::collections::BTreeMap::new() }
    };
    let has_value = view.topic(info.id).is_some_and(|topic| topic.value().is_some());
    let version = view.topic(info.id).map(|topic| topic.version()).filter(|_| has_value);
    Row {
        path: info.path.to_string(),
        topic: info.id,
        specification,
        value: fetched.value.clone(),
        version,
        size: fetched.value_bytes.filter(|_| has_value).map(|bytes| bytes as u64),
    }
}

fn request(fetch: &Fetch) -> Result<FetchRequest, Unfit> {
    let unfit = |text: String| Unfit { code: ErrorCode::InvalidFetch, text };
    let mut request = FetchRequest::new(translate::selector(&fetch.selector)?);
    if let Some(from) = &fetch.from {
        request = match bound(from)? {
            RangeBound::Included(path) => request.from(path),
            RangeBound::Excluded(path) => request.after(path),
            RangeBound::Unbounded => request,
        };
    }
    if let Some(to) = &fetch.to {
        request = match bound(to)? {
            RangeBound::Included(path) => request.to(path),
            RangeBound::Excluded(path) => request.before(path),
            RangeBound::Unbounded => request,
        };
    }
    let known = |code: &u8| {
        TopicType::from_code(*code).ok_or_else(|| unfit(format!("there is no topic type {code}")))
    };
    if !fetch.topic_types.is_empty() {
        let types: BTreeSet<TopicType> =
            fetch.topic_types.iter().map(known).collect::<Result<_, _>>()?;
        request = request.topic_types(types).map_err(|error| unfit(error.to_string()))?;
    }
    if let Some(code) = &fetch.values {
        let read_as = match *code {
            0 => ReadAs::Bytes,
            code if code == TopicType::Json.code() => ReadAs::Json,
            // Every topic's value can be read as its bytes.
            code if code == TopicType::Binary.code() => ReadAs::Bytes,
            _ => ReadAs::Exactly(known(code)?),
        };
        request = request.with_values(read_as).map_err(|error| unfit(error.to_string()))?;
    }
    if fetch.properties {
        request = request.with_properties();
    }
    if fetch.sizes {
        request = request.with_sizes();
    }
    request = match fetch.limit {
        Some(Limit::First(count)) => request.first(count as usize),
        Some(Limit::Last(count)) => request.last(count as usize),
        None => request,
    };
    if let Some(bytes) = fetch.bytes_max {
        request = request.maximum_result_bytes(bytes as usize);
    }
    if let Some(branches) = fetch.deep_branches {
        request = request.limit_deep_branches(branches.depth as usize, branches.limit as usize);
    }
    Ok(request)
}

fn bound(bound: &Bound) -> Result<RangeBound<crate::domain::topic::path::TopicPath>, Unfit> {
    let path = translate::path(&bound.path)?;
    Ok(if bound.inclusive { RangeBound::Included(path) } else { RangeBound::Excluded(path) })
}
