//! The control API: what the Rust API offers, for those who are in another process.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::net::TcpStream;

use crate::Error;
use crate::fault;
use crate::http::{Connection, Request, Response};
use crate::service::Core;

/// Serves one connection to the control API.
pub(crate) async fn serve(stream: TcpStream, services: Arc<[Arc<Core>]>) {
    let mut connection = Connection::new(stream);
    while let Some(request) = connection.next().await {
        let response = answer(&services, &request).await;
        if !connection.answer(&request, response, None).await {
            return;
        }
    }
}

async fn answer(services: &[Arc<Core>], request: &Request) -> Response {
    match route(services, request).await {
        Ok(body) => Response::json(200, &body),
        Err(response) => response,
    }
}

async fn route(services: &[Arc<Core>], request: &Request) -> Result<Value, Response> {
    let segments = request.segments();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (request.method.as_str(), segments.as_slice()) {
        ("GET", []) => {
            let listed: Vec<Value> = services.iter().map(|service| overview(service)).collect();
            Ok(json!({ "services": listed }))
        }
        ("POST", ["reset"]) => {
            for service in services {
                service.reset().await.map_err(failed)?;
            }
            Ok(json!({ "reset": true }))
        }
        ("GET", ["services", name]) => Ok(overview(find(services, name)?)),
        ("GET", ["services", name, "effects"]) => Ok(effects(find(services, name)?)),
        ("GET", ["services", name, "state"]) => Ok(find(services, name)?.backend().state()),
        ("GET", ["services", name, "faults"]) => Ok(json!(find(services, name)?.faults())),
        ("PUT", ["services", name, "faults"]) => {
            let service = find(services, name)?;
            let sent = request
                .json()
                .map_err(|cause| error(400, "malformed-json", None, &cause.to_string()))?;
            let faults = fault::read_list(sent).map_err(|error| failed(error.into()))?;
            service.set_faults(faults).await.map_err(failed)?;
            Ok(json!(service.faults()))
        }
        ("DELETE", ["services", name, "faults"]) => {
            find(services, name)?
                .set_faults(Vec::new())
                .await
                .map_err(failed)?;
            Ok(json!([]))
        }
        (method, ["services", name, ..]) => {
            find(services, name)?;
            Err(no_route(method, &request.path))
        }
        (method, _) => Err(no_route(method, &request.path)),
    }
}

fn find<'a>(services: &'a [Arc<Core>], name: &str) -> Result<&'a Core, Response> {
    let found = services.iter().find(|service| service.name == name);
    found.map(|service| &**service).ok_or_else(|| {
        let names: Vec<&str> = services.iter().map(|service| service.name).collect();
        let message = format!(
            "there is no service `{name}`; there are {}",
            names.join(", ")
        );
        error(404, "unknown-service", None, &message)
    })
}

fn overview(service: &Core) -> Value {
    json!({
        "name": service.name,
        "url": service.url(),
        "requests": service.requests(),
        "effects": service.backend().effects().values().sum::<u64>(),
        "duplicates": service.duplicates().len(),
        "faults": service.faults(),
    })
}

fn effects(service: &Core) -> Value {
    let mut body = Map::new();
    body.insert("requests".to_owned(), json!(service.requests()));
    body.insert("effects".to_owned(), json!(service.backend().effects()));
    body.insert("duplicates".to_owned(), json!(service.duplicates()));
    body.insert("business".to_owned(), service.backend().business());
    Value::Object(body)
}

fn failed(cause: Error) -> Response {
    match cause {
        Error::Fault(fault) => error(
            400,
            "malformed-fault",
            Some(&fault.field),
            &fault.to_string(),
        ),
        Error::Listen { .. } => error(500, "cannot-listen", None, &cause.to_string()),
        Error::Stopped { .. } => error(503, "stopped", None, &cause.to_string()),
    }
}

fn no_route(method: &str, path: &str) -> Response {
    let known = "GET /, GET /services/{name}[/effects|/state|/faults], PUT|DELETE /services/{name}/faults, POST /reset";
    error(
        404,
        "unknown-route",
        None,
        &format!("there is no {method} {path}; there are {known}"),
    )
}

fn error(status: u16, code: &str, field: Option<&str>, message: &str) -> Response {
    Response::json(
        status,
        &json!({ "error": { "code": code, "field": field, "message": message } }),
    )
}
