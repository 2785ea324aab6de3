//! Walks over every segment file by itself, whatever the others say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{InspectError, names_in};
use crate::disk::{Disk, Folder, NamedFile, OpenMode};
use crate::format::read_u64;
use crate::record::{Damage, RecordKind, is_durable_mark};
use crate::segment::{
    FOOTER_BYTES, Footer, HEADER_BYTES, Located, ScanFault, Scanner, SegmentHeader, id_of,
};

/// One segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFacts {
    /// Its id.
    pub id: u64,
    /// Its file.
    pub path: PathBuf,
    /// Its header; `None` when that is damaged.
    pub header: Option<SegmentHeader>,
    /// What state it is in.
    pub state: SegmentState,
    /// The log's next index after its last readable record.
    pub next_index: u64,
    /// Length of the file, reserved space included.
    pub file_bytes: u64,
    /// Bytes up to the end of its last readable record.
    pub written_bytes: u64,
    /// Readable records, the footer not counted.
    pub records: u64,
    /// Entries among them, truncated ones included.
    pub entries: u64,
    /// Marks among them.
    pub marks: Marks,
}

/// The marks in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// Hard states.
    pub hard_states: u64,
    /// Durable marks.
    pub durable: u64,
    /// Truncate marks.
    pub truncates: u64,
    /// Where the last durable mark ends: everything before it was once flushed.
    pub proven_bytes: u64,
}

/// What state a segment is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SegmentState {
    /// Whole, with its footer.
    Sealed,
    /// Whole as far as it goes, without a footer.
    Active,
    /// Something in it cannot be read.
    Damaged(SegmentDamage),
}

/// Damage in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentDamage {
    /// Offset of the first unreadable record, bytes.
    pub offset: u64,
    /// The first entry that cannot be read.
    pub index: u64,
    /// What is wrong.
    pub damage: Damage,
    /// Whether a durable mark stands behind it, so that what is damaged was once flushed. If not,
    /// it is an unproven tail.
    pub was_durable: bool,
}

/// Walks over all segments of a log's folder; the second part are files that are no segments.
pub(super) fn walk_all(
    disk: &Arc<dyn Disk>,
    dir: &Path,
) -> Result<(Vec<SegmentFacts>, Vec<PathBuf>), InspectError> {
    let folder = Folder::existing(Arc::clone(disk), dir);
    let (mut segments, mut leftovers) = (Vec::new(), Vec::new());
    for name in names_in(&**disk, dir)? {
        match id_of(&name) {
            Some(id) => {
                let walked = folder
                    .file(&name, OpenMode::Read)
                    .map_err(ScanFault::Disk)
                    .and_then(|file| walk(file, id));
                match walked {
                    Ok(facts) => segments.push(facts),
                    Err(ScanFault::Disk(fault)) => {
                        // A purge of a running node may have taken it.
                        if fault.kind != std::io::ErrorKind::NotFound {
                            let source = fault.kind.into();
                            return Err(InspectError::Disk { path: fault.path, source });
                        }
                    }
                    Err(ScanFault::Damage(_)) => {}
                }
            }
            None if name.ends_with(".new") => leftovers.push(dir.join(name)),
            None => {}
        }
    }
    let quarantine = dir.join(crate::log::twin_file::QUARANTINE);
    let aside = names_in(&**disk, &quarantine)?;
    leftovers.extend(aside.into_iter().map(|name| quarantine.join(name)));
    Ok((segments, leftovers))
}

/// A walk over one segment.
struct Walk {
    facts: SegmentFacts,
    chain: u64,
    crc: crc32fast::Hasher,
    footer: bool,
}

