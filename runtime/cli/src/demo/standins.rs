//! The stand-in services: a process of their own, driven by their control API.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};

use crate::exit::usage;

/// Names the program if it is not beside this one.
const VARIABLE: &str = "COFFERDAM_STANDINS";
const PROGRAM: &str = "cofferdam-standins";
/// It listens within milliseconds; a machine that needs longer is stuck.
const START_MAX: Duration = Duration::from_secs(20);
/// The answers of the control API are far smaller.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The ports of the services, all on 127.0.0.1.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub control: u16,
    pub hubspot: u16,
    pub slack: u16,
    pub stripe: u16,
    pub smtp: u16,
}

/// Running stand-ins. They end with this process, since they watch their standard input.
pub struct Standins {
    /// Where they listen.
    pub addresses: Addresses,
    process: Child,
    /// They end when this is closed, which waiting for the process would do.
    _stdin: ChildStdin,
}

impl Standins {
    /// Starts them; they listen when this returns. Without arguments they take any free ports.
    pub async fn start(arguments: &[String]) -> Result<Self> {
        let program = find()?;
        let mut process = Command::new(&program)
            // Ctrl-C is for this process, which then stops them.
            .process_group(0)
            .arg("--exit-on-stdin-eof")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = process
            .stdout
            .take()
            .context("the stand-ins have no output")?;
        let stdin = process
            .stdin
            .take()
            .context("the stand-ins have no input")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(START_MAX, lines.next_line())
            .await
            .context("the stand-in services did not start in time")??;
        let Some(line) = line else {
            bail!("the stand-in services ended at once; are their ports taken?");
        };
        let urls: Value = serde_json::from_str(&line).context("the stand-ins told no addresses")?;
        let port = |name: &str| {
            let url = urls.get(name).and_then(Value::as_str).unwrap_or_default();
            let port = url
                .rsplit(':')
                .next()
                .and_then(|port| port.parse::<u16>().ok());
            port.with_context(|| format!("the stand-ins told no port of {name}"))
        };
        let addresses = Addresses {
            control: port("control")?,
            hubspot: port("hubspot")?,
            slack: port("slack")?,
            stripe: port("stripe")?,
            smtp: port("smtp")?,
        };
        Ok(Self {
            addresses,
            process,
            _stdin: stdin,
        })
    }

    /// Replaces the faults of one service; in force when this returns.
    pub async fn set_faults(&self, service: &str, faults: &Value) -> Result<()> {
        self.ask(
            "PUT",
            &format!("/services/{service}/faults"),
            faults.to_string(),
        )
        .await
        .map(drop)
    }

    /// What a service counted.
    pub async fn effects(&self, service: &str) -> Result<Value> {
        self.ask(
            "GET",
            &format!("/services/{service}/effects"),
            String::new(),
        )
        .await
    }

    /// What a service has.
    pub async fn state(&self, service: &str) -> Result<Value> {
        self.ask("GET", &format!("/services/{service}/state"), String::new())
            .await
    }

    async fn ask(&self, method: &str, path: &str, body: String) -> Result<Value> {
        let host = format!("127.0.0.1:{}", self.addresses.control);
        let stream = TcpStream::connect(&host)
            .await
            .context("the stand-ins do not answer")?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", &host)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        driver.abort();
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        if !status.is_success() {
            bail!(
                "the stand-ins refused {method} {path}: {status} {}",
                String::from_utf8_lossy(&body)
            );
        }
        Ok(serde_json::from_slice(&body)?)
    }

    /// Waits for their end, which only comes of itself if something is wrong.
    pub async fn ended(&mut self) -> Result<()> {
        let status = self.process.wait().await?;
        bail!("the stand-in services ended: {status}")
    }

    /// Stops them.
    pub async fn stop(mut self) -> Result<()> {
        self.process
            .kill()
            .await
            .context("cannot stop the stand-in services")
    }
}

/// The program: named by the environment, or beside this one, or in the folder above.
fn find() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        if path.is_file() {
            return Ok(path);
        }
        return Err(usage(format!(
            "{VARIABLE} names `{}`, which is no file\nhelp: {}",
            path.display(),
            remedy()
        )));
    }
    let program = std::env::current_exe().context("this program does not know where it is")?;
    let folders = program.ancestors().skip(1).take(2);
    let candidates: Vec<PathBuf> = folders.map(|dir| dir.join(PROGRAM)).collect();
    candidates
        .iter()
        .find(|path| path.is_file())
        .cloned()
        .ok_or_else(|| {
            let places: Vec<String> = candidates
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            usage(format!(
                "the stand-in services are not there: looked for {}\nhelp: {}",
                places.join(" and "),
                remedy()
            ))
        })
}

fn remedy() -> String {
    format!(
        "put the program `{PROGRAM}` beside this one, or set {VARIABLE} to its path; \
         in a checkout, `cargo xtask demo` builds and finds everything"
    )
}
