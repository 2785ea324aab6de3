//! A small file in two copies, replaced as a whole.
//!
//! ```text
//! file = magic "QRTWIN\0\0" · version u16 · zero u16 · crc32 u32 · sequence u64 · len u32 · content
//! ```
//!
//! Little-endian; the crc covers everything after itself. A save writes copy `a`, then copy `b`,
//! each under a temporary name that is flushed and renamed, so at any moment one copy is whole and
//! at least as new as the last save that returned. One damaged copy is mended from the other and
//! kept in `quarantine/`; two are an error, never a guess.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{Disk, Folder, OpenMode};
use crate::error::{DiskFault, OpenError};
use crate::format::{VERSION, put, put_u32, put_u64, read_u16, read_u32, read_u64};

/// The longest content.
pub const CONTENT_BYTES_MAX: usize = 1 << 20;
/// The folder beside the copies that damaged ones are moved to.
pub const QUARANTINE: &str = "quarantine";

const MAGIC: &[u8; 8] = b"QRTWIN\0\0";
const HEAD_BYTES: usize = 28;
const CRC_FROM: usize = 16;

/// A small file in two copies.
#[derive(Debug)]
pub struct TwinFile {
    folder: Folder,
    names: [String; 2],
    sequence: u64,
}

enum Copy {
    Absent,
    Damaged,
    Whole { sequence: u64, content: Bytes },
}

impl TwinFile {
    /// Opens `name`.a and `name`.b in `dir`, which is made when missing; mends a copy that is
    /// missing, older or damaged from the other. `None` when there is neither.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        name: &str,
    ) -> Result<(Self, Option<Bytes>), OpenError> {
        let folder = Folder::open(disk, dir)?;
        // What is about to be believed may so far stand in the page cache only.
        folder.sync()?;
        let names = [format!("{name}.a"), format!("{name}.b")];
        let first = read_copy(&folder, &names[0])?;
        let second = read_copy(&folder, &names[1])?;
        let mut file = Self { folder, names, sequence: 0 };
        let (sequence, content) = match (&first, &second) {
            (Copy::Absent, Copy::Absent) => return Ok((file, None)),
            (
                Copy::Whole { sequence: one, content: first },
                Copy::Whole { sequence: two, content: second },
            ) => {
                if one >= two {
                    (*one, first.clone())
                } else {
                    (*two, second.clone())
                }
            }
            (Copy::Whole { sequence, content }, _) | (_, Copy::Whole { sequence, content }) => {
                (*sequence, content.clone())
            }
            _ => return Err(OpenError::TwinsDamaged { path: file.folder.path_of(&file.names[0]) }),
        };
        file.sequence = sequence;
        for (name, copy) in file.names.iter().zip([first, second]) {
            match copy {
                Copy::Whole { sequence: found, .. } if found == sequence => continue,
                Copy::Damaged => {
                    let aside = file.folder.inside(QUARANTINE)?;
                    file.folder.move_to(name, &aside, &format!("{name}.{sequence}"))?;
                }
                Copy::Absent | Copy::Whole { .. } => {}
            }
            file.write_copy(name, &content)?;
        }
        Ok((file, Some(content)))
    }

    /// Replaces the content; durable in both copies when this returns. After an error either the
    /// old or the new content is found at the next opening.
    pub fn save(&mut self, content: &[u8]) -> Result<(), DiskFault> {
        self.sequence += 1;
        for name in &self.names {
            self.write_copy(name, content)?;
        }
        Ok(())
    }

    fn write_copy(&self, name: &str, content: &[u8]) -> Result<(), DiskFault> {
        debug_assert!(content.len() <= CONTENT_BYTES_MAX, "a twin file holds small things");
        self.folder.replace(name, &encode(self.sequence, content))?;
        self.folder.sync()
    }
}

fn read_copy(folder: &Folder, name: &str) -> Result<Copy, OpenError> {
    let Some(file) = folder.file_if_there(name, OpenMode::Read)? else {
        return Ok(Copy::Absent);
    };
    let bytes = file.read_up_to(HEAD_BYTES + CONTENT_BYTES_MAX + 1)?;
    let Some((version, sequence, content)) = decode(&bytes) else {
        return Ok(Copy::Damaged);
    };
    if version > VERSION {
        let path = file.path().to_owned();
        return Err(OpenError::UnknownFormat { path, found: version, known: VERSION });
    }
    Ok(Copy::Whole { sequence, content: Bytes::copy_from_slice(content) })
}

fn encode(sequence: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEAD_BYTES];
    put(&mut bytes, 0, MAGIC);
    put(&mut bytes, 8, &VERSION.to_le_bytes());
    put_u64(&mut bytes, 16, sequence);
    put_u32(&mut bytes, 24, u32::try_from(content.len()).unwrap_or(u32::MAX));
    bytes.extend_from_slice(content);
    let crc = crc(&bytes);
    put_u32(&mut bytes, 12, crc);
    bytes
}

/// The crc covers the version too: a flip there must not pass for a later format.
fn crc(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes.get(..12).unwrap_or_default());
    hasher.update(bytes.get(CRC_FROM..).unwrap_or_default());
    hasher.finalize()
}

fn decode(bytes: &[u8]) -> Option<(u16, u64, &[u8])> {
    if !bytes.starts_with(MAGIC) || crc(bytes) != read_u32(bytes, 12)? {
        return None;
    }
    let content = bytes.get(HEAD_BYTES..)?;
    (read_u32(bytes, 24)? as usize == content.len()).then_some((
        read_u16(bytes, 8)?,
        read_u64(bytes, 16)?,
        content,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;

    fn open(disk: &SimulatedDisk) -> Result<(TwinFile, Option<Bytes>), OpenError> {
        TwinFile::open(Arc::new(disk.clone()), Path::new("d"), "t")
    }

    #[test]
    fn a_saved_content_survives_any_crash_and_an_unsaved_one_is_old_or_new() {
        for seed in 0..300 {
            let disk = SimulatedDisk::new();
            let (mut file, none) = open(&disk).unwrap();
            assert_eq!(none, None);
            file.save(b"one").unwrap();
            disk.go_down_after(1 + seed % 12);
            let saved = file.save(b"two").is_ok();
            disk.crash(seed);
            let (mut file, content) = open(&disk).unwrap();
            let content = content.unwrap();
            assert!(content == "two" || (!saved && content == "one"), "{content:?}");
            // Opening again agrees with itself, and saving goes on.
            assert_eq!(open(&disk).unwrap().1.unwrap(), content);
            file.save(b"three").unwrap();
            disk.crash(seed + 1);
            assert_eq!(open(&disk).unwrap().1.unwrap(), "three");
        }
    }

    #[test]
    fn every_flip_of_one_copy_is_mended_and_of_both_refused() {
        let disk = SimulatedDisk::new();
        open(&disk).unwrap().0.save(b"content").unwrap();
        let whole = disk.bytes(Path::new("d/t.a")).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            for copy in ["d/t.a", "d/t.b"] {
                let damaged = disk.fork();
                damaged.put(Path::new(copy), bytes.clone());
                assert_eq!(open(&damaged).unwrap().1.unwrap(), "content");
                assert_eq!(damaged.bytes(Path::new(copy)).unwrap(), whole);
                assert_eq!(damaged.list(Path::new("d/quarantine")).unwrap().len(), 1);
            }
            let damaged = disk.fork();
            damaged.put(Path::new("d/t.a"), bytes.clone());
            damaged.put(Path::new("d/t.b"), bytes);
            assert!(matches!(open(&damaged), Err(OpenError::TwinsDamaged { .. })));
        }
    }
}
