//! What peers say when they meet. Lane payloads are opaque here and belong to `replication`.
//!
//! The dialler opens a stream both ways and writes the lane byte [`CONTROL_LANE`] and a hello; the
//! other side answers with its own on the same stream or closes the connection with a code. Either
//! sends another hello when its own changed. Every other stream begins with its lane byte too, and
//! from there on carries frames. A hello is CBOR with numbered fields; unknown fields are skipped.

use bytes::{Bytes, BytesMut};
use minicbor::bytes::ByteVec;
use minicbor::decode::Error as ReadError;
use minicbor::encode::{Error as WriteError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::DecodeError;
use super::codec::cbor;
use crate::domain::id::{ClusterId, NodeId};
use crate::domain::node_address::NodeAddress;
use crate::domain::node_name::NodeName;

/// The newest version of the peer protocol, and the oldest that is still spoken.
pub const PEER_VERSIONS: (u16, u16) = (1, 1);
/// The first byte of the stream that carries hellos.
pub const CONTROL_LANE: u8 = 0;
/// The kind of a hello's frame on the control lane.
pub const HELLO: u8 = 1;
/// What `replication` may put into a hello.
pub const EXTRA_BYTES_MAX: usize = 64 * 1024;
/// Kind and body of a hello's frame.
pub const HELLO_BYTES_MAX: usize = EXTRA_BYTES_MAX + 4 * 1024;

/// Who a node says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The oldest version that it speaks.
    pub version_min: u16,
    /// The newest version that it speaks.
    pub version_max: u16,
    /// Its name, which its certificate must carry.
    pub name: NodeName,
    /// Its cluster; none before it was founded.
    pub cluster: Option<ClusterId>,
    /// Its id; none before it has one.
    pub node: Option<NodeId>,
    /// Drawn when its directory was made: a wiped directory has another.
    pub directory_nonce: u64,
    /// Grows with each start on this directory.
    pub incarnation: u64,
    /// Grows with each change of the hello while the node runs. Hellos of one run can overtake each
    /// other on two connections; the highest revision is the newest.
    pub revision: u64,
    /// Where peers reach it; filled in by the mesh.
    pub peer_address: Option<NodeAddress>,
    /// Where clients reach it.
    pub client_address: Option<NodeAddress>,
    /// Where HTTP is served.
    pub http_address: Option<NodeAddress>,
    /// What `replication` adds: pledges, sound tails.
    pub extra: Bytes,
}

/// A hello as CBOR: a map of numbered fields.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Fields {
    #[n(0)]
    version_min: u16,
    #[n(1)]
    version_max: u16,
    #[n(2)]
    name: NodeName,
    #[n(3)]
    cluster: Option<ClusterId>,
    #[n(4)]
    node: Option<NodeId>,
    #[n(5)]
    directory_nonce: u64,
    #[n(6)]
    incarnation: u64,
    #[n(7)]
    peer_address: Option<NodeAddress>,
    #[n(8)]
    client_address: Option<NodeAddress>,
    #[n(9)]
    http_address: Option<NodeAddress>,
    #[n(10)]
    extra: ByteVec,
    #[n(11)]
    revision: u64,
}

impl Hello {
    /// A hello of this version's node with nothing but a name.
    #[must_use]
    pub fn new(name: NodeName, directory_nonce: u64, incarnation: u64) -> Self {
        Self {
            version_min: PEER_VERSIONS.0,
            version_max: PEER_VERSIONS.1,
            name,
            cluster: None,
            node: None,
            directory_nonce,
            incarnation,
            revision: 0,
            peer_address: None,
            client_address: None,
            http_address: None,
            extra: Bytes::new(),
        }
    }

    /// The newest version that both speak.
    #[must_use]
    pub fn common_version(&self, other: &Self) -> Option<u16> {
        let newest = self.version_max.min(other.version_max);
        (newest >= self.version_min.max(other.version_min)).then_some(newest)
    }

    /// Whether it was said by the same run of the same node as `other`, and before it.
    #[must_use]
    pub fn is_older_than(&self, other: &Self) -> bool {
        self.directory_nonce == other.directory_nonce
            && self.incarnation == other.incarnation
            && self.revision < other.revision
    }

