//! The client's one task: connections one after the other, until the session is over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::dial::{Dialer, Link, Reached};
use super::live::{self, End};
use crate::client::config::ClientConfig;
use crate::client::error::{AttemptFailed, SessionEnded};
use crate::client::shared::{ConnectionState, Shared};
use crate::protocol::ErrorCode;
use crate::protocol::handshake::{Resume, SECRET_BYTES, Verdict};

/// How long an address is waited for before the next one is tried beside it.
const STAGGER: Duration = Duration::from_millis(150);
/// Addresses that are kept, configured and learned ones together.
const ADDRESSES_MAX: usize = 64;
/// Connections in a row that may break the protocol before the session is given up.
const BROKEN_MAX: u32 = 3;
/// Between two rounds over all addresses, at least and at most, without jitter.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A welcome, and what it was asked with.
#[derive(Debug)]
pub(in crate::client) struct Welcomed {
    pub(in crate::client) link: Link,
    shown: Option<[u8; SECRET_BYTES]>,
    owed: Owed,
}

/// What a resume said that had not been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    /// Nothing; or it was no resume.
    Nothing,
    /// Changes of what the session hears of.
    Changes,
    /// Events of the past that the session began with.
    Replay,
}

/// What a hello is for.
pub(in crate::client) enum Purpose<'a> {
    /// A new session.
    Open,
    /// This session goes on.
    Resume(&'a Shared),
}

/// Why no address of a round gave a session.
#[derive(Debug)]
pub(in crate::client) enum RoundFailed {
    /// The session is over, whoever is asked.
    Over(SessionEnded),
    /// None would or could; each address's failure, the newest last. Never empty.
    All(Vec<AttemptFailed>),
}

/// Pauses between rounds: doubling, with jitter.
#[derive(Debug, Default)]
pub(in crate::client) struct Backoff {
    rounds: u32,
}

impl Backoff {
    /// The next pause: half to all of the doubled one.
    pub(in crate::client) fn next(&mut self) -> Duration {
        let whole = BACKOFF_MIN.saturating_mul(1 << self.rounds.min(10)).min(BACKOFF_MAX);
        self.rounds += 1;
        let mut bytes = [0; 2];
        // Without randomness there is no jitter, and nothing else is lost.
        let _ = crate::entropy::fill(&mut bytes);
        let jitter = u32::from(u16::from_le_bytes(bytes));
        whole / 2 + (whole / 2) * jitter / u32::from(u16::MAX)
    }
}

/// Serves the session until it is over.
pub(in crate::client) async fn drive(shared: Arc<Shared>, dialer: Dialer, first: Link) {
    // Whatever ends this task, callers and streams must not wait for ever.
    let guard = Guard { shared: Arc::clone(&shared) };
    let mut link = first;
    let mut broken = 0;
    let reason = loop {
        let address = link.address.clone();
        let end = Box::pin(live::run(&shared, &dialer, link)).await;
        let welcomed = match end {
            End::Over(reason) => break reason,
            End::Switched(welcomed) => Ok(*welcomed),
            End::Lost => {
                broken = 0;
                Box::pin(reconnect(&shared, &dialer, &address)).await
            }
            End::Broken(code) => {
                broken += 1;
                tracing::warn!(address, %code, "node broke the protocol");
                if broken == BROKEN_MAX {
                    let text = "nodes keep breaking the protocol".to_owned();
                    break SessionEnded::ByCluster { code, text };
                }
                Box::pin(reconnect(&shared, &dialer, &address)).await
            }
        };
        match welcomed {
            Ok(welcomed) => link = adopt(&shared, welcomed),
            Err(reason) => break reason,
        }
    };
    shared.end(reason);
    drop(guard);
}

struct Guard {
    shared: Arc<Shared>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Nothing happens if the session has been ended already.
        if self.shared.ended().is_none() {
            self.shared.end(SessionEnded::Lost);
        }
    }
}

