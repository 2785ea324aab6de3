//! What a node proposes by itself: the founding, its own start, lost nodes, expired sessions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, SaltString};
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::domain::command::Command;
use crate::domain::configuration::ADMINISTRATOR;
use crate::domain::id::NodeId;
use crate::domain::limits::PAGE_ITEMS_MAX;
use crate::domain::outcome::Outcome;
use crate::replication::core::Core;
use crate::replication::founding::directory::random;
use crate::replication::founding::rules::Proposal;
use crate::replication::settings::FoundingSettings;
use crate::supervisor::{StopSignal, Supervisor};
use crate::telemetry::event;

/// How often there is a look at what is to do.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long one of its own proposals is waited for before it is made again.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far the founding and this node's own start have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::replication) enum Progress {
    /// Not there yet.
    Waiting,
    /// The cluster is founded and this node's start is applied here.
    Started {
        /// The administrator's first password, if this node has drawn it.
        drawn_password: Option<String>,
    },
}

/// The task.
#[derive(Debug)]
pub(in crate::replication) struct Caretaker {
    pub(in crate::replication) core: Arc<Core>,
    pub(in crate::replication) proposal: Proposal,
    pub(in crate::replication) settings: FoundingSettings,
    pub(in crate::replication) node_lost_timeout: Duration,
    pub(in crate::replication) progress: watch::Sender<Progress>,
    pub(in crate::replication) clock: Clock,
    pub(in crate::replication) supervisor: Supervisor,
}

impl Caretaker {
    /// Runs until `stop`.
    pub(in crate::replication) async fn run(self, mut stop: StopSignal) {
        tokio::select! {
            () = stop.stopped() => {}
            () = self.work() => {}
        }
    }

    async fn work(&self) {
        let drawn_password = self.see_founded().await;
        self.see_started().await;
        self.progress.send_replace(Progress::Started { drawn_password });
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut leading_since = None;
        loop {
            tick.tick().await;
            if !self.core.is_leader() || !self.core.quorum.is_quorate() {
                leading_since = None;
                continue;
            }
            let since = *leading_since.get_or_insert_with(|| self.clock.now());
            if self.clock.since(since) >= self.node_lost_timeout {
                self.give_up_lost_nodes().await;
            }
            self.expire_sessions().await;
        }
    }

    /// Waits until the founding is applied here; proposes it while this node leads. Gives the
    /// password if this node drew the one that counts.
    async fn see_founded(&self) -> Option<String> {
        let mut own = None;
        loop {
            let founded = {
                let state = self.core.applied.lock();
                let configuration = state.machine.configuration();
                let password = configuration.password(ADMINISTRATOR).map(str::to_owned);
                configuration.founding().map(|_| password)
            };
            if let Some(stored) = founded {
                // Another leader's founding may have come first, with another password.
                let own: Option<(String, String)> = own;
                let drawn = own.filter(|_| self.settings.admin_password.is_none());
                return drawn
                    .filter(|(hash, _)| Some(hash) == stored.as_ref())
                    .map(|(_, text)| text);
            }
            if self.core.is_leader() && self.core.quorum.is_quorate() {
                if own.is_none() {
                    own = self.admin_password().await;
                }
                let hash = own.as_ref().map(|(hash, _)| hash.clone());
                if let Some(admin_password) = hash {
                    let _outcome =
                        self.core.propose(&self.founding(admin_password), PATIENCE).await;
                    continue;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn founding(&self, admin_password: String) -> Command {
        let names: BTreeMap<NodeId, String> = self
            .proposal
            .founders
            .iter()
            .map(|founder| (founder.id, founder.name.as_str().to_owned()))
            .collect();
        Command::Found {
            cluster: self.proposal.cluster,
            lineage: self.proposal.lineage,
            names,
            admin_password,
            anonymous: self.settings.anonymous,
        }
    }

    /// The administrator's password as given or drawn: its hash and its text.
    async fn admin_password(&self) -> Option<(String, String)> {
        let text = match &self.settings.admin_password {
            Some(given) => given.clone(),
            None => random_text()?,
        };
        let hashed = text.clone();
        let hash = self.supervisor.blocking("password hash", move || hash_password(&hashed));
        Some((hash.await.ok()??, text))
    }

    /// Proposes this node's start until it is applied here.
    async fn see_started(&self) {
        let member = &self.core.member;
        let command = Command::NodeStarted { node: member.id, incarnation: member.incarnation };
        loop {
            match self.core.propose(&command, PATIENCE).await {
                Ok((Outcome::Rejected(reason), _)) => {
                    tracing::error!(event = event::START_REJECTED, %reason, "this node's start was rejected");
                    return;
                }
                Ok(_) => return,
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Detaches the sessions of nodes that a leader has not heard for too long.
    async fn give_up_lost_nodes(&self) {
        let silent: Vec<NodeId> = {
            let metrics = self.core.raft.metrics();
            let metrics = metrics.borrow_watched();
            let Some(heard) = metrics.heartbeat.as_ref() else { return };
            let patience = self.node_lost_timeout;
            heard
                .iter()
                .filter(|(id, _)| **id != metrics.id)
                .filter(|(_, at)| at.as_ref().is_none_or(|at| at.elapsed() > patience))
                .map(|(id, _)| NodeId(*id))
                .collect()
        };
        let machine = self.core.applied.view();
        for node in silent {
            if machine.sessions_hosted_by(node).next().is_none() {
                continue;
            }
            let incarnation = machine.configuration().incarnation(node);
            tracing::warn!(event = event::NODE_LOST, %node, incarnation, "a node is lost: its sessions are detached");
            let command = Command::NodeLost { node, incarnation };
            // Proposed again at the next look if it did not come through.
            let _outcome = self.core.propose(&command, PATIENCE).await;
        }
    }

    /// Ends detached sessions whose reconnect timeout has run out, a page at a time.
    async fn expire_sessions(&self) {
        loop {
            let Some(now_ms) = self.core.log_time.now_ms() else { return };
            let sessions = {
                let machine = self.core.applied.view();
                machine.expired_sessions(now_ms, PAGE_ITEMS_MAX)
            };
            if sessions.is_empty() {
                return;
            }
            let command = Command::ExpireSessions { sessions };
            if self.core.propose(&command, PATIENCE).await.is_err() {
                return;
            }
        }
    }
}

/// The argon2id hash of a password as a PHC string.
fn hash_password(password: &str) -> Option<String> {
    let salt = SaltString::encode_b64(&random::<16>().ok()?).ok()?;
    Argon2::default().hash_password(password.as_bytes(), &salt).ok().map(|hash| hash.to_string())
}

/// 128 random bits as text, fit for a password.
fn random_text() -> Option<String> {
    let bits = random::<16>().ok()?;
    Some(SaltString::encode_b64(&bits).ok()?.as_str().to_owned())
}
