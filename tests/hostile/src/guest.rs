//! Guests in WebAssembly text, for what no compiler would write.

use anyhow::{Context, Result};
use cofferdam_host::{Artifact, stamp};
use serde_json::{Value, json};

const TEMPLATE: &str = include_str!("connector.wat");

/// One action, `go`, that takes and returns anything.
const DESCRIPTOR: &str = r#"{"name":"hostile","version":"1.0.0","actions":{"go":{"title":"Go","effect":"read","input":{},"output":{}}}}"#;

/// The one action of every guest made of [`Text`].
pub const ACTION: &str = "go";

/// The input at which the guest attacks.
pub fn attack() -> Value {
    json!("attack")
}

/// An input that it answers with `null`.
pub fn good() -> Value {
    json!("good")
}

/// The parts of a guest that differ.
#[derive(Debug, Clone, Default)]
pub struct Text {
    /// Run by `invoke` when it is called with [`attack`]. Has the locals `$input`, `$bytes` and
    /// `$i`, and `(call $answer AT BYTES)` for what to return.
    pub attack: String,
    /// More of the core module: imports first.
    pub core: String,
    /// Imports of the component, its types and its resources.
    pub imports: String,
    /// Functions lowered for the core module; `$memory` and `$realloc` may be used.
    pub lowered: String,
    /// Arguments of the core module: `(with "host" (instance …))`.
    pub arguments: String,
}

impl Text {
    /// A guest that only attacks.
    pub fn attack(body: impl Into<String>) -> Self {
        Self {
            attack: body.into(),
            ..Self::default()
        }
    }

    /// The same with more in its core module.
    pub fn core(mut self, core: impl Into<String>) -> Self {
        self.core = core.into();
        self
    }

    /// The component, with its descriptor.
    ///
    /// # Errors
    /// Says where the text is wrong.
    pub fn component(&self) -> Result<Vec<u8>> {
        let text = TEMPLATE
            .replace("{{imports}}", &self.imports)
            .replace("{{lowered}}", &self.lowered)
            .replace("{{arguments}}", &self.arguments)
            .replace("{{core}}", &self.core)
            .replace("{{attack}}", &self.attack)
            .replace("{{descriptor_bytes}}", &DESCRIPTOR.len().to_string())
            .replace("{{descriptor}}", &DESCRIPTOR.replace('"', "\\22"));
        let component = wat::parse_str(&text).context("the guest's text")?;
        Ok(stamp(&component, DESCRIPTOR, None)?)
    }

    /// The component as what a host loads.
    ///
    /// # Errors
    /// Says where the text is wrong.
    pub fn artifact(&self) -> Result<Artifact> {
        Ok(artifact(self.component()?))
    }
}

/// A component without a manifest, as what a host loads.
///
/// # Panics
/// If a manifest that cannot be read travels in it.
pub fn artifact(component: Vec<u8>) -> Artifact {
    Artifact::new(component, None, "hostile.wasm").expect("no manifest travels in it")
}
