//! What processes cost: processor time, memory, bytes written, as `/proc` tells them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Parts of a second that `/proc/PID/stat` counts processor time in: `USER_HZ`, which is 100 on
/// every architecture that this program is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// What one process, or several together, have used since they started.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Usage {
    /// Seconds of processor time, user and system.
    pub(super) cpu_s: f64,
    /// Resident memory of each process.
    pub(super) rss_bytes: Vec<u64>,
    /// Bytes that were written to their disk: see [`DiskMeter`].
    pub(super) written_bytes: u64,
}

/// How written bytes are counted.
///
/// The kernel charges a process with a whole page-cache folio whenever it makes one dirty, and
/// folios behind a large write have up to 2 MiB: for small appends that count was 100 times what
/// reached the disk. So the device itself is asked, where the system shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DiskMeter {
    /// The block device's counter of sectors, in this file; whatever else writes to it counts too.
    Device(PathBuf),
    /// The processes' own counters.
    Processes,
}

impl DiskMeter {
    /// The meter of the disk that a directory is on.
    pub(super) fn of(dir: &Path) -> Self {
        let number = rustix::fs::stat(dir).map(|stat| stat.st_dev);
        let file = number.map(|number| {
            let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
            PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"))
        });
        match file {
            Ok(file) if file.exists() => Self::Device(file),
            _ => Self::Processes,
        }
    }

    /// Its name in the settings of a figure.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Device(_) => "device",
            Self::Processes => "processes",
        }
    }
}

/// The processes of the servers under test.
#[derive(Debug, Clone)]
pub(super) struct Servers {
    pids: Vec<u32>,
    disk: DiskMeter,
}

impl Servers {
    /// Servers that run as these processes and write to this disk.
    pub(super) fn new(pids: Vec<u32>, disk: DiskMeter) -> Self {
        Self { pids, disk }
    }

    /// What all of them have used.
    ///
    /// # Errors
    /// When one of them has ended, or `/proc` is not there.
    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        let mut sum = Usage::default();
        for pid in &self.pids {
            let dir = Path::new("/proc").join(pid.to_string());
            sum.cpu_s += cpu_of(&dir)?;
            sum.rss_bytes.push(field(&dir.join("status"), rss_bytes)?);
            if self.disk == DiskMeter::Processes {
                sum.written_bytes += field(&dir.join("io"), written_bytes)?;
            }
        }
        if let DiskMeter::Device(file) = &self.disk {
            sum.written_bytes = field(file, device_bytes)?;
        }
        Ok(sum)
    }
}

/// Seconds of processor time that this process has used.
///
/// # Errors
/// When `/proc` is not there.
pub(super) fn own_cpu_s() -> anyhow::Result<f64> {
    cpu_of(Path::new("/proc/self"))
}

fn cpu_of(dir: &Path) -> anyhow::Result<f64> {
    field(&dir.join("stat"), cpu_s)
}

fn field<T>(file: &Path, parse: impl FnOnce(&str) -> Option<T>) -> anyhow::Result<T> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    parse(&text).with_context(|| format!("{} is not in the form known", file.display()))
}

/// User and system time of a `stat` file. The name of the program is in parentheses and may hold
/// any character, so that fields are counted from the last closing one.
fn cpu_s(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

/// Resident memory of a `status` file.
fn rss_bytes(status: &str) -> Option<u64> {
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = kib.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Bytes sent to the disk of an `io` file.
fn written_bytes(io: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix("write_bytes:"))?.trim().parse().ok()
}

/// Bytes written to a block device since its start, of its `stat` file: the seventh field, in
/// sectors of 512 bytes whatever the device's own are.
fn device_bytes(stat: &str) -> Option<u64> {
    let sectors: u64 = stat.split_ascii_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * 512)
}

