//! `cofferdam-standins`: the stand-ins as a process of their own.
//!
//! Prints one JSON object with every URL on stdout once all of them listen, then runs until
//! SIGTERM, SIGINT, or, if asked to, until stdin ends.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use cofferdam_standins::{Options, Standins};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Stand-in services (HubSpot, Slack, Stripe, SMTP, plain HTTP) on loopback, with faults on demand.
#[derive(Debug, Parser)]
#[command(name = "cofferdam-standins", version)]
struct Arguments {
    /// Where the control API listens; loopback only.
    #[arg(long, value_name = "127.0.0.1:PORT", default_value = "127.0.0.1:0", value_parser = loopback)]
    control: SocketAddr,
    /// Port of HubSpot's stand-in; 0 takes any free port, as for the others.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    hubspot_port: u16,
    /// Port of Slack's stand-in.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    slack_port: u16,
    /// Port of Stripe's stand-in.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    stripe_port: u16,
    /// Port of the mail server.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    smtp_port: u16,
    /// Port of the vendorless HTTP service.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    generic_port: u16,
    /// A further Slack channel that exists; may be repeated.
    #[arg(long, value_name = "NAME")]
    slack_channel: Vec<String>,
    /// Stop when stdin ends, so as not to outlive the process that holds its other end.
    #[arg(long)]
    exit_on_stdin_eof: bool,
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "expected ADDRESS:PORT".to_owned())?;
    match address {
        SocketAddr::V4(v4) if v4.ip().octets() == [127, 0, 0, 1] => Ok(address),
        _ => Err("the stand-ins listen on 127.0.0.1 only".to_owned()),
    }
}

impl Arguments {
    fn options(self) -> Options {
        let mut options = Options {
            control_port: self.control.port(),
            hubspot_port: self.hubspot_port,
            slack_port: self.slack_port,
            stripe_port: self.stripe_port,
            smtp_port: self.smtp_port,
            generic_port: self.generic_port,
            ..Options::default()
        };
        options.slack_channels.extend(self.slack_channel);
        options
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cofferdam-standins: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    // Both before the URLs are printed: whoever reads them may send the signal at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stdin_ended = arguments.exit_on_stdin_eof.then(watch_stdin);
    let standins = Standins::start(arguments.options()).await?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", standins.urls())?;
    stdout.flush()?;
    drop(stdout);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = ended(stdin_ended) => {}
    }
    standins.shutdown().await;
    Ok(())
}

/// Completes when stdin ends. A thread of its own, because a blocking read in the runtime's pool
/// would keep the process from ending on a signal.
fn watch_stdin() -> oneshot::Receiver<()> {
    let (ended, watched) = oneshot::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        while matches!(io::stdin().lock().read(&mut buffer), Ok(1..)) {}
        // Nobody waits any more if the process is ending for another reason.
        let _ = ended.send(());
    });
    watched
}

async fn ended(stdin: Option<oneshot::Receiver<()>>) {
    match stdin {
        // The sender is only dropped after sending, so both results mean that stdin ended.
        Some(watched) => drop(watched.await),
        None => std::future::pending().await,
    }
}
