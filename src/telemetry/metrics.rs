//! What is counted, as verbs. Names are `quorate_<noun>_<unit>[_total]`.
//!
//! Callers say what happened; how it is called and labelled is decided here alone. Without a
//! recorder, as in the client library of an application that wants none, every call does nothing.
//! `edge` is `client` or `peer`.

use metrics::{counter, gauge};

/// A handshake on this edge ended well.
pub fn connection_accepted(edge: &'static str) {
    counter!("quorate_connections_accepted_total", "edge" => edge).increment(1);
}

/// A connection was turned away because the endpoint is full or its listener closed.
pub fn connection_refused(edge: &'static str) {
    counter!("quorate_connections_refused_total", "edge" => edge).increment(1);
}

/// A handshake failed or took too long.
pub fn handshake_failed(edge: &'static str) {
    counter!("quorate_handshakes_failed_total", "edge" => edge).increment(1);
}

/// An address was asked to show that it can receive, since many handshakes are under way.
pub fn address_validation_asked(edge: &'static str) {
    counter!("quorate_address_validations_total", "edge" => edge).increment(1);
}

/// This many peers are connected now.
pub fn peers_connected(count: usize) {
    gauge!("quorate_peers_connected").set(count as f64);
}

/// A peer was refused, or refused us.
pub fn peer_refused(reason: &'static str, by_us: bool) {
    let by = if by_us { "us" } else { "them" };
    counter!("quorate_peer_refusals_total", "reason" => reason, "by" => by).increment(1);
}

/// A peer's address could not be reached.
pub fn peer_dial_failed() {
    counter!("quorate_peer_dials_failed_total").increment(1);
}

/// A call to a peer brought no answer.
pub fn peer_call_failed() {
    counter!("quorate_peer_calls_failed_total").increment(1);
}

/// So many bytes have been set aside as damaged.
pub fn quarantine_bytes(bytes: u64) {
    gauge!("quorate_quarantine_bytes").set(bytes as f64);
}

/// This many sessions are connected to the node now.
pub fn sessions_hosted(count: usize) {
    gauge!("quorate_sessions_hosted").set(count as f64);
}

/// A client was not given a session; `code` is the wire error.
pub fn session_refused(code: u16) {
    counter!("quorate_sessions_refused_total", "code" => code.to_string()).increment(1);
}

/// Credentials were refused: `kind` is `anonymous` or `password`.
pub fn authentication_failed(kind: &'static str) {
    counter!("quorate_authentications_failed_total", "kind" => kind).increment(1);
}
