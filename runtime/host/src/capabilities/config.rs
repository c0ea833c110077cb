//! `config`: the connection's settings.

use serde_json::Value;
use wasmtime::component::Linker;

use super::Capability;
use crate::bindings::cofferdam::connector::config;
use crate::chamber::{Data, State};

pub(crate) struct Config;

impl Capability for Config {
    fn name(&self) -> &'static str {
        "config"
    }

    fn provides(&self, interface: &str, _version: &str) -> bool {
        interface == "cofferdam:connector/config"
    }

    fn link(&self, linker: &mut Linker<State>) -> wasmtime::Result<()> {
        config::add_to_linker::<_, Data>(linker, |state| state)
    }
}

impl config::Host for State {
    fn get(&mut self, name: String) -> Option<String> {
        find(&self.scope.settings.config, &name).map(Value::to_string)
    }
}

/// The setting of this name; dots go into tables, and a key with dots in it is found as well.
fn find<'a>(table: &'a Value, name: &str) -> Option<&'a Value> {
    if let Some(value) = table.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    find(table.get(first)?, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn dots_go_into_tables() {
        let config = json!({"a": {"b": {"c": 1}}, "x.y": 2});
        assert_eq!(find(&config, "a.b.c"), Some(&json!(1)));
        assert_eq!(find(&config, "a.b"), Some(&json!({"c": 1})));
        assert_eq!(find(&config, "x.y"), Some(&json!(2)));
        assert_eq!(find(&config, "a.c"), None);
        assert_eq!(find(&config, ""), None);
    }
}
