//! `quorate log`: a look at a node's folder that changes nothing, and the one repair that needs a
//! person to decide.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use quorate_storage::inspect::{
    Finding, Inspection, LostPart, SegmentFacts, SegmentState, inspect, real_disk, verify,
};
use serde_json::{Value, json};

use crate::node::{AcceptedLoss, accept_loss};
use crate::supervisor::ExitCode;

use super::failure::Failure;
use super::{output, runtime};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// What is there: identity, segments, snapshots, what a start would make of it.
    Inspect(Folder),
    /// What is wrong: every record checked; exit code 73 when a start would refuse.
    Verify(Folder),
    /// Go on without what is lost: for a single node whose log has a hole. A node of a cluster needs
    /// no command; it is repaired from the others when it starts.
    Repair(Repair),
}

#[derive(Debug, clap::Args)]
struct Repair {
    /// The node's directory; the node is stopped.
    dir: PathBuf,
    /// Yes: what is damaged may be given up. A new lineage begins, the damaged files are kept in
    /// `quarantine` folders.
    #[arg(long, required = true)]
    accept_loss: bool,
    /// Only say what would be lost.
    #[arg(long)]
    dry_run: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Folder {
    /// The node's directory.
    dir: PathBuf,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Subcommands::Inspect(folder) => {
            let inspection = inspect(&real_disk(), &folder.dir)
                .map_err(|error| Failure::usage(error.to_string()))?;
            if folder.json {
                output::json(&inspection_json(&inspection));
            } else {
                output::lines(&inspection_text(&inspection));
            }
            Ok(if inspection.would_refuse() { ExitCode::DAMAGED } else { ExitCode::DONE })
        }
        Subcommands::Verify(folder) => {
            let verification = verify(&real_disk(), &folder.dir)
                .map_err(|error| Failure::usage(error.to_string()))?;
            if folder.json {
                let findings: Vec<Value> = verification.findings.iter().map(finding_json).collect();
                let refuses = verification.would_refuse;
                output::json(&json!({ "findings": findings, "would_refuse": refuses }));
            } else {
                for finding in &verification.findings {
                    output::line(finding.to_string());
                }
                output::line(match verification.findings.len() {
                    0 => "nothing is wrong".to_owned(),
                    count => format!("{count} findings"),
                });
            }
            if verification.would_refuse && !folder.json {
                output::line(advice(&folder.dir));
            }
            Ok(if verification.would_refuse { ExitCode::DAMAGED } else { ExitCode::DONE })
        }
        Subcommands::Repair(arguments) => repair(&arguments),
    }
}

/// What to do about a log that refuses to open.
fn advice(dir: &Path) -> String {
    format!(
        "a node of a cluster is repaired from the others when it starts; for a single node \
         `quorate log repair --accept-loss {}` goes on without what is lost (--dry-run says what)",
        dir.display()
    )
}

fn repair(arguments: &Repair) -> anyhow::Result<ExitCode> {
    let Repair { dir, accept_loss: _, dry_run, json } = arguments;
    if !dir.is_dir() {
        return Err(Failure::usage(format!("{} is not a directory", dir.display())));
    }
    let accepted = runtime::block_on(accept_loss(dir, *dry_run))?;
    let accepted =
        accepted.map_err(|error| Failure::with(error.exit_code(), whole_text(&error)))?;
    match (&accepted, *json) {
        (_, true) => output::json(&loss_json(accepted.as_ref(), *dry_run)),
        (None, false) => output::line("nothing is damaged; nothing was changed"),
        (Some(accepted), false) => output::lines(&loss_text(accepted, *dry_run)),
    }
    Ok(ExitCode::DONE)
}

