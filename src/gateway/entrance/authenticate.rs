//! Who a client is.

use std::sync::Arc;
use std::time::Duration;

use crate::gateway::entrance::handshake::NotOpened;
use crate::gateway::entrance::password::Verdict;
use crate::gateway::hosting::Hosting;
use crate::protocol::ErrorCode;
use crate::protocol::handshake::Credentials;
use crate::telemetry::{event, metrics};
use crate::transport::Connection;

/// What a wrong password costs its sender at least.
const WRONG_CREDENTIALS_DELAY: Duration = Duration::from_millis(200);

/// The principal of these credentials, as this node's own state knows it.
pub(super) async fn authenticate(
    hosting: &Arc<Hosting>,
    connection: &Connection,
    credentials: &Credentials,
) -> Result<String, NotOpened> {
    let view = hosting.replication.view();
    let configuration = view.configuration();
    match credentials {
        Credentials::Anonymous if configuration.anonymous() => Ok(String::new()),
        Credentials::Anonymous => {
            refused("anonymous", "", connection);
            let text = "give a principal and its password";
            Err(NotOpened::new(ErrorCode::AnonymousRefused, text))
        }
        Credentials::Password { principal, password } => {
            let stored = configuration.password(principal);
            let from = connection.network();
            match hosting.passwords.check(&hosting.supervisor, from, stored, password).await {
                Verdict::Right => Ok(principal.clone()),
                Verdict::Busy => {
                    Err(NotOpened::new(ErrorCode::Overloaded, "too many passwords to check"))
                }
                Verdict::TooOften(wait) => {
                    metrics::authentication_failed("unchecked");
                    let text = "too many wrong passwords came from this address";
                    Err(NotOpened::later(ErrorCode::TooManyRequests, text, wait))
                }
                Verdict::Wrong => {
                    let principal: String = principal.chars().take(64).collect();
                    refused("password", &principal, connection);
                    tokio::time::sleep(WRONG_CREDENTIALS_DELAY).await;
                    Err(NotOpened::new(ErrorCode::BadCredentials, format!("for {principal:?}")))
                }
            }
        }
    }
}

fn refused(kind: &'static str, principal: &str, connection: &Connection) {
    metrics::authentication_failed(kind);
    tracing::warn!(
        event = event::AUTHENTICATION_FAILED,
        principal,
        remote = %connection.remote(),
        "credentials were refused"
    );
}