/// Makes a welcome the session's connection.
fn adopt(shared: &Shared, welcomed: Welcomed) -> Link {
    let Welcomed { link, shown, owed } = welcomed;
    let welcome = &link.welcome;
    let node: Arc<str> = welcome.node.as_str().into();
    {
        let mut facts = shared.facts();
        let shown = shown.unwrap_or(welcome.secret);
        facts.renew(welcome, shown);
    }
    let is_reset = matches!(welcome.verdict, Verdict::Reset { .. });
    shared.deliveries().reconnected(&node, owed == Owed::Changes && !is_reset);
    let owed = owed != Owed::Nothing || is_reset;
    {
        let mut outbox = shared.outbox();
        outbox.reconnected(welcome.last_request, owed, shared.clock.now());
        if is_reset {
            outbox.selects.expect_reset();
        }
    }
    shared.counters.reconnects.fetch_add(1, Ordering::Relaxed);
    shared.state.send_replace(ConnectionState::Connected { node });
    link
}

/// Tries all addresses until one takes the session, or its time is over.
async fn reconnect(shared: &Shared, dialer: &Dialer, lost: &str) -> Result<Welcomed, SessionEnded> {
    shared.state.send_replace(ConnectionState::Reconnecting);
    let patience = shared.config.patience.reconnect;
    let deadline = shared.clock.now() + patience;
    let mut backoff = Backoff::default();
    let mut stop = shared.stop.subscribe();
    let rounds = async {
        loop {
            let addresses = addresses(shared, Some(lost), true);
            let last =
                match round(dialer, &shared.config, &Purpose::Resume(shared), &addresses).await {
                    Ok(welcomed) => return Ok(welcomed),
                    Err(RoundFailed::Over(ended)) => return Err(ended),
                    Err(RoundFailed::All(failures)) => most_telling(failures),
                };
            let pause = backoff.next();
            if shared.clock.now() + pause >= deadline {
                let seconds = patience.as_secs();
                return Err(SessionEnded::Unreachable { seconds, last });
            }
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        result = rounds => result,
        _ = stop.wait_for(|stop| *stop) => Err(SessionEnded::Closed),
    }
}

/// The failure of a round that tells most: a node's own words before silence, else the last one.
pub(in crate::client) fn most_telling(mut failures: Vec<AttemptFailed>) -> AttemptFailed {
    let refused = failures.iter().rposition(|failure| failure.code().is_some());
    refused
        .map(|place| failures.swap_remove(place))
        .or_else(|| failures.pop())
        .unwrap_or_else(|| AttemptFailed::NoSuchHost { address: String::new() })
}

/// All known addresses, from the one after `current` on; `current` itself last, or left out.
pub(in crate::client) fn addresses(
    shared: &Shared,
    current: Option<&str>,
    with_current: bool,
) -> Vec<String> {
    let facts = shared.facts();
    let learned = facts.nodes.iter().map(|node| &node.address);
    let mut known: Vec<&String> = Vec::new();
    for address in shared.config.addresses.iter().chain(learned).take(ADDRESSES_MAX) {
        if !known.contains(&address) {
            known.push(address);
        }
    }
    let place = known.iter().position(|address| current == Some(address.as_str()));
    match place {
        Some(place) => {
            let (before, from) = known.split_at(place);
            let own = from.iter().take(usize::from(with_current));
            from.iter().skip(1).chain(before).chain(own).map(|&address| address.clone()).collect()
        }
        None => known.into_iter().cloned().collect(),
    }
}

/// Tries these addresses once each, a new one beside the others after each [`STAGGER`]; says hello
/// only to one at a time.
pub(in crate::client) async fn round(
    dialer: &Dialer,
    config: &ClientConfig,
    purpose: &Purpose<'_>,
    addresses: &[String],
) -> Result<Welcomed, RoundFailed> {
    let mut failures = Vec::new();
    let mut rest = addresses.iter();
    let mut reaching = FuturesUnordered::new();
    reaching.extend(rest.next().map(|address| dialer.reach(address, config)));
    loop {
        let more = rest.len() > 0;
        tokio::select! {
            Some(result) = reaching.next() => {
                let failure = match result {
                    Ok(reached) => match greet(reached, config, purpose).await {
                        Ok(welcomed) => return Ok(welcomed),
                        Err(failure) => failure,
                    },
                    Err(failure) => failure,
                };
                if let Some(ended) = over(&failure, purpose) {
                    return Err(RoundFailed::Over(ended));
                }
                failures.push(failure);
                reaching.extend(rest.next().map(|address| dialer.reach(address, config)));
            }
            () = tokio::time::sleep(STAGGER), if more => {
                reaching.extend(rest.next().map(|address| dialer.reach(address, config)));
            }
            else => return Err(RoundFailed::All(failures)),
        }
    }
}

async fn greet(
    reached: Reached,
    config: &ClientConfig,
    purpose: &Purpose<'_>,
) -> Result<Welcomed, AttemptFailed> {
    let (resume, _still) = match purpose {
        Purpose::Open => (None, None),
        Purpose::Resume(shared) => {
            // What the hello says stays true until the welcome, whatever the old connection brings.
            let still = shared.hold_still();
            (Some(resume(shared)), Some(still))
        }
    };
    let shown = resume.as_ref().map(|resume| resume.secret);
    let owed = match &resume {
        Some(Resume { replaying: true, .. }) => Owed::Replay,
        Some(Resume { initial_missing: true, .. }) => Owed::Changes,
        _ => Owed::Nothing,
    };
    let link = reached.greet(config, resume).await?;
    Ok(Welcomed { link, shown, owed })
}

fn resume(shared: &Shared) -> Resume {
    // One lock after the other; the deliveries' comes first where both are held.
    let deliveries = shared.deliveries();
    let (initial_missing, seen, unfinished, resetting) = {
        let outbox = shared.outbox();
        (
            outbox.selects.is_any_unfinished(),
            outbox.seen(),
            outbox.selects.begun_before(),
            outbox.selects.is_starting_over(),
        )
    };
    let (lineage, position) = deliveries.resume_position(unfinished);
    let position = position.filter(|_| !resetting);
    let replaying = position.is_some() && deliveries.is_replaying();
    let seen = seen.max(deliveries.newest());
    drop(deliveries);
    let facts = shared.facts();
    let [secret, _] = facts.secrets;
    let (session, seen) = (facts.session, Some(seen));
    Resume { session, secret, lineage, position, initial_missing, seen, replaying }
}

/// A refusal that ends the session whoever is asked next.
fn over(failure: &AttemptFailed, purpose: &Purpose<'_>) -> Option<SessionEnded> {
    let Purpose::Resume(shared) = purpose else { return None };
    let AttemptFailed::Refused { code, text, .. } = failure else { return None };
    match code {
        ErrorCode::WrongSecret if shared.facts().turn_secrets() => None,
        ErrorCode::WrongSecret | ErrorCode::NoSuchSession | ErrorCode::Expired => {
            Some(SessionEnded::ByCluster { code: *code, text: text.clone() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_own_words_tell_more_than_silence() {
        let silent = |address: &str| AttemptFailed::NoWelcome { address: address.to_owned() };
        let refused = AttemptFailed::Refused {
            address: "n1:7400".to_owned(),
            code: ErrorCode::Inquorate,
            text: String::new(),
            retry_ms: Some(500),
        };
        let round = vec![silent("n2:7400"), refused.clone(), silent("n3:7400")];
        assert_eq!(most_telling(round), refused);
        assert_eq!(most_telling(vec![silent("n2:7400"), silent("n3:7400")]), silent("n3:7400"));
    }

    #[test]
    fn backoff_doubles_within_its_bounds() {
        let mut backoff = Backoff::default();
        for whole in [50, 100, 200, 400, 800, 1_000, 1_000] {
            let pause = backoff.next().as_millis();
            assert!((whole / 2..=whole).contains(&pause), "{pause} ms of {whole}");
        }
    }
}
