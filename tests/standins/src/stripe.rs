//! Stripe's payment intents, refunds and balance: routes, authentication and idempotency.
//!
//! `ledger` holds the objects and moves the money; `idempotency` keeps what was answered under a
//! key; `params` reads forms; `search` reads the query language.

mod idempotency;
mod ledger;
mod params;
mod refusal;
mod search;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

use self::idempotency::{Keys, Past, Saved};
pub use self::ledger::Charged;
use self::ledger::Ledger;
use self::params::Params;
use self::refusal::Refusal;
use crate::http::{Request, Response};
use crate::service::{Backend, Effects, Handle, HttpBackend, Ticket};

/// Objects of a page unless asked otherwise, and at most.
const PAGE_DEFAULT: usize = 10;
const PAGE_MAX: usize = 100;

/// Stripe's stand-in. An effect is a payment intent or refund that came into being, or an intent
/// that was confirmed or cancelled, keyed by `Idempotency-Key`, else by the object's id.
#[derive(Debug)]
pub struct Stripe {
    key: String,
    books: Mutex<Books>,
    in_flight: idempotency::InFlight,
    requests: AtomicU64,
}

#[derive(Debug, Default)]
struct Books {
    ledger: Ledger,
    keys: Keys,
    effects: Effects,
}

impl Stripe {
    pub(crate) fn new(key: String) -> Self {
        Self {
            key,
            books: Mutex::default(),
            in_flight: idempotency::InFlight::default(),
            requests: AtomicU64::new(1),
        }
    }

    /// What was captured and refunded, by the value of `metadata[name]`.
    fn charged_by(&self, name: &str) -> BTreeMap<String, Charged> {
        self.books
            .lock()
            .ledger
            .charged_by(|intent| intent.metadata.get(name).cloned())
    }

    /// What was captured and refunded, by receipt address, else by `metadata[email]`.
    fn charged_by_email(&self) -> BTreeMap<String, Charged> {
        let email = |intent: &ledger::Intent| {
            let receipt = intent.receipt_email.clone();
            receipt.or_else(|| intent.metadata.get("email").cloned())
        };
        self.books.lock().ledger.charged_by(email)
    }

    fn authenticate(&self, request: &Request) -> Result<(), Refusal> {
        let given = request
            .bearer()
            .map(str::to_owned)
            .or_else(|| request.basic_user());
        match given {
            Some(given) if given == self.key => Ok(()),
            Some(given) => Err(Refusal::bad_key(&given)),
            None => Err(Refusal::no_key()),
        }
    }

    /// A request that changes something: replayed if its key was answered before.
    fn post(&self, request: &Request, request_id: &str) -> Result<Response, Refusal> {
        let params = Params::read(request)?;
        let key = request.header("idempotency-key");
        let books = &mut *self.books.lock();
        if let Some(key) = key {
            idempotency::check_length(key)?;
            match books.keys.look(key, &request.path, &params) {
                Past::Never => {}
                Past::Answered(saved) => return Ok(saved.replay(key)),
                Past::Other(refusal) => return Err(refusal),
            }
        }
        let outcome = change(&mut books.ledger, &request.segments(), &params);
        let applied = outcome
            .as_ref()
            .ok()
            .and_then(|object| object["id"].as_str())
            .map(str::to_owned);
        let (status, body) = match outcome {
            Ok(object) => (200, object),
            Err(refusal) => (refusal.status, refusal.body()),
        };
        if let Some(id) = applied {
            *books
                .effects
                .entry(key.map_or(id, str::to_owned))
                .or_default() += 1;
        }
        let Some(key) = key else {
            return Ok(Response::json(status, &body));
        };
        let saved = Saved::new(
            request.path.clone(),
            params,
            status,
            body,
            request_id.to_owned(),
        );
        let response = saved.first(key);
        // A request that never began to execute leaves its key free; a declined card uses it up.
        if matches!(status, 200 | 402) {
            books.keys.save(key, saved);
        }
        Ok(response)
    }

    fn get(&self, request: &Request) -> Result<Value, Refusal> {
        let ledger = &self.books.lock().ledger;
        let segments = request.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["v1", "payment_intents", "search"] => search::run(ledger, request),
            ["v1", "payment_intents"] => list(ledger, request),
            ["v1", "payment_intents", id] => Ok(ledger.intent(id)?.render()),
            ["v1", "refunds", id] => Ok(ledger.refund(id)?.render()),
            ["v1", "balance"] => Ok(ledger.balance()),
            _ => Err(Refusal::no_route("GET", &request.path)),
        }
    }
}

