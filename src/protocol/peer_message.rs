//! What peers say when they meet. Lane payloads are opaque here and belong to `replication`.
