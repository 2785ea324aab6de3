//! What is compared: the rows in which a peer keeps a promise like ours.

/// One row of the comparison.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) load: Load,
}

/// What the servers are given to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    /// Updates on three nodes, acknowledged when a quorum has flushed them, in a closed loop over
    /// [`TOPICS`] keys that all hold a value.
    Publish { window: u32, value_bytes: u32 },
    /// One topic of one server to many subscribers over TLS; without a rate as fast as possible.
    Fanout { subscribers: u32, rate: Option<u32> },
}

/// Keys that updates are spread over.
pub(crate) const TOPICS: u32 = 10_000;

/// The names are stable: a filter of the command line finds them.
pub(crate) const SCENARIOS: [Scenario; 6] = [
    publish("durable R3, 128 B, window 1", 1, 128),
    publish("durable R3, 128 B, window 64", 64, 128),
    publish("durable R3, 128 B, window 1024", 1_024, 128),
    publish("durable R3, 1 KiB, window 1024", 1_024, 1_024),
    fanout("fan-out to 100 over TLS, max", 100, None),
    fanout("fan-out to 1000 over TLS, 1000/s", 1_000, Some(1_000)),
];

const fn publish(name: &'static str, window: u32, value_bytes: u32) -> Scenario {
    Scenario { name, load: Load::Publish { window, value_bytes } }
}

const fn fanout(name: &'static str, subscribers: u32, rate: Option<u32>) -> Scenario {
    Scenario { name, load: Load::Fanout { subscribers, rate } }
}