/// An error and its causes in one line.
fn whole_text(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn loss_text(accepted: &AcceptedLoss, dry_run: bool) -> String {
    let AcceptedLoss { lineage, snapshot, loss } = accepted;
    let mut text = String::new();
    for part in &loss.parts {
        text.push_str(&format!("{}\n", part.hole));
        let LostPart { lost, unreadable, .. } = part;
        match lost.end.saturating_sub(lost.start) {
            0 => text.push_str("  no entry is lost to the state: a snapshot holds them\n"),
            count => text.push_str(&format!(
                "  lost: entries {} to {} ({count}), whatever was acknowledged there\n",
                lost.start,
                lost.end - 1
            )),
        }
        if !unreadable.is_empty() {
            text.push_str(&format!(
                "  history of entries {} to {} can no longer be read\n",
                unreadable.start,
                unreadable.end - 1
            ));
        }
    }
    if loss.parts.is_empty() {
        text.push_str("no entry is lost: only marks were damaged\n");
    }
    if loss.kept.is_empty() {
        text.push_str(&format!("kept: no entries; the next is {}\n", loss.kept.start));
    } else {
        let last = loss.kept.end - 1;
        text.push_str(&format!("kept: entries {} to {last}\n", loss.kept.start));
    }
    if let Some(index) = snapshot {
        text.push_str(&format!("the state begins from the snapshot at entry {index}\n"));
    }
    for path in &loss.quarantined {
        text.push_str(&format!("kept aside: {}\n", path.display()));
    }
    text.push_str(&if dry_run {
        "nothing was changed (--dry-run); without it a new lineage begins\n".to_owned()
    } else {
        format!("lineage {lineage} begins; positions of the old one are answered with a reset\n")
    });
    text
}

fn loss_json(accepted: Option<&AcceptedLoss>, dry_run: bool) -> Value {
    let range = |range: &std::ops::Range<u64>| json!({ "from": range.start, "end": range.end });
    let Some(AcceptedLoss { lineage, snapshot, loss }) = accepted else {
        return json!({ "damaged": false, "dry_run": dry_run });
    };
    let parts: Vec<Value> = loss
        .parts
        .iter()
        .map(|part| {
            json!({
                "segment": part.hole.segment,
                "path": part.hole.path.display().to_string(),
                "offset": part.hole.offset,
                "index": part.hole.index,
                "damage": part.hole.damage.to_string(),
                "lost": range(&part.lost),
                "unreadable": range(&part.unreadable),
            })
        })
        .collect();
    let aside: Vec<String> =
        loss.quarantined.iter().map(|path| path.display().to_string()).collect();
    json!({
        "damaged": true,
        "dry_run": dry_run,
        "lineage": (!dry_run).then(|| lineage.to_string()),
        "snapshot": snapshot,
        "parts": parts,
        "kept": range(&loss.kept),
        "quarantined": aside,
    })
}

fn inspection_json(inspection: &Inspection) -> Value {
    let identity = match &inspection.identity {
        Ok(Some(identity)) => json!({
            "cluster_id": hex(identity.cluster_id),
            "lineage": hex(identity.lineage),
            "node_id": hex(identity.node_id),
            "incarnation": identity.incarnation,
        }),
        Ok(None) => Value::Null,
        Err(error) => json!({ "error": error.to_string() }),
    };
    let log = inspection.log.as_ref().map(|log| match log {
        Ok(log) => json!({
            "first_index": log.first_index,
            "next_index": log.next_index,
            "last_term": log.last_term,
            "chain": log.chain.map(hex),
            "tail": format!("{:?}", log.report.tail),
            "hard_state_proven": log.report.hard_state_proven,
        }),
        Err(error) => json!({ "error": error.to_string() }),
    });
    let segments: Vec<Value> = inspection.segments.iter().map(segment_json).collect();
    let snapshots: Vec<Value> = inspection
        .snapshots
        .iter()
        .map(|snapshot| {
            let path = snapshot.path.display().to_string();
            json!({"path": path, "index": snapshot.id.index, "bytes": snapshot.bytes,
                   "error": snapshot.content.as_ref().err().map(ToString::to_string)})
        })
        .collect();
    json!({
        "identity": identity, "log": log, "segments": segments, "snapshots": snapshots,
        "totals": {
            "log_bytes": inspection.totals.log_bytes, "records": inspection.totals.records,
            "entries": inspection.totals.entries,
            "snapshot_bytes": inspection.totals.snapshot_bytes,
            "index_bytes": inspection.totals.index_bytes,
        },
    })
}

fn segment_json(segment: &SegmentFacts) -> Value {
    json!({
        "segment": segment.id,
        "state": state_word(&segment.state),
        "first_index": segment.header.map(|header| header.first_index),
        "next_index": segment.next_index,
        "file_bytes": segment.file_bytes,
        "written_bytes": segment.written_bytes,
        "records": segment.records,
        "entries": segment.entries,
    })
}

fn inspection_text(inspection: &Inspection) -> String {
    let mut text = match &inspection.identity {
        Ok(Some(identity)) => format!(
            "node {}  cluster {}  lineage {}  incarnation {}\n",
            hex(identity.node_id),
            hex(identity.cluster_id),
            hex(identity.lineage),
            identity.incarnation
        ),
        Ok(None) => "no identity\n".to_owned(),
        Err(error) => format!("identity: {error}\n"),
    };
    match &inspection.log {
        None => text.push_str("no log\n"),
        Some(Err(error)) => {
            text.push_str(&format!("a start would refuse: {error}\n"));
            text.push_str(&format!("{}\n", advice(&inspection.dir)));
        }
        Some(Ok(log)) => text.push_str(&format!(
            "entries {} to {}  last term {}  chain {}  tail {:?}\n",
            log.first_index,
            log.next_index.saturating_sub(1),
            log.last_term.map_or_else(|| "-".to_owned(), |term| term.to_string()),
            log.chain.map_or_else(|| "-".to_owned(), hex),
            log.report.tail
        )),
    }
    let heads = ["segment", "state", "from", "to", "entries", "records", "bytes"];
    let rows: Vec<Vec<String>> = inspection
        .segments
        .iter()
        .map(|segment| {
            vec![
                segment.id.to_string(),
                state_word(&segment.state).to_owned(),
                segment
                    .header
                    .map_or_else(|| "-".to_owned(), |header| header.first_index.to_string()),
                segment.next_index.saturating_sub(1).to_string(),
                segment.entries.to_string(),
                segment.records.to_string(),
                segment.written_bytes.to_string(),
            ]
        })
        .collect();
    text.push_str(&output::table(&heads, &rows));
    for snapshot in &inspection.snapshots {
        let state = match &snapshot.content {
            Ok(_) => "readable".to_owned(),
            Err(error) => error.to_string(),
        };
        text.push_str(&format!(
            "snapshot at {}  {} bytes  {state}\n",
            snapshot.id.index, snapshot.bytes
        ));
    }
    text
}

fn state_word(state: &SegmentState) -> &'static str {
    match state {
        SegmentState::Sealed => "sealed",
        SegmentState::Active => "active",
        SegmentState::Damaged(_) => "damaged",
    }
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "severity": format!("{:?}", finding.severity).to_lowercase(),
        "path": finding.path.display().to_string(),
        "segment": finding.segment,
        "offset": finding.offset,
        "index": finding.index,
        "what": finding.what,
    })
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}
