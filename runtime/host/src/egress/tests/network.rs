//! A network that is all in the test: it knows some names, and every line leads to one server.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody};

use crate::connection::Settings;
use crate::egress::dial::Network;
use crate::egress::{Egress, client};
use crate::limits::Limits;
use crate::scope::Scope;
use crate::spec::Grants;

/// Names with their answers, one for each time that is asked; the last one stays.
#[derive(Default)]
pub(super) struct Fake {
    names: Mutex<BTreeMap<String, VecDeque<Vec<IpAddr>>>>,
    /// Where every line leads; nowhere, and is refused.
    pub(super) server: Option<SocketAddr>,
    pub(super) lookups: Mutex<Vec<String>>,
    pub(super) dialled: Mutex<Vec<SocketAddr>>,
}

impl Fake {
    /// Adds an answer for a name.
    pub(super) fn knows(self, name: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let mut names = self.names.lock();
        names
            .entry(name.to_owned())
            .or_default()
            .push_back(addresses);
        drop(names);
        self
    }
}

#[async_trait::async_trait]
impl Network for Fake {
    async fn lookup(&self, name: &str, _port: u16) -> std::io::Result<Vec<SocketAddr>> {
        self.lookups.lock().push(name.to_owned());
        let mut names = self.names.lock();
        let unknown = || std::io::Error::other("no such name");
        let answers = names.get_mut(name).ok_or_else(unknown)?;
        let answer = if answers.len() > 1 {
            answers.pop_front()
        } else {
            answers.front().cloned()
        };
        // A port of the resolver's own: what was granted has to win.
        let at = |address| SocketAddr::new(address, 1);
        Ok(answer.unwrap_or_default().into_iter().map(at).collect())
    }

    async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        self.dialled.lock().push(address);
        match self.server {
            Some(server) => TcpStream::connect(server).await,
            None => Err(std::io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

/// A call's scope on such a network.
pub(super) fn scope(grants: &Grants, network: &Arc<Fake>) -> Arc<Scope> {
    let mut settings = Settings::nothing("test").unwrap();
    settings.egress = Egress::new("test", grants, None).unwrap();
    settings.egress.network = Arc::clone(network) as Arc<dyn Network>;
    settings.limits = Limits::default();
    let timeout = Duration::from_secs(20);
    Arc::new(Scope::new(Arc::new(settings), String::new(), timeout))
}

/// What came of a request, its body read to the end.
pub(super) struct Came {
    pub(super) status: u16,
    pub(super) headers: http::HeaderMap,
    pub(super) body: Bytes,
}

/// Sends a request the way a guest's goes.
pub(super) async fn send(
    scope: &Arc<Scope>,
    request: Request<&'static str>,
) -> Result<Came, HttpError> {
    let request = request.map(|body| -> WasiBody {
        let body = Full::new(Bytes::from_static(body.as_bytes()));
        body.map_err(|never| match never {}).boxed_unsync()
    });
    let (response, worker) = client::send(scope, request, RequestOptions::default()).await?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Box::into_pin(worker).await?;
    Ok(Came {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
    })
}

/// What the call's log holds.
pub(super) fn told(scope: &Scope) -> String {
    let (lines, _) = scope.take_log();
    let messages: Vec<&str> = lines.iter().map(|line| &*line.message).collect();
    messages.join("\n")
}
