//! `log`: lines that are kept with the call.

use wasmtime::component::Linker;

use super::Capability;
use crate::bindings::cofferdam::connector::log;
use crate::call::LogLevel;
use crate::chamber::{Data, State};

/// Fields of one line. Two bytes of JSON can become a hundred in memory, so the host reads no more.
pub(crate) const FIELDS_BYTES_MAX: usize = 16 << 10;

pub(crate) struct Log;

impl Capability for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    fn provides(&self, interface: &str, _version: &str) -> bool {
        interface == "cofferdam:connector/log"
    }

    fn link(&self, linker: &mut Linker<State>) -> wasmtime::Result<()> {
        log::add_to_linker::<_, Data>(linker, |state| state)
    }
}

impl log::Host for State {
    fn write(&mut self, level: log::Level, message: String, fields: String) {
        let level = match level {
            log::Level::Trace => LogLevel::Trace,
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Error => LogLevel::Error,
        };
        // Fields that are no JSON are worth keeping as text.
        let fields = if fields.is_empty() {
            serde_json::Value::Null
        } else if fields.len() > FIELDS_BYTES_MAX {
            format!("[{} bytes of fields were left out]", fields.len()).into()
        } else {
            serde_json::from_str(&fields).unwrap_or_else(|_| fields.into())
        };
        self.scope.log_line(level, message, fields);
    }
}
