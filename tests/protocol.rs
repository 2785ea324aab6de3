//! Where the protocol repeats what belongs to the domain, the two are held together here.

use bytes::{Bytes, BytesMut};
use quorate::domain::command::{Command, TypedValue};
use quorate::domain::id::{StreamId, TopicId};
use quorate::domain::outcome::Rejection;
use quorate::domain::topic::path::TopicPath;
use quorate::domain::topic::specification::TopicType;
use quorate::protocol::ErrorCode;
use quorate::protocol::record::{Target, put_record};

const TYPES: [TopicType; 5] =
    [TopicType::String, TopicType::Json, TopicType::Binary, TopicType::Int64, TopicType::Double];

/// A record that a client lays is the very command that it stands for in the log.
#[test]
fn update_records_are_the_logs_own_bytes() {
    let path = TopicPath::parse("a/b").unwrap();
    let targets = [
        Target::Topic(TopicId(0x0102_0304_0506_0708)),
        Target::Stream(TopicId(7), StreamId(8)),
        Target::Path(path),
    ];
    for target in targets {
        for value_type in TYPES {
            for bytes in [Some(Bytes::from_static(b"12345678")), None] {
                if bytes.is_none() && !value_type.allows_null() {
                    continue;
                }
                let mut record = BytesMut::new();
                put_record(&mut record, &target, value_type as u8, bytes.as_deref());
                let record = record.freeze();
                let value = TypedValue { value_type, bytes: bytes.clone() };
                let command = match &target {
                    Target::Topic(topic) => Command::Update { topic: *topic, stream: None, value },
                    Target::Stream(topic, stream) => {
                        Command::Update { topic: *topic, stream: Some(*stream), value }
                    }
                    Target::Path(path) => Command::SetByPath { path: path.clone(), value },
                };
                assert_eq!(command.encode(), record, "{command:?}");
                assert_eq!(Command::decode(record).unwrap(), command);
            }
        }
    }
}

/// Every reason in the log has a name on the wire, with the same number.
#[test]
fn rejections_are_wire_error_codes() {
    use Rejection as R;
    let pairs = [
        (R::Undecodable, ErrorCode::Undecodable),
        (R::NoSuchSession, ErrorCode::NoSuchSession),
        (R::StaleEpoch, ErrorCode::StaleEpoch),
        (R::StaleRoles, ErrorCode::StaleRoles),
        (R::Gap, ErrorCode::Gap),
        (R::Forgotten, ErrorCode::Forgotten),
        (R::WrongSecret, ErrorCode::WrongSecret),
        (R::RefusedByHost, ErrorCode::RefusedByHost),
        (R::TooMany, ErrorCode::TooMany),
        (R::StaleHost, ErrorCode::StaleHost),
        (R::SessionExists, ErrorCode::SessionExists),
        (R::InvalidScope, ErrorCode::InvalidScope),
        (R::NoSuchTopic, ErrorCode::NoSuchTopic),
        (R::ExistsMismatch, ErrorCode::ExistsMismatch),
        (R::InvalidPath, ErrorCode::InvalidPath),
        (R::InvalidSpecification, ErrorCode::InvalidSpecification),
        (R::IncompatibleValue, ErrorCode::IncompatibleValue),
        (R::UnsatisfiedConstraint, ErrorCode::UnsatisfiedConstraint),
        (R::InvalidStream, ErrorCode::InvalidStream),
        (R::ValueTooLarge, ErrorCode::ValueTooLarge),
        (R::InvalidSelector, ErrorCode::InvalidSelector),
        (R::InvalidConstraint, ErrorCode::InvalidConstraint),
        (R::PermissionDenied, ErrorCode::PermissionDenied),
        (R::AlreadyFounded, ErrorCode::AlreadyFounded),
    ];
    for (rejection, code) in pairs {
        assert_eq!(rejection.code(), code.number(), "{rejection:?}");
    }
    // A rejection that is not listed above has no other number than one that is.
    for number in 0..1_000 {
        if let Some(rejection) = Rejection::from_code(number) {
            let listed = pairs.iter().any(|(known, _)| *known == rejection);
            assert!(listed, "{rejection:?} has no name on the wire");
        }
    }
}
