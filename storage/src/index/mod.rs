//! index
mod in_memory;
mod mark;
mod on_sled;
mod postings;
mod rows;
mod store;
pub use in_memory::MemoryStore;
pub use postings::Posting;
pub use store::{Batch, BatchError, Page, StoreError, Tree};
