//! HubSpot's CRM v3 contacts: the routes and the shapes of answers.
//!
//! `store` holds the contacts and decides what is legal; `search` evaluates filters; this file
//! translates between them and HTTP.

mod search;
mod store;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use self::store::{Contact, Refusal, Store};
use crate::http::{Request, Response};
use crate::service::{Backend, Effects, HttpBackend};

/// Contacts of a page of the list unless asked otherwise, and at most.
const LIST_DEFAULT: usize = 10;
const LIST_MAX: usize = 100;

/// Most inputs of a batch.
const BATCH_MAX: usize = 100;

/// What an answer holds of a contact when nobody asks for properties.
const PROPERTIES_DEFAULT: [&str; 6] = [
    "createdate",
    "email",
    "firstname",
    "hs_object_id",
    "lastmodifieddate",
    "lastname",
];

/// HubSpot's stand-in. Effects are `create:EMAIL` (contacts that came into being, so that a
/// repeated upsert is none) and `archive:EMAIL`; for a contact without e-mail `id:ID` stands in
/// for the address.
#[derive(Debug)]
pub struct HubSpot {
    token: String,
    store: Mutex<Store>,
    correlations: AtomicU64,
}

impl HubSpot {
    pub(crate) fn new(token: String) -> Self {
        Self {
            token,
            store: Mutex::default(),
            correlations: AtomicU64::new(1),
        }
    }

    fn route(&self, request: &Request) -> Result<Response, Refusal> {
        let segments = request.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let ["crm", "v3", "objects", "contacts", rest @ ..] = segments.as_slice() else {
            return Err(Refusal::no_route());
        };
        let store = &mut *self.store.lock();
        match (request.method.as_str(), rest) {
            ("GET", []) => list(store, request),
            ("POST", []) => {
                let id = store.create(properties(&body(request)?)?)?;
                Ok(Response::json(201, &whole(store.get(id)?)))
            }
            ("POST", ["search"]) => Ok(Response::json(200, &search::run(store, &body(request)?)?)),
            ("POST", ["batch", "upsert"]) => upsert(store, &body(request)?),
            ("GET", [id]) => {
                let contact = store.find(id, request.query("idProperty"))?;
                Ok(Response::json(200, &render(contact, &asked(request))))
            }
            ("PATCH", [id]) => {
                let changes = properties(&body(request)?)?;
                let id = store.find(id, request.query("idProperty"))?.id;
                store.update(id, changes)?;
                Ok(Response::json(200, &whole(store.get(id)?)))
            }
            ("DELETE", [id]) => {
                store.archive(id)?;
                Ok(Response::empty(204))
            }
            (_, [] | [_] | ["batch", "upsert"]) => Err(Refusal::bad_method()),
            _ => Err(Refusal::no_route()),
        }
    }

    fn correlation(&self) -> String {
        format!(
            "00000000-0000-4000-8000-{:012x}",
            self.correlations.fetch_add(1, Ordering::Relaxed)
        )
    }

    /// The error body that all of HubSpot's endpoints share.
    fn error(&self, status: u16, category: &str, message: &str) -> Response {
        let correlation = self.correlation();
        let body = json!({ "status": "error", "message": message, "correlationId": correlation, "category": category });
        Response::json(status, &body)
    }
}

impl Backend for HubSpot {
    fn effects(&self) -> Effects {
        self.store.lock().effects.clone()
    }

    fn state(&self) -> Value {
        let store = self.store.lock();
        json!({ "contacts": store.all().map(whole).collect::<Vec<_>>() })
    }

    fn reset(&self) {
        *self.store.lock() = Store::default();
    }
}

impl HttpBackend for HubSpot {
    fn handle(&self, request: &Request) -> Response {
        if request.bearer() != Some(self.token.as_str()) {
            let message =
                "Authentication credentials not found. This API supports OAuth 2.0 authentication.";
            return self.error(401, "INVALID_AUTHENTICATION", message);
        }
        let answer = self.route(request);
        answer.unwrap_or_else(|refusal| {
            self.error(refusal.status, refusal.category, &refusal.message)
        })
    }

    fn refusal(&self, status: u16, retry_after_s: Option<u64>) -> Response {
        if status == 429 {
            let body = json!({
                "status": "error", "message": "You have reached your secondly limit.", "errorType": "RATE_LIMIT",
                "category": "RATE_LIMITS", "policyName": "SECONDLY", "correlationId": self.correlation(),
            });
            return Response::json(429, &body).retry_after(retry_after_s);
        }
        let (category, message) = match status {
            401 => ("INVALID_AUTHENTICATION", "The credentials are not valid."),
            403 => (
                "MISSING_SCOPES",
                "The credentials lack a scope that this call needs.",
            ),
            404 => ("OBJECT_NOT_FOUND", "Object not found."),
            409 => ("CONFLICT", "The object conflicts with another one."),
            400..=499 => ("VALIDATION_ERROR", "The request was refused."),
            _ => ("INTERNAL_ERROR", "internal error"),
        };
        self.error(status, category, message)
            .retry_after(retry_after_s)
    }
}

