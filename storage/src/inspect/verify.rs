//! What is wrong in a node's folder, and where.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::segments::{SegmentDamage, SegmentState};
use super::{InspectError, Inspection, Totals, Tour};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::layout;
use crate::recovery::{Cut, Hole, Tail};
use crate::snapshot::SnapshotReader;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; nothing is lost and a start takes care of it.
    Note,
    /// What was perhaps acknowledged cannot be proven: a start goes on, with care.
    Doubt,
    /// What was once durable is damaged.
    Damage,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file.
    pub path: PathBuf,
    /// The segment's id, in a segment.
    pub segment: Option<u64>,
    /// Offset in the file, bytes.
    pub offset: Option<u64>,
    /// The first entry concerned.
    pub index: Option<u64>,
    /// What it is, for people.
    pub what: String,
}

/// What a verification found.
#[derive(Debug)]
pub struct Verification {
    /// Findings, in the order of files.
    pub findings: Vec<Finding>,
    /// What was read.
    pub checked: Totals,
    /// Whether a start would refuse.
    pub would_refuse: bool,
}

impl Verification {
    /// Whether there is nothing but notes.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Note)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.path.display())?;
        let places = [("segment", self.segment), ("offset", self.offset), ("index", self.index)];
        for (name, number) in places {
            if let Some(number) = number {
                write!(formatter, ", {name} {number}")?;
            }
        }
        write!(formatter, ": {}", self.what)
    }
}

/// Reads everything in a node's folder and says what is wrong. Changes nothing.
///
/// # Errors
/// [`InspectError`] when there is nothing to look at, or the disk refuses.
pub fn verify(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Verification, InspectError> {
    let Tour { inspection, overlay } = Tour::make(disk, dir)?;
    let mut findings = Findings(Vec::new());
    findings.of_opening(&inspection);
    findings.of_segments(&inspection);
    findings.of_snapshots(&inspection, &**disk);
    for path in &inspection.leftovers {
        findings.add(Severity::Note, path, "no part of the state: unfinished, or set aside");
    }
    let log_dir = layout::log_dir(dir);
    let copies = [(dir, "identity.a"), (dir, "identity.b")]
        .into_iter()
        .chain(["standing.a", "standing.b", "hard-state"].map(|name| (log_dir.as_path(), name)));
    for path in copies.map(|(dir, name)| dir.join(name)) {
        if overlay.has_changed(&path) {
            let what = "a copy is missing, older or damaged; a start mends it from the other";
            findings.add(Severity::Note, &path, what);
        }
    }
    let mut findings = findings.0;
    findings.sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
    findings.dedup();
    let (checked, would_refuse) = (inspection.totals, inspection.would_refuse());
    Ok(Verification { findings, checked, would_refuse })
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, path: &Path, what: impl fmt::Display) -> &mut Finding {
        let (path, what) = (path.to_owned(), what.to_string());
        let finding = Finding { severity, path, segment: None, offset: None, index: None, what };
        self.0.push(finding);
        self.0.last_mut().expect("it was just pushed")
    }

    /// What a start would say.
    fn of_opening(&mut self, inspection: &Inspection) {
        if let Err(error) = &inspection.identity {
            self.of_error(error);
        } else if matches!(inspection.identity, Ok(None)) {
            self.add(Severity::Doubt, &inspection.dir, "there is no identity");
        }
        let log_dir = layout::log_dir(&inspection.dir);
        match &inspection.log {
            None => {
                self.add(Severity::Note, &log_dir, "there is no log");
            }
            Some(Err(error)) => self.of_error(error),
            Some(Ok(log)) => {
                if let Tail::Cut(Cut { from_index, segment, offset }) = log.report.tail {
                    let what = "an unproven end of the log is damaged; a start cuts it there";
                    let finding = self.add(Severity::Doubt, &log_dir, what);
                    finding.segment = Some(segment);
                    finding.offset = Some(offset);
                    finding.index = Some(from_index);
                }
                if !log.report.hard_state_proven {
                    let what = "the newest hard state cannot be proven to be the newest";
                    self.add(Severity::Doubt, &log_dir, what);
                }
            }
        }
    }

    fn of_error(&mut self, error: &OpenError) {
        match error {
            OpenError::Hole(Hole { segment, path, offset, index, damage }) => {
                let finding = self.add(Severity::Damage, path, damage);
                finding.segment = Some(*segment);
                finding.offset = Some(*offset);
                finding.index = Some(*index);
            }
            OpenError::TwinsDamaged { path }
            | OpenError::OtherCluster { path, .. }
            | OpenError::UnknownFormat { path, .. } => {
                self.add(Severity::Damage, path, error);
            }
            OpenError::Disk(fault) => {
                self.add(Severity::Damage, &fault.path, error);
            }
        }
    }

    /// What each segment says by itself, unless opening has said it.
    fn of_segments(&mut self, inspection: &Inspection) {
        for segment in &inspection.segments {
            let SegmentState::Damaged(damage) = &segment.state else { continue };
            let SegmentDamage { offset, index, damage, was_durable } = *damage;
            let said = self.0.iter().any(|finding| {
                finding.segment == Some(segment.id) && finding.offset == Some(offset)
            });
            if said {
                continue;
            }
            let severity = if was_durable { Severity::Damage } else { Severity::Doubt };
            let finding = self.add(severity, &segment.path, damage);
            finding.segment = Some(segment.id);
            finding.offset = Some(offset);
            finding.index = Some(index);
        }
    }

    fn of_snapshots(&mut self, inspection: &Inspection, disk: &dyn Disk) {
        for snapshot in &inspection.snapshots {
            let checked =
                SnapshotReader::open(disk, &snapshot.path).and_then(|reader| reader.verify());
            if let Err(error) = checked {
                let finding = self.add(Severity::Damage, &snapshot.path, &error.fault);
                finding.index = Some(snapshot.id.index);
            }
        }
    }
}
