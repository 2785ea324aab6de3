//! Processor time as `/proc` tells it, and how many files this process may open.

use std::fs;

use anyhow::Context as _;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Parts of a second that `/proc/PID/stat` counts in.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time, of servers and of this process, since they started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) servers_s: f64,
    pub(crate) own_s: f64,
}

impl Reading {
    /// Now, of the servers with these process ids.
    ///
    /// # Errors
    /// When one of them has ended.
    pub(crate) fn take(servers: &[u32]) -> anyhow::Result<Self> {
        let mut servers_s = 0.0;
        for pid in servers {
            servers_s += cpu_s_of(&pid.to_string())?;
        }
        Ok(Self { servers_s, own_s: cpu_s_of("self")? })
    }
}

fn cpu_s_of(process: &str) -> anyhow::Result<f64> {
    let file = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    cpu_s(&stat).with_context(|| format!("{file} is not in the form known"))
}

/// User and system time of a `stat` file. The program's name is in parentheses and may hold any
/// character, so that fields are counted from the last closing one.
pub(crate) fn cpu_s(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

/// A thousand subscribers are a thousand sockets, more than the usual soft limit lets a process
/// have.
///
/// # Errors
/// When the system refuses what it said to allow.
pub(crate) fn allow_many_files() -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")
}
