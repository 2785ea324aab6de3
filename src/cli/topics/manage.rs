//! `quorate topics add|set|get|list|remove`: one request and its answer.

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::profile::{ProfileArguments, unseen};
use crate::client::{
    Client, Detail, Fetch, Fetched, FetchedTopic, Freshness, Onlooker, PathBound, ReadLevel,
    SetTopic,
};
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::specification::{Specification, TopicType};
use crate::domain::topic::value;
use crate::supervisor::ExitCode;

use super::watch::json_value;

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// Where, as a/b/c.
    path: String,
    /// string, json, binary, int64 or double.
    #[arg(value_name = "TYPE")]
    topic_type: TopicType,
    /// A property, as CONFLATION=off; may be given again.
    #[arg(long = "property", value_name = "KEY=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Set {
    /// Which topic.
    path: String,
    /// The value as text: a JSON text, a number, a string, base64 for binary.
    #[arg(required_unless_present = "null", allow_negative_numbers = true)]
    value: Option<String>,
    /// Set the null value.
    #[arg(long, conflicts_with = "value")]
    null: bool,
    /// Add the topic with this type if it is missing.
    #[arg(long, value_name = "TYPE")]
    add: Option<TopicType>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Get {
    /// Which topic.
    path: String,
    /// One JSON object with path, type, properties, version and value.
    #[arg(long)]
    json: bool,
    /// How new the value has to be; `stale` is answered without a quorum too.
    #[arg(long, value_enum, default_value_t = Reading::Linearizable, value_name = "LEVEL")]
    read: Reading,
    /// The node to ask first; after its death any other.
    #[arg(long)]
    node: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Which topics.
    #[arg(default_value = "?.*//")]
    selector: String,
    /// With their values.
    #[arg(long)]
    values: bool,
    /// A JSON object for each.
    #[arg(long)]
    json: bool,
    /// How new the list has to be; `stale` is answered without a quorum too.
    #[arg(long, value_enum, default_value_t = Reading::Local, value_name = "LEVEL")]
    read: Reading,
    /// The node to ask first; after its death any other.
    #[arg(long)]
    node: Option<String>,
}

/// How new an answer has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Reading {
    /// What the node has applied.
    Local,
    /// At least as new as every acknowledgement before.
    Linearizable,
    /// As local, without a session and without a quorum too; says how old it may be.
    Stale,
}

impl Reading {
    fn level(self) -> ReadLevel {
        match self {
            Self::Local => ReadLevel::Local,
            Self::Linearizable => ReadLevel::Linearizable,
            Self::Stale => ReadLevel::Stale,
        }
    }
}

/// Where topics are read: in a session, or from whatever node shows them.
enum Source {
    Session(Box<Client>, Reading),
    Look(Box<Onlooker>),
}

impl Source {
    async fn open(
        profile: &ProfileArguments,
        node: Option<&str>,
        reading: Reading,
    ) -> anyhow::Result<Self> {
        if reading != Reading::Stale {
            return Ok(Self::Session(Box::new(profile.connect(node).await?), reading));
        }
        if node.is_some() {
            return Err(Failure::usage("--node needs a session, which --read stale does not open"));
        }
        Ok(Self::Look(Box::new(profile.onlooker()?)))
    }

    async fn fetch(&self, fetch: Fetch) -> anyhow::Result<Fetched> {
        match self {
            Self::Session(client, reading) => Ok(client.fetch(fetch, reading.level()).await?),
            Self::Look(onlooker) => onlooker.fetch(fetch).await.map_err(unseen),
        }
    }

    async fn close(self) {
        if let Self::Session(client, _) = self {
            client.close().await;
        }
    }
}

