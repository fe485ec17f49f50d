//! A metadata event as bytes, and back.
//!
//! Contract: one record is an envelope `{kind u16, version u16, payload length u32}` and its payload. The payload of an
//! event, version 1, is frozen: a change of layout is a new version. Everything is little-endian and fixed-width;
//! bincode writes it (nothing outside this file names bincode) and the golden test holds that fixed-int bincode is
//! those bytes and nothing more. Checksums are the frame's; still every length and count is bounded here, so that a
//! hostile record costs no more memory than a few times its own size.
//!
//! A version with its highest bit set may be skipped by a program that does not know it; any other unknown kind or
//! version must stop the reader ([`Record::Newer`]).
//!
//! Payload, version 1:
//!
//! ```text
//! stamp        millis u64, counter u32, writer 16 B
//! groups u32   times: kind u16, uid 16 B, operations u32 times:
//!                field u16, key length u32, value tag u8, value length u32, key, value
//! attributes u32 times: tag u16, length u32, bytes
//! ```

use bincode::de::read::{BorrowReader, Reader};
use bincode::de::{BorrowDecode, BorrowDecoder, Decode, DecoderImpl};
use bincode::enc::write::Writer;
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};

use super::event::{EntityKind, Event, EventRef, Field, Operation, OperationRef, ValueRef};
use crate::error::{Error, Malformed, Result};
use crate::id::{Stamp, Uid, WriterId};
use crate::limits::{EVENT_BYTES_MAX, EVENT_OPS_MAX, KEY_BYTES_MAX};

/// Bytes of the envelope in front of every metadata record.
pub const RECORD_HEADER_BYTES: usize = 8;

const KIND_EVENT: u16 = 1;
const VERSION: u16 = 1;
const IGNORABLE: u16 = 0x8000;
/// An operation without key and value bytes.
const OPERATION_BYTES_MIN: usize = 11;
const GROUP_BYTES_MIN: usize = 22;
const ATTRIBUTE_BYTES_MIN: usize = 6;
/// Room made before the elements were seen; beyond it memory follows the bytes that are really there.
const CAPACITY_MAX: usize = 1024;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<EVENT_BYTES_MAX>,
> = bincode::config::standard()
    .with_little_endian()
    .with_fixed_int_encoding()
    .with_limit::<EVENT_BYTES_MAX>();

/// What a metadata record turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<E = Event> {
    /// An event.
    Event(E),
    /// Something of a later program that says it may be skipped.
    Ignorable,
    /// Something of a later program that must be understood.
    Newer {
        /// Its kind.
        kind: u16,
        /// Its version.
        version: u16,
    },
}

/// Appends the record of `event` to `out`.
///
/// Operations that follow each other on one entity share its kind and uid, so keep them together.
///
/// # Errors
/// [`Error::InvalidArgument`] when the event is past [`EVENT_OPS_MAX`], [`EVENT_BYTES_MAX`] or [`KEY_BYTES_MAX`]; then
/// `out` is as it was.
pub fn encode_event(event: &Event, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    let encoded = encode_payload(event, out);
    if encoded.is_err() {
        out.truncate(start);
    }
    encoded
}

fn encode_payload(event: &Event, out: &mut Vec<u8>) -> Result<()> {
    if event.operations.len() > EVENT_OPS_MAX {
        return Err(Error::invalid(format!(
            "one call changes {} properties, the most is {EVENT_OPS_MAX}: split it",
            event.operations.len()
        )));
    }
    if let Some(long) = event.operations.iter().find(|o| o.key.len() > KEY_BYTES_MAX) {
        let head: String = long.key.chars().take(40).collect();
        return Err(Error::invalid(format!("the key '{head}...' is longer than {KEY_BYTES_MAX} bytes")));
    }
    let start = out.len();
    out.extend_from_slice(&KIND_EVENT.to_le_bytes());
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let payload_at = out.len();
    bincode::encode_into_writer(EventV1Ref(event), Append(out), CONFIG).map_err(|_| too_large())?;
    let length = out.len() - payload_at;
    if length > EVENT_BYTES_MAX - RECORD_HEADER_BYTES {
        return Err(too_large());
    }
    let length = u32::try_from(length).map_err(|_| too_large())?;
    if let Some(place) = out.get_mut(start + 4..payload_at) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    Ok(())
}

fn too_large() -> Error {
    Error::invalid(format!("one call changes more than {EVENT_BYTES_MAX} bytes of metadata: split it"))
}

