//! The `kv` capability on the runtime's own store.

use std::sync::Arc;

use async_trait::async_trait;
use cofferdam_core::failure::{Class, Failure};
use cofferdam_host::KeyValue;
use cofferdam_store::{Batch, JournalStore, Table};

/// Plugins' small state, in the same store as the runs.
pub(crate) struct StoreKv {
    pub store: Arc<dyn JournalStore>,
}

fn key(connection: &str, tenant: &str, key: &str) -> Vec<u8> {
    format!("{connection}\0{tenant}\0{key}").into_bytes()
}

fn unavailable(error: &cofferdam_store::Error) -> Failure {
    Failure::new(Class::Unavailable, "kv.store", error.to_string())
}

#[async_trait]
impl KeyValue for StoreKv {
    async fn get(
        &self,
        connection: &str,
        tenant: &str,
        name: &str,
    ) -> Result<Option<Vec<u8>>, Failure> {
        self.store
            .get(Table::Kv, &key(connection, tenant, name))
            .map_err(|e| unavailable(&e))
    }

    async fn set(
        &self,
        connection: &str,
        tenant: &str,
        name: &str,
        value: Vec<u8>,
    ) -> Result<(), Failure> {
        let batch = Batch::new().put(Table::Kv, key(connection, tenant, name), value);
        self.store.commit(batch).await.map_err(|e| unavailable(&e))
    }

    async fn delete(&self, connection: &str, tenant: &str, name: &str) -> Result<(), Failure> {
        let batch = Batch::new().delete(Table::Kv, key(connection, tenant, name));
        self.store.commit(batch).await.map_err(|e| unavailable(&e))
    }
}
