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
use crate::scope::Scope;
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

/// Begins a change, unless the call is over.
async fn change(
    scope: &Scope,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    if scope.mark_sent() {
        return work.await;
    }
    let text = "the call's time is over; nothing was changed";
    Err(Failure::new(Class::Timeout, "kv.timeout", text))
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
        let set = kv.set(&scope.settings.name, &scope.tenant, &key, value);
        change(scope, set).await.map_err(to_guest)
    }

    async fn delete(&mut self, key: String) -> Result<(), protocol::Failure> {
        let kv = self.kv(&key).map_err(to_guest)?;
        let scope = &self.scope;
        let delete = kv.delete(&scope.settings.name, &scope.tenant, &key);
        change(scope, delete).await.map_err(to_guest)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use cofferdam_core::failure::EffectState;

    use super::*;
    use crate::connection::Settings;

    #[tokio::test]
    async fn after_the_verdict_the_store_is_left_alone() {
        let settings = Arc::new(Settings::nothing("crm").unwrap());
        let scope = Scope::new(settings, String::new(), Duration::from_mins(10));
        let kv = MemoryKv::default();
        change(&scope, kv.set("crm", "", "kept", vec![1]))
            .await
            .unwrap();
        assert_eq!(scope.close(), EffectState::Unknown);

        let late = [
            change(&scope, kv.set("crm", "", "kept", vec![2])).await,
            change(&scope, kv.delete("crm", "", "kept")).await,
        ];
        for failed in late.map(Result::unwrap_err) {
            assert_eq!(
                (failed.class, failed.code.as_str()),
                (Class::Timeout, "kv.timeout")
            );
            assert_eq!(failed.effect, EffectState::None);
        }
        assert_eq!(kv.get("crm", "", "kept").await.unwrap(), Some(vec![1]));
    }
}
