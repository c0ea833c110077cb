use super::Capability;
use crate::{Error, chamber::State, egress::Egress};
use wasmtime::component::Linker;
pub(crate) struct Sql;
impl Capability for Sql {
    fn name(&self) -> &'static str {
        "sql"
    }
    fn provides(&self, _: &str, _: &str) -> bool {
        false
    }
    fn link(&self, _: &mut Linker<State>) -> wasmtime::Result<()> {
        Ok(())
    }
}
pub(crate) struct Database;
impl Database {
    pub(crate) fn new(_: &str, _: &crate::spec::SqlGrant, _: &Egress) -> Result<Self, Error> {
        Ok(Self)
    }
}
