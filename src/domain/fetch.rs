//! Fetch: which topics a reader asks for, in which pages.
