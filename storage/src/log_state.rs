//! What a log remembers while it is open.
