//! `quorate config`: every setting as it is meant, or whether a file is right.

use std::path::PathBuf;

use clap::Subcommand;

use crate::config::{ConfigError, NodeSettings, RunFlags};
use crate::supervisor::ExitCode;

use super::failure::Failure;
use super::output;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Print every setting with its meaning and its default, as a node.toml.
    Print {
        /// The settings of this file instead of the defaults.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Check a node.toml; exit code 2 names what is wrong.
    Check {
        /// The file.
        file: PathBuf,
    },
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Subcommands::Print { config } => {
            let settings =
                NodeSettings::load(config.as_deref(), &RunFlags::default()).map_err(refused)?;
            output::lines(&settings.to_toml());
        }
        Subcommands::Check { file } => {
            let settings =
                NodeSettings::load(Some(&file), &RunFlags::default()).map_err(refused)?;
            for warning in &settings.warnings {
                output::line(format!("warning: {warning}"));
            }
            output::line("good");
        }
    }
    Ok(ExitCode::DONE)
}

pub(super) fn refused(error: ConfigError) -> anyhow::Error {
    Failure::usage(error.to_string())
}
