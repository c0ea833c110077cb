//! Ctrl-C, and the signal by which service managers stop programs.

use std::future::Future;

/// Listens from the moment of the call; resolves when somebody asks this program to stop.
///
/// Must be called inside of a tokio runtime. Where no handler can be installed it never resolves,
/// and the system ends the program itself.
pub fn asked() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupt = signal(SignalKind::interrupt());
    let terminate = signal(SignalKind::terminate());
    async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}
