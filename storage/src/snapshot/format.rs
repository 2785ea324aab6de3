//! The bytes of a snapshot file, version 1. All numbers are little-endian.
//!
//! ```text
//! file   = header page* footer
//! header = "QRTESNAP" · version u16 · flags u16 (0) · header length u32
//!        · lineage u64 · cluster id u64 · last index u64 · term u64 · chain u64 · state hash u64
//!        · meta length u32 · meta bytes · crc32 u32 (of the header before it)
//! page   = crc32 u32 (of the page after it) · body length u32 · records u32 · page number u32
//!        · { length u32 · bytes }*
//! footer = crc32 u32 (of the footer after it) · 0xffff_ffff u32 · "QRTEDONE"
//!        · pages u64 · records u64 · file length u64 · content hash u64
//! ```
//!
//! A page never has the body length `0xffff_ffff`, so a footer cannot pass for a page, and it is
//! found at the end of the file. The content hash is xxh3-64 of everything before the footer; it also names the file, so
//! that two nodes hold the same bytes if they hold the same name.
//!
//! Nothing in here allocates more than a limit allows, whatever the bytes claim.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The first bytes of every snapshot file.
pub const MAGIC: [u8; 8] = *b"QRTESNAP";
/// The bytes that tell a footer from a page.
pub const FOOTER_MAGIC: [u8; 8] = *b"QRTEDONE";
/// The version that this code writes, and the only one that it reads.
pub const VERSION: u16 = 1;
/// Bytes of a header around its opaque part.
pub const HEADER_FIXED_BYTES: usize = 8 + 2 + 2 + 4 + 6 * 8 + 4 + 4;
/// Bytes of a page's head.
pub const PAGE_HEAD_BYTES: usize = 16;
/// Bytes of the footer.
pub const FOOTER_BYTES: usize = 4 + 4 + 8 + 4 * 8;
/// Largest opaque part of a header, bytes.
pub const META_BYTES_MAX: usize = 1 << 20;
/// Largest record, bytes. A record larger than a page travels alone.
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// Bytes of records after which a page is closed.
pub const PAGE_BYTES: usize = 256 << 10;
/// Largest body of a page: one record of the largest size, or a full page of small ones.
pub const PAGE_BODY_BYTES_MAX: usize = RECORD_BYTES_MAX + 4;

/// The end of a snapshot's file name.
const SUFFIX: &str = ".snapshot";
const FOOTER_MARK: u32 = u32::MAX;
const FIXED_AFTER_LENGTH: usize = 6 * 8 + 4;

/// Which snapshot: the same name means the same bytes, on whichever node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    /// The last log index that the snapshot contains.
    pub index: u64,
    /// The term of that index.
    pub term: u64,
    /// xxh3-64 of the file's content before its footer.
    pub content_hash: u64,
}

impl SnapshotId {
    /// The name of its file.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{:020}-{:020}-{:016x}{SUFFIX}", self.index, self.term, self.content_hash)
    }

    /// Reads a name that [`SnapshotId::file_name`] made; `None` for any other.
    #[must_use]
    pub fn from_file_name(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(SUFFIX)?.split('-');
        let id = Self {
            index: parts.next()?.parse().ok()?,
            term: parts.next()?.parse().ok()?,
            content_hash: u64::from_str_radix(parts.next()?, 16).ok()?,
        };
        (parts.next().is_none() && id.file_name() == name).then_some(id)
    }
}

/// What a snapshot says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The unbroken history that `index` counts in.
    pub lineage: u64,
    /// The cluster whose log it compacts.
    pub cluster_id: u64,
    /// The last log index that it contains.
    pub index: u64,
    /// The term of that index.
    pub term: u64,
    /// The log's chain after that index.
    pub chain: u64,
    /// The state's hash after that index, as its owner computes it.
    pub state_hash: u64,
    /// Opaque: membership and whatever else its owner needs before the first record.
    /// At most [`META_BYTES_MAX`].
    pub meta: Bytes,
}

/// What a footer promises about the file before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// Number of pages.
    pub pages: u64,
    /// Number of records in all pages.
    pub records: u64,
    /// Length of the whole file, the footer included.
    pub file_bytes: u64,
    /// xxh3-64 of everything before the footer.
    pub content_hash: u64,
}

