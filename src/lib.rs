//! Quorate: a persistent, log-structured, clustered topic server, and its client library.
//!
//! ```text
//!      clients (QUIC)                                other nodes (QUIC, mTLS)
//!  ┌──────▼──────┐  Proposal   ┌─────────────┐          ┌─────▼─────┐
//!  │   gateway   ├────────────►│ replication │◄────────►│   peer    │
//!  │ requests in │◄────────────┤ one order   │          └───────────┘
//!  │ events out  │   Outcome   └──┬───────┬──┘
//!  └──────▲──────┘         append │       │ apply
//!         │                  ┌────▼────┐ ┌▼──────────────────────┐
//!         │                  │ storage │ │ domain (pure)         │
//!         │                  │ (crate) │ │ topics sessions config│
//!         │                  └─────────┘ └──────────┬────────────┘
//!         └──────────── events (journal) ───────────┘
//! ```
//!
//! Layers, each using only those below it; `tests/architecture.rs` holds the tree to it:
//!
//! | line | modules |
//! |---|---|
//! | 7 | `cli`: arguments, subcommands, exit codes |
//! | 6 | `node`: builds and wires the parts |
//! | 5 | `gateway`: client connections · `console`: health and metrics over HTTP |
//! | 4 | `replication`: one order for all commands |
//! | 3 | `peer`: one connection per pair of nodes · [`client`]: the public client library |
//! | 2 | [`transport`]: endpoints, TLS, framed streams |
//! | 1 | [`protocol`], [`config`], [`telemetry`], [`supervisor`], [`clock`], [`entropy`], `host` |
//! | 0 | [`domain`]: decides, pure |
//!
//! Programs want [`client::Client`]; without the feature `server` there is little else.

#[cfg(feature = "server")]
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
#[cfg(feature = "server")]
pub mod console;
pub mod domain;
pub mod entropy;
#[cfg(feature = "server")]
pub mod gateway;
#[doc(hidden)]
pub mod host;
#[cfg(feature = "server")]
pub mod node;
#[cfg(feature = "server")]
pub mod peer;
pub mod protocol;
#[cfg(feature = "server")]
pub mod replication;
pub mod supervisor;
pub mod telemetry;
pub mod transport;
