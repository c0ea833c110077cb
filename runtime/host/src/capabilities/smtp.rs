use super::Capability;
use crate::{Error, chamber::State, egress::Egress};
use wasmtime::component::Linker;
pub(crate) struct Smtp;
impl Capability for Smtp {
    fn name(&self) -> &'static str {
        "smtp"
    }
    fn provides(&self, _: &str, _: &str) -> bool {
        false
    }
    fn link(&self, _: &mut Linker<State>) -> wasmtime::Result<()> {
        Ok(())
    }
}
pub(crate) struct Mailer;
impl Mailer {
    pub(crate) fn new(_: &str, _: &crate::spec::SmtpGrant, _: &Egress) -> Result<Self, Error> {
        Ok(Self)
    }
}
