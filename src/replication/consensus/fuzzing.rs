//! Body of the fuzz target of what peers send each other for consensus: any bytes in, no panic, and
//! what decodes survives a round trip.

use std::fmt::Debug;

use bytes::{Buf, Bytes};

use crate::replication::consensus::append_frame::{
    AppendHead, accepted_bytes, answer_bytes, append_head_bytes, ballot_bytes, take_accepted,
    take_answer, take_ballot, take_transfer, take_verdict, transfer_bytes, verdict_bytes,
};
use crate::replication::consensus::raft_codec::{
    membership_bytes, take_membership, take_vote, vote_bytes,
};
use crate::replication::consensus::snapshot_transfer::{offer_bytes, take_offer};
use crate::replication::founding::bootstrap::Introduction;
use crate::replication::founding::rules::Standing;
use crate::replication::members::ask::{report_bytes, take_report};
use crate::replication::proposing::proposer::{commands_bytes, take_commands};

/// Reads the bytes after the first as the message that the first one chooses.
///
/// # Panics
/// When a message that was read is another after it was written and read again.
pub fn consensus_messages(bytes: &[u8]) {
    let mut bytes = Bytes::copy_from_slice(bytes);
    if bytes.is_empty() {
        return;
    }
    match bytes.get_u8() % 12 {
        0 => append_request(bytes),
        1 => again(bytes, take_accepted, accepted_bytes),
        2 => again(bytes, take_ballot, ballot_bytes),
        3 => again(bytes, take_answer, answer_bytes),
        4 => again(bytes, take_transfer, transfer_bytes),
        5 => again(bytes, take_verdict, verdict_bytes),
        6 => again(bytes, |mut bytes| take_vote(&mut bytes), vote_bytes),
        7 => again(bytes, |mut bytes| take_membership(&mut bytes), membership_bytes),
        8 => again(bytes, |mut bytes| Standing::take(&mut bytes), Standing::encode),
        9 => again(bytes, Introduction::decode, Introduction::encode),
        10 => again(bytes, take_report, report_bytes),
        _ => {
            again(bytes.clone(), take_offer, |(vote, file)| offer_bytes(vote, file));
            again(bytes, take_commands, |commands| commands_bytes(commands));
        }
    }
}

/// `head length u16 · head · { payload length u16 · payload }*`, as far as the input goes.
fn append_request(mut bytes: Bytes) {
    let head_bytes = take_part(&mut bytes);
    let Ok(mut head) = AppendHead::take(head_bytes.clone()) else { return };
    while head.missing() > 0 {
        if bytes.is_empty() || head.add(take_part(&mut bytes)).is_err() {
            return;
        }
    }
    let request = head.whole().expect("nothing is missing");
    assert_eq!(append_head_bytes(&request), head_bytes, "an append has one encoding only");
}

fn take_part(bytes: &mut Bytes) -> Bytes {
    if bytes.len() < 2 {
        return Bytes::new();
    }
    let length = usize::from(bytes.get_u16_le());
    bytes.split_to(length.min(bytes.len()))
}

fn again<T: PartialEq + Debug, E: PartialEq + Debug>(
    bytes: Bytes,
    take: impl Fn(Bytes) -> Result<T, E>,
    put: impl Fn(&T) -> Bytes,
) {
    if let Ok(found) = take(bytes) {
        assert_eq!(take(put(&found)).as_ref(), Ok(&found), "it must survive a round trip");
    }
}
