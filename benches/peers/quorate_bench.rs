//! Our own server, measured by the product's own `quorate bench`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Map, Value};
use tokio::process::Command;

use crate::figures::Figures;
use crate::scenario::{Load, TOPICS};

/// Characters of a failed run's messages that are shown.
const MESSAGE_CHARS_MAX: usize = 2_000;

/// The program under test.
#[derive(Debug)]
pub(crate) struct Quorate {
    program: PathBuf,
    scratch: PathBuf,
}

impl Quorate {
    /// This program, with its clusters below `scratch`.
    pub(crate) fn new(program: &Path, scratch: &Path) -> Self {
        Self { program: program.to_owned(), scratch: scratch.to_owned() }
    }

    /// Runs one scenario; the figures, and what they were made with.
    ///
    /// # Errors
    /// When the program fails or prints no figures.
    pub(crate) async fn run(
        &self,
        load: &Load,
        time: Duration,
    ) -> anyhow::Result<(Figures, Map<String, Value>)> {
        // Its nodes end when it does: they watch its end of a pipe.
        let output = Command::new(&self.program)
            .arg("bench")
            .args(arguments(load))
            .args(["--json", "--seconds", &time.as_secs().to_string(), "--dir"])
            .arg(&self.scratch)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let messages = String::from_utf8_lossy(&output.stderr);
        let last = messages.chars().count().saturating_sub(MESSAGE_CHARS_MAX);
        let messages: String = messages.chars().skip(last).collect();
        ensure!(output.status.success(), "{}: {messages}", output.status);
        figures_of(&String::from_utf8_lossy(&output.stdout)).context(messages)
    }
}

fn arguments(load: &Load) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut set =
        |name: &str, value: u32| arguments.extend([format!("--{name}"), value.to_string()]);
    match *load {
        Load::Publish { window, value_bytes } => {
            set("window", window);
            set("value-bytes", value_bytes);
            set("topics", TOPICS);
            set("nodes", 3);
            arguments.insert(0, "publish".to_owned());
        }
        Load::Fanout { subscribers, rate } => {
            set("subscribers", subscribers);
            set("nodes", 1);
            if let Some(rate) = rate {
                set("rate", rate);
            }
            arguments.insert(0, "fanout".to_owned());
        }
    }
    arguments
}

/// The figures and settings in the last line of the program's output.
///
/// # Errors
/// When it is not the line that `quorate bench --json` promises.
pub(crate) fn figures_of(output: &str) -> anyhow::Result<(Figures, Map<String, Value>)> {
    let line = output.lines().last().context("there is no output")?;
    let line: Value = serde_json::from_str(line).context("the last line is not JSON")?;
    let number = |pointer: &str| {
        let found = line.pointer(pointer).and_then(Value::as_f64);
        found.with_context(|| format!("there is no {pointer} in {line}"))
    };
    let figures = Figures {
        rate_per_s: number("/rate_per_s")?,
        p50_ms: number("/latency_ms/p50")?,
        p99_ms: number("/latency_ms/p99")?,
        server_cpu_s_per_million: number("/server_cpu_s_per_million")?,
        client_cpu_s_per_million: number("/client_cpu_s_per_million")?,
    };
    let settings = line.get("settings").and_then(Value::as_object).cloned();
    Ok((figures, settings.context("there are no settings")?))
}
