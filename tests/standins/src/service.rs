//! What all stand-ins share: a name, a socket, faults, and a record of what took effect.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::Error;
use crate::fault::{self, Fault, FaultKind, Protocol};
use crate::gate::{self, Order};
use crate::http::{Connection, Request, Response};
use crate::plan::{FaultPlan, Strike};

/// Orders that may wait for a service; each caller waits for its own, so more never queue up.
const ORDERS_MAX: usize = 16;

/// How often each effect was really applied, by its key.
pub type Effects = BTreeMap<String, u64>;

/// The part of a service that remembers: its objects and its effects.
pub(crate) trait Backend: Send + Sync + 'static {
    /// How often each effect was really applied.
    fn effects(&self) -> Effects;
    /// Every stored object, as JSON.
    fn state(&self) -> Value;
    /// What the effects add up to in the business's own terms; an empty object by default.
    fn business(&self) -> Value {
        Value::Object(serde_json::Map::new())
    }
    /// Forgets everything.
    fn reset(&self);
}

/// Holds something for as long as a request is being worked on.
pub(crate) type Ticket = Option<Box<dyn Send>>;

/// A backend that is reached over HTTP.
pub(crate) trait HttpBackend: Backend {
    /// Called when a request arrives, before any latency; the ticket is held until it is answered.
    fn admit(&self, _request: &Request) -> Result<Ticket, Response> {
        Ok(None)
    }
    /// Carries out a request. Synchronous, so that an effect and its count are one step.
    fn handle(&self, request: &Request) -> Response;
    /// An answer with this status in the vendor's error shape.
    fn refusal(&self, status: u16, retry_after_s: Option<u64>) -> Response;
}

/// A running service, without its vendor-specific side.
pub(crate) struct Core {
    pub(crate) name: &'static str,
    protocol: Protocol,
    address: SocketAddr,
    requests: AtomicU64,
    plan: Arc<FaultPlan>,
    orders: mpsc::Sender<Order>,
    backend: Arc<dyn Backend>,
}

impl Core {
    pub(crate) fn url(&self) -> String {
        let scheme = match self.protocol {
            Protocol::Http => "http",
            Protocol::Smtp => "smtp",
        };
        format!("{scheme}://{}", self.address)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn strike(&self, path: &str, body: &[u8]) -> Strike {
        self.plan.strike(path, body)
    }

    pub(crate) fn faults(&self) -> Vec<Fault> {
        self.plan.list()
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Effects that were applied more than once.
    pub(crate) fn duplicates(&self) -> Effects {
        self.backend
            .effects()
            .into_iter()
            .filter(|(_, count)| *count > 1)
            .collect()
    }

    pub(crate) async fn set_faults(&self, faults: Vec<Fault>) -> Result<(), Error> {
        fault::check_list(&faults, self.protocol)?;
        let (done, answered) = oneshot::channel();
        let stopped = || Error::Stopped { service: self.name };
        self.orders
            .send(Order { faults, done })
            .await
            .map_err(|_| stopped())?;
        let outcome = answered.await.map_err(|_| stopped())?;
        outcome.map_err(|source| Error::Listen {
            service: self.name,
            address: self.address,
            source,
        })
    }

    pub(crate) async fn reset(&self) -> Result<(), Error> {
        self.set_faults(Vec::new()).await?;
        self.backend.reset();
        self.requests.store(0, Ordering::Relaxed);
        Ok(())
    }
}

/// A handle on one running stand-in. Cloning is cheap; the service ends with its `Standins`.
pub struct Handle<B> {
    pub(crate) core: Arc<Core>,
    pub(crate) backend: Arc<B>,
}

impl<B> Clone for Handle<B> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            backend: Arc::clone(&self.backend),
        }
    }
}