/// Reads one record that fills `bytes` exactly.
///
/// # Errors
/// As [`read_event`].
pub fn decode_event(bytes: &[u8]) -> Result<Record, Malformed> {
    Ok(match read_event(bytes)? {
        Record::Event(event) => Record::Event(event.to_event()),
        Record::Ignorable => Record::Ignorable,
        Record::Newer { kind, version } => Record::Newer { kind, version },
    })
}

/// Reads one record that fills `bytes` exactly, without copying its text: what a catalog applies.
///
/// # Errors
/// [`Malformed`] with the place and what should stand there. Allocates no more than the bytes justify.
pub fn read_event(bytes: &[u8]) -> Result<Record<EventRef<'_>>, Malformed> {
    if bytes.len() > EVENT_BYTES_MAX {
        return Err(Malformed::new(0, "a metadata record within the limit", bytes.len() as u64));
    }
    let Some((header, payload)) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>() else {
        return Err(Malformed::new(0, "a record envelope of 8 bytes", bytes.len() as u64));
    };
    let [k0, k1, v0, v1, l0, l1, l2, l3] = *header;
    let (kind, version) = (u16::from_le_bytes([k0, k1]), u16::from_le_bytes([v0, v1]));
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if usize::try_from(length).ok() != Some(payload.len()) {
        return Err(Malformed::new(4, "the length of the rest of the record", length.into()));
    }
    match (kind, version) {
        (KIND_EVENT, VERSION) => decode_payload(payload).map(Record::Event),
        (_, version) if version & IGNORABLE != 0 => Ok(Record::Ignorable),
        (kind, version) => Ok(Record::Newer { kind, version }),
    }
}

fn decode_payload(payload: &[u8]) -> Result<EventRef<'_>, Malformed> {
    let mut decoder = DecoderImpl::new(Cursor { bytes: payload, at: 0 }, CONFIG, Total(payload.len()));
    let decoded = EventV1::borrow_decode(&mut decoder);
    let at = bincode::de::Decoder::reader(&mut decoder).at;
    let here = RECORD_HEADER_BYTES + at;
    match decoded {
        Ok(EventV1(event)) if at == payload.len() => Ok(event),
        Ok(_) => Err(Malformed::new(here, "the end of the event", (payload.len() - at) as u64)),
        Err(DecodeError::Other(expected)) => Err(Malformed::new(here, expected, 0)),
        Err(DecodeError::UnexpectedEnd { additional }) => {
            Err(Malformed::new(here, "more bytes of the event", additional as u64))
        }
        Err(_) => Err(Malformed::new(here, "an event within the byte limit", payload.len() as u64)),
    }
}

struct EventV1<'a>(EventRef<'a>);
struct EventV1Ref<'a>(&'a Event);

/// How many bytes the payload has: no count in it can be greater than they can hold.
struct Total(usize);

struct Append<'a>(&'a mut Vec<u8>);

impl Writer for Append<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader for Cursor<'_> {
    #[inline]
    fn read(&mut self, into: &mut [u8]) -> Result<(), DecodeError> {
        into.copy_from_slice(self.take_bytes(into.len())?);
        Ok(())
    }
}

impl<'a> BorrowReader<'a> for Cursor<'a> {
    #[inline]
    fn take_bytes(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(taken) = rest.get(..length) else {
            return Err(DecodeError::UnexpectedEnd { additional: length - rest.len() });
        };
        self.at += length;
        Ok(taken)
    }
}

fn length(n: usize) -> Result<u32, EncodeError> {
    u32::try_from(n).map_err(|_| EncodeError::Other("a length past u32"))
}

impl Encode for EventV1Ref<'_> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let Event { stamp, operations, attributes } = self.0;
        stamp.millis.encode(encoder)?;
        stamp.counter.encode(encoder)?;
        encoder.writer().write(stamp.writer.as_bytes())?;
        let groups = || operations.chunk_by(|a, b| (a.kind, a.uid) == (b.kind, b.uid));
        length(groups().count())?.encode(encoder)?;
        for group in groups() {
            if let Some(first) = group.first() {
                first.kind.0.encode(encoder)?;
                encoder.writer().write(first.uid.as_bytes())?;
            }
            length(group.len())?.encode(encoder)?;
            for Operation { field, key, value, .. } in group {
                let value = value.borrow();
                field.0.encode(encoder)?;
                length(key.len())?.encode(encoder)?;
                value.tag().encode(encoder)?;
                value.with_bytes(|bytes| {
                    length(bytes.len())?.encode(encoder)?;
                    encoder.writer().write(key.as_bytes())?;
                    encoder.writer().write(bytes)
                })?;
            }
        }
        length(attributes.len())?.encode(encoder)?;
        for (tag, bytes) in attributes {
            tag.encode(encoder)?;
            length(bytes.len())?.encode(encoder)?;
            encoder.writer().write(bytes)?;
        }
        Ok(())
    }
}