impl Handle<Stripe> {
    /// What was captured and refunded, by the value of `metadata[name]`; intents without it are
    /// left out.
    pub fn charged_by(&self, name: &str) -> BTreeMap<String, Charged> {
        self.backend.charged_by(name)
    }

    /// What was captured and refunded, by `receipt_email`, else by `metadata[email]`.
    pub fn charged_by_email(&self) -> BTreeMap<String, Charged> {
        self.backend.charged_by_email()
    }
}

impl Backend for Stripe {
    fn effects(&self) -> Effects {
        self.books.lock().effects.clone()
    }

    fn state(&self) -> Value {
        let books = self.books.lock();
        json!({
            "payment_intents": books.ledger.intents().map(ledger::Intent::render).collect::<Vec<_>>(),
            "refunds": books.ledger.refunds().map(ledger::Refund::render).collect::<Vec<_>>(),
            "idempotency_keys": books.keys.names(),
        })
    }

    fn business(&self) -> Value {
        json!({ "charged_by_lead": self.charged_by("lead"), "charged_by_email": self.charged_by_email() })
    }

    fn reset(&self) {
        *self.books.lock() = Books::default();
    }
}

impl HttpBackend for Stripe {
    fn admit(&self, request: &Request) -> Result<Ticket, Response> {
        let key = request
            .header("idempotency-key")
            .filter(|_| request.method == "POST");
        let Some(key) = key else { return Ok(None) };
        match self.in_flight.enter(key) {
            Some(entry) => Ok(Some(Box::new(entry))),
            None => Err(Refusal::in_use(key).response()),
        }
    }

    fn handle(&self, request: &Request) -> Response {
        let id = format!("req_{:014}", self.requests.fetch_add(1, Ordering::Relaxed));
        let answer = self
            .authenticate(request)
            .and_then(|()| match request.method.as_str() {
                "POST" => self.post(request, &id),
                "GET" => self.get(request).map(|object| Response::json(200, &object)),
                other => Err(Refusal::no_route(other, &request.path)),
            });
        answer
            .unwrap_or_else(Refusal::into_response)
            .with("Request-Id", id)
    }

    fn refusal(&self, status: u16, retry_after_s: Option<u64>) -> Response {
        Refusal::of_status(status)
            .response()
            .retry_after(retry_after_s)
    }
}

/// Carries out a request that changes something.
fn change(ledger: &mut Ledger, segments: &[String], params: &Params) -> Result<Value, Refusal> {
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["v1", "payment_intents"] => ledger.create_intent(params),
        ["v1", "payment_intents", id, "confirm"] => ledger.confirm(id, params),
        ["v1", "payment_intents", id, "cancel"] => ledger.cancel(id, params),
        ["v1", "refunds"] => ledger.create_refund(params),
        other => Err(Refusal::no_route("POST", &format!("/{}", other.join("/")))),
    }
}

/// The list of intents, newest first, paged by `starting_after`.
fn list(ledger: &Ledger, request: &Request) -> Result<Value, Refusal> {
    let limit = page_limit(request)?;
    let after = request.query("starting_after");
    if let Some(id) = after {
        ledger.intent(id)?;
    }
    // Ids grow, so everything after a cursor is smaller than it.
    let mut rest = ledger
        .intents()
        .rev()
        .filter(|intent| after.is_none_or(|id| intent.id.as_str() < id));
    let page: Vec<Value> = rest
        .by_ref()
        .take(limit)
        .map(ledger::Intent::render)
        .collect();
    let more = rest.next().is_some();
    Ok(json!({ "object": "list", "url": "/v1/payment_intents", "has_more": more, "data": page }))
}

fn page_limit(request: &Request) -> Result<usize, Refusal> {
    match request.query("limit").map(str::parse) {
        None => Ok(PAGE_DEFAULT),
        Some(Ok(limit @ 1..=PAGE_MAX)) => Ok(limit),
        Some(Ok(_)) => Err(Refusal::invalid(
            "parameter_invalid_integer",
            "limit",
            format!("limit is from 1 to {PAGE_MAX}"),
        )),
        Some(Err(_)) => Err(Refusal::invalid(
            "parameter_invalid_integer",
            "limit",
            "Invalid integer: limit".to_owned(),
        )),
    }
}
