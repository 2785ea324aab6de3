//! Where the log begins, and what it owes.
