//! `quorate topics load`: updates from a file, each acknowledged.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ValueEnum;

use crate::cli::failure::Failure;
use crate::cli::feed::feeder::{FeedOptions, Feeder};
use crate::cli::feed::ndjson::Updates;
use crate::cli::output;
use crate::cli::profile::ProfileArguments;
use crate::clock::Clock;
use crate::domain::topic::specification::{Specification, TopicType};
use crate::supervisor::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each line of FILE is {\"topic\": …, \"value\": …}; other fields are ignored. \
Missing topics are added as json; values are kept byte for byte."
)]
pub(super) struct Load {
    /// NDJSON, plain or gzip; - is standard input.
    file: PathBuf,
    /// Updates a second; without it as fast as the cluster takes them.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Updates that may be unanswered.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1024))]
    window: u32,
    /// May a slow subscriber skip values of the topics that are added?
    #[arg(long, value_enum, default_value_t = Conflation::Off)]
    conflation: Conflation,
    /// The last line is a JSON object with the figures.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Conflation {
    /// Every value reaches every subscriber.
    Off,
    /// A subscriber that lags jumps to newest values.
    Conflate,
}

pub(super) async fn run(profile: &ProfileArguments, load: Load) -> anyhow::Result<ExitCode> {
    let specification = specification(load.conflation)?;
    let lines = count_lines(&load.file)?;
    let updates = Updates::open(&load.file).map_err(|error| Failure::usage(error.to_string()))?;
    let client = profile.connect(None).await?;
    let progress = output::progress(lines, "updates");
    let options = FeedOptions { rate: load.rate, window: load.window, specification };
    let mut feeder = Feeder::new(client.clone(), options, progress.clone());
    let outcome = feeder.run(updates).await;
    progress.finish_and_clear();
    let now = Clock::system().now();
    let mut report = feeder.tally().report(now);
    if let Some(fields) = report.as_object_mut() {
        fields.insert("sent".into(), feeder.sent().into());
        fields.insert("reconnects".into(), client.statistics().reconnects.into());
    }
    client.close().await;
    if load.json {
        output::json(&report);
    } else {
        let tally = feeder.tally();
        output::line(format!(
            "sent {}, acknowledged {} in {:.1} s; acknowledgement p50 {:.1} ms, p99 {:.1} ms",
            feeder.sent(),
            tally.count(),
            tally.seconds(now),
            tally.latency_ms(0.5),
            tally.latency_ms(0.99),
        ));
    }
    outcome.map(|()| ExitCode::DONE)
}

fn specification(conflation: Conflation) -> anyhow::Result<Specification> {
    let value = match conflation {
        Conflation::Off => "off",
        Conflation::Conflate => "conflate",
    };
    Specification::new(TopicType::Json, [("CONFLATION", value)])
        .context("the loader's own specification")
}

/// How many updates a file has, for the progress bar; none for standard input.
fn count_lines(file: &Path) -> anyhow::Result<Option<u64>> {
    if file == Path::new("-") {
        return Ok(None);
    }
    let updates = Updates::open(file).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Some(updates.count_lines().map_err(|error| Failure::usage(error.to_string()))?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn loaded_topics_are_never_skipped_by_default() {
        let specification = specification(Conflation::Off).unwrap();
        assert_eq!(json!(specification.properties()), json!({"CONFLATION": "off"}));
    }
}