/// Bytes that are no snapshot, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The file does not begin as a snapshot does.
    #[error("not a snapshot file")]
    NotASnapshot,
    /// A later version wrote it.
    #[error("snapshot format version {found} is not known here")]
    UnknownVersion {
        /// The version in the header.
        found: u16,
    },
    /// A length in the file exceeds its limit, or contradicts another.
    #[error("a length of {claimed} bytes cannot be right")]
    Length {
        /// What the bytes claim.
        claimed: u64,
    },
    /// The file ends before its footer.
    #[error("the file ends before its footer")]
    Truncated,
    /// There are bytes after the footer.
    #[error("there are bytes after the footer")]
    Trailing,
    /// A checksum does not match.
    #[error("the checksum of the {part} does not match")]
    Checksum {
        /// Which part of the file.
        part: &'static str,
    },
    /// Pages out of order, or another number of pages or records than the footer says.
    #[error("the pages or records are not those that the footer counts")]
    Count,
    /// A part that the version reserves is not zero.
    #[error("reserved bits are set")]
    Reserved,
    /// A record or the opaque part is larger than the format allows. Only a writer meets this.
    #[error("{bytes} bytes are more than the format allows ({limit})")]
    TooLarge {
        /// Bytes given.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The file's name and its content disagree.
    #[error("the file's name and its content disagree")]
    Name,
    /// It belongs to another cluster or another history.
    #[error("it belongs to cluster {cluster_id:016x}, lineage {lineage:016x}")]
    Foreign {
        /// The cluster in the header.
        cluster_id: u64,
        /// The lineage in the header.
        lineage: u64,
    },
}

/// Encodes a header.
///
/// # Errors
/// [`FormatError::TooLarge`] when the opaque part is.
pub fn encode_header(head: &SnapshotHead) -> Result<Bytes, FormatError> {
    if head.meta.len() > META_BYTES_MAX {
        return Err(FormatError::TooLarge { bytes: head.meta.len(), limit: META_BYTES_MAX });
    }
    let length = HEADER_FIXED_BYTES + head.meta.len();
    let mut out = BytesMut::with_capacity(length);
    out.put_slice(&MAGIC);
    out.put_u16_le(VERSION);
    out.put_u16_le(0);
    out.put_u32_le(length_u32(length));
    for number in
        [head.lineage, head.cluster_id, head.index, head.term, head.chain, head.state_hash]
    {
        out.put_u64_le(number);
    }
    out.put_u32_le(length_u32(head.meta.len()));
    out.put_slice(&head.meta);
    let crc = crc32fast::hash(&out);
    out.put_u32_le(crc);
    Ok(out.freeze())
}

/// Length of the whole header, from its first 16 bytes.
///
/// # Errors
/// [`FormatError`] when these are not the first bytes of a snapshot of this version.
pub fn header_bytes(start: &[u8]) -> Result<usize, FormatError> {
    let mut start = start;
    if start.len() < 16 {
        return Err(FormatError::Truncated);
    }
    let mut magic = [0; 8];
    start.copy_to_slice(&mut magic);
    if magic != MAGIC {
        return Err(FormatError::NotASnapshot);
    }
    let version = start.get_u16_le();
    if version != VERSION {
        return Err(FormatError::UnknownVersion { found: version });
    }
    if start.get_u16_le() != 0 {
        return Err(FormatError::Reserved);
    }
    let claimed = start.get_u32_le();
    let length = claimed as usize;
    if !(HEADER_FIXED_BYTES..=HEADER_FIXED_BYTES + META_BYTES_MAX).contains(&length) {
        return Err(FormatError::Length { claimed: u64::from(claimed) });
    }
    Ok(length)
}

/// Decodes a whole header, as long as [`header_bytes`] said.
///
/// # Errors
/// [`FormatError`] when anything in it does not fit.
pub fn decode_header(header: &Bytes) -> Result<SnapshotHead, FormatError> {
    let length = header_bytes(header)?;
    if header.len() != length {
        return Err(FormatError::Truncated);
    }
    let (content, mut crc) = header.split_at(length - 4);
    if crc32fast::hash(content) != crc.get_u32_le() {
        return Err(FormatError::Checksum { part: "header" });
    }
    let mut fields = header.slice(16..length - 4);
    let lineage = fields.get_u64_le();
    let cluster_id = fields.get_u64_le();
    let index = fields.get_u64_le();
    let term = fields.get_u64_le();
    let chain = fields.get_u64_le();
    let state_hash = fields.get_u64_le();
    let meta_bytes = fields.get_u32_le();
    if meta_bytes as usize != length - 16 - FIXED_AFTER_LENGTH - 4 {
        return Err(FormatError::Length { claimed: u64::from(meta_bytes) });
    }
    Ok(SnapshotHead { lineage, cluster_id, index, term, chain, state_hash, meta: fields })
}

