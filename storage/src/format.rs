//! Little-endian integers in byte slices, and the version of everything this crate writes.
//!
//! Reading answers `None` past the end and never panics: the bytes come from disk.

/// The version in each file header. A reader refuses a later one.
pub const VERSION: u16 = 1;

/// The byte at `offset`.
pub(crate) fn read_u8(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

/// The `u16` at `offset`.
pub(crate) fn read_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset).map(u16::from_le_bytes)
}

/// The `u32` at `offset`.
pub(crate) fn read_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_le_bytes)
}

/// The `u64` at `offset`.
pub(crate) fn read_u64(bytes: &[u8], offset: usize) -> Option<u64> {
    array(bytes, offset).map(u64::from_le_bytes)
}

/// `N` bytes at `offset`.
pub(crate) fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

/// Puts `value` at `offset`. The caller's buffer is long enough; if not, nothing is written and the
/// golden tests of the format fail.
pub(crate) fn put_u32(bytes: &mut [u8], offset: usize, value: u32) {
    put(bytes, offset, &value.to_le_bytes());
}

/// As [`put_u32`].
pub(crate) fn put_u64(bytes: &mut [u8], offset: usize, value: u64) {
    put(bytes, offset, &value.to_le_bytes());
}

/// As [`put_u32`].
pub(crate) fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    debug_assert!(offset + value.len() <= bytes.len(), "a field lies outside of its buffer");
    if let Some(place) = bytes.get_mut(offset..offset + value.len()) {
        place.copy_from_slice(value);
    }
}
