//! Fetch: rows of topics from a state that stands still.

use super::translate::Unfit;
use crate::domain::machine::Machine;
use crate::protocol::ErrorCode;
use crate::protocol::read::{Answer, Fetch, Row};

/// Evaluates a fetch, page by page so that other tasks have their turns.
///
/// # Errors
/// [`Unfit`] names what is wrong with the request.
pub(super) async fn rows(fetch: &Fetch, view: &Machine) -> Result<Answer, Unfit> {
    let _ = (fetch, view);
    Err(Unfit { code: ErrorCode::InvalidFetch, text: "not built".to_owned() })
}

/// What rows take in a message, roughly.
#[must_use]
pub(super) fn rows_bytes(rows: &[Row]) -> usize {
    rows.iter()
        .map(|row| 64 + row.path.len() + row.value.as_ref().map_or(0, bytes::Bytes::len))
        .sum()
}
