//! All stand-ins together: how they are started, found and stopped.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::generic::Generic;
use crate::hubspot::HubSpot;
use crate::plan::FaultPlan;
use crate::service::{self, Core, Handle};
use crate::slack::Slack;
use crate::smtp::Smtp;
use crate::stripe::Stripe;
use crate::{Error, control, gate, smtp};

/// Ports and credentials. The default takes any free port for each service.
#[derive(Debug, Clone)]
pub struct Options {
    /// Port of the control API; 0 takes any free one, as for every port here.
    pub control_port: u16,
    /// Port of HubSpot's stand-in.
    pub hubspot_port: u16,
    /// Port of Slack's stand-in.
    pub slack_port: u16,
    /// Port of Stripe's stand-in.
    pub stripe_port: u16,
    /// Port of the mail server.
    pub smtp_port: u16,
    /// Port of the vendorless service.
    pub generic_port: u16,
    /// Bearer token that HubSpot's stand-in accepts: `test-token-hubspot`.
    pub hubspot_token: String,
    /// Token that Slack's stand-in accepts: `xoxb-test-token`.
    pub slack_token: String,
    /// Channels that exist, by name: general, random, sales, leads, ops, alerts, billing, support,
    /// onboarding. Their ids are `C0000000001` and so on.
    pub slack_channels: Vec<String>,
    /// Secret key that Stripe's stand-in accepts: `sk_test_standin`.
    pub stripe_key: String,
    /// User and password that the mail server asks for: none.
    pub smtp_credentials: Option<(String, String)>,
    /// Largest message the mail server takes, in bytes: 10 MiB.
    pub smtp_size_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        let channels = [
            "general",
            "random",
            "sales",
            "leads",
            "ops",
            "alerts",
            "billing",
            "support",
            "onboarding",
        ];
        Self {
            control_port: 0,
            hubspot_port: 0,
            slack_port: 0,
            stripe_port: 0,
            smtp_port: 0,
            generic_port: 0,
            hubspot_token: "test-token-hubspot".to_owned(),
            slack_token: "xoxb-test-token".to_owned(),
            slack_channels: channels.map(str::to_owned).to_vec(),
            stripe_key: "sk_test_standin".to_owned(),
            smtp_credentials: None,
            smtp_size_max: 10 * 1024 * 1024,
        }
    }
}

/// The running stand-ins. Dropping it closes every socket and connection.
pub struct Standins {
    /// HubSpot's contacts.
    pub hubspot: Handle<HubSpot>,
    /// Slack's messages.
    pub slack: Handle<Slack>,
    /// Stripe's payments.
    pub stripe: Handle<Stripe>,
    /// The mail server.
    pub smtp: Handle<Smtp>,
    /// The vendorless service.
    pub generic: Handle<Generic>,
    control: SocketAddr,
    services: Arc<[Arc<Core>]>,
    /// Aborted when dropped, and with them the connections they own.
    tasks: JoinSet<()>,
}

impl Standins {
    /// Starts every service and the control API on loopback, inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Listen`] with the service whose port is taken; nothing keeps running then.
    #[expect(
        clippy::unused_async,
        reason = "binds need a runtime, which an async caller has"
    )]
    pub async fn start(options: Options) -> Result<Self, Error> {
        let mut tasks = JoinSet::new();
        let hubspot = HubSpot::new(options.hubspot_token);
        let hubspot = service::start_http(&mut tasks, "hubspot", options.hubspot_port, hubspot)?;
        let slack = Slack::new(options.slack_token, &options.slack_channels);
        let slack = service::start_http(&mut tasks, "slack", options.slack_port, slack)?;
        let stripe = Stripe::new(options.stripe_key);
        let stripe = service::start_http(&mut tasks, "stripe", options.stripe_port, stripe)?;
        let smtp = smtp::start(
            &mut tasks,
            options.smtp_port,
            options.smtp_credentials,
            options.smtp_size_max,
        )?;
        let generic = service::start_http(
            &mut tasks,
            "generic",
            options.generic_port,
            Generic::default(),
        )?;
        let services: Arc<[Arc<Core>]> = [
            &hubspot.core,
            &slack.core,
            &stripe.core,
            &smtp.core,
            &generic.core,
        ]
        .map(Arc::clone)
        .into();
        let control = start_control(&mut tasks, options.control_port, Arc::clone(&services))?;
        Ok(Self {
            hubspot,
            slack,
            stripe,
            smtp,
            generic,
            control,
            services,
            tasks,
        })
    }

    /// `http://…` of the control API, without a trailing slash.
    pub fn control_url(&self) -> String {
        format!("http://{}", self.control)
    }

    /// Every URL by the name of its service, `control` included.
    pub fn urls(&self) -> Value {
        let mut urls = Map::new();
        urls.insert("control".to_owned(), json!(self.control_url()));
        for service in &*self.services {
            urls.insert(service.name.to_owned(), json!(service.url()));
        }
        Value::Object(urls)
    }

    /// Forgets objects, effects, requests and faults of every service.
    ///
    /// # Errors
    /// [`Error::Listen`] if a service that was told to refuse cannot open its port again.
    pub async fn reset(&self) -> Result<(), Error> {
        for service in &*self.services {
            service.reset().await?;
        }
        Ok(())
    }

    /// Stops everything and returns once every socket is closed.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}

fn start_control(
    tasks: &mut JoinSet<()>,
    port: u16,
    services: Arc<[Arc<Core>]>,
) -> Result<SocketAddr, Error> {
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let failed = |source| Error::Listen {
        service: "control",
        address: wanted,
        source,
    };
    let listener = gate::listen(wanted).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tasks.spawn(async move {
        // The control API takes no faults; the sender is held so that its loop does not end.
        let (_orders, inbox) = mpsc::channel(1);
        let connect = move |stream| control::serve(stream, Arc::clone(&services));
        gate::run(
            listener,
            address,
            Arc::new(FaultPlan::default()),
            inbox,
            connect,
        )
        .await;
    });
    Ok(address)
}
