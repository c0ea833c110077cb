//! The contract of `wit/connector.wit` as Rust types. One module per supported major version.

#![allow(missing_docs, clippy::pedantic, unreachable_pub)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "plugin-with-recovery",
    imports: {
        "cofferdam:connector/kv": async,
        "cofferdam:connector/sql": async,
        "cofferdam:connector/smtp": async,
    },
    exports: { default: async },
});