/// What a number of operations cost.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Cost {
    /// Seconds of the servers' processor time for a million operations.
    pub(super) server_cpu_s_per_million: Option<f64>,
    /// Seconds of this process's processor time for a million operations.
    pub(super) client_cpu_s_per_million: Option<f64>,
    /// The servers' resident memory at the end.
    pub(super) server_rss_bytes: Option<Vec<u64>>,
    /// Bytes written to the servers' disk for an operation, by all of them.
    pub(super) disk_bytes_per_op: Option<f64>,
}

/// A reading of all meters at one moment.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    servers: Option<Usage>,
    own_cpu_s: f64,
}

impl Reading {
    /// Reads the meters; no servers: their processes are not known.
    ///
    /// # Errors
    /// When a server has ended, or `/proc` is not there.
    pub(super) fn take(servers: Option<&Servers>) -> anyhow::Result<Self> {
        let servers = servers.map(Servers::usage).transpose()?;
        Ok(Self { servers, own_cpu_s: own_cpu_s()? })
    }

    /// The servers' part, if their processes are known.
    pub(super) fn servers(&self) -> Option<&Usage> {
        self.servers.as_ref()
    }

    /// Seconds of the servers' processor time since `before`.
    pub(super) fn server_cpu_s_since(&self, before: &Self) -> Option<f64> {
        Some(self.servers.as_ref()?.cpu_s - before.servers.as_ref()?.cpu_s)
    }

    /// Seconds of this process's processor time since `before`.
    pub(super) fn own_cpu_s_since(&self, before: &Self) -> f64 {
        self.own_cpu_s - before.own_cpu_s
    }

    /// What the servers' resident memory has grown by since `before`, all of them together.
    pub(super) fn server_rss_growth(&self, before: &Self) -> Option<f64> {
        let sum = |usage: &Usage| usage.rss_bytes.iter().sum::<u64>() as f64;
        Some(sum(self.servers.as_ref()?) - sum(before.servers.as_ref()?))
    }

    /// What `operations` between `before` and now cost; figures for each of no operations are none.
    pub(super) fn cost_since(&self, before: &Self, operations: u64) -> Cost {
        let per_op = |amount: f64| (operations > 0).then(|| amount / operations as f64);
        let per_million = |seconds: f64| per_op(seconds * 1e6);
        let written = match (&self.servers, &before.servers) {
            (Some(now), Some(then)) => Some(now.written_bytes.saturating_sub(then.written_bytes)),
            _ => None,
        };
        Cost {
            server_cpu_s_per_million: self.server_cpu_s_since(before).and_then(per_million),
            client_cpu_s_per_million: per_million(self.own_cpu_s_since(before)),
            server_rss_bytes: self.servers.as_ref().map(|usage| usage.rss_bytes.clone()),
            disk_bytes_per_op: written.and_then(|bytes| per_op(bytes as f64)),
        }
    }
}

/// The machine, as far as figures depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine {
    /// Cores that this process may use.
    pub(super) cores: usize,
    /// The kernel's version.
    pub(super) kernel: String,
    /// The processor's name.
    pub(super) processor: String,
}

impl Machine {
    /// This one; what cannot be found out is `unknown`.
    pub(super) fn here() -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let unknown = || "unknown".to_owned();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel(&read("/proc/version")).unwrap_or_else(unknown),
            processor: processor(&read("/proc/cpuinfo")).unwrap_or_else(unknown),
        }
    }
}

fn kernel(version: &str) -> Option<String> {
    version.split_ascii_whitespace().nth(2).map(str::to_owned)
}

fn processor(cpuinfo: &str) -> Option<String> {
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(name.trim_start().strip_prefix(':')?.trim().to_owned())
}

/// The type of the file system that a directory is on.
pub(super) fn file_system(dir: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    file_system_among(&mounts, dir).unwrap_or("unknown").to_owned()
}