/// A count of things that take at least `least` bytes each.
fn count<'de, D: BorrowDecoder<'de, Context = Total>>(
    decoder: &mut D,
    least: usize,
) -> Result<usize, DecodeError> {
    let count = bytes_length(decoder)?;
    if count > decoder.context().0 / least {
        return Err(DecodeError::Other("a count that the record has room for"));
    }
    Ok(count)
}

fn bytes_length<'de, D: BorrowDecoder<'de>>(decoder: &mut D) -> Result<usize, DecodeError> {
    usize::try_from(u32::decode(decoder)?).map_err(|_| DecodeError::LimitExceeded)
}

fn take<'de, D: BorrowDecoder<'de>>(decoder: &mut D, length: usize) -> Result<&'de [u8], DecodeError> {
    decoder.claim_bytes_read(length)?;
    decoder.borrow_reader().take_bytes(length)
}

fn array<'de, D: BorrowDecoder<'de>>(decoder: &mut D) -> Result<[u8; 16], DecodeError> {
    take(decoder, 16)?.try_into().map_err(|_| DecodeError::Other("an identity of 16 bytes"))
}

impl<'de> BorrowDecode<'de, Total> for EventV1<'de> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Total>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let stamp = Stamp {
            millis: u64::decode(decoder)?,
            counter: u32::decode(decoder)?,
            writer: WriterId::from_bytes(array(decoder)?),
        };
        let mut operations = Vec::new();
        for _ in 0..count(decoder, GROUP_BYTES_MIN)? {
            let kind = EntityKind(u16::decode(decoder)?);
            let uid = Uid::from_bytes(array(decoder)?);
            let members = count(decoder, OPERATION_BYTES_MIN)?;
            if operations.len() + members > EVENT_OPS_MAX {
                return Err(DecodeError::Other("no more operations than an event may have"));
            }
            operations.reserve(members.min(CAPACITY_MAX));
            for _ in 0..members {
                let field = Field(u16::decode(decoder)?);
                let key_length = bytes_length(decoder)?;
                let tag = u8::decode(decoder)?;
                let value_length = bytes_length(decoder)?;
                if key_length > KEY_BYTES_MAX {
                    return Err(DecodeError::Other("a key within the limit"));
                }
                let key = std::str::from_utf8(take(decoder, key_length)?)
                    .map_err(|_| DecodeError::Other("a key in UTF-8"))?;
                let value =
                    ValueRef::from_parts(tag, take(decoder, value_length)?).map_err(DecodeError::Other)?;
                operations.push(OperationRef { kind, uid, field, key, value });
            }
        }
        let attribute_count = count(decoder, ATTRIBUTE_BYTES_MIN)?;
        let mut attributes = Vec::with_capacity(attribute_count.min(CAPACITY_MAX));
        for _ in 0..attribute_count {
            let tag = u16::decode(decoder)?;
            let length = bytes_length(decoder)?;
            attributes.push((tag, take(decoder, length)?));
        }
        Ok(Self(EventRef { stamp, operations, attributes }))
    }
}

/// The entities that a record touches, each once; none for a record of a later program.
///
/// # Errors
/// As [`decode_event`].
pub fn event_entities(bytes: &[u8]) -> Result<Vec<(EntityKind, Uid)>, Malformed> {
    let Record::Event(event) = decode_event(bytes)? else { return Ok(Vec::new()) };
    Ok(entities_of(&event.operations))
}

