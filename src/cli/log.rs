//! `quorate log`: a look at a node's folder that changes nothing.

use std::path::PathBuf;

use clap::Subcommand;
use quorate_storage::inspect::{
    Finding, Inspection, SegmentFacts, SegmentState, inspect, real_disk, verify,
};
use serde_json::{Value, json};

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
    /// What is there: identity, segments, snapshots, what a start would make of it.
    Inspect(Folder),
    /// What is wrong: every record checked; exit code 73 when a start would refuse.
    Verify(Folder),
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
            Ok(if verification.would_refuse { ExitCode::DAMAGED } else { ExitCode::DONE })
        }
    }
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
        Some(Err(error)) => text.push_str(&format!("a start would refuse: {error}\n")),
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
