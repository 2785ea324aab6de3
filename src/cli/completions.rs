//! `quorate completions SHELL`.

use clap::CommandFactory as _;

use super::{ExitCode, output};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Which shell.
    shell: clap_complete::Shell,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    let mut command = super::Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "quorate", &mut script);
    output::bytes(&script);
    Ok(ExitCode::DONE)
}
