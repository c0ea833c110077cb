//! How another process of the same user talks to a runtime that is open: a socket in the folder of
//! its store, one request and one answer per connection, each a line of JSON.
//!
//! Who may write to the store's folder may do this anyway; the socket is for this user only, and
//! both the file's mode and the peer's identity are checked.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cofferdam_core::canary;
use cofferdam_core::failure::Class;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::activation::Swap;
use crate::look::{Act, Look};
use crate::{Error, Runtime};

const SOCKET: &str = "control.sock";
/// What it is called until somebody listens there.
const UNHEARD: &str = "control.next";
/// The longest path that the system has room for in a socket's address, in bytes.
pub const SOCKET_PATH_BYTES_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// Said with each request; one of another version is refused.
pub const VERSION: u32 = 1;
/// The largest input of a run, with its workflow, fits.
const REQUEST_BYTES_MAX: u64 = 24 << 20;
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Events in one answer.
const EVENTS_BYTES_MAX: usize = 8 << 20;
/// Requests at the same time; more wait in the socket's queue.
const REQUESTS_MAX: usize = 64;
/// A peer that connects and says nothing does not hold a place for longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a process may take to answer what it knows, and to swap a plugin: it compiles it and
/// asks its `check`. To write a backup takes as long as the store is large, and to remove runs as long as
/// they are many.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const SWAP_TIMEOUT: Duration = Duration::from_mins(15);

/// What can be asked of a runtime that is open in another process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// [`Runtime::swap`]; answers a `Swapped`.
    Swap {
        /// The connection.
        connection: String,
        /// Absolute.
        artifact: PathBuf,
        /// Try it on a share of the calls first.
        canary: Option<canary::Config>,
        /// Take it although something speaks against it.
        force: bool,
    },
    /// [`Runtime::promote`]; answers `Generations`.
    Promote {
        /// The connection.
        connection: String,
    },
    /// [`Runtime::rollback`]; answers `Generations`.
    Rollback {
        /// The connection.
        connection: String,
    },
    /// [`Runtime::generations`] and [`Runtime::history`]; answers a `GenerationsHistory`.
    History {
        /// The connection.
        connection: String,
    },
    /// [`Runtime::backup`]; answers a `BackupSummary`.
    Backup {
        /// Absolute.
        to: PathBuf,
    },
    /// [`Runtime::set_breaker`]; answers a `ConnectionState`.
    Breaker {
        /// The connection.
        connection: String,
        /// What is wanted of it.
        setting: crate::BreakerSetting,
    },
    /// [`Runtime::connections`]; answers a list of `ConnectionState`.
    Connections,
    /// [`Runtime::publish_json`]; answers a `Published`.
    Publish {
        /// The event.
        event: Value,
    },
    /// [`crate::Query::events_from`], as many as fit into an answer; answers a list of `EventRow`.
    Events {
        /// The number of the first; the last ones if none is given.
        from: Option<u64>,
        /// How many at most.
        limit: usize,
    },
    /// [`crate::Query::dead_events`]; answers a list of `EventLetter`.
    DeadEvents,
    /// [`crate::Query::subscribers`]; answers a list of `SubscriberState`.
    Subscribers,
    /// [`Runtime::replay`]; without a number [`Runtime::replay_dead`], which answers how many.
    ReplayEvents {
        /// The subscriber.
        subscriber: String,
        /// The number of the first event.
        from: Option<u64>,
    },
    /// [`crate::Query::schedules`]; answers a list of `ScheduleRow`.
    Schedules,
    /// [`Runtime::pause_schedule`] or [`Runtime::resume_schedule`].
    PauseSchedule {
        /// The schedule.
        name: String,
        /// Whether it is to be paused.
        paused: bool,
    },
    /// [`Runtime::look`].
    Look {
        /// The question.
        look: Look,
    },
    /// [`Runtime::act_on`].
    Act {
        /// What to do.
        act: Act,
    },
}

/// A request as it is sent.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent<R> {
    version: u32,
    request: R,
}

/// The generations of a connection and what happened to them, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GenerationsHistory {
    /// Which generation does what.
    pub generations: crate::Generations,
    /// What happened.
    pub history: Vec<crate::HistoryRow>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Answer {
    Ok(Value),
    #[serde(rename_all = "camelCase")]
    Err {
        message: String,
        class: Class,
        is_storage: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        details: Option<Value>,
    },
}