/// The one mounted at the longest beginning of the path; of those mounted over each other the last.
fn file_system_among<'a>(mounts: &'a str, dir: &Path) -> Option<&'a str> {
    let mounted = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        dir.starts_with(place).then_some((place.len(), kind))
    });
    mounted.max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "4242 (quo) ra (te) S 1 4242 4242 0 -1 4194560 2571 0 3 0 1234 66 0 0 20 0 9 0 \
                    118 2412544000 5123 18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 1";
        assert_eq!(cpu_s(stat), Some(13.0));
        assert_eq!(cpu_s("4242 (quorate) S 1 2"), None);
        assert_eq!(cpu_s(""), None);
    }

    #[test]
    fn memory_and_bytes_written_are_found() {
        let status = "Name:\tquorate\nVmPeak:\t  900 kB\nVmRSS:\t   20480 kB\nThreads:\t9\n";
        assert_eq!(rss_bytes(status), Some(20_480 * 1024));
        assert_eq!(rss_bytes("Name:\tquorate\n"), None);
        let io = "rchar: 12\nwchar: 999\nread_bytes: 0\nwrite_bytes: 4096\n\
                  cancelled_write_bytes: 7\n";
        assert_eq!(written_bytes(io), Some(4096));
        assert_eq!(written_bytes(""), None);
        let device = " 4260964  93106 149080946 8354687 3137985 551930 10 2885024 0 657744\n";
        assert_eq!(device_bytes(device), Some(5_120));
        assert_eq!(device_bytes("1 2 3"), None);
    }

    #[test]
    fn this_process_has_a_usage() {
        let servers = Servers::new(vec![std::process::id()], DiskMeter::Processes);
        let usage = servers.usage().unwrap();
        assert!(usage.rss_bytes[0] > 1024 * 1024);
        assert!(Servers::new(vec![u32::MAX], DiskMeter::Processes).usage().is_err());
    }

    #[test]
    fn costs_are_counted_for_each_operation() {
        let usage = |cpu_s, rss, written_bytes| {
            Some(Usage { cpu_s, rss_bytes: vec![rss, 10], written_bytes })
        };
        let before = Reading { servers: usage(1.0, 100, 1_000), own_cpu_s: 0.5 };
        let after = Reading { servers: usage(3.0, 300, 5_000), own_cpu_s: 1.0 };
        let cost = after.cost_since(&before, 1_000);
        assert_eq!(cost.server_cpu_s_per_million, Some(2_000.0));
        assert_eq!(cost.client_cpu_s_per_million, Some(500.0));
        assert_eq!(cost.server_rss_bytes, Some(vec![300, 10]));
        assert_eq!(cost.disk_bytes_per_op, Some(4.0));
        assert_eq!(after.server_rss_growth(&before), Some(200.0));
        let nothing = after.cost_since(&before, 0);
        assert_eq!((nothing.client_cpu_s_per_million, nothing.disk_bytes_per_op), (None, None));
        let elsewhere = Reading { servers: None, own_cpu_s: 1.0 };
        let cost = elsewhere.cost_since(&Reading { servers: None, own_cpu_s: 0.0 }, 1);
        assert_eq!(cost.server_rss_bytes, None);
        assert_eq!(cost.client_cpu_s_per_million, Some(1e6));
    }

    #[test]
    fn the_machine_is_described() {
        let version = "Linux version 6.18.5 (builder@host) #1 SMP";
        assert_eq!(kernel(version).as_deref(), Some("6.18.5"));
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD EPYC\nprocessor\t: 1\n";
        assert_eq!(processor(cpuinfo).as_deref(), Some("AMD EPYC"));
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/disk xfs rw 0 0\n";
        let at = |dir: &str| file_system_among(mounts, Path::new(dir));
        assert_eq!(at("/var/tmp"), Some("ext4"));
        assert_eq!(at("/tmp/x"), Some("tmpfs"));
        assert_eq!(at("/tmp/disk/x"), Some("xfs"));
        assert_eq!(at("/tmpx"), Some("ext4"));
    }
}
