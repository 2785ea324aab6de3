//! The async runtime of the client-side subcommands, and the signals that end them.

use std::future::Future;

use anyhow::Context as _;

/// Runs a future to its end on a runtime of two workers.
///
/// # Errors
/// When the runtime cannot be built.
pub(super) fn block_on<F: Future>(future: F) -> anyhow::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the async runtime cannot be started")?;
    Ok(runtime.block_on(future))
}

/// Completes at Ctrl-C or SIGTERM.
pub(super) async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        // Without a handler SIGTERM ends the process by itself.
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}
