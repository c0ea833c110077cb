//! Small plugins in files, each of which answers with a tag of its own.

use std::path::{Path, PathBuf};

use cofferdam_host::stamp;
use serde_json::{Value, json};
use tempfile::TempDir;

#[path = "../../../host/tests/common/wat.rs"]
#[allow(dead_code, reason = "the host's own tests use the rest")]
mod wat;

/// A folder of plugins; it goes with the test.
pub struct Plugins {
    folder: TempDir,
}

impl Plugins {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Answers with its tag, a number of four digits.
    pub fn good(&self, tag: u32) -> PathBuf {
        self.plugin(tag, "", "", &go(&json!({"type": "object"}), "idempotent"))
    }

    /// The same after a while of work.
    pub fn slow(&self, tag: u32) -> PathBuf {
        let spin = "(local $n i32) (loop $again
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $n) (i32.const 1000000000))))";
        self.plugin(tag, "", spin, &go(&json!({"type": "object"}), "idempotent"))
    }

    /// Works until it is called.
    pub fn traps(&self, tag: u32) -> PathBuf {
        self.plugin(
            tag,
            "",
            "unreachable",
            &go(&json!({"type": "object"}), "idempotent"),
        )
    }

    /// Cannot even be asked how it is.
    pub fn traps_at_check(&self, tag: u32) -> PathBuf {
        let core = "(func $boom unreachable) (start $boom)";
        self.plugin(tag, core, "", &go(&json!({"type": "object"}), "idempotent"))
    }

    pub fn without_actions(&self, tag: u32) -> PathBuf {
        self.plugin(tag, "", "", &json!({}))
    }

    pub fn needs_more_input(&self, tag: u32) -> PathBuf {
        let input = json!({"type": "object", "required": ["token"]});
        self.plugin(tag, "", "", &go(&input, "idempotent"))
    }

    pub fn hurts_when_repeated(&self, tag: u32) -> PathBuf {
        self.plugin(tag, "", "", &go(&json!({"type": "object"}), "once"))
    }

    /// Offers the same under another name.
    pub fn another_plugin(&self, tag: u32) -> PathBuf {
        let actions = go(&json!({"type": "object"}), "idempotent");
        self.named("mail", tag, ("", ""), &actions)
    }

    fn plugin(&self, tag: u32, core: &str, body: &str, actions: &Value) -> PathBuf {
        self.named("crm", tag, (core, body), actions)
    }

    fn named(
        &self,
        plugin: &str,
        tag: u32,
        (core, body): (&str, &str),
        actions: &Value,
    ) -> PathBuf {
        let digits: [u8; 4] = tag.to_string().into_bytes().try_into().unwrap();
        let digits = u32::from_le_bytes(digits);
        // Locals have to come first.
        let body = format!("{body} (i32.store (i32.const 1024) (i32.const {digits}))");
        let component = wat::component("", "", core, &body);
        let version = format!("1.0.{tag}");
        let descriptor = json!({"name": plugin, "version": version, "actions": actions});
        let stamped = stamp(&component, &descriptor.to_string(), None).unwrap();
        let name = format!("{plugin}-{tag}-{}.wasm", stamped.len());
        self.write(Path::new(&name).to_str().unwrap(), &stamped)
    }
}

fn go(input: &Value, effect: &str) -> Value {
    json!({"go": {"title": "Go", "effect": effect, "input": input, "output": {"type": "integer"}}})
}
