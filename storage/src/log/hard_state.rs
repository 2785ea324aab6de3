//! The second copy of the newest hard state.
//!
//! ```text
//! file = slot · slot, each 4096 bytes
//! slot = magic "QRHS" · version u16 · zero u16 · sequence u64 · len u32 · crc32 u32 · state
//! ```
//!
//! State number n is written in place into slot n mod 2, after the log's own record of it has been
//! flushed and before it is acknowledged. A crash can tear one slot only, the one of a state that
//! was never acknowledged; its predecessor stands in the other.

use bytes::Bytes;

use crate::disk::{Folder, NamedFile, OpenMode};
use crate::error::DiskFault;
use crate::format::{VERSION, put, put_u32, put_u64, read_u16, read_u32, read_u64};

/// The longest hard state.
pub const STATE_BYTES_MAX: usize = 2048;

const NAME: &str = "hard-state";
const MAGIC: &[u8; 4] = b"QRHS";
const SLOT_BYTES: usize = 4096;
const HEAD_BYTES: usize = 24;

/// A hard state and its number; the higher number is the newer state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NumberedState {
    pub(crate) number: u64,
    pub(crate) state: Bytes,
}

#[derive(Debug)]
pub(crate) struct HardStateFile {
    file: NamedFile,
}

/// What the file held at opening.
#[derive(Debug)]
pub(crate) struct FoundState {
    pub(crate) newest: Option<NumberedState>,
    /// Both slots are whole, so no newer acknowledged state can be missing.
    pub(crate) sound: bool,
}

impl HardStateFile {
    /// Opens the file, or makes it. A missing file is not sound, nor is the new one until it has
    /// been mended: an opening that refuses in between must not make the next one believe that
    /// there never was a state. Whether that matters is for the caller, who knows whether the log
    /// is new.
    pub(crate) fn open(folder: &Folder) -> Result<(Self, FoundState), DiskFault> {
        if let Some(file) = folder.file_if_there(NAME, OpenMode::Write)? {
            let bytes = file.read_up_to(2 * SLOT_BYTES)?;
            let slots = [0, 1].map(|slot| {
                decode(bytes.get(slot * SLOT_BYTES..).unwrap_or_default(), slot as u64)
            });
            let sound = slots.iter().all(Option::is_some);
            let newest = slots
                .into_iter()
                .flatten()
                .filter(|state| state.number > 0)
                .max_by_key(|state| state.number);
            return Ok((Self { file }, FoundState { newest, sound }));
        }
        folder.replace(NAME, &vec![0; 2 * SLOT_BYTES])?;
        folder.sync()?;
        let file = folder.file(NAME, OpenMode::Write)?;
        Ok((Self { file }, FoundState { newest: None, sound: false }))
    }

    /// Writes and flushes one state.
    pub(crate) fn save(&self, state: &NumberedState) -> Result<(), DiskFault> {
        self.file.write(&encode(state), (state.number % 2) * SLOT_BYTES as u64)?;
        self.file.sync()
    }

    /// Makes both slots whole around the newest state; opening's repair of a torn slot. The slot
    /// that does not hold the newest state gets the empty one.
    pub(crate) fn mend(&self, newest: Option<&NumberedState>) -> Result<(), DiskFault> {
        let empty = NumberedState { number: 0, state: Bytes::new() };
        let newest = newest.unwrap_or(&empty);
        self.save(newest)?;
        let other = 1 - newest.number % 2;
        self.file.write(&encode(&empty), other * SLOT_BYTES as u64)?;
        self.file.sync()
    }
}

fn encode(state: &NumberedState) -> Vec<u8> {
    let mut bytes = vec![0; SLOT_BYTES];
    put(&mut bytes, 0, MAGIC);
    put(&mut bytes, 4, &VERSION.to_le_bytes());
    put_u64(&mut bytes, 8, state.number);
    put_u32(&mut bytes, 16, u32::try_from(state.state.len()).unwrap_or(u32::MAX));
    put(&mut bytes, HEAD_BYTES, &state.state);
    let crc = crc(&bytes);
    put_u32(&mut bytes, 20, crc);
    bytes
}

/// Over the whole slot but the crc itself, so that no flipped bit goes unseen.
fn crc(slot: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(slot.get(..20).unwrap_or_default());
    hasher.update(slot.get(HEAD_BYTES..SLOT_BYTES).unwrap_or_default());
    hasher.finalize()
}

fn decode(bytes: &[u8], slot: u64) -> Option<NumberedState> {
    let bytes = bytes.get(..SLOT_BYTES)?;
    let known = bytes.starts_with(MAGIC) && read_u16(bytes, 4)? == VERSION;
    if !known || crc(bytes) != read_u32(bytes, 20)? {
        return None;
    }
    let number = read_u64(bytes, 8)?;
    let state = bytes.get(HEAD_BYTES..)?.get(..read_u32(bytes, 16)? as usize)?;
    (number == 0 || number % 2 == slot)
        .then(|| NumberedState { number, state: Bytes::copy_from_slice(state) })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::disk::SimulatedDisk;

    fn state(number: u64) -> NumberedState {
        NumberedState { number, state: Bytes::from(number.to_string()) }
    }

    fn open(disk: &SimulatedDisk) -> (HardStateFile, FoundState) {
        HardStateFile::open(&Folder::open(Arc::new(disk.clone()), Path::new("d")).unwrap()).unwrap()
    }

    #[test]
    fn a_crash_while_saving_leaves_the_old_or_the_new_state() {
        for seed in 0..300 {
            let disk = SimulatedDisk::new();
            let (file, found) = open(&disk);
            assert!(found.newest.is_none() && !found.sound);
            file.save(&state(1)).unwrap();
            file.save(&state(2)).unwrap();
            disk.go_down_after(1 + seed % 2);
            assert!(file.save(&state(3)).is_err());
            disk.crash(seed);
            let (file, found) = open(&disk);
            let newest = found.newest.unwrap();
            assert!(newest == state(2) || newest == state(3));
            file.mend(Some(&newest)).unwrap();
            let (_, found) = open(&disk);
            assert!(found.sound);
            assert_eq!(found.newest, Some(newest));
        }
    }

    #[test]
    fn a_file_that_was_missing_stays_unsound_until_it_is_mended() {
        let disk = SimulatedDisk::new();
        for _ in 0..2 {
            assert!(!open(&disk).1.sound);
        }
        open(&disk).0.mend(None).unwrap();
        assert!(open(&disk).1.sound);
    }

    #[test]
    fn every_flip_of_a_slot_is_noticed() {
        for (slot, number) in [(0, 0), (1, 1), (0, 2)] {
            let whole = encode(&state(number));
            assert_eq!(decode(&whole, slot).unwrap().number, number);
            for bit in 0..whole.len() * 8 {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode(&bytes, slot), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn every_flip_makes_the_file_unsound() {
        let disk = SimulatedDisk::new();
        let (file, _) = open(&disk);
        file.save(&state(1)).unwrap();
        file.save(&state(2)).unwrap();
        let path = Path::new("d/hard-state");
        let whole = disk.bytes(path).unwrap();
        for byte in 0..whole.len() {
            let damaged = disk.fork();
            let mut bytes = whole.clone();
            bytes[byte] ^= 1 << (byte % 8);
            damaged.put(path, bytes);
            assert!(!open(&damaged).1.sound);
        }
    }
}
