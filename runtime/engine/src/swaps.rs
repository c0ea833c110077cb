//! The generations of a connection, as an embedder changes and reads them.

use std::sync::Arc;

use crate::Error;
use crate::activation::{self, Swap, Swapped};
use crate::connections::Slot;
use crate::generations::Generations;
use crate::history::HistoryRow;
use crate::runtime::Runtime;

impl Runtime {
    fn slot(&self, connection: &str) -> Result<Arc<Slot>, Error> {
        let slot = self.inner.connections.get(connection).cloned();
        slot.ok_or_else(|| Error::UnknownConnection {
            connection: connection.to_owned(),
        })
    }

    /// Brings a new generation of a connection into service, or on trial, while calls go on: those
    /// under way end on the generation that they began on. When this returns, the change is on the
    /// disk. Dropping the future does not stop the swap.
    ///
    /// # Errors
    /// Whatever is wrong, the old generation stays: [`Error::Host`] if the plugin is not admitted,
    /// [`Error::Incompatible`], [`Error::CheckFailed`], [`Error::OnTrial`], [`Error::Same`],
    /// [`Error::Shelf`], [`Error::Store`]. After [`Error::ShuttingDown`] the next start begins with the
    /// old generation or with the new one; [`Runtime::history`] tells then.
    pub async fn swap(&self, connection: &str, swap: Swap) -> Result<Swapped, Error> {
        let (inner, slot) = (Arc::clone(&self.inner), self.slot(connection)?);
        self.to_its_end(activation::swap(inner, slot, swap, false))
            .await
    }

    /// The generation on trial takes over now.
    ///
    /// # Errors
    /// [`Error::NoTrial`], [`Error::Store`].
    pub async fn promote(&self, connection: &str) -> Result<Generations, Error> {
        let (inner, slot) = (Arc::clone(&self.inner), self.slot(connection)?);
        let why = "asked for".to_owned();
        self.to_its_end(activation::promote(inner, slot, None, why))
            .await
    }

    /// The generation on trial goes; without one, the generation that served before comes back.
    /// No plugin is loaded for it.
    ///
    /// # Errors
    /// [`Error::NothingBefore`], [`Error::Store`].
    pub async fn rollback(&self, connection: &str) -> Result<Generations, Error> {
        let (inner, slot) = (Arc::clone(&self.inner), self.slot(connection)?);
        let why = "asked for".to_owned();
        self.to_its_end(activation::roll_back(inner, slot, None, why))
            .await
    }

    /// The generations of a connection.
    ///
    /// # Errors
    /// [`Error::UnknownConnection`].
    pub fn generations(&self, connection: &str) -> Result<Generations, Error> {
        Ok(self.slot(connection)?.generations())
    }

    /// What happened to the generations of a connection, newest first; the last 200 rows.
    ///
    /// # Errors
    /// [`Error::UnknownConnection`], [`Error::Store`], [`Error::Row`].
    pub fn history(&self, connection: &str) -> Result<Vec<HistoryRow>, Error> {
        self.slot(connection)?;
        activation::history_of(&*self.inner.store, connection)
    }

    /// A change of generations must not stop between the disk and the memory because a caller
    /// went away.
    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let ended = self.inner.tasks.spawn(work).await;
        ended.unwrap_or(Err(Error::ShuttingDown))
    }
}
