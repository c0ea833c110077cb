//! `kv`: small durable state, apart for each connection and tenant.

use std::collections::HashMap;

use async_trait::async_trait;
use cofferdam_core::failure::{Class, Failure};
use cofferdam_core::manifest::Manifest;
use parking_lot::Mutex;
use wasmtime::component::Linker;

use super::{Capability, missing};
use crate::Error;
use crate::bindings::cofferdam::connector::{kv, protocol};
use crate::chamber::{Data, State};
use crate::plugin::Plugin;
use crate::spec::ConnectionSpec;
use crate::verdict::to_guest;

/// Bounds of the contract.
const KEY_BYTES_MAX: usize = 512;
const VALUE_BYTES_MAX: usize = 64 << 10;

/// Where plugins keep small state. Keys of one connection and tenant are never seen by another.
#[async_trait]
pub trait KeyValue: Send + Sync {
    /// The value last set, or none.
    ///
    /// # Errors
    /// Class `unavailable` if the store does not answer.
    async fn get(
        &self,
        connection: &str,
        tenant: &str,
        key: &str,
    ) -> Result<Option<Vec<u8>>, Failure>;

    /// Sets a value. Durable when it returns; a crash before leaves the old value or the new one.
    ///
    /// # Errors
    /// Class `unavailable` if the store does not answer or is full.
    async fn set(
        &self,
        connection: &str,
        tenant: &str,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), Failure>;

    /// Removes a value, durably; fine if there is none.
    ///
    /// # Errors
    /// Class `unavailable` if the store does not answer.
    async fn delete(&self, connection: &str, tenant: &str, key: &str) -> Result<(), Failure>;
}

/// State in memory, for tests and for single calls without a store. Lost when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryKv {
    values: Mutex<HashMap<[String; 3], Vec<u8>>>,
}

fn place(connection: &str, tenant: &str, key: &str) -> [String; 3] {
    [connection.to_owned(), tenant.to_owned(), key.to_owned()]
}

#[async_trait]
impl KeyValue for MemoryKv {
    async fn get(
        &self,
        connection: &str,
        tenant: &str,
        key: &str,
    ) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self
            .values
            .lock()
            .get(&place(connection, tenant, key))
            .cloned())
    }

    async fn set(
        &self,
        connection: &str,
        tenant: &str,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), Failure> {
        self.values
            .lock()
            .insert(place(connection, tenant, key), value);
        Ok(())
    }

    async fn delete(&self, connection: &str, tenant: &str, key: &str) -> Result<(), Failure> {
        self.values.lock().remove(&place(connection, tenant, key));
        Ok(())
    }
}

pub(crate) struct Kv;

impl Capability for Kv {
    fn name(&self) -> &'static str {
        "kv"
    }

    fn provides(&self, interface: &str, _version: &str) -> bool {
        interface == "cofferdam:connector/kv"
    }

    fn link(&self, linker: &mut Linker<State>) -> wasmtime::Result<()> {
        kv::add_to_linker::<_, Data>(linker, |state| state)
    }

    fn unrequested(&self, manifest: &Manifest) -> Option<String> {
        (!manifest.capabilities.kv).then(|| "kv = true".to_owned())
    }

    fn admit(&self, plugin: &Plugin, spec: &ConnectionSpec) -> Result<(), Error> {
        if spec.grants.kv {
            Ok(())
        } else {
            Err(missing(plugin, spec, "kv", "kv = true"))
        }
    }
}

impl State {
    fn kv(&self, key: &str) -> Result<std::sync::Arc<dyn KeyValue>, Failure> {
        if key.len() > KEY_BYTES_MAX {
            let text = format!(
                "a key has {} bytes, at most {KEY_BYTES_MAX} are taken",
                key.len()
            );
            return Err(Failure::new(Class::InvalidInput, "kv.key", text));
        }
        let kv = self.scope.settings.kv.clone();
        kv.ok_or_else(|| Failure::new(Class::Denied, "kv.denied", "kv is not granted"))
    }
}

impl kv::Host for State {
    async fn get(&mut self, key: String) -> Result<Option<Vec<u8>>, protocol::Failure> {
        let kv = self.kv(&key).map_err(to_guest)?;
        let scope = &self.scope;
        kv.get(&scope.settings.name, &scope.tenant, &key)
            .await
            .map_err(to_guest)
    }

    async fn set(&mut self, key: String, value: Vec<u8>) -> Result<(), protocol::Failure> {
        let kv = self.kv(&key).map_err(to_guest)?;
        if value.len() > VALUE_BYTES_MAX {
            let text = format!(
                "a value has {} bytes, at most {VALUE_BYTES_MAX} are taken",
                value.len()
            );
            return Err(to_guest(Failure::new(
                Class::InvalidInput,
                "kv.value",
                text,
            )));
        }
        let scope = &self.scope;
        scope.mark_sent();
        kv.set(&scope.settings.name, &scope.tenant, &key, value)
            .await
            .map_err(to_guest)
    }

    async fn delete(&mut self, key: String) -> Result<(), protocol::Failure> {
        let kv = self.kv(&key).map_err(to_guest)?;
        let scope = &self.scope;
        scope.mark_sent();
        kv.delete(&scope.settings.name, &scope.tenant, &key)
            .await
            .map_err(to_guest)
    }
}
