//! `quorate topics`: add, set, get, list, remove, watch, load.

mod load;
mod manage;
mod watch;

use clap::Subcommand;

use crate::supervisor::ExitCode;

use super::profile::ProfileArguments;
use super::runtime;

#[derive(Debug, clap::Args)]
#[command(after_help = "Selectors:
  a/b          the topic a/b               ?a/.*/c    a, any one part, c
  ?a//         a and everything below it   *a.*c      a regular expression over the whole path
  ?.*//        everything                  #>a////?b// several at once")]
pub(super) struct Arguments {
    #[command(flatten)]
    profile: ProfileArguments,
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Add a topic; one that is there already with the same specification is fine.
    Add(manage::Add),
    /// Set a topic's value.
    Set(manage::Set),
    /// Print a topic's value: as it was written, binary as base64.
    Get(manage::Get),
    /// List the topics that a selector matches.
    List(manage::List),
    /// Remove the topics that a selector matches.
    Remove(manage::Remove),
    /// Print every event of the topics that a selector matches, as it happens.
    Watch(watch::Watch),
    /// Stream updates from an NDJSON file, plain or gzip, and wait for every acknowledgement.
    Load(load::Load),
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { profile, command } = arguments;
    runtime::block_on(async {
        match command {
            Subcommands::Add(add) => manage::add(&profile, add).await,
            Subcommands::Set(set) => manage::set(&profile, set).await,
            Subcommands::Get(get) => manage::get(&profile, get).await,
            Subcommands::List(list) => manage::list(&profile, list).await,
            Subcommands::Remove(remove) => manage::remove(&profile, remove).await,
            Subcommands::Watch(watch) => watch::run(&profile, watch).await,
            Subcommands::Load(load) => load::run(&profile, load).await,
        }
    })?
}
