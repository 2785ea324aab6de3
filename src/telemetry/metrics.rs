//! What is counted, as verbs. Names are `quorate_<noun>_<unit>[_total]`.
//!
//! Callers say what happened; how it is called and labelled is decided here alone. Without a
//! recorder, as in the client library of an application that wants none, every call does nothing.
//! `edge` is `client` or `peer`.

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

macro_rules! help {
    ($($describe:ident $name:literal $unit:ident $text:literal;)+) => {
        /// Every name there is.
        pub const NAMES: &[&str] = &[$($name),+];

        /// Says what each name means, for the `# HELP` lines; once a recorder is there.
        pub fn describe() {
            $($describe!($name, Unit::$unit, $text);)+
        }
    };
}

help! {
    describe_counter "quorate_connections_accepted_total" Count "Handshakes that ended well, by edge.";
    describe_counter "quorate_connections_refused_total" Count "Connections turned away: the endpoint is full or closed.";
    describe_counter "quorate_connections_closed_total" Count "Client connections that the node ended, by wire error code.";
    describe_counter "quorate_connections_lost_total" Count "Client connections that ended without a farewell, by what ended them.";
    describe_counter "quorate_handshakes_failed_total" Count "Handshakes that failed or took too long, by edge.";
    describe_counter "quorate_address_validations_total" Count "Addresses asked to show that they can receive.";
    describe_gauge "quorate_peers_connected" Count "Peers that are connected now.";
    describe_counter "quorate_peer_refusals_total" Count "Peers refused, or that refused this node, by reason.";
    describe_counter "quorate_peer_dials_failed_total" Count "Peer addresses that could not be reached.";
    describe_counter "quorate_peer_calls_failed_total" Count "Calls to peers without an answer.";
    describe_gauge "quorate_sessions_hosted" Count "Sessions that are connected to this node now.";
    describe_gauge "quorate_sessions_open" Count "Sessions of this node that the cluster knows.";
    describe_counter "quorate_sessions_refused_total" Count "Clients that were given no session, by wire error code.";
    describe_counter "quorate_sessions_lagged_total" Count "Times that a session fell behind: its queue was full, or it slept too long.";
    describe_counter "quorate_events_skipped_total" Count "Values left out for slow sessions in favour of newer ones.";
    describe_counter "quorate_authentications_failed_total" Count "Credentials that were refused, by kind.";
    describe_counter "quorate_requests_refused_total" Count "Requests refused before the log, by wire error code.";
    describe_gauge "quorate_node_state" Count "1 for the state that the node is in.";
    describe_gauge "quorate_node_role" Count "1 for what the node does in consensus.";
    describe_gauge "quorate_term_number" Count "The newest term known here.";
    describe_gauge "quorate_log_last_index" Count "The newest entry in this node's log.";
    describe_gauge "quorate_log_durable_index" Count "The newest entry that this node has flushed.";
    describe_gauge "quorate_log_committed_index" Count "The newest entry known to be committed.";
    describe_gauge "quorate_log_applied_index" Count "The newest entry applied here.";
    describe_gauge "quorate_log_bytes" Bytes "Bytes of this node's log segments.";
    describe_gauge "quorate_log_queue_bytes" Bytes "Bytes that wait for the log's writer.";
    describe_histogram "quorate_log_flush_seconds" Seconds "From handing entries to the log until they are flushed.";
    describe_histogram "quorate_disk_flush_seconds" Seconds "One flush of a file of the log to the disk.";
    describe_gauge "quorate_proposals_unanswered" Count "Commands that hold a permit.";
    describe_gauge "quorate_proposals_unanswered_bytes" Bytes "Bytes of the commands that hold a permit.";
    describe_gauge "quorate_proposals_permits" Count "Permits that there are.";
    describe_gauge "quorate_journal_bytes" Bytes "What the events that are kept in memory are reckoned at.";
    describe_gauge "quorate_topics_count" Count "Topics.";
}