/// Tells people that what they see may be old.
fn mark(freshness: Freshness) {
    if freshness.stale {
        let age = freshness.age.as_secs_f64();
        output::note(format!("stale: the node sees no quorum, for {age:.1} s"));
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    /// Which topics.
    selector: String,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) async fn add(profile: &ProfileArguments, add: Add) -> anyhow::Result<ExitCode> {
    let path = parse_path(&add.path)?;
    let specification = Specification::new(add.topic_type, add.properties)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let client = profile.connect(None).await?;
    let added = client
        .add_topic(&path, &specification)
        .await
        .with_context(|| format!("cannot add {path}"))?;
    client.close().await;
    if add.json {
        let AddedFields { id, created, index } =
            AddedFields { id: added.topic, created: added.created, index: added.index };
        output::json(&json!({
            "topic": path.as_str(), "id": id.to_string(), "created": created,
            "position": index.to_string(),
        }));
    } else {
        output::line(if added.created { "created" } else { "exists" });
    }
    Ok(ExitCode::DONE)
}

/// What an addition tells.
struct AddedFields {
    id: crate::domain::id::TopicId,
    created: bool,
    index: crate::domain::id::Index,
}

pub(super) async fn set(profile: &ProfileArguments, set: Set) -> anyhow::Result<ExitCode> {
    let path = parse_path(&set.path)?;
    let client = profile.connect(None).await?;
    let topic_type = match (set.add, find(&client, &path).await?) {
        (_, Some(topic)) => known_type(&topic)?,
        (Some(topic_type), None) => topic_type,
        (None, None) => {
            anyhow::bail!("no topic at {path}; add it first, or give --add TYPE")
        }
    };
    let bytes = match &set.value {
        Some(text) => Some(
            value::from_text(topic_type, text)
                .map_err(|error| Failure::usage(error.to_string()))?,
        ),
        None => None,
    };
    let specification = set.add.map(Specification::plain);
    let answered = client
        .set_topic(SetTopic {
            path: &path,
            specification: specification.as_ref(),
            constraint: &[],
            value: crate::client::Value::of_type(topic_type, bytes.as_deref())
                .with_context(|| format!("a {topic_type} topic has no such value"))?,
        })
        .await
        .with_context(|| format!("cannot set {path}"))?;
    client.close().await;
    let changed = answered.detail != Detail::Unchanged;
    if set.json {
        let position = answered.index.to_string();
        output::json(&json!({"topic": path.as_str(), "position": position, "changed": changed}));
    } else {
        output::line(format!("{} {}", answered.index, if changed { "set" } else { "unchanged" }));
    }
    Ok(ExitCode::DONE)
}

pub(super) async fn get(profile: &ProfileArguments, get: Get) -> anyhow::Result<ExitCode> {
    let path = parse_path(&get.path)?;
    let source = Source::open(profile, get.node.as_deref(), get.read).await?;
    let page = source.fetch(one(&path)).await.context("cannot read the topic")?;
    source.close().await;
    let freshness = page.freshness;
    let topic = page.topics.into_iter().next();
    let Some(topic) = topic else { anyhow::bail!("no topic at {path}") };
    if get.json {
        output::line(row(&topic, true, freshness)?);
    } else {
        mark(freshness);
        let text = value::to_text(known_type(&topic)?, topic.value.as_deref());
        output::line(text);
    }
    Ok(ExitCode::DONE)
}

pub(super) async fn list(profile: &ProfileArguments, list: List) -> anyhow::Result<ExitCode> {
    let source = Source::open(profile, list.node.as_deref(), list.read).await?;
    let mut from = None;
    let mut marked = list.json;
    loop {
        let fetch = Fetch {
            selector: list.selector.clone(),
            from: from.take(),
            values: list.values.then_some(0),
            properties: list.json,
            ..Fetch::default()
        };
        let page = source.fetch(fetch).await.context("cannot list topics")?;
        if !std::mem::replace(&mut marked, true) {
            mark(page.freshness);
        }
        for topic in &page.topics {
            output::line(if list.json {
                row(topic, list.values, page.freshness)?
            } else if list.values {
                let text = value::to_text(known_type(topic)?, topic.value.as_deref());
                format!("{}\t{text}", topic.path)
            } else {
                topic.path.to_string()
            });
        }
        match page.topics.last() {
            Some(last) if page.more => {
                from = Some(PathBound { path: last.path.to_string(), inclusive: false });
            }
            _ => break,
        }
    }
    source.close().await;
    Ok(ExitCode::DONE)
}

pub(super) async fn remove(profile: &ProfileArguments, remove: Remove) -> anyhow::Result<ExitCode> {
    let client = profile.connect(None).await?;
    let removed = client
        .remove(&remove.selector)
        .await
        .with_context(|| format!("cannot remove {}", remove.selector))?;
    client.close().await;
    if remove.json {
        output::json(&json!({ "removed": removed }));
    } else {
        output::line(format!("removed {removed}"));
    }
    Ok(ExitCode::DONE)
}

/// The topic at a path with its value, if there is one.
async fn find(client: &Client, path: &TopicPath) -> anyhow::Result<Option<FetchedTopic>> {
    let page =
        client.fetch(one(path), ReadLevel::Linearizable).await.context("cannot read the topic")?;
    Ok(page.topics.into_iter().next())
}

/// One topic with all that there is of it.
fn one(path: &TopicPath) -> Fetch {
    let selector = format!(">{path}");
    Fetch { selector, values: Some(0), properties: true, ..Fetch::default() }
}

/// A topic as one line of JSON; what was read without a quorum says so, with its age.
fn row(topic: &FetchedTopic, with_value: bool, freshness: Freshness) -> anyhow::Result<String> {
    let topic_type = known_type(topic)?;
    let mut fields = Map::new();
    fields.insert("topic".into(), topic.path.as_str().into());
    fields.insert("id".into(), topic.topic.to_string().into());
    fields.insert("type".into(), topic_type.name().into());
    fields.insert("properties".into(), json!(topic.properties));
    let version = topic.version.map_or(Value::Null, |version| version.to_string().into());
    fields.insert("version".into(), version);
    if freshness.stale {
        fields.insert("stale".into(), true.into());
        let age_ms = u64::try_from(freshness.age.as_millis()).unwrap_or(u64::MAX);
        fields.insert("age_ms".into(), age_ms.into());
    }
    let text = Value::Object(fields).to_string();
    if !with_value {
        return Ok(text);
    }
    let head = text.strip_suffix('}').unwrap_or(&text);
    Ok(format!("{head},{}}}", json_value(topic_type, topic.value.as_deref())))
}

fn known_type(topic: &FetchedTopic) -> anyhow::Result<TopicType> {
    topic.topic_type.with_context(|| format!("{} has a type that is newer than this", topic.path))
}

fn parse_path(text: &str) -> anyhow::Result<TopicPath> {
    TopicPath::parse(text).map_err(|error| Failure::usage(error.to_string()))
}

fn property(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    pair.ok_or_else(|| format!("{text:?} is not KEY=VALUE"))
}