impl Runtime {
    /// Performs a request as if it had come from another process.
    ///
    /// # Errors
    /// Those of the function that the request names.
    pub async fn perform(&self, request: Request) -> Result<Value, Error> {
        let value = match request {
            Request::Swap {
                connection,
                artifact,
                canary,
                force,
            } => {
                let swap = Swap {
                    artifact,
                    canary,
                    force,
                };
                json!(self.swap(&connection, swap).await?)
            }
            Request::Promote { connection } => json!(self.promote(&connection).await?),
            Request::Rollback { connection } => json!(self.rollback(&connection).await?),
            Request::History { connection } => json!(GenerationsHistory {
                generations: self.generations(&connection)?,
                history: self.history(&connection)?,
            }),
            Request::Backup { to } => json!(self.backup(to).await?),
            Request::Breaker {
                connection,
                setting,
            } => json!(self.set_breaker(&connection, setting).await?),
            Request::Connections => json!(self.connections()),
            Request::Publish { event } => json!(self.publish_json(event).await?),
            Request::Events { from, limit } => {
                json!(self.query().events_from(from, limit, EVENTS_BYTES_MAX)?)
            }
            Request::DeadEvents => json!(self.query().dead_events()?),
            Request::Subscribers => json!(self.query().subscribers()?),
            Request::ReplayEvents { subscriber, from } => match from {
                Some(from) => json!(self.replay(&subscriber, from).await?),
                None => json!(self.replay_dead(&subscriber).await?),
            },
            Request::Schedules => json!(self.query().schedules()?),
            Request::PauseSchedule { name, paused: true } => {
                json!(self.pause_schedule(&name).await?)
            }
            Request::PauseSchedule {
                name,
                paused: false,
            } => {
                json!(self.resume_schedule(&name).await?)
            }
            Request::Look { look } => self.look(&look)?,
            Request::Act { act } => self.act_on(act).await?,
        };
        Ok(value)
    }

    /// Lets other processes of this user ask things of this runtime, until it is shut down; see
    /// [`ask`]. Only a runtime whose store has a folder can be asked.
    ///
    /// # Errors
    /// [`Error::Control`] if the socket cannot be made, [`Error::ControlPath`] if its path is too long.
    /// The runtime works all the same.
    pub fn listen(&self) -> Result<(), Error> {
        let Some(store) = self.store_path() else {
            return Ok(());
        };
        check_place(store)?;
        let path = socket_path(store);
        let listener = bind(&path).map_err(|source| Error::Control {
            path: path.display().to_string(),
            source,
        })?;
        let runtime = self.clone();
        self.spawn_until_closing(async move { runtime.serve(&listener, &path).await });
        Ok(())
    }

    async fn serve(&self, listener: &UnixListener, path: &Path) {
        let places = Arc::new(Semaphore::new(REQUESTS_MAX));
        let closing = self.closing();
        loop {
            let accepted = tokio::select! {
                biased;
                () = closing.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let place = tokio::select! {
                biased;
                () = closing.cancelled() => break,
                place = Arc::clone(&places).acquire_owned() => place,
            };
            let Ok(place) = place else { break };
            match accepted {
                Ok((stream, _)) if is_same_user(&stream, path) => {
                    let runtime = self.clone();
                    self.spawn_until_closing(async move {
                        // A peer that goes away has its answer in the store.
                        let _ = runtime.answer(stream).await;
                        drop(place);
                    });
                }
                Ok(_) => tracing::warn!("another user asked at the control socket; refused"),
                Err(error) => {
                    tracing::warn!(%error, "the control socket failed");
                    tokio::time::sleep(REQUEST_TIMEOUT / 10).await;
                }
            }
        }
        let _ = std::fs::remove_file(path);
    }

    async fn answer(&self, stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        let mut reader = BufReader::new(read.take(REQUEST_BYTES_MAX));
        tokio::time::timeout(REQUEST_TIMEOUT, reader.read_line(&mut line)).await??;
        let answer = match read_request(&line) {
            Ok(request) => match self.perform(request).await {
                Ok(value) => Answer::Ok(value),
                Err(error) => Answer::from(&error),
            },
            Err(why) => Answer::Err {
                message: format!("CD0274: the request cannot be understood: {why}"),
                class: Class::InvalidInput,
                is_storage: false,
                details: None,
            },
        };
        let mut text = serde_json::to_vec(&answer)?;
        if text.len() as u64 >= ANSWER_BYTES_MAX {
            let (bytes, bytes_max) = (text.len(), ANSWER_BYTES_MAX);
            let error = Error::AnswerSize { bytes, bytes_max };
            text = serde_json::to_vec(&Answer::from(&error))?;
        }
        text.push(b'\n');
        // Nor does one that does not listen.
        tokio::time::timeout(REQUEST_TIMEOUT, write.write_all(&text)).await?
    }
}

impl From<&Error> for Answer {
    fn from(error: &Error) -> Self {
        Self::Err {
            message: error.to_string(),
            class: error.class(),
            is_storage: error.is_storage(),
            details: error.details(),
        }
    }
}

/// The version is looked at before the request is, which may have changed with it.
fn read_request(line: &str) -> Result<Request, String> {
    let told = |error: serde_json::Error| error.to_string();
    let sent: Sent<Value> = serde_json::from_str(line).map_err(told)?;
    if sent.version != VERSION {
        return Err(format!("it has version {}, not {VERSION}", sent.version));
    }
    serde_json::from_value(sent.request).map_err(told)
}

/// Asks the process that has this store open. `None` if nobody listens: no process has it open, or
/// one that does not [`Runtime::listen`].
///
/// # Errors
/// [`Error::Remote`] with what the other process refused, [`Error::Unanswered`] if it went away
/// or takes too long: what was asked for may have happened.
pub async fn ask(store: &Path, request: &Request) -> Result<Option<Value>, Error> {
    let path = socket_path(store);
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(error) if is_nobody(&error) => return Ok(None),
        Err(source) => {
            return Err(Error::Control {
                path: path.display().to_string(),
                source,
            });
        }
    };
    let limit = match request {
        Request::Swap { .. }
        | Request::Backup { .. }
        | Request::Act {
            act: Act::Purge { .. },
        } => SWAP_TIMEOUT,
        _ => ANSWER_TIMEOUT,
    };
    let answered = tokio::time::timeout(limit, exchange(stream, request)).await;
    let answer = answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let answer = answer.map_err(|source| Error::Unanswered {
        path: path.display().to_string(),
        source,
    })?;
    match answer {
        Answer::Ok(value) => Ok(Some(value)),
        Answer::Err {
            message,
            class,
            is_storage,
            details,
        } => Err(Error::Remote {
            message,
            class,
            is_storage,
            details,
        }),
    }
}