fn walk(file: NamedFile, id: u64) -> Result<SegmentFacts, ScanFault> {
    let mut start = [0; HEADER_BYTES];
    let count = file.read(&mut start, 0)?;
    let file_bytes = file.size()?;
    let header = start.get(..count).and_then(SegmentHeader::decode);
    let facts = SegmentFacts {
        id,
        path: file.path().to_owned(),
        header,
        state: SegmentState::Active,
        next_index: header.map_or(0, |header| header.first_index),
        file_bytes,
        written_bytes: 0,
        records: 0,
        entries: 0,
        marks: Marks::default(),
    };
    let Some(header) = header.filter(|header| header.segment == id) else {
        let damage =
            SegmentDamage { offset: 0, index: 0, damage: Damage::Header, was_durable: true };
        return Ok(SegmentFacts { state: SegmentState::Damaged(damage), ..facts });
    };
    let mut crc = crc32fast::Hasher::new();
    crc.update(&start);
    let mut walk = Walk { facts, chain: header.chain, crc, footer: false };
    walk.facts.written_bytes = HEADER_BYTES as u64;
    let mut scanner = Scanner::new(file, id, HEADER_BYTES as u64, u64::MAX);
    let mut damage = walk.run(&mut scanner)?;
    if damage.is_none() && scanner.written_end_after(walk.facts.written_bytes)?.is_some() {
        damage = Some(Damage::Trailing);
    }
    let mut facts = walk.facts;
    facts.state = match damage {
        None if walk.footer => SegmentState::Sealed,
        None => SegmentState::Active,
        Some(damage) => {
            let offset = facts.written_bytes;
            let was_durable = walk.footer || scanner.durable_mark_after(offset)?.is_some();
            let index = facts.next_index;
            SegmentState::Damaged(SegmentDamage { offset, index, damage, was_durable })
        }
    };
    Ok(facts)
}

impl Walk {
    /// Walks to the footer, the end of the written part, or the first damage.
    fn run(&mut self, scanner: &mut Scanner) -> Result<Option<Damage>, ScanFault> {
        loop {
            let located = match scanner.advance() {
                Ok(Some(located)) => located,
                Ok(None) => return Ok(None),
                Err(ScanFault::Damage(damage)) => return Ok(Some(damage)),
                Err(fault) => return Err(fault),
            };
            if located.record.kind == RecordKind::Footer {
                if !self.footer_is_right(&located) {
                    return Ok(Some(Damage::Mark { kind: RecordKind::Footer }));
                }
                self.footer = true;
                self.facts.written_bytes += FOOTER_BYTES as u64;
                return Ok(None);
            }
            if let Some(damage) = self.take(&located) {
                return Ok(Some(damage));
            }
            scanner.hash(&located, &mut self.crc);
            self.facts.records += 1;
            self.facts.written_bytes = located.end();
            if located.record.kind == RecordKind::Durable {
                self.facts.marks.proven_bytes = located.end();
            }
        }
    }

    fn take(&mut self, located: &Located) -> Option<Damage> {
        let record = &located.record;
        let marks = &mut self.facts.marks;
        match record.kind {
            RecordKind::Blank | RecordKind::Commands | RecordKind::Membership => {
                let expected = self.facts.next_index;
                if record.index != expected {
                    return Some(Damage::Index { expected, found: record.index });
                }
                if located.previous_chain != self.chain {
                    let (expected, found) = (self.chain, located.previous_chain);
                    return Some(Damage::Chain { expected, found });
                }
                self.chain = located.chain();
                self.facts.next_index = expected.saturating_add(1);
                self.facts.entries += 1;
            }
            RecordKind::HardState => marks.hard_states += 1,
            RecordKind::Durable => {
                if !is_durable_mark(&located.view(), located.position) {
                    return Some(Damage::Mark { kind: record.kind });
                }
                marks.durable += 1;
            }
            RecordKind::Truncate => {
                let Some(chain) = read_u64(&record.payload, 0) else {
                    return Some(Damage::Mark { kind: record.kind });
                };
                marks.truncates += 1;
                self.chain = chain;
                self.facts.next_index = record.index;
            }
            RecordKind::Filler => {}
            RecordKind::Footer => return Some(Damage::Mark { kind: record.kind }),
        }
        None
    }

    fn footer_is_right(&self, located: &Located) -> bool {
        Footer::from_record(&located.view()).is_some_and(|footer| {
            footer.records == self.facts.records
                && footer.offset == located.position.offset
                && footer.next_index == self.facts.next_index
                && footer.crc == self.crc.clone().finalize()
        })
    }
}
