//! The command line: arguments, subcommands, exit codes.
//!
//! One file per subcommand; `output.rs` is the only one that prints.

mod bench;
mod certificate;
mod cluster;
mod completions;
mod configuration;
mod demo;
mod failure;
mod feed;
mod log;
mod nodes;
mod output;
mod profile;
mod runtime;
mod topics;

use clap::{Parser, Subcommand};

use crate::supervisor::ExitCode;

/// A persistent, log-structured, clustered topic server.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Examples:
  quorate demo                                 the main job on a scratch cluster
  quorate dev --dir data                       three nodes on loopback until Ctrl-C
  quorate topics --profile data/client.toml watch '?.*//'
  quorate cluster --profile data/client.toml status")]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Run one node.
    Run(nodes::run::Arguments),
    /// Run a cluster of child processes on loopback, with generated certificates.
    Dev(nodes::dev::Arguments),
    /// The main job in one command: stream real updates, kill the leader, verify that nothing is lost.
    Demo(demo::Arguments),
    /// Add, set, read, watch, load and remove topics.
    Topics(topics::Arguments),
    /// Look at the cluster.
    Cluster(cluster::Arguments),
    /// Inspect or verify a node's log; changes nothing.
    Log(log::Arguments),
    /// Measure the server: rates, latencies, processor time, memory, bytes written.
    Bench(bench::Arguments),
    /// Make certificates: the authority, nodes, clients.
    Cert(certificate::Arguments),
    /// Print or check a configuration.
    Config(configuration::Arguments),
    /// Print shell completions.
    Completions(completions::Arguments),
}

/// Parses the command line, runs the subcommand and gives the process's exit code.
#[must_use]
pub fn main() -> std::process::ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help asked for goes to standard output, a complaint to standard error.
            let code = if error.use_stderr() { ExitCode::USAGE } else { ExitCode::DONE };
            let printed = error.print().map_or(ExitCode::FAILED, |()| code);
            return printed.0.into();
        }
    };
    let result = match arguments.command {
        Subcommands::Run(arguments) => nodes::run::run(arguments),
        Subcommands::Dev(arguments) => nodes::dev::run(arguments),
        Subcommands::Demo(arguments) => demo::run(arguments),
        Subcommands::Topics(arguments) => topics::run(arguments),
        Subcommands::Cluster(arguments) => cluster::run(arguments),
        Subcommands::Log(arguments) => log::run(arguments),
        Subcommands::Bench(arguments) => bench::run(&arguments),
        Subcommands::Cert(arguments) => certificate::run(arguments),
        Subcommands::Config(arguments) => configuration::run(arguments),
        Subcommands::Completions(arguments) => completions::run(&arguments),
    };
    match result {
        Ok(code) => code.0.into(),
        Err(error) => {
            output::error(&error);
            failure::code_of(&error).0.into()
        }
    }
}