/// Length of a page's body, from its head.
///
/// # Errors
/// [`FormatError`] when the head is short or claims more than a page may hold.
pub fn page_body_bytes(head: &[u8]) -> Result<usize, FormatError> {
    let mut head = head;
    if head.len() < PAGE_HEAD_BYTES {
        return Err(FormatError::Truncated);
    }
    head.advance(4);
    let claimed = head.get_u32_le();
    if claimed as usize > PAGE_BODY_BYTES_MAX {
        return Err(FormatError::Length { claimed: u64::from(claimed) });
    }
    Ok(claimed as usize)
}

/// Checks a whole page and cuts it into its records, which share its bytes.
///
/// # Errors
/// [`FormatError`] when the page is not the one with this number, or not intact.
pub fn decode_page(page: &Bytes, number: u64) -> Result<Vec<Bytes>, FormatError> {
    if page.len() < PAGE_HEAD_BYTES {
        return Err(FormatError::Truncated);
    }
    let mut head = page.slice(..PAGE_HEAD_BYTES);
    let crc = head.get_u32_le();
    if crc32fast::hash(&page.slice(4..)) != crc {
        return Err(FormatError::Checksum { part: "page" });
    }
    let body_bytes = head.get_u32_le();
    let count = head.get_u32_le();
    if body_bytes as usize != page.len() - PAGE_HEAD_BYTES {
        return Err(FormatError::Length { claimed: u64::from(body_bytes) });
    }
    if u64::from(head.get_u32_le()) != number & u64::from(u32::MAX) {
        return Err(FormatError::Count);
    }
    let mut body = page.slice(PAGE_HEAD_BYTES..);
    // Each record has a length of four bytes, which bounds what a false count can reserve.
    let mut records = Vec::with_capacity((count as usize).min(body.len() / 4));
    while body.has_remaining() {
        if body.len() < 4 {
            return Err(FormatError::Truncated);
        }
        let length = body.get_u32_le() as usize;
        if length > body.len() {
            return Err(FormatError::Length { claimed: length as u64 });
        }
        records.push(body.split_to(length));
    }
    if records.len() != count as usize {
        return Err(FormatError::Count);
    }
    Ok(records)
}

/// Encodes the footer.
#[must_use]
pub fn encode_footer(footer: &Footer) -> Bytes {
    let mut content = BytesMut::with_capacity(FOOTER_BYTES - 4);
    content.put_u32_le(FOOTER_MARK);
    content.put_slice(&FOOTER_MAGIC);
    for number in [footer.pages, footer.records, footer.file_bytes, footer.content_hash] {
        content.put_u64_le(number);
    }
    let mut out = BytesMut::with_capacity(FOOTER_BYTES);
    out.put_u32_le(crc32fast::hash(&content));
    out.put_slice(&content);
    out.freeze()
}

/// Decodes the footer.
///
/// # Errors
/// [`FormatError`] when the bytes are no footer, or not intact.
pub fn decode_footer(footer: &[u8]) -> Result<Footer, FormatError> {
    if footer.len() < FOOTER_BYTES {
        return Err(FormatError::Truncated);
    }
    if footer.len() > FOOTER_BYTES {
        return Err(FormatError::Trailing);
    }
    let (mut crc, mut content) = footer.split_at(4);
    if crc32fast::hash(content) != crc.get_u32_le() {
        return Err(FormatError::Checksum { part: "footer" });
    }
    let mark = content.get_u32_le();
    let mut magic = [0; 8];
    content.copy_to_slice(&mut magic);
    if mark != FOOTER_MARK || magic != FOOTER_MAGIC {
        return Err(FormatError::Checksum { part: "footer" });
    }
    Ok(Footer {
        pages: content.get_u64_le(),
        records: content.get_u64_le(),
        file_bytes: content.get_u64_le(),
        content_hash: content.get_u64_le(),
    })
}

/// A page as it fills.
#[derive(Debug, Default)]
pub struct PageBuilder {
    body: BytesMut,
    count: u32,
}