fn body(request: &Request) -> Result<Value, Refusal> {
    let body = request.json().map_err(|cause| {
        let (line, column) = (cause.line(), cause.column());
        Refusal::validation(format!(
            "Invalid input JSON on line {line}, column {column}: {cause}"
        ))
    })?;
    if body.is_object() {
        Ok(body)
    } else {
        Err(Refusal::validation(
            "Invalid input JSON: an object is expected",
        ))
    }
}

/// The `properties` of a request, with every value as the text that HubSpot stores.
fn properties(value: &Value) -> Result<BTreeMap<String, String>, Refusal> {
    let Some(Value::Object(sent)) = value.get("properties") else {
        return Err(Refusal::validation(
            "Some required fields were not set: [properties]",
        ));
    };
    let mut properties = BTreeMap::new();
    for (name, value) in sent {
        let text = match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Array(_) | Value::Object(_) => {
                return Err(Refusal::validation(format!(
                    "Property \"{name}\" must have a simple value"
                )));
            }
        };
        properties.insert(name.clone(), text);
    }
    Ok(properties)
}

/// The names in `?properties=a,b`, which may also be repeated.
fn asked(request: &Request) -> Vec<&str> {
    let given = request
        .query
        .iter()
        .filter(|(name, _)| name == "properties");
    given
        .flat_map(|(_, names)| names.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect()
}

fn list(store: &Store, request: &Request) -> Result<Response, Refusal> {
    let limit = match request.query("limit").map(str::parse) {
        None => LIST_DEFAULT,
        Some(Ok(limit @ 1..=LIST_MAX)) => limit,
        Some(_) => {
            return Err(Refusal::validation(format!(
                "limit must be from 1 to {LIST_MAX}"
            )));
        }
    };
    let after: u64 = match request.query("after").map(str::parse) {
        None => 0,
        Some(Ok(after)) => after,
        Some(Err(_)) => return Err(Refusal::validation("after is not a cursor of this list")),
    };
    let archived = request.query("archived") == Some("true");
    let asked = asked(request);
    let mut rest = store
        .all()
        .filter(|contact| contact.archived == archived && contact.id > after);
    let page: Vec<&Contact> = rest.by_ref().take(limit).collect();
    let mut answer = json!({ "results": page.iter().map(|contact| render(contact, &asked)).collect::<Vec<_>>() });
    if let (Some(last), Some(_)) = (page.last(), rest.next()) {
        answer["paging"] = json!({ "next": { "after": last.id.to_string(), "link": format!("?after={}", last.id) } });
    }
    Ok(Response::json(200, &answer))
}

fn upsert(store: &mut Store, body: &Value) -> Result<Response, Refusal> {
    let inputs = body.get("inputs").and_then(Value::as_array);
    let inputs =
        inputs.ok_or_else(|| Refusal::validation("Some required fields were not set: [inputs]"))?;
    if inputs.is_empty() || inputs.len() > BATCH_MAX {
        return Err(Refusal::validation(format!(
            "A batch has 1 to {BATCH_MAX} inputs"
        )));
    }
    let mut wanted = Vec::new();
    for input in inputs {
        let id = input.get("id").and_then(Value::as_str);
        let id =
            id.ok_or_else(|| Refusal::validation("Some required fields were not set: [id]"))?;
        let key = match input.get("idProperty").and_then(Value::as_str) {
            None | Some("hs_object_id") => None,
            Some(name) => Some(name),
        };
        wanted.push((key, id.to_owned(), properties(input)?));
    }
    // The whole batch is checked before any of it is applied.
    let upserted = store.upsert(&wanted)?;
    let any_new = upserted.iter().any(|(_, new)| *new);
    let mut results = Vec::new();
    for (id, new) in upserted {
        let mut result = whole(store.get(id)?);
        result["new"] = json!(new);
        results.push(result);
    }
    let now = store::timestamp();
    let answer =
        json!({ "status": "COMPLETE", "results": results, "startedAt": now, "completedAt": now });
    Ok(Response::json(if any_new { 201 } else { 200 }, &answer))
}

/// A contact with the properties asked for beside the default ones; null where it has none.
fn render(contact: &Contact, asked: &[&str]) -> Value {
    let mut shown = Map::new();
    for name in PROPERTIES_DEFAULT.iter().chain(asked) {
        let value = contact
            .properties
            .get(*name)
            .map_or(Value::Null, |text| json!(text));
        shown.insert((*name).to_owned(), value);
    }
    let mut rendered = whole(contact);
    rendered["properties"] = Value::Object(shown);
    rendered
}

/// A contact with all it has.
fn whole(contact: &Contact) -> Value {
    json!({
        "id": contact.id.to_string(),
        "properties": contact.properties,
        "createdAt": contact.properties.get("createdate"),
        "updatedAt": contact.properties.get("lastmodifieddate"),
        "archived": contact.archived,
    })
}
