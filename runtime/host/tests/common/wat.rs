//! Connectors in WebAssembly text, for what a compiler would not write.

use cofferdam_host::{Artifact, stamp};

/// One action, `go`, of the given effect, that takes and returns anything.
const DESCRIPTOR: &str = r#"{"name":"by-hand","version":"1.0.0","actions":{
  "go":{"title":"Go","effect":"once","input":{},"output":{"type":["object","array","null"]},"lookup":true}}}"#;

/// A connector whose `invoke` runs `body` and then returns `null`. `core` is put into its module,
/// `component` into its component.
pub fn connector(core: &str, body: &str) -> Artifact {
    let component = stamp(&component("", "", core, body), DESCRIPTOR, None).unwrap();
    Artifact::new(component, None, "by-hand.wasm").unwrap()
}

/// The same without a descriptor, with more imports in the component and the module's arguments.
pub fn component(imports: &str, arguments: &str, core: &str, body: &str) -> Vec<u8> {
    let text = TEMPLATE
        .replace("{{imports}}", imports)
        .replace("{{arguments}}", arguments)
        .replace("{{core}}", core)
        .replace("{{body}}", body)
        .replace(
            "{{descriptor}}",
            &DESCRIPTOR.replace('"', "\\22").replace('\n', ""),
        )
        .replace(
            "{{descriptor_bytes}}",
            &DESCRIPTOR.replace('\n', "").len().to_string(),
        );
    wat::parse_str(&text).unwrap()
}

const TEMPLATE: &str = include_str!("connector.wat");

/// The same with the descriptor in it.
pub fn stamped(component: &[u8]) -> Vec<u8> {
    stamp(component, DESCRIPTOR, None).unwrap()
}

/// Any text.
pub fn parse(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}
