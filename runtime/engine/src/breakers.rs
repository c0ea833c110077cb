//! What an operator does to a breaker, and is told of a connection.

use cofferdam_core::breaker::Event;
use cofferdam_store::Batch;
use serde::{Deserialize, Serialize};

use crate::connections::{ConnectionState, Slot};
use crate::runtime::Inner;
use crate::{Error, Runtime, outbox, query, service};

/// What an operator wants of a connection's breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerSetting {
    /// Lets no call through until it is reset: `ForcedOpen`.
    ForceOpen,
    /// Lets every call through, whatever comes of it, until it is reset: `Disabled`.
    Disable,
    /// Back to `Closed`, with nothing counted.
    Reset,
}

impl Runtime {
    /// Sets a connection's breaker. When this returns it is on the disk: the setting outlives the
    /// process, until it is reset.
    ///
    /// # Errors
    /// [`Error::UnknownConnection`]; [`Error::Store`]: then it holds in this process, and perhaps
    /// not after it.
    pub async fn set_breaker(
        &self,
        connection: &str,
        setting: BreakerSetting,
    ) -> Result<ConnectionState, Error> {
        let inner = &self.inner;
        let slot = inner.connections.get(connection);
        let slot = slot.ok_or_else(|| Error::UnknownConnection {
            connection: connection.to_owned(),
        })?;
        slot.set_breaker(match setting {
            BreakerSetting::ForceOpen => Event::ForcedOpen,
            BreakerSetting::Disable => Event::Disabled,
            BreakerSetting::Reset => Event::Reset,
        });
        let batch = service::write(Batch::new(), connection, &slot.service_row())?;
        inner.store.commit(batch).await?;
        Ok(inner.state_of(slot))
    }
}

impl Inner {
    /// How a connection is, with what only the store knows. Who asks should hear the rest all the
    /// same if that cannot be read.
    pub fn state_of(&self, slot: &Slot) -> ConnectionState {
        let store = &*self.store;
        ConnectionState {
            parked_now: query::Query::new(store).parked(&slot.name).unwrap_or(0),
            outbox: outbox::state(store, slot),
            ..slot.state()
        }
    }
}
