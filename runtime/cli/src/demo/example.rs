//! The files of `examples/lead-intake`, carried in the program so that the demo needs no checkout.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::act::Plan;
use super::standins::Addresses;

/// The leads.
pub const LEADS: &str = include_str!("../../../../examples/lead-intake/leads.csv");

const FILES: [(&str, &str); 7] = [
    (
        "workflow.yaml",
        include_str!("../../../../examples/lead-intake/workflow.yaml"),
    ),
    (
        "brittle.yaml",
        include_str!("../../../../examples/lead-intake/brittle.yaml"),
    ),
    (
        "rows.yaml",
        include_str!("../../../../examples/lead-intake/rows.yaml"),
    ),
    (
        "one-lead.json",
        include_str!("../../../../examples/lead-intake/one-lead.json"),
    ),
    (
        "standin-secrets/hubspot-token",
        include_str!("../../../../examples/lead-intake/standin-secrets/hubspot-token"),
    ),
    (
        "standin-secrets/slack-token",
        include_str!("../../../../examples/lead-intake/standin-secrets/slack-token"),
    ),
    (
        "standin-secrets/stripe-key",
        include_str!("../../../../examples/lead-intake/standin-secrets/stripe-key"),
    ),
];

/// The connections that the example's workflow calls.
pub const CONNECTIONS: [&str; 7] = ["normalize", "score", "crm", "db", "mail", "chat", "pay"];

/// The configuration of the example.
pub const CONFIG: &str = include_str!("../../../../examples/lead-intake/cofferdam.toml");
const BRITTLE_CONFIG: &str = include_str!("../../../../examples/lead-intake/brittle.toml");

/// The ports of the example's configurations, where `cofferdam demo --services` listens.
pub const CONTROL_PORT: u16 = 18080;
/// HubSpot's stand-in.
pub const HUBSPOT_PORT: u16 = 18081;
/// Slack's.
pub const SLACK_PORT: u16 = 18082;
/// Stripe's.
pub const STRIPE_PORT: u16 = 18083;
/// The mail server.
pub const SMTP_PORT: u16 = 18084;
/// The vendorless service.
pub const GENERIC_PORT: u16 = 18085;

/// A copy of the example in a folder, toward services at these addresses.
pub struct Example {
    /// With every policy.
    pub config: PathBuf,
    /// The workflow.
    pub workflow: PathBuf,
    /// The leads.
    pub leads: PathBuf,
    /// The workflow that counts rows.
    pub rows: PathBuf,
}

/// Writes what the configurations of the example refer to into a folder.
pub fn lay_out(dir: &Path) -> Result<()> {
    FILES
        .into_iter()
        .try_for_each(|(name, text)| put(&dir.join(name), text))
}

/// Writes the example into the plan's folder, with the plan's leads and configuration.
pub fn write(plan: &Plan, addresses: &Addresses) -> Result<Example> {
    let dir = &plan.dir;
    lay_out(dir)?;
    put(&dir.join("leads.csv"), &plan.csv)?;
    let (config, workflow) = if plan.brittle {
        (BRITTLE_CONFIG, "brittle.yaml")
    } else {
        (plan.config.as_deref().unwrap_or(CONFIG), "workflow.yaml")
    };
    let ports = [
        (HUBSPOT_PORT, addresses.hubspot),
        (SLACK_PORT, addresses.slack),
        (STRIPE_PORT, addresses.stripe),
        (SMTP_PORT, addresses.smtp),
    ];
    let text = ports
        .iter()
        .fold(config.to_owned(), |text, (written, real)| {
            text.replace(&written.to_string(), &real.to_string())
        });
    let config = dir.join("cofferdam.toml");
    put(&config, &text)?;
    Ok(Example {
        config,
        workflow: dir.join(workflow),
        leads: dir.join("leads.csv"),
        rows: dir.join("rows.yaml"),
    })
}

fn put(path: &Path, text: &str) -> Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configurations_name_the_ports_that_are_replaced() {
        for config in [CONFIG, BRITTLE_CONFIG] {
            for port in [HUBSPOT_PORT, SLACK_PORT, STRIPE_PORT, SMTP_PORT] {
                assert!(config.contains(&port.to_string()), "{port}");
            }
        }
    }
}
