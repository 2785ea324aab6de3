//! CBOR bodies: how they are written and read, and the CBOR form of the domain's numbers.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::{BufMut, Bytes, BytesMut};
use minicbor::decode::Error as ReadError;
use minicbor::encode::{Error as WriteError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::domain::id::{
    ClusterId, Index, Lineage, NodeId, Position, SessionId, StreamId, TopicId,
};
use crate::domain::topic::path::TopicPath;
use crate::protocol::{CborFault, DecodeError};

/// Appends the CBOR of `value`.
pub(in crate::protocol) fn put<T: Encode<()>>(buffer: &mut BytesMut, value: &T) {
    struct Sink<'a>(&'a mut BytesMut);

    impl Write for Sink<'_> {
        type Error = Infallible;

        fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
            self.0.put_slice(bytes);
            Ok(())
        }
    }

    let written = minicbor::encode(value, Sink(buffer));
    debug_assert!(written.is_ok(), "memory takes every byte and our types encode");
}

/// Reads one CBOR item that must fill `bytes`.
pub(in crate::protocol) fn take<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let value = decoder.decode().map_err(|error| fault(&error))?;
    match bytes.len() - decoder.position() {
        0 => Ok(value),
        rest => Err(DecodeError::Trailing { bytes: rest }),
    }
}

fn fault(error: &ReadError) -> DecodeError {
    let fault = if error.is_end_of_input() {
        CborFault::Short
    } else if error.is_type_mismatch() || error.is_tag_mismatch() {
        CborFault::Type
    } else if error.is_unknown_variant() {
        CborFault::Variant
    } else if error.is_missing_value() {
        CborFault::Missing
    } else {
        CborFault::Value
    };
    DecodeError::Cbor { at: error.position().unwrap_or(0), fault }
}

macro_rules! as_u64 {
    ($($name:ident),+) => {
        $(
            impl<C> Encode<C> for $name {
                fn encode<W: Write>(
                    &self,
                    encoder: &mut Encoder<W>,
                    _: &mut C,
                ) -> Result<(), WriteError<W::Error>> {
                    encoder.u64(self.0)?.ok()
                }
            }

            impl<'b, C> Decode<'b, C> for $name {
                fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, ReadError> {
                    Ok(Self(decoder.u64()?))
                }
            }
        )+
    };
}

as_u64!(SessionId, TopicId, NodeId, ClusterId, Lineage, StreamId, Index);

impl<C> Encode<C> for Position {
    fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), WriteError<W::Error>> {
        encoder.array(2)?.u64(self.index.0)?.u32(self.ordinal)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Position {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, ReadError> {
        let at = decoder.position();
        if decoder.array()? != Some(2) {
            return Err(ReadError::message("a position is [index, ordinal]").at(at));
        }
        Ok(Self { index: Index(decoder.u64()?), ordinal: decoder.u32()? })
    }
}

impl<C> Encode<C> for TopicPath {
    fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), WriteError<W::Error>> {
        encoder.str(self.as_str())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for TopicPath {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, ReadError> {
        let at = decoder.position();
        Self::parse(decoder.str()?).map_err(|error| ReadError::message(error).at(at))
    }
}

/// A list of at most `MAX` items; a longer one is refused before its items are read.
pub(in crate::protocol) fn list<'b, Ctx, T: Decode<'b, Ctx>, const MAX: usize>(
    decoder: &mut Decoder<'b>,
    context: &mut Ctx,
) -> Result<Vec<T>, ReadError> {
    let at = decoder.position();
    let mut items = Vec::new();
    for item in decoder.array_iter_with(context)? {
        if items.len() == MAX {
            return Err(ReadError::message("a list is over its limit").at(at));
        }
        items.push(item?);
    }
    Ok(items)
}

/// A map of texts with at most `MAX` entries.
pub(in crate::protocol) fn texts<Ctx, const MAX: usize>(
    decoder: &mut Decoder<'_>,
    _: &mut Ctx,
) -> Result<BTreeMap<String, String>, ReadError> {
    let at = decoder.position();
    let mut entries = BTreeMap::new();
    for entry in decoder.map_iter::<&str, &str>()? {
        let (key, value) = entry?;
        if entries.len() == MAX {
            return Err(ReadError::message("a map is over its limit").at(at));
        }
        entries.insert(key.to_owned(), value.to_owned());
    }
    Ok(entries)
}

/// A byte string as `Bytes`, in its own allocation.
pub(in crate::protocol) mod blob {
    use super::{Bytes, Decoder, Encoder, ReadError, Write, WriteError};

    pub(in crate::protocol) fn encode<Ctx, W: Write>(
        bytes: &Bytes,
        encoder: &mut Encoder<W>,
        _: &mut Ctx,
    ) -> Result<(), WriteError<W::Error>> {
        encoder.bytes(bytes)?.ok()
    }

    pub(in crate::protocol) fn decode<Ctx>(
        decoder: &mut Decoder<'_>,
        _: &mut Ctx,
    ) -> Result<Bytes, ReadError> {
        Ok(Bytes::copy_from_slice(decoder.bytes()?))
    }
}

/// A byte string or nothing: absent, or CBOR null.
pub(in crate::protocol) mod blob_option {
    use super::{Bytes, Decoder, Encoder, ReadError, Write, WriteError};

    pub(in crate::protocol) fn encode<Ctx, W: Write>(
        bytes: &Option<Bytes>,
        encoder: &mut Encoder<W>,
        _: &mut Ctx,
    ) -> Result<(), WriteError<W::Error>> {
        match bytes {
            Some(bytes) => encoder.bytes(bytes)?.ok(),
            None => encoder.null()?.ok(),
        }
    }

    pub(in crate::protocol) fn decode<Ctx>(
        decoder: &mut Decoder<'_>,
        _: &mut Ctx,
    ) -> Result<Option<Bytes>, ReadError> {
        if decoder.datatype()? == minicbor::data::Type::Null {
            decoder.null()?;
            return Ok(None);
        }
        Ok(Some(Bytes::copy_from_slice(decoder.bytes()?)))
    }

    #[expect(clippy::option_option, reason = "the shape that the derive asks for: a nil option")]
    pub(in crate::protocol) fn nil() -> Option<Option<Bytes>> {
        Some(None)
    }

    pub(in crate::protocol) fn is_nil(bytes: &Option<Bytes>) -> bool {
        bytes.is_none()
    }
}
