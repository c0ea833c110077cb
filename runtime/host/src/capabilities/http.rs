//! `http`: `wasi:http/outgoing-handler`, through the host's egress.

use std::sync::Arc;

use cofferdam_core::manifest::Manifest;
use http::{Request, Response};
use wasmtime::component::Linker;
use wasmtime_wasi_http::{
    Error as HttpError, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpHooks,
};

use super::{Capability, missing};
use crate::Error;
use crate::chamber::State;
use crate::egress::client;
use crate::plugin::Plugin;
use crate::scope::Scope;
use crate::spec::ConnectionSpec;

/// Bytes of all headers of one message.
pub(crate) const HEADERS_BYTES_MAX: usize = 128 << 10;

pub(crate) struct Http;

impl Capability for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn provides(&self, interface: &str, version: &str) -> bool {
        version.starts_with("0.2.")
            && matches!(interface, "wasi:http/types" | "wasi:http/outgoing-handler")
    }

    fn link(&self, linker: &mut Linker<State>) -> wasmtime::Result<()> {
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)
    }

    fn unrequested(&self, _manifest: &Manifest) -> Option<String> {
        // Some languages import it whatever the plugin does; asked for or not, the two lists of
        // places decide at each request.
        None
    }

    fn admit(&self, plugin: &Plugin, spec: &ConnectionSpec) -> Result<(), Error> {
        let asked = plugin
            .manifest()
            .map_or(&[][..], |m| &m.capabilities.http[..]);
        if asked.is_empty() || !spec.grants.http.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = asked.iter().map(|place| format!("\"{place}\"")).collect();
        Err(missing(
            plugin,
            spec,
            "http",
            format!("http = [{}]", list.join(", ")),
        ))
    }
}

pub(crate) fn context() -> WasiHttpCtx {
    let mut context = WasiHttpCtx::new();
    context.set_field_size_limit(HEADERS_BYTES_MAX);
    context
}

/// Sends the requests of one call.
pub(crate) struct Hooks {
    scope: Arc<Scope>,
}

impl Hooks {
    pub(crate) fn new(scope: Arc<Scope>) -> Self {
        Self { scope }
    }
}

type Sent = Result<
    (
        Response<WasiBody>,
        Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ),
    HttpError,
>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let scope = Arc::clone(&self.scope);
        Box::new(async move { client::send(&scope, request, options.unwrap_or_default()).await })
    }
}