impl PageBuilder {
    /// Whether a record of so many bytes should begin a new page.
    #[must_use]
    pub fn is_full_for(&self, record_bytes: usize) -> bool {
        self.count > 0 && self.body.len() + 4 + record_bytes > PAGE_BYTES
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Number of records in it.
    #[must_use]
    pub fn records(&self) -> u32 {
        self.count
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] when the record is; the page is unchanged then.
    pub fn push(&mut self, record: &[u8]) -> Result<(), FormatError> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(FormatError::TooLarge { bytes: record.len(), limit: RECORD_BYTES_MAX });
        }
        self.body.put_u32_le(length_u32(record.len()));
        self.body.put_slice(record);
        self.count += 1;
        Ok(())
    }

    /// Closes the page under its number and begins an empty one.
    pub fn seal(&mut self, number: u64) -> Bytes {
        let body = self.body.split();
        let mut out = BytesMut::with_capacity(PAGE_HEAD_BYTES + body.len());
        out.put_u32_le(0);
        out.put_u32_le(length_u32(body.len()));
        out.put_u32_le(self.count);
        // The page number wraps; 2^32 pages are a petabyte, and the footer counts them in full.
        out.put_u32_le((number & u64::from(u32::MAX)) as u32);
        out.put_slice(&body);
        let crc = crc32fast::hash(out.get(4..).unwrap_or_default());
        if let Some(place) = out.get_mut(..4) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
        self.count = 0;
        out.freeze()
    }
}

fn length_u32(length: usize) -> u32 {
    u32::try_from(length).expect("every length here has a limit far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> SnapshotHead {
        SnapshotHead {
            lineage: 1,
            cluster_id: 2,
            index: 3,
            term: 4,
            chain: 5,
            state_hash: 6,
            meta: Bytes::from_static(b"members"),
        }
    }

    #[test]
    fn header_goes_there_and_back() {
        let bytes = encode_header(&head()).unwrap();
        assert_eq!(bytes.len(), HEADER_FIXED_BYTES + 7);
        assert_eq!(header_bytes(&bytes), Ok(bytes.len()));
        assert_eq!(decode_header(&bytes), Ok(head()));
    }

    #[test]
    fn meta_at_and_above_its_limit() {
        let at = SnapshotHead { meta: Bytes::from(vec![7; META_BYTES_MAX]), ..head() };
        assert_eq!(decode_header(&encode_header(&at).unwrap()), Ok(at));
        let above = SnapshotHead { meta: Bytes::from(vec![7; META_BYTES_MAX + 1]), ..head() };
        assert_eq!(
            encode_header(&above),
            Err(FormatError::TooLarge { bytes: META_BYTES_MAX + 1, limit: META_BYTES_MAX })
        );
    }

    #[test]
    fn page_goes_there_and_back_and_knows_its_number() {
        let mut page = PageBuilder::default();
        for record in [b"one".as_slice(), b"", b"three"] {
            page.push(record).unwrap();
        }
        let bytes = page.seal(9);
        assert!(page.is_empty());
        let records = decode_page(&bytes, 9).unwrap();
        assert_eq!(records, [&b"one"[..], b"", b"three"]);
        assert_eq!(decode_page(&bytes, 8), Err(FormatError::Count));
        assert_eq!(page_body_bytes(&bytes), Ok(bytes.len() - PAGE_HEAD_BYTES));
    }

    #[test]
    fn record_above_the_limit_is_refused_and_leaves_the_page_alone() {
        let mut page = PageBuilder::default();
        assert!(page.push(&vec![0; RECORD_BYTES_MAX + 1]).is_err());
        assert!(page.is_empty());
        page.push(&vec![0; RECORD_BYTES_MAX]).unwrap();
        assert!(page.is_full_for(0));
        let bytes = page.seal(0);
        assert_eq!(decode_page(&bytes, 0).unwrap().len(), 1);
    }

    #[test]
    fn footer_goes_there_and_back() {
        let footer = Footer { pages: 1, records: 2, file_bytes: 3, content_hash: 4 };
        let bytes = encode_footer(&footer);
        assert_eq!(bytes.len(), FOOTER_BYTES);
        assert!(page_body_bytes(&bytes).is_err());
        assert_eq!(decode_footer(&bytes), Ok(footer));
    }

    #[test]
    fn names_go_there_and_back() {
        let id = SnapshotId { index: 78, term: 3, content_hash: 0xab };
        let name = id.file_name();
        assert_eq!(name, "00000000000000000078-00000000000000000003-00000000000000ab.snapshot");
        assert_eq!(SnapshotId::from_file_name(&name), Some(id));
        for other in ["", ".snapshot", "78-3-ab.snapshot", "a-b-c.snapshot", &name[1..]] {
            assert_eq!(SnapshotId::from_file_name(other), None, "{other}");
        }
    }

    #[test]
    fn version_of_the_future_is_named() {
        let mut bytes = encode_header(&head()).unwrap().to_vec();
        bytes[8] = 2;
        assert_eq!(header_bytes(&bytes), Err(FormatError::UnknownVersion { found: 2 }));
    }
}