/// The entities that operations touch, each once.
pub fn entities_of(operations: &[Operation]) -> Vec<(EntityKind, Uid)> {
    let mut entities: Vec<_> = operations.iter().map(|o| (o.kind, o.uid)).collect();
    entities.sort_unstable();
    entities.dedup();
    entities
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::event::Value;

    fn example() -> Event {
        let uid = Uid::from_bytes([0xab; 16]);
        let operation =
            |field, key: &str, value| Operation { kind: EntityKind::RUN, uid, field, key: key.into(), value };
        Event {
            stamp: Stamp { millis: 0x0102, counter: 3, writer: WriterId::from_bytes([0xcd; 16]) },
            operations: vec![
                operation(Field::PARAM, "lr", "0.1".into()),
                operation(Field::END_MS, "", Value::Integer(-2)),
            ],
            attributes: vec![(7, vec![1, 2])],
        }
    }

    /// The bytes of `docs/format.md`, written out field by field: what bincode writes is plain little-endian.
    #[test]
    fn golden_bytes_of_an_event() {
        let mut expected = Vec::new();
        expected.extend_from_slice(&[1, 0, 1, 0, 101, 0, 0, 0]);
        expected.extend_from_slice(&[2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]);
        expected.extend_from_slice(&[0xcd; 16]);
        expected.extend_from_slice(&[1, 0, 0, 0, 2, 0]);
        expected.extend_from_slice(&[0xab; 16]);
        expected.extend_from_slice(&[2, 0, 0, 0]);
        expected.extend_from_slice(&[7, 0, 2, 0, 0, 0, 4, 3, 0, 0, 0]);
        expected.extend_from_slice(b"lr0.1");
        expected.extend_from_slice(&[13, 0, 0, 0, 0, 0, 2, 8, 0, 0, 0]);
        expected.extend_from_slice(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        expected.extend_from_slice(&[1, 0, 0, 0, 7, 0, 2, 0, 0, 0, 1, 2]);
        let mut bytes = Vec::new();
        encode_event(&example(), &mut bytes).unwrap();
        assert_eq!(bytes, expected);
        assert_eq!(decode_event(&bytes).unwrap(), Record::Event(example()));
    }

    #[test]
    fn a_later_version_is_skipped_or_stops_the_reader_as_it_says() {
        let record = |kind: u16, version: u16| {
            let mut bytes = [kind.to_le_bytes(), version.to_le_bytes()].concat();
            bytes.extend_from_slice(&[3, 0, 0, 0, 9, 9, 9]);
            decode_event(&bytes).unwrap()
        };
        assert_eq!(record(1, 0x8002), Record::Ignorable);
        assert_eq!(record(77, 0x8001), Record::Ignorable);
        assert_eq!(record(1, 2), Record::Newer { kind: 1, version: 2 });
        assert_eq!(record(77, 1), Record::Newer { kind: 77, version: 1 });
    }

    #[test]
    fn values_of_unknown_types_survive() {
        let mut event = example();
        event.operations[0].value = Value::Unknown { tag: 200, bytes: vec![1, 2, 3] };
        event.operations[0].field = Field(60_000);
        let mut bytes = Vec::new();
        encode_event(&event, &mut bytes).unwrap();
        assert_eq!(decode_event(&bytes).unwrap(), Record::Event(event));
    }

    #[test]
    fn every_cut_and_every_flipped_count_is_an_error_not_a_crash() {
        let mut bytes = Vec::new();
        encode_event(&example(), &mut bytes).unwrap();
        for cut in 0..bytes.len() {
            assert!(decode_event(&bytes[..cut]).is_err(), "cut at {cut}");
            let mut short = bytes[..cut].to_vec();
            if let Some(length) = short.get_mut(4..8) {
                length.copy_from_slice(&(cut as u32 - 8).to_le_bytes());
                assert!(decode_event(&short).is_err(), "cut and patched at {cut}");
            }
        }
        // The number of groups, of operations, the key length, the value length and the number of attributes.
        for place in [36, 58, 64, 69, 97] {
            let mut hostile = bytes.clone();
            hostile[place..place + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            assert!(decode_event(&hostile).is_err(), "count at {place}");
        }
    }

    #[test]
    fn an_event_past_a_limit_is_refused_and_leaves_the_buffer_alone() {
        let mut event = example();
        event.operations[0].key = "k".repeat(KEY_BYTES_MAX + 1);
        let mut bytes = vec![1, 2, 3];
        assert!(encode_event(&event, &mut bytes).is_err());
        event.operations[0].key.clear();
        event.operations[0].value = Value::Bytes(vec![0; EVENT_BYTES_MAX]);
        assert!(encode_event(&event, &mut bytes).is_err());
        assert_eq!(bytes, [1, 2, 3]);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_payloads_never_panic(payload in proptest::collection::vec(0u8..=255, 0..200)) {
            let mut bytes = vec![1, 0, 1, 0];
            bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&payload);
            if let Ok(Record::Event(event)) = decode_event(&bytes) {
                let mut again = Vec::new();
                encode_event(&event, &mut again).unwrap();
                proptest::prop_assert_eq!(decode_event(&again).unwrap(), Record::Event(event));
            }
        }
    }
}