    /// The body of a hello's frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut body = BytesMut::new();
        let fields = Fields {
            version_min: self.version_min,
            version_max: self.version_max,
            name: self.name.clone(),
            cluster: self.cluster,
            node: self.node,
            directory_nonce: self.directory_nonce,
            incarnation: self.incarnation,
            peer_address: self.peer_address.clone(),
            client_address: self.client_address.clone(),
            http_address: self.http_address.clone(),
            extra: self.extra.to_vec().into(),
            revision: self.revision,
        };
        cbor::put(&mut body, &fields);
        body.freeze()
    }

    /// Reads the body of a hello's frame.
    ///
    /// # Errors
    /// [`DecodeError`] for bytes that are no hello, or a field over its limit.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let fields: Fields = cbor::take(body)?;
        if fields.version_min > fields.version_max {
            return Err(DecodeError::Field { field: "version_max" });
        }
        if fields.extra.len() > EXTRA_BYTES_MAX {
            return Err(DecodeError::Field { field: "extra" });
        }
        Ok(Self {
            version_min: fields.version_min,
            version_max: fields.version_max,
            name: fields.name,
            cluster: fields.cluster,
            node: fields.node,
            directory_nonce: fields.directory_nonce,
            incarnation: fields.incarnation,
            revision: fields.revision,
            peer_address: fields.peer_address,
            client_address: fields.client_address,
            http_address: fields.http_address,
            extra: Vec::from(fields.extra).into(),
        })
    }
}

macro_rules! as_text {
    ($($name:ident),+) => {
        $(
            impl<C> Encode<C> for $name {
                fn encode<W: Write>(
                    &self,
                    encoder: &mut Encoder<W>,
                    _: &mut C,
                ) -> Result<(), WriteError<W::Error>> {
                    encoder.str(self.as_str())?.ok()
                }
            }

            impl<'b, C> Decode<'b, C> for $name {
                fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, ReadError> {
                    let at = decoder.position();
                    Self::parse(decoder.str()?).map_err(|error| ReadError::message(error).at(at))
                }
            }
        )+
    };
}

as_text!(NodeName, NodeAddress);

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Hello {
        Hello {
            cluster: Some(ClusterId(0x0102)),
            node: Some(NodeId(0x8000_0000_0000_0003)),
            peer_address: Some(NodeAddress::parse("127.0.0.1:7401").unwrap()),
            client_address: Some(NodeAddress::parse("[::1]:7400").unwrap()),
            http_address: None,
            extra: Bytes::from_static(b"pledge"),
            revision: 5,
            ..Hello::new(NodeName::parse("n1").unwrap(), 77, 3)
        }
    }

    #[test]
    fn hellos_come_back_and_keep_their_bytes() {
        for hello in [full(), Hello::new(NodeName::parse("a").unwrap(), u64::MAX, 0)] {
            assert_eq!(Hello::decode(&hello.encode()).unwrap(), hello);
        }
        // Golden: the numbers of the fields are on the wire for ever.
        let expected =
            b"\xab\x00\x01\x01\x01\x02\x62n1\x03\x19\x01\x02\x04\x1b\x80\0\0\0\0\0\0\x03\
            \x05\x18\x4d\x06\x03\x07\x6e127.0.0.1:7401\x08\x6a[::1]:7400\x0a\x46pledge\x0b\x05";
        assert_eq!(&full().encode()[..], &expected[..]);
    }

    #[test]
    fn cut_and_changed_hellos_never_panic_and_cut_ones_are_refused() {
        let whole = full().encode();
        for cut in 0..whole.len() {
            assert!(Hello::decode(&whole[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.to_vec();
                changed[at] ^= 1 << bit;
                let _ = Hello::decode(&changed);
            }
        }
    }

    #[test]
    fn limits_are_kept() {
        let hello = Hello { extra: vec![0; EXTRA_BYTES_MAX].into(), ..full() };
        assert!(hello.encode().len() < HELLO_BYTES_MAX);
        assert_eq!(Hello::decode(&hello.encode()).unwrap(), hello);
        let hello = Hello { extra: vec![0; EXTRA_BYTES_MAX + 1].into(), ..full() };
        assert_eq!(Hello::decode(&hello.encode()), Err(DecodeError::Field { field: "extra" }));
        let hello = Hello { version_min: 3, version_max: 2, ..full() };
        assert!(Hello::decode(&hello.encode()).is_err());
    }

    #[test]
    fn only_hellos_of_one_run_are_older_or_newer() {
        let newer = full();
        let older = Hello { revision: 4, ..full() };
        assert!(older.is_older_than(&newer));
        assert!(!newer.is_older_than(&newer.clone()));
        assert!(!newer.is_older_than(&older));
        assert!(!Hello { incarnation: 4, ..older.clone() }.is_older_than(&newer));
        assert!(!Hello { directory_nonce: 78, ..older }.is_older_than(&newer));
    }

    #[test]
    fn the_newest_common_version_is_taken() {
        let speaks = |version_min, version_max| Hello { version_min, version_max, ..full() };
        assert_eq!(speaks(1, 3).common_version(&speaks(2, 5)), Some(3));
        assert_eq!(speaks(1, 1).common_version(&speaks(1, 1)), Some(1));
        assert_eq!(speaks(1, 2).common_version(&speaks(3, 4)), None);
    }
}
