//! `quorate config`: every setting as it is meant, or whether a file is right.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

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
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Check a node.toml; exit code 2 names what is wrong.
    Check {
        /// The file.
        file: PathBuf,
        /// One JSON object with the warnings.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Subcommands::Print { config, json } => {
            let settings =
                NodeSettings::load(config.as_deref(), &RunFlags::default()).map_err(refused)?;
            if json {
                output::json(&toml::from_str(&settings.to_toml())?);
            } else {
                output::lines(&settings.to_toml());
            }
        }
        Subcommands::Check { file, json } => {
            let settings =
                NodeSettings::load(Some(&file), &RunFlags::default()).map_err(refused)?;
            let warnings: Vec<String> = settings.warnings.iter().map(ToString::to_string).collect();
            if json {
                output::json(&json!({ "good": true, "warnings": warnings }));
                return Ok(ExitCode::DONE);
            }
            for warning in warnings {
                output::line(format!("warning: {warning}"));
            }
            output::line("good");
        }
    }
    Ok(ExitCode::DONE)
}

pub(super) fn refused(error: ConfigError) -> anyhow::Error {
    Failure::usage(format!("{:#}", anyhow::Error::from(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_one_json_object_too() {
        let settings = NodeSettings::load(None, &RunFlags::default()).unwrap();
        let json: serde_json::Value = toml::from_str(&settings.to_toml()).unwrap();
        assert_eq!(json["client"]["listen"], "127.0.0.1:7400");
    }

    #[test]
    fn a_file_that_cannot_be_read_says_why() {
        let refusal = NodeSettings::load(Some("/no/such/node.toml".as_ref()), &RunFlags::default());
        let text = refused(refusal.unwrap_err()).to_string();
        assert!(text.contains("/no/such/node.toml: No such file"), "{text}");
    }
}
