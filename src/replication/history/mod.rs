//! What the log tells once its events have left memory: a scratch machine that applies it again,
//! readers of the journal on disk, and what apply leaves behind for the index.

pub(super) mod indexing;
pub(super) mod reader;
pub(super) mod scratch;