/// Where a node stands, in figures; looked at every so often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// The word for its state.
    pub state: &'static str,
    /// The word for its role.
    pub role: &'static str,
    /// Its newest term.
    pub term: u64,
    /// Newest entry in its log.
    pub last: u64,
    /// Newest entry that it has flushed.
    pub durable: u64,
    /// Newest entry known to be committed.
    pub committed: u64,
    /// Newest entry that it has applied.
    pub applied: u64,
    /// Bytes of its log.
    pub log_bytes: u64,
    /// Bytes that wait for the log's writer.
    pub queue_bytes: u64,
    /// Commands that hold a permit, and their bytes.
    pub unanswered: (u64, u64),
    /// Permits that there are.
    pub permits: u64,
    /// Bytes of the journal's ring.
    pub journal_bytes: u64,
    /// Topics.
    pub topics: u64,
    /// Its sessions, as the cluster knows them.
    pub sessions: u64,
}

/// The node stands so now; `states` and `roles` are all the words that there are.
pub fn node(figures: &Figures, states: &[&'static str], roles: &[&'static str]) {
    for state in states {
        let is_now = f64::from(u8::from(*state == figures.state));
        gauge!("quorate_node_state", "state" => *state).set(is_now);
    }
    for role in roles {
        let is_now = f64::from(u8::from(*role == figures.role));
        gauge!("quorate_node_role", "role" => *role).set(is_now);
    }
    gauge!("quorate_term_number").set(figures.term as f64);
    gauge!("quorate_log_last_index").set(figures.last as f64);
    gauge!("quorate_log_durable_index").set(figures.durable as f64);
    gauge!("quorate_log_committed_index").set(figures.committed as f64);
    gauge!("quorate_log_applied_index").set(figures.applied as f64);
    gauge!("quorate_log_bytes").set(figures.log_bytes as f64);
    gauge!("quorate_log_queue_bytes").set(figures.queue_bytes as f64);
    gauge!("quorate_proposals_unanswered").set(figures.unanswered.0 as f64);
    gauge!("quorate_proposals_unanswered_bytes").set(figures.unanswered.1 as f64);
    gauge!("quorate_proposals_permits").set(figures.permits as f64);
    gauge!("quorate_journal_bytes").set(figures.journal_bytes as f64);
    gauge!("quorate_topics_count").set(figures.topics as f64);
    gauge!("quorate_sessions_open").set(figures.sessions as f64);
}

/// Entries were flushed so long after the log had been given them.
pub fn log_flushed(after: Duration) {
    histogram!("quorate_log_flush_seconds").record(after.as_secs_f64());
}

/// The disk took so long to flush a file.
pub fn disk_flushed(time: Duration) {
    histogram!("quorate_disk_flush_seconds").record(time.as_secs_f64());
}

/// A session fell behind.
pub fn session_lagged() {
    counter!("quorate_sessions_lagged_total").increment(1);
}

/// So many values were left out for a slow session.
pub fn events_skipped(count: u64) {
    counter!("quorate_events_skipped_total").increment(count);
}

/// A request was refused before the log; `code` is the wire error.
pub fn request_refused(code: u16) {
    counter!("quorate_requests_refused_total", "code" => code.to_string()).increment(1);
}

/// The node ended a client's connection; `code` is the wire error.
pub fn connection_closed(code: u16) {
    counter!("quorate_connections_closed_total", "code" => code.to_string()).increment(1);
}

/// A client's connection ended without a farewell; `how` is the transport's word for it.
pub fn connection_lost(how: &'static str) {
    counter!("quorate_connections_lost_total", "how" => how).increment(1);
}

/// A handshake on this edge ended well.
pub fn connection_accepted(edge: &'static str) {
    counter!("quorate_connections_accepted_total", "edge" => edge).increment(1);
}

/// A connection was turned away because the endpoint is full or its listener closed.
pub fn connection_refused(edge: &'static str) {
    counter!("quorate_connections_refused_total", "edge" => edge).increment(1);
}

/// Datagrams came that are of no connection, for this reason: of a version that is not spoken, with
/// an unknown connection id, or cut off.
pub fn datagrams_unknown(edge: &'static str, why: &'static str, count: usize) {
    counter!("quorate_datagrams_unknown_total", "edge" => edge, "why" => why)
        .increment(count as u64);
}

/// First packets of connections were dropped, since as many as may were waiting for their turn.
pub fn first_packets_dropped(edge: &'static str, count: usize) {
    counter!("quorate_first_packets_dropped_total", "edge" => edge).increment(count as u64);
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
