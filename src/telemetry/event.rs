//! Codes of lifecycle events: the field `event` of a log line.
//!
//! A code means the same in every version and is never used again for something else. All stand in
//! this file, and `docs/events.md` says what each asks of the operator; a test holds the two
//! together. 0xx process, 1xx storage, 2xx consensus and cluster, 3xx peers and network, 4xx
//! clients and sessions, 5xx security.

macro_rules! events {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal;)+) => {
        $($(#[doc = $doc])+ pub const $name: &str = $code;)+

        /// Every code with its meaning, in the order of this file.
        pub const ALL: &[(&str, &str)] = &[$(($code, concat!($($doc),+))),+];
    };
}

events! {
    /// The node's process started.
    NODE_STARTED = "Q-001";
    /// The node moved to another state of its life.
    STATE_CHANGED = "Q-002";
    /// The node begins to stop.
    NODE_STOPPING = "Q-003";
    /// The node stopped in good order.
    NODE_STOPPED = "Q-004";
    /// A task or thread panicked; the node ends with exit code 70.
    TASK_PANICKED = "Q-010";
    /// A task did not end in time while stopping and was cut off.
    TASK_ABORTED = "Q-011";
    /// A setting is legal but unwise.
    SETTING_DOUBTFUL = "Q-020";
    /// A generated password was printed, once.
    PASSWORD_GENERATED = "Q-021";
    /// `pid` or `ports.json` could not be written after it had waited for space.
    NOTE_NOT_WRITTEN = "Q-022";

    /// The log was opened; the fields say what was found.
    LOG_OPENED = "Q-100";
    /// An unproven tail of the log was damaged and cut.
    LOG_TAIL_CUT = "Q-101";
    /// Records below the durable mark are damaged.
    LOG_HOLE = "Q-102";
    /// A flush failed; nothing is acknowledged any more.
    STORAGE_POISONED = "Q-103";
    /// The disk is full; the node is read-only, or waits to start, until there is space.
    DISK_FULL = "Q-104";
    /// There is space again.
    DISK_RECOVERED = "Q-105";
    /// The index was damaged or missing and is being rebuilt.
    INDEX_REBUILT = "Q-106";
    /// A snapshot was written.
    SNAPSHOT_WRITTEN = "Q-107";
    /// A snapshot from a peer was installed.
    SNAPSHOT_INSTALLED = "Q-108";
    /// The log was purged below a snapshot.
    LOG_PURGED = "Q-109";

    /// A damaged snapshot was set aside; an older one or the log takes its place.
    SNAPSHOT_SET_ASIDE = "Q-110";
    /// Old snapshots could not be removed.
    SNAPSHOTS_NOT_PRUNED = "Q-111";
    /// That the doubts about the log are settled could not be stored.
    DOUBTS_NOT_SETTLED = "Q-112";
    /// The index of the log cannot be written, or is off.
    INDEX_TROUBLE = "Q-113";
    /// A hole in the log was filled with a peer's entries.
    LOG_REPAIRED = "Q-114";
    /// The log was given up for a peer's snapshot that covers all of it.
    LOG_REPLACED = "Q-115";
    /// A hole cannot be filled yet: no peer in sight has what is missing.
    REPAIR_WAITS = "Q-116";
    /// Much has been set aside on this disk.
    QUARANTINE_LARGE = "Q-117";

    /// A cluster was founded.
    CLUSTER_FOUNDED = "Q-200";
    /// A pledge was given to a proposer of the founding.
    PLEDGE_GIVEN = "Q-201";
    /// Another node became leader, or none is.
    LEADER_CHANGED = "Q-202";
    /// The node lost sight of the quorum.
    QUORUM_LOST = "Q-203";
    /// The node sees the quorum again.
    QUORUM_REGAINED = "Q-204";
    /// The node belongs to another cluster.
    WRONG_CLUSTER = "Q-205";
    /// State hashes differ at the same index.
    STATE_DIVERGED = "Q-206";
    /// A peer forwarded what is no batch of commands.
    FORWARD_GARBLED = "Q-207";
    /// A snapshot that a peer offered was not taken.
    SNAPSHOT_REFUSED = "Q-208";
    /// The log rejected this node's own start.
    START_REJECTED = "Q-209";
    /// The leader gave up a node that it has not heard for too long; its sessions are detached.
    NODE_LOST = "Q-210";
    /// The node may vote again: its log holds all that it could have acknowledged.
    VOTES_AGAIN = "Q-211";
    /// A state that diverged was replaced by a peer's that a majority shares.
    STATE_HEALED = "Q-212";
    /// This node leads with a full disk and hands leadership on.
    HANDED_OVER = "Q-213";

    /// A UDP socket was bound; the fields say what buffers the kernel granted.
    SOCKET_BOUND = "Q-300";
    /// A peer is connected.
    PEER_CONNECTED = "Q-301";
    /// The connection to a peer is over.
    PEER_DISCONNECTED = "Q-302";
    /// A peer was refused, or refused us; the field says why.
    PEER_REFUSED = "Q-303";
    /// Another process uses this node's name.
    NAME_IN_USE = "Q-304";
    /// A peer cannot be reached; logged once until it is reached or the reason changes.
    PEER_UNREACHABLE = "Q-305";

    /// The listener for clients is open.
    CLIENTS_WELCOME = "Q-400";
    /// The listener for clients is closed.
    CLIENTS_CLOSED = "Q-401";
    /// A client broke the protocol and was cut off.
    CLIENT_REFUSED = "Q-402";
    /// The HTTP listener is open.
    HTTP_OPEN = "Q-410";

    /// Credentials were refused.
    AUTHENTICATION_FAILED = "Q-500";
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn codes_are_unique_and_well_formed() {
        let mut codes: Vec<_> = ALL.iter().map(|(code, _)| *code).collect();
        assert!(codes.iter().all(|code| {
            code.len() == 5
                && code.starts_with("Q-")
                && code[2..].bytes().all(|b| b.is_ascii_digit())
        }));
        assert!(codes.is_sorted(), "codes stand in order");
        codes.dedup();
        assert_eq!(codes.len(), ALL.len());
    }

    #[test]
    fn the_page_for_operators_has_every_code_and_its_meaning() {
        let page = include_str!("../../docs/events.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| Q-")).collect();
        assert_eq!(rows.len(), ALL.len());
        for (row, (code, meaning)) in rows.into_iter().zip(ALL) {
            let expected = format!("| {code} |{meaning} | ");
            assert!(row.starts_with(&expected), "{row}\nshould begin with\n{expected}");
        }
    }
}
