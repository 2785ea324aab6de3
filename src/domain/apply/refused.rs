//! The host refused the request for good: the number is used, the reason kept as its answer.

use super::Decision;
use crate::domain::outcome::Rejection;

pub(in crate::domain) fn apply(code: u16) -> Decision {
    Err(Rejection::from_code(code).unwrap_or(Rejection::RefusedByHost))
}
