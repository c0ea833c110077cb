//! What serves a connection: a plugin in a chamber, or, in an embedder's tests and simulations,
//! Rust code of the embedding program.
//!
//! The sandbox's promises are about chambers. A [`Connector`] runs in the process itself, with all
//! that the process may do; only a program can name one
//! ([`RuntimeBuilder::connector`](crate::RuntimeBuilder::connector)), no configuration can.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cofferdam_core::descriptor::Descriptor;
use cofferdam_core::failure::{Class, EffectState, Failure};
use cofferdam_host::{Call, Health, Limits, Outcome, Plugin, Usage};
use serde_json::Value;

/// A connection's other side, as Rust code: for tests and simulations of an embedding program.
///
/// It is called as a plugin would be, behind the same bulkhead, breaker and deadlines. What a
/// chamber adds is not there: no limits but the timeout, no grants, no scrubbing of secrets, and no
/// check of inputs and outputs against the descriptor's schemas.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    /// What it offers. Constant; asked once, when the runtime is opened.
    fn descriptor(&self) -> Descriptor;

    /// Performs one action. Dropped at the deadline, and when the runtime stops: what was done
    /// stays done.
    ///
    /// # Errors
    /// As a plugin's: the failure's class and effect decide what follows.
    async fn invoke(&self, call: Call) -> Result<Value, Failure>;

    /// What became of the call with this key: its output, or `None` if it certainly did not
    /// happen. Asked only for actions whose descriptor says `lookup`.
    ///
    /// # Errors
    /// When nobody can tell.
    async fn lookup(&self, action: &str, key: &str) -> Result<Option<Value>, Failure>;

    /// Whether what is behind it works.
    ///
    /// # Errors
    /// When that cannot be found out, which counts as a failure of the connection.
    async fn check(&self) -> Result<Health, Failure>;
}

/// What serves a generation. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Backend {
    Chamber(cofferdam_host::Connection),
    Program(Arc<Program>),
}

/// A connector with what is configured for its connection.
pub(crate) struct Program {
    connector: Arc<dyn Connector>,
    descriptor: Descriptor,
    limits: Limits,
}

impl Backend {
    pub fn program(connector: Arc<dyn Connector>, limits: Limits) -> Self {
        let descriptor = connector.descriptor();
        Self::Program(Arc::new(Program {
            connector,
            descriptor,
            limits,
        }))
    }

    pub fn descriptor(&self) -> &Descriptor {
        match self {
            Self::Chamber(connection) => connection.descriptor(),
            Self::Program(program) => &program.descriptor,
        }
    }

    pub fn limits(&self) -> &Limits {
        match self {
            Self::Chamber(connection) => connection.limits(),
            Self::Program(program) => &program.limits,
        }
    }

    /// Whether it has a secret of this name. Code of the program has what it has.
    pub fn has_secret(&self, name: &str) -> bool {
        match self {
            Self::Chamber(connection) => connection.has_secret(name),
            Self::Program(_) => true,
        }
    }

    /// The plugin; none for code of the program, which cannot be swapped.
    pub fn plugin(&self) -> Option<&Plugin> {
        match self {
            Self::Chamber(connection) => Some(connection.plugin()),
            Self::Program(_) => None,
        }
    }

    pub async fn invoke(&self, call: Call) -> Outcome {
        match self {
            Self::Chamber(connection) => connection.invoke(call).await,
            Self::Program(program) => {
                let timeout = call.timeout.min(program.limits.timeout);
                let calling = program.connector.invoke(call);
                let result = match tokio::time::timeout(timeout, calling).await {
                    Ok(result) => result,
                    Err(_) => Err(late(timeout, EffectState::Unknown)),
                };
                Outcome {
                    result,
                    usage: Usage::default(),
                    logs: Vec::new(),
                }
            }
        }
    }

    pub async fn check(&self) -> Result<Health, Failure> {
        match self {
            Self::Chamber(connection) => connection.check().await,
            Self::Program(program) => program.in_time(program.connector.check()).await,
        }
    }

    pub async fn lookup(&self, action: &str, key: &str) -> Result<Option<Value>, Failure> {
        match self {
            Self::Chamber(connection) => connection.lookup(action, key).await,
            Self::Program(program) => program.in_time(program.connector.lookup(action, key)).await,
        }
    }
}

impl Program {
    async fn in_time<T>(
        &self,
        asking: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let timeout = self.limits.timeout;
        let asked = tokio::time::timeout(timeout, asking).await;
        asked.unwrap_or_else(|_| Err(late(timeout, EffectState::None)))
    }
}

fn late(timeout: Duration, effect: EffectState) -> Failure {
    let message = format!("no answer within {timeout:?}");
    Failure::new(Class::Timeout, "timeout", message).with_effect(effect)
}
