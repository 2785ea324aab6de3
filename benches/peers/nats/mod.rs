//! NATS: its server as child processes, as much of its protocol as the scenarios need, the loads.

pub(crate) mod connection;
mod fanout;
pub(crate) mod protocol;
mod publish;
pub(crate) mod server;

use std::path::Path;
use std::time::Duration;

use crate::figures::Figures;
use crate::scenario::Load;

use self::server::Program;

/// How long a load runs before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// Starts servers in `dir`, measures for `time`, ends them, and removes `dir`.
///
/// # Errors
/// When a server does not start or ends, or refuses something.
pub(crate) async fn run(
    program: &Program,
    dir: &Path,
    load: &Load,
    time: Duration,
) -> anyhow::Result<Figures> {
    match *load {
        Load::Publish { window, value_bytes } => {
            publish::run(program, dir, window, value_bytes as usize, time).await
        }
        Load::Fanout { subscribers, rate } => {
            fanout::run(program, dir, subscribers, rate, time).await
        }
    }
}
