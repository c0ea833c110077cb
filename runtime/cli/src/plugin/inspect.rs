//! `cofferdam plugin inspect`

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use cofferdam_core::descriptor::{Descriptor, Effect};
use cofferdam_core::manifest::Manifest;
use cofferdam_host::artifact::Signature;
use cofferdam_host::{Artifact, Plugin, PublicKey, Trust, check_wishes};
use serde_json::{Value, json};

use crate::context::Context;
use crate::output;
use crate::style::Style;

pub const EXAMPLES: &str = "\
A component that was never stamped carries no descriptor; its `describe` is then run in a chamber
that is granted nothing. Otherwise no code of the plugin runs.

Examples:
  cofferdam plugin inspect hubspot
  cofferdam plugin inspect ./target/wasm32-wasip2/release/crm.wasm --output json";

/// What `plugin inspect` takes.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A plugin's name, or the path of a packed plugin, a component or its folder
    #[arg(value_name = "PATH|NAME")]
    plugin: String,
}

pub fn run(context: &Context, args: &InspectArgs) -> Result<ExitCode> {
    let config = context.config()?;
    let path = super::locate(&config, &args.plugin)?;
    let host = Context::host(&config)?;
    let artifact = Artifact::read(&path)?;
    let vouched = Vouched::new(&artifact, config.trust_default());
    let plugin = host.load(artifact)?;
    let stamped = plugin.descriptor().is_some();
    let plugin = super::described(plugin)?;
    if context.is_json() {
        output::json(&json!({
            "descriptor": plugin.descriptor(),
            "manifest": plugin.manifest(),
            "unfit": plugin.manifest().and_then(unfit),
            "digest": plugin.digest(),
            "stamped": stamped,
            "imports": plugin.imports(),
            "recovery": plugin.exports_recovery(),
            "path": path,
            "artifact": vouched.json(),
        }))?;
    } else {
        output::text(&describe(&plugin, stamped, &vouched, Style::stdout()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(plugin: &Plugin, stamped: bool, vouched: &Vouched, style: Style) -> String {
    let mut text = String::new();
    if let Some(descriptor) = plugin.descriptor() {
        let title = format!("{} {}", descriptor.name, descriptor.version);
        let _ = writeln!(text, "{}  {}", style.bold(&title), descriptor.description);
    }
    let digest = format!("sha256:{}", plugin.digest());
    let _ = writeln!(
        text,
        "{}",
        style.dim(&format!("{digest}  {}", plugin.origin()))
    );
    if !stamped {
        let _ = writeln!(
            text,
            "{}",
            style.warn("not stamped: run `cofferdam plugin stamp` before using it")
        );
    }
    let _ = writeln!(text, "\npackage   {}", vouched.text(style));
    if let Some(manifest) = plugin.manifest() {
        for (what, value) in [
            ("authors", manifest.authors.join(", ")),
            ("licence", manifest.license.clone()),
        ] {
            if !value.is_empty() {
                let _ = writeln!(text, "{what}   {value}");
            }
        }
        let _ = writeln!(text, "contract  {}", manifest.wit);
    }
    let _ = writeln!(text, "imports   {}", join(plugin.imports().iter().copied()));
    if let Some(manifest) = plugin.manifest() {
        asks(&mut text, manifest, style);
    } else {
        text.push_str("asks for  no manifest: the operator's grants alone decide\n");
    }
    if let Some(descriptor) = plugin.descriptor() {
        actions(&mut text, descriptor, style);
    }
    text
}

fn asks(text: &mut String, manifest: &Manifest, style: Style) {
    let wants = &manifest.capabilities;
    let mut lines = Vec::new();
    for (what, list) in [
        ("http", &wants.http),
        ("secrets", &wants.secrets),
        ("filesystem", &wants.filesystem),
    ] {
        if !list.is_empty() {
            lines.push(format!("{what} {}", list.join(" ")));
        }
    }
    for (what, wanted) in [("sql", wants.sql), ("smtp", wants.smtp), ("kv", wants.kv)] {
        if wanted {
            lines.push(what.to_owned());
        }
    }
    let _ = writeln!(text, "asks for  {}", join(lines.iter().map(String::as_str)));
    let wishes: Vec<String> = [
        ("memory", &manifest.limits.memory),
        ("timeout", &manifest.limits.timeout),
        ("cpu", &manifest.limits.cpu),
    ]
    .into_iter()
    .filter_map(|(what, wish)| Some(format!("{what} {}", wish.as_ref()?)))
    .collect();
    if !wishes.is_empty() {
        let _ = writeln!(text, "wishes    {}", wishes.join(", "));
    }
    if let Some(unfit) = unfit(manifest) {
        let _ = writeln!(text, "{}", style.warn(&format!("          {unfit}")));
    }
}

/// Which of its wishes nobody can grant, if there is one.
fn unfit(manifest: &Manifest) -> Option<String> {
    let refused = check_wishes(&manifest.limits, "plugin.toml").err()?;
    Some(format!("{}: {refused}", refused.code()))
}

/// What is known of the package, and of those who vouch for it.
struct Vouched {
    /// None for what cannot be packed yet.
    digest: Option<String>,
    is_packed: bool,
    /// Key, id, and whether it is trusted.
    signers: Vec<(PublicKey, String, bool)>,
    /// Whether every signature is one of this plugin.
    is_intact: bool,
}

impl Vouched {
    fn new(artifact: &Artifact, trust: &Trust) -> Self {
        let keys = artifact.signatures().iter().map(Signature::key);
        Self {
            digest: artifact.digest().ok(),
            is_packed: artifact.is_packed(),
            signers: keys
                .map(|key| (key, key.id(), trust.keys.contains(&key)))
                .collect(),
            is_intact: artifact.verify().is_ok(),
        }
    }

    fn json(&self) -> Value {
        let signer = |(key, id, trusted): &(PublicKey, String, bool)| json!({"id": id, "key": key.to_string(), "trusted": trusted});
        json!({
            "digest": self.digest,
            "packed": self.is_packed,
            "signatures": self.signers.iter().map(signer).collect::<Vec<_>>(),
            "signaturesFit": self.is_intact,
        })
    }

    fn text(&self, style: Style) -> String {
        let digest = self.digest.as_deref().unwrap_or("not one yet");
        let signed = match self.signers.as_slice() {
            [] => "not signed".to_owned(),
            _ if !self.is_intact => {
                style.bad("a signature is not one of this plugin: do not run it")
            }
            signers => {
                let signer = |(_, id, trusted): &(PublicKey, String, bool)| {
                    let word = if *trusted { "trusted" } else { "not trusted" };
                    format!("{id} ({word})")
                };
                let list: Vec<String> = signers.iter().map(signer).collect();
                format!("signed by key {}", list.join(", "))
            }
        };
        format!("{digest}, {signed}")
    }
}

fn actions(text: &mut String, descriptor: &Descriptor, style: Style) {
    text.push_str("\nactions\n");
    for (name, action) in &descriptor.actions {
        let effect = match action.effect {
            Effect::Read => "read",
            Effect::Idempotent => "idempotent",
            Effect::Once => "once",
        };
        let _ = writeln!(text, "  {}  {effect}  {}", style.bold(name), action.title);
        if let Some(undo) = &action.compensated_by {
            let _ = writeln!(text, "      compensated by {undo}");
        }
        if action.lookup {
            text.push_str("      an unknown outcome can be looked up\n");
        }
    }
}

fn join<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let items: Vec<&str> = items.collect();
    if items.is_empty() {
        "nothing".to_owned()
    } else {
        items.join(", ")
    }
}
