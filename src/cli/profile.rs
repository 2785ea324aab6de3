//! Which cluster to talk to: `--profile FILE`, `QUORATE_PROFILE`, and the client that comes of it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use crate::client::{Client, ClientConfig, ConnectFailed, LookFailed, Onlooker, Patience};
use crate::config::ClientSettings;
use crate::supervisor::ExitCode;
use crate::transport::tls::{Authority, Identity};

use super::failure::Failure;

/// Where the commands look when nobody says where: the directory that `quorate dev` makes.
const PROFILE_DEFAULT: &str = "quorate-dev/client.toml";

#[derive(Debug, Clone, clap::Args)]
pub(super) struct ProfileArguments {
    /// The client profile: addresses, certificate authority, principal.
    #[arg(long, global = true, env = "QUORATE_PROFILE", default_value = PROFILE_DEFAULT)]
    profile: PathBuf,
    /// How long an outage of the whole cluster is waited out, in seconds.
    #[arg(long, global = true, default_value_t = 60, value_name = "SECONDS")]
    reconnect_timeout: u64,
}

impl ProfileArguments {
    /// A profile of this program's own cluster.
    pub(super) fn of(profile: PathBuf) -> Self {
        Self { profile, reconnect_timeout: 60 }
    }

    /// What a client of this profile is made with.
    ///
    /// # Errors
    /// When the profile or a file that it names cannot be read; exit code 2.
    pub(super) fn configuration(&self) -> anyhow::Result<ClientConfig> {
        if !self.profile.exists() {
            return Err(Failure::usage(format!(
                "no client profile at {}; name one by --profile FILE or QUORATE_PROFILE, or start \
                 a cluster with `quorate dev`, which writes DIR/client.toml",
                self.profile.display()
            )));
        }
        self.read().map_err(|error| Failure::usage(format!("{error:#}")))
    }

    fn read(&self) -> anyhow::Result<ClientConfig> {
        let settings = ClientSettings::load(&self.profile)?;
        let authority = Authority::load(&settings.ca)?;
        let addresses = settings.addresses.iter().map(|address| address.as_str().to_owned());
        let mut config = ClientConfig::new(addresses, authority);
        if let (Some(principal), Some(password)) = (&settings.principal, settings.password()?) {
            config = config.password(principal, password);
        }
        if let Some((certificate, key)) = &settings.certificate {
            config = config.identity(Identity::load(certificate, key)?);
        }
        // One wait for one outage, whether it was there before the program or not.
        let reconnect = Duration::from_secs(self.reconnect_timeout.max(1));
        Ok(config.patience(Patience { connect: reconnect, reconnect, ..Patience::default() }))
    }

    /// Connects; `node` is tried first, after it any other.
    ///
    /// # Errors
    /// Exit code 2 for the profile, 3 for the connection, 4 when it took too long.
    pub(super) async fn connect(&self, node: Option<&str>) -> anyhow::Result<Client> {
        self.connect_with(self.configuration()?, node).await
    }

    /// As [`Self::connect`], with a configuration that came of this profile.
    pub(super) async fn connect_with(
        &self,
        config: ClientConfig,
        node: Option<&str>,
    ) -> anyhow::Result<Client> {
        let connected = connect(config, node).await;
        connected.with_context(|| format!("profile {}", self.profile.display()))
    }

    /// Looks without a session; `node`'s address is not known without one, so the profile's order
    /// holds. One look may take as long as a request.
    ///
    /// # Errors
    /// Exit code 2 for the profile, 3 for the connection.
    pub(super) fn onlooker(&self) -> anyhow::Result<Onlooker> {
        let mut config = self.configuration()?;
        config.patience.connect = config.patience.connect.min(config.patience.request);
        let onlooker = Onlooker::new(config).map_err(failed);
        onlooker.with_context(|| format!("profile {}", self.profile.display()))
    }
}

/// Why a look showed nothing, with its exit code.
pub(super) fn unseen(error: LookFailed) -> anyhow::Error {
    match error {
        LookFailed::Connect(error) => failed(error),
        LookFailed::Request(error) => error.into(),
    }
}

/// Connects; `node` is tried first, after it any other.
///
/// # Errors
/// Exit code 3 for the connection, 4 when it took too long.
pub(super) async fn connect(config: ClientConfig, node: Option<&str>) -> anyhow::Result<Client> {
    let client = Client::connect(config.clone()).await.map_err(failed)?;
    let Some(name) = node.filter(|name| *name != &*client.node()) else { return Ok(client) };
    let nodes = client.nodes();
    let Some(wanted) = nodes.iter().find(|known| known.name == name) else {
        let names: Vec<&str> = nodes.iter().map(|known| known.name.as_str()).collect();
        return Err(Failure::usage(format!(
            "--node {name}: the cluster has no node of that name, only {}",
            names.join(", ")
        )));
    };
    client.close().await;
    let others = config.addresses.iter().filter(|address| **address != wanted.address);
    let addresses = std::iter::once(&wanted.address).chain(others).cloned().collect();
    let config = ClientConfig { addresses, ..config };
    Client::connect(config).await.map_err(failed).context("the node asked for was reached before")
}

fn failed(error: ConnectFailed) -> anyhow::Error {
    let code = match error {
        ConnectFailed::TimedOut { .. } => ExitCode::TIMED_OUT,
        _ => ExitCode::CONNECTION,
    };
    Failure::with(code, error.to_string())
}
