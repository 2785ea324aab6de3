//! A small file in two copies.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::Disk;
use crate::error::{DiskFault, OpenError};

/// A small file (at most [`CONTENT_BYTES_MAX`]) in two copies, replaced as a whole.
#[derive(Debug)]
pub struct TwinFile {}

/// The longest content.
pub const CONTENT_BYTES_MAX: usize = 1 << 20;

impl TwinFile {
    /// Opens `name`.a and `name`.b in `dir`, which is made when missing; mends a copy that is
    /// missing, older or damaged from the other. `None` when there is neither.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        name: &str,
    ) -> Result<(Self, Option<Bytes>), OpenError> {
        todo!()
    }

    /// Replaces the content; durable in both copies when this returns.
    pub fn save(&mut self, content: &[u8]) -> Result<(), DiskFault> {
        todo!()
    }
}