/// Whether a process that can be asked has this store open.
///
/// # Errors
/// [`Error::Control`] if the socket is there and cannot be used.
pub async fn is_held(store: &Path) -> Result<bool, Error> {
    let path = socket_path(store);
    match UnixStream::connect(&path).await {
        Ok(_) => Ok(true),
        Err(error) if is_nobody(&error) => Ok(false),
        Err(source) => Err(Error::Control {
            path: path.display().to_string(),
            source,
        }),
    }
}

async fn exchange(stream: UnixStream, request: &Request) -> io::Result<Answer> {
    let (read, mut write) = stream.into_split();
    let version = VERSION;
    let mut text = serde_json::to_vec(&Sent { version, request })?;
    text.push(b'\n');
    write.write_all(&text).await?;
    let mut answer = Vec::new();
    let mut reader = BufReader::new(read.take(ANSWER_BYTES_MAX));
    reader.read_until(b'\n', &mut answer).await?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&answer)?)
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        // A path that is too long for a socket is invalid: nobody can listen there.
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::InvalidInput
    )
}

/// Whether a process that has this store open can be asked at all.
///
/// # Errors
/// [`Error::ControlPath`] if the socket's path is longer than [`SOCKET_PATH_BYTES_MAX`].
pub fn check_place(store: &Path) -> Result<(), Error> {
    let path = socket_path(store);
    let bytes = path.as_os_str().len();
    if bytes <= SOCKET_PATH_BYTES_MAX {
        return Ok(());
    }
    Err(Error::ControlPath {
        path: path.display().to_string(),
        bytes,
        bytes_max: SOCKET_PATH_BYTES_MAX,
    })
}

fn socket_path(store: &Path) -> PathBuf {
    store.join(SOCKET)
}

/// What a process that was killed left is in the way; nobody else listens there, since the store's
/// lock is ours.
fn bind(path: &Path) -> io::Result<UnixListener> {
    // No longer than the other: the length of such a path is bounded.
    let unheard = path.with_file_name(UNHEARD);
    match std::fs::remove_file(&unheard) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&unheard)?;
    std::fs::set_permissions(&unheard, std::fs::Permissions::from_mode(0o600))?;
    // Whoever finds it is heard, and nobody else was let in before.
    std::fs::rename(&unheard, path)?;
    Ok(listener)
}

/// The socket's file is ours; who connects has to be us, too.
fn is_same_user(stream: &UnixStream, path: &Path) -> bool {
    let ours = std::fs::metadata(path).map(|metadata| metadata.uid());
    let theirs = stream.peer_cred().map(|credentials| credentials.uid());
    matches!((ours, theirs), (Ok(ours), Ok(theirs)) if ours == theirs || theirs == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_comes_over_with_its_details_and_from_an_older_process_without() {
        let stopped = Error::PurgeStopped {
            removed: vec!["a".to_owned()],
            kept: vec!["b".to_owned()],
            why: Box::new(Error::ShuttingDown),
        };
        let line = serde_json::to_string(&Answer::from(&stopped)).expect("JSON");
        let Ok(Answer::Err { class, details, .. }) = serde_json::from_str(&line) else {
            panic!("{line}");
        };
        assert_eq!(class, Class::Unavailable);
        assert_eq!(details, Some(json!({"removed": ["a"], "kept": ["b"]})));
        let plain = serde_json::to_string(&Answer::from(&Error::ShuttingDown)).expect("JSON");
        assert!(!plain.contains("details"), "{plain}");
        let older: Result<Answer, _> = serde_json::from_str(&plain);
        assert!(matches!(older, Ok(Answer::Err { details: None, .. })));
    }
}
