//! How verbs come to the runs: through the process that has the store open, or by opening it. What
//! is asked and what is answered are the same, so that each verb has one way.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use cofferdam::control::{self, Request};
use cofferdam::{Act, Archive, Config, Error, Look, RunView, Runtime, SETTLE_MS_MAX};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::context::{Context, block_on};
use crate::exit::{storage, waiting};

/// A store that another process opens or closes just now is free, or can be asked, soon.
const TRIES: u32 = 50;
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// A way to the runs.
pub enum Reach {
    /// A process has the store in this folder open, and is asked.
    Held(PathBuf),
    /// Nobody had it open; this process does.
    Open(Runtime),
}

/// What a runtime that is opened for a verb does besides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// It goes on with the runs that there are.
    GoOn,
    /// It leaves them where they are.
    Stay,
}

impl Reach {
    /// Asks the process that has the store open, or opens the store.
    pub async fn new(config: Config, others: Others) -> Result<Self> {
        let store = config.store_path().map(PathBuf::from).unwrap_or_default();
        for _ in 1..TRIES {
            if control::is_held(&store).await? {
                return Ok(Self::Held(store));
            }
            match open(config.clone(), others).await {
                Err(error) if is_in_use(&error) => tokio::time::sleep(TRY_AGAIN).await,
                opened => return Ok(Self::Open(opened?)),
            }
        }
        match open(config, others).await {
            Err(error) => Err(why_held(&store, error)),
            opened => Ok(Self::Open(opened?)),
        }
    }

    /// Does something with runs.
    pub async fn act<T: DeserializeOwned>(&self, act: Act) -> Result<T> {
        let answer = match self {
            Self::Open(runtime) => runtime.act_on(act).await?,
            Self::Held(store) => ask(store, Request::Act { act }).await?,
        };
        Ok(serde_json::from_value(answer)?)
    }

    /// Asks about runs.
    pub async fn look<T: DeserializeOwned>(&self, look: Look) -> Result<T> {
        let answer = match self {
            Self::Open(runtime) => runtime.look(&look)?,
            Self::Held(store) => ask(store, Request::Look { look }).await?,
        };
        Ok(serde_json::from_value(answer)?)
    }

    /// The run, once it has ended or waits; none if that takes longer than a moment.
    pub async fn settle(&self, run: &str) -> Result<Option<RunView>> {
        let act = Act::Settle {
            run: run.to_owned(),
            within_ms: SETTLE_MS_MAX,
        };
        self.act(act).await
    }

    /// Lets go of the store, if it was opened.
    pub async fn close(self) {
        if let Self::Open(runtime) = self {
            runtime.shutdown().await;
        }
    }
}

async fn open(config: Config, others: Others) -> Result<Runtime> {
    if others == Others::Stay {
        let compiler = Context::compiler()?;
        let builder = Runtime::builder(config).compiler(compiler).idle();
        return Ok(builder.open().await?);
    }
    let runtime = crate::context::open(config).await?;
    crate::run::listen(&runtime);
    Ok(runtime)
}

async fn ask(store: &std::path::Path, request: Request) -> Result<Value> {
    match control::ask(store, &request).await? {
        Some(answer) => Ok(answer),
        None => Err(waiting(format!(
            "CD0215: the process that had the store `{}` open has ended; nothing that it acknowledged is lost\n\
             help: ask again, which opens the store, or start it again",
            store.display()
        ))),
    }
}

/// Answers a question about a store that has to be there, whoever has it open.
#[expect(
    clippy::needless_pass_by_value,
    reason = "questions are made to be asked"
)]
pub fn look<T: DeserializeOwned>(context: &Context, look: Look) -> Result<T> {
    let store = context.store_path()?;
    let answer = block_on(async {
        let request = Request::Look { look: look.clone() };
        let mut tries = 0;
        loop {
            if let Some(answer) = control::ask(&store, &request).await? {
                return Ok(answer);
            }
            tries += 1;
            match Archive::open(&store) {
                Ok(Some(archive)) => return Ok(archive.query().look(&look)?),
                Ok(None) => {
                    return Err(storage(format!(
                        "CD0217: there is no store at `{}`\nhelp: `cofferdam run` makes one; name another with --data DIR",
                        store.display()
                    )));
                }
                Err(error) => {
                    let error = error.into();
                    if tries == TRIES || !is_in_use(&error) {
                        return Err(why_held(&store, error));
                    }
                    tokio::time::sleep(TRY_AGAIN).await;
                }
            }
        }
    })?;
    Ok(serde_json::from_value(answer)?)
}

/// Why a store that is in use cannot be reached through who uses it, if that is known.
fn why_held(store: &std::path::Path, error: anyhow::Error) -> anyhow::Error {
    match control::check_place(store) {
        Err(place) if is_in_use(&error) => place.into(),
        _ => error,
    }
}

fn is_in_use(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<Error>(),
        Some(error) if error.is_in_use()
    )
}