impl<B> Handle<B> {
    /// The name under which the control API knows the service.
    pub fn name(&self) -> &'static str {
        self.core.name
    }

    /// Where the service listens; it keeps this port for as long as it lives, refusing included.
    pub fn address(&self) -> SocketAddr {
        self.core.address
    }

    /// `http://…` or `smtp://…`, without a trailing slash.
    pub fn url(&self) -> String {
        self.core.url()
    }

    /// Requests that arrived, whatever came of them. Over SMTP: mail transactions begun.
    pub fn requests(&self) -> u64 {
        self.core.requests()
    }

    /// How often each effect was really applied; an idempotent replay is none.
    pub fn effects(&self) -> Effects {
        self.core.backend().effects()
    }

    /// The effects that were applied more than once.
    pub fn duplicates(&self) -> Effects {
        self.core.duplicates()
    }

    /// The faults in force, with what is left of their `times`.
    pub fn faults(&self) -> Vec<Fault> {
        self.core.faults()
    }

    /// Replaces the faults. When it returns they are in force: a refusing service has closed its
    /// socket and cut its connections, a recovered one accepts again on the same port.
    ///
    /// # Errors
    /// [`Error::Fault`] if a fault means nothing to this service, [`Error::Listen`] if the port
    /// could not be opened or held, [`Error::Stopped`] after shutdown.
    pub async fn set_faults(&self, faults: Vec<Fault>) -> Result<(), Error> {
        self.core.set_faults(faults).await
    }

    /// Removes every fault.
    ///
    /// # Errors
    /// As [`Handle::set_faults`].
    pub async fn clear_faults(&self) -> Result<(), Error> {
        self.core.set_faults(Vec::new()).await
    }

    /// Every stored object, as JSON.
    pub fn state(&self) -> Value {
        self.core.backend().state()
    }

    /// Forgets objects, effects, requests and faults.
    ///
    /// # Errors
    /// As [`Handle::set_faults`].
    pub async fn reset(&self) -> Result<(), Error> {
        self.core.reset().await
    }
}

/// Starts a service on a loopback port (0: any) in `tasks`; `connect` serves one connection.
pub(crate) fn start<B, S, F>(
    tasks: &mut JoinSet<()>,
    name: &'static str,
    protocol: Protocol,
    port: u16,
    backend: B,
    connect: S,
) -> Result<Handle<B>, Error>
where
    B: Backend,
    S: Fn(TcpStream, Arc<Core>, Arc<B>) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let failed = |source| Error::Listen {
        service: name,
        address: wanted,
        source,
    };
    let listener = gate::listen(wanted).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (orders, inbox) = mpsc::channel(ORDERS_MAX);
    let backend = Arc::new(backend);
    let plan = Arc::new(FaultPlan::default());
    let core = Arc::new(Core {
        name,
        protocol,
        address,
        requests: AtomicU64::new(0),
        plan: Arc::clone(&plan),
        orders,
        backend: Arc::clone(&backend) as Arc<dyn Backend>,
    });
    let handle = Handle { core, backend };
    let served = handle.clone();
    tasks.spawn(gate::run(listener, address, plan, inbox, move |stream| {
        connect(
            stream,
            Arc::clone(&served.core),
            Arc::clone(&served.backend),
        )
    }));
    Ok(handle)
}

/// Starts a service that speaks HTTP.
pub(crate) fn start_http<B: HttpBackend>(
    tasks: &mut JoinSet<()>,
    name: &'static str,
    port: u16,
    backend: B,
) -> Result<Handle<B>, Error> {
    start(
        tasks,
        name,
        Protocol::Http,
        port,
        backend,
        |stream, core, backend| async move {
            let mut connection = Connection::new(stream);
            while let Some(request) = connection.next().await {
                let (response, fault) = answer(&core, &*backend, &request).await;
                if !connection.answer(&request, response, fault).await {
                    return;
                }
            }
        },
    )
}

/// Takes one request through admission, faults and the vendor's logic.
async fn answer<B: HttpBackend>(
    core: &Core,
    backend: &B,
    request: &Request,
) -> (Response, Option<FaultKind>) {
    core.count_request();
    let _ticket = match backend.admit(request) {
        Ok(ticket) => ticket,
        Err(response) => return (response, None),
    };
    // Asked for before the fault strikes: a list that is replaced in between lets go as well.
    let mut replaced = core.plan.replaced();
    let strike = core.strike(&request.path, &request.body);
    if !strike.latency.is_zero() {
        tokio::time::sleep(strike.latency).await;
    }
    match strike.ending {
        Some(FaultKind::Status {
            code,
            retry_after_s,
        }) => (backend.refusal(code, retry_after_s), None),
        Some(FaultKind::Hang) => {
            // An error means that the service ends, and this request with it.
            let _ = replaced.changed().await;
            (backend.handle(request), None)
        }
        ending => (backend.handle(request), ending),
    }
}
