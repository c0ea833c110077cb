//! Testing a connector without a host and without a network.
//!
//! A [`Recorded`] host plays recorded exchanges in order: each request that the connector
//! sends must be the next one that was expected, and when the test ends all of them must have
//! been used. It has the settings, secrets, rows and clock that the test gives it.

mod exchange;
mod state;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;

use crate::call::{Call, Health};
use crate::connector::{self, Connector};
use crate::failure::Failure;
use crate::sql::Dialect;

pub use exchange::{Exchange, Statement};
pub use state::Mail;

pub(crate) use state::State;

thread_local! {
    static HOST: RefCell<Option<Rc<RefCell<State>>>> = const { RefCell::new(None) };
}

/// Asks the double that is in place on this thread.
pub(crate) fn with<R>(ask: impl FnOnce(&mut State) -> R) -> R {
    let host = HOST.with_borrow(Clone::clone);
    let Some(host) = host else {
        panic!("a connector outside a component needs a test host: use `Recorded::run`")
    };
    ask(&mut host.borrow_mut())
}

/// A host that plays recorded exchanges. It panics, which fails the test, when the connector
/// does something else, and when it is dropped with exchanges that nobody asked for.
pub struct Recorded {
    state: Rc<RefCell<State>>,
    call: Call,
}

impl Default for Recorded {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorded {
    /// A host without settings, secrets and exchanges, whose clock stands at
    /// 2026-01-02T03:04:05Z, and whose calls have the idempotency key `key-1` and 30 s.
    pub fn new() -> Self {
        const NOW: Duration = Duration::from_secs(1_767_323_045);
        Self {
            state: Rc::new(RefCell::new(State::new(SystemTime::UNIX_EPOCH + NOW))),
            call: Call {
                action: String::new(),
                input: String::new(),
                connection: "test".to_owned(),
                idempotency_key: "key-1".to_owned(),
                attempt: 1,
                deadline_ms: 30_000,
                tenant: String::new(),
                traceparent: String::new(),
                ext: "{}".to_owned(),
            },
        }
    }

    /// Gives the connection a setting.
    ///
    /// # Panics
    /// If the value cannot be written as JSON.
    pub fn config(self, name: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_string(&value).expect("a setting must be JSON");
        self.state
            .borrow_mut()
            .config
            .insert(name.to_owned(), value);
        self
    }

    /// Gives the connection a secret; its placeholder is `secret:NAME`.
    pub fn secret(self, name: &str) -> Self {
        self.state.borrow_mut().secrets.insert(name.to_owned());
        self
    }

    /// Gives the connection's database another dialect than PostgreSQL.
    pub fn dialect(self, dialect: Dialect) -> Self {
        self.state.borrow_mut().dialect = dialect;
        self
    }

    /// Expects one more request.
    pub fn exchange(self, exchange: Exchange) -> Self {
        self.state.borrow_mut().exchanges.push_back(exchange);
        self
    }

    /// Expects one more statement.
    pub fn statement(self, statement: Statement) -> Self {
        self.state.borrow_mut().statements.push_back(statement);
        self
    }

    /// Expects one more mail, and answers with the server's reply or a failure.
    pub fn mail(self, reply: Result<&str, Failure>) -> Self {
        self.state
            .borrow_mut()
            .replies
            .push_back(reply.map(str::to_owned));
        self
    }

    /// Changes what the connector is told of the call: key, deadline, tenant.
    pub fn call(mut self, change: impl FnOnce(&mut Call)) -> Self {
        change(&mut self.call);
        self
    }

    /// The mails that were sent, oldest first.
    pub fn mails(&self) -> Vec<Mail> {
        self.state.borrow().mails.clone()
    }

    /// The log lines: `INFO message {fields}`.
    pub fn log_lines(&self) -> Vec<String> {
        self.state.borrow().lines.clone()
    }

    /// Performs one action as the runtime would, JSON in and JSON out.
    ///
    /// # Panics
    /// If the connector asks for something that was not expected.
    pub fn invoke<C: Connector>(
        &self,
        action: &str,
        input: impl Serialize,
    ) -> Result<Value, Failure> {
        let call = Call {
            action: action.to_owned(),
            input: serde_json::to_string(&input).expect("an input must be JSON"),
            ..self.call.clone()
        };
        let output = self.run(|| connector::run::<C>(&call))?;
        Ok(serde_json::from_str(&output).expect("the SDK writes JSON"))
    }

    /// Checks the connection's health.
    pub fn check<C: Connector>(&self) -> Result<Health, Failure> {
        self.run(|| C::open()?.check())
    }

    /// Asks what came of the call of `action` with this idempotency key.
    ///
    /// # Panics
    /// If the connector asks for something that was not expected.
    pub fn lookup<C: Connector>(&self, action: &str, key: &str) -> Result<Option<Value>, Failure> {
        let found = self.run(|| C::open()?.lookup(action, key))?;
        Ok(found.map(|output| serde_json::from_str(&output).expect("the SDK writes JSON")))
    }

    /// Runs code with this host in place.
    pub fn run<R>(&self, code: impl FnOnce() -> R) -> R {
        struct Restore(Option<Rc<RefCell<State>>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                HOST.set(self.0.take());
            }
        }
        let _restore = Restore(HOST.replace(Some(self.state.clone())));
        code()
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let left = self.state.borrow().left();
        assert!(
            left.is_empty(),
            "expected and never asked for: {}",
            left.join("; ")
        );
    }
}

/// Fails the test unless every example in the connector's descriptor is an input that its
/// action takes. [`crate::connector`] puts a test into every connector's crate that calls it.
///
/// # Panics
/// If an example is not a valid input, naming it.
pub fn assert_examples<C: Connector>() {
    for (name, action) in C::descriptor().actions {
        for example in action["examples"].as_array().into_iter().flatten() {
            if let Err(failure) = C::accepts(&name, &example.to_string()) {
                panic!("the example {example} of action `{name}` is not a valid input: {failure}");
            }
        }
    }
}
