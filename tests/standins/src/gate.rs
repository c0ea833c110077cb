//! The listening socket of a service, and the one place where it is closed and opened again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::fault::{Fault, FaultKind};
use crate::plan::FaultPlan;

/// Connections served at once; a further one is closed at once. Far above what a test opens, it
/// keeps a runaway client from exhausting the process's file descriptors.
const CONNECTIONS_MAX: usize = 512;

/// Connections the system may hold for us before they are accepted.
const BACKLOG: u32 = 256;

/// Replaces the faults of a service. Answered once they are in force, the socket included, so
/// that a caller who has the answer can rely on the next connection being struck.
pub(crate) struct Order {
    pub(crate) faults: Vec<Fault>,
    pub(crate) done: oneshot::Sender<io::Result<()>>,
}

enum Socket {
    Open(TcpListener),
    /// Bound but not listening: the system refuses connections, and nobody else gets the port.
    Closed(TcpSocket),
    /// The port could not be held; the next order tries again.
    Lost,
}

/// Binds a socket that may take a port over from connections still in `TIME_WAIT`.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Opens a listener on `address`.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    bind(address)?.listen(BACKLOG)
}

/// Accepts and serves connections until dropped, or until every sender of orders is gone.
///
/// Dropping the future closes the socket and aborts every connection.
pub(crate) async fn run<S, F>(
    listener: TcpListener,
    address: SocketAddr,
    plan: Arc<FaultPlan>,
    mut orders: mpsc::Receiver<Order>,
    serve: S,
) where
    S: Fn(TcpStream) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut socket = Socket::Open(listener);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some(Order { faults, done }) = order else { break };
                let refuse = faults.iter().any(|fault| fault.kind == FaultKind::Refuse);
                plan.replace(faults);
                let outcome;
                (socket, outcome) = turn(socket, address, refuse, &mut connections).await;
                // Whoever gave the order may have stopped waiting; the order stands.
                let _ = done.send(outcome);
            }
            stream = accept(&socket) => {
                if connections.len() < CONNECTIONS_MAX {
                    connections.spawn(serve(stream));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Opens or closes the socket. Closing cuts the open connections too, as a process that dies does.
async fn turn(
    socket: Socket,
    address: SocketAddr,
    refuse: bool,
    connections: &mut JoinSet<()>,
) -> (Socket, io::Result<()>) {
    let turned = match (socket, refuse) {
        (socket @ Socket::Open(_), false) | (socket @ Socket::Closed(_), true) => Ok(socket),
        (Socket::Open(listener), true) => {
            drop(listener);
            connections.shutdown().await;
            bind(address).map(Socket::Closed)
        }
        (Socket::Lost, true) => bind(address).map(Socket::Closed),
        (Socket::Closed(held), false) => held.listen(BACKLOG).map(Socket::Open),
        (Socket::Lost, false) => listen(address).map(Socket::Open),
    };
    match turned {
        Ok(socket) => (socket, Ok(())),
        Err(error) => (Socket::Lost, Err(error)),
    }
}

/// The next connection; never ready while the socket is closed.
async fn accept(socket: &Socket) -> TcpStream {
    if let Socket::Open(listener) = socket {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return stream,
                // The peer gave up, or descriptors ran out: yield, so that connections can end.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }
    std::future::pending().await
}
