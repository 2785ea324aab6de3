//! `quorate run`: one node in this process.

use std::io::Read as _;
use std::path::PathBuf;

use tokio::sync::oneshot;

use crate::cli::configuration::refused;
use crate::cli::failure::Failure;
use crate::cli::{output, runtime};
use crate::config::settings::LogFormat;
use crate::config::{NodeSettings, RunFlags};
use crate::node::Node;
use crate::supervisor::{ExitCode, Supervisor};
use crate::telemetry::{logging, recorder::Recorder};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --config a single node runs on loopback, with certificates of its own \
making and an administrator's password that is printed once.

Exit codes: 0 stopped, 1 failed, 2 configuration, 70 a flush failed or a part panicked, 73 storage is
damaged, 75 the quorum was lost and on_quorum_loss is shutdown, 78 name in use or wrong cluster."
)]
pub(in crate::cli) struct Arguments {
    /// The node's settings; flags win over them.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The node's name.
    #[arg(long)]
    name: Option<String>,
    /// The node's directory.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where clients are listened for, as 127.0.0.1:7400; port 0 takes any free one.
    #[arg(long, value_name = "A:P")]
    listen: Option<String>,
    /// Where peers are listened for.
    #[arg(long, value_name = "A:P")]
    peer_listen: Option<String>,
    /// Where health and metrics are served.
    #[arg(long, value_name = "A:P")]
    http: Option<String>,
    /// Peer addresses of the cluster's nodes.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    seeds: Option<Vec<String>>,
    /// How many nodes found the cluster.
    #[arg(long, value_name = "N")]
    expect: Option<i64>,
    /// Stop when standard input ends: the parent process is gone.
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

pub(in crate::cli) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let flags = RunFlags {
        name: arguments.name,
        dir: arguments.dir,
        listen: arguments.listen,
        peer_listen: arguments.peer_listen,
        http: arguments.http,
        seeds: arguments.seeds,
        expect: arguments.expect,
    };
    let settings = NodeSettings::load(arguments.config.as_deref(), &flags).map_err(refused)?;
    let json = settings.telemetry.log_format == LogFormat::Json;
    logging::start(json, &settings.telemetry.log_filter)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let recorder = Recorder::install().ok();
    runtime::block_on(serve(settings, recorder, arguments.stop_with_stdin))?
}

async fn serve(
    settings: NodeSettings,
    recorder: Option<Recorder>,
    stop_with_stdin: bool,
) -> anyhow::Result<ExitCode> {
    let mut stop = std::pin::pin!(async move {
        tokio::select! {
            () = runtime::stop_signal() => {}
            () = end_of_stdin(), if stop_with_stdin => {}
        }
    });
    let started = tokio::select! {
        started = Node::start(settings, recorder) => started,
        // Dropping the start gives it up.
        () = &mut stop => return Ok(ExitCode::DONE),
    };
    let node = started.map_err(|error| {
        let code = error.exit_code();
        Failure::with(code, format!("{:#}", anyhow::Error::from(error)))
    })?;
    let doors = node.doors();
    output::line(format!(
        "ready  clients {}  peers {}  http http://{}",
        doors.client, doors.peer, doors.http
    ));
    if let Some(password) = node.generated_password() {
        output::line(format!("admin password (shown once)  {password}"));
    }
    let exit = node.run_until_stopped(stop).await;
    if exit.code != ExitCode::DONE {
        output::note(format!("quorate: {exit}"));
    }
    Ok(exit.code)
}

/// Completes when standard input ends; what is written to it is thrown away.
async fn end_of_stdin() {
    let (ended, end) = oneshot::channel::<()>();
    // A thread of its own: a read cannot be cancelled, and must not hold up the end of the process.
    let started = Supervisor::new("parent").spawn_thread("standard input", move |_| {
        let _ended = ended;
        let mut buffer = [0_u8; 256];
        // An input that cannot be read has ended.
        while std::io::stdin().read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    if started.is_err() {
        return std::future::pending().await;
    }
    // The sender is only ever dropped.
    let _ = end.await;
}
