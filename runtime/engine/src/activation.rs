//! The one way by which a generation comes into service, whoever asks: the start, the command
//! line, an embedding program, the file watch.
//!
//! Read → signature → static check of imports against the contract and the grants → compile → compare the
//! descriptor with that of the generation that serves → ask the new one's `check` → keep a copy
//! → commit the row → publish. Whatever fails, the old generation stays and the reason is told and
//! kept. A crash before the commit leaves the old generation in service, one after it the new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cofferdam_core::canary::{self, Canary, Verdict};
use cofferdam_core::compatibility::{self, Change};
use cofferdam_core::failure::{Class, Failure};
use cofferdam_host::{Artifact, HealthStatus, Host, Plugin, Services, Trust};
use cofferdam_store::{Batch, JournalStore};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::builder::off_thread;
use crate::config::{self, Config};
use crate::connections::Slot;
use crate::generations::{Generation, GenerationRow, Generations, Lineup, Trial};
use crate::history::{self, Happening, HistoryRow, StateRow, TrialRow};
use crate::runtime::{Inner, now_ms};
use crate::shelf::Shelf;
use crate::trust::{self, Unsigned};

/// What is to take the place of the generation that serves.
#[derive(Debug, Clone)]
pub struct Swap {
    /// The plugin: a component, its folder, or a packed artifact.
    pub artifact: PathBuf,
    /// Try it on a share of the calls first.
    pub canary: Option<canary::Config>,
    /// Take it although its descriptor takes something away or its check fails.
    pub force: bool,
}

/// What came of a swap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Swapped {
    /// The generations now.
    pub generations: Generations,
    /// What is different in the new descriptor.
    pub changes: Vec<Change>,
}

/// What a generation is made with.
pub(crate) struct Workshop {
    pub host: Host,
    pub services: Services,
    pub shelf: Shelf,
    pub unsigned: Mutex<Unsigned>,
}

impl Workshop {
    /// Reads, judges, checks and compiles a plugin. Blocks.
    pub fn load(&self, trust: &Trust, path: &Path) -> Result<Plugin, Error> {
        let artifact = Artifact::read(path)?;
        self.judge(trust, &artifact)?;
        Ok(self.host.load(artifact)?)
    }

    /// Asks whether somebody vouches for a plugin.
    pub fn judge(&self, trust: &Trust, artifact: &Artifact) -> Result<(), Error> {
        trust::judge(artifact, trust, &mut self.unsigned.lock()).map(|_signer| ())
    }

    /// Plugins that only `allow-unsigned` has let in, by name.
    pub fn unsigned(&self) -> Vec<String> {
        self.unsigned.lock().iter().cloned().collect()
    }

    /// Joins a plugin with what is configured for the connection.
    fn join(
        &self,
        connection: &config::Connection,
        plugin: &Plugin,
        row: GenerationRow,
    ) -> Result<Generation, Error> {
        for line in plugin
            .manifest()
            .map_or_else(Vec::new, |m| connection.unmet_wishes(m))
        {
            tracing::warn!(
                connection = connection.name(),
                "the plugin wishes for more than it gets; if it may have it, write under [connections.{}.limits]: {line}",
                connection.name()
            );
        }
        let spec = connection.spec_for(plugin.manifest());
        let joined = plugin.connect(spec, self.services.clone())?;
        let (policy, strikes) = (connection.binding_policy(), connection.quarantine());
        Ok(Generation::new(row, joined, policy, strikes))
    }

    /// The connection as it is at the start: the generation that the configuration names, or the
    /// one that was swapped in since, if the configuration still names the same plugin. What is to
    /// be written is added to the batch. Blocks.
    pub fn open(
        &self,
        store: &dyn JournalStore,
        connection: &config::Connection,
        trust: &Trust,
        configured: &Plugin,
        path: &Path,
        mut batch: Batch,
    ) -> Result<(Slot, Batch), Error> {
        let name = connection.name();
        let state = history::state(store, name)?;
        let fingerprint = history::fingerprint(configured);
        let why = match &state {
            None => None,
            // Who changes the configuration's plugin means it.
            Some(state) if state.configured != fingerprint => {
                Some("the configuration names another plugin than before".to_owned())
            }
            Some(state) => match self.resume(connection, trust, configured, state) {
                Ok(lineup) => return Ok((slot(connection, lineup), batch)),
                Err(error) => {
                    tracing::error!(connection = name, %error, "the generation that served cannot be loaded; serving what is configured");
                    Some(format!(
                        "the generation that served cannot be loaded: {error}"
                    ))
                }
            },
        };
        let number = state.map_or(1, |state| state.next);
        let row = row_of(configured, number, path, false);
        let active = self.join(connection, configured, row.clone())?;
        if let Some(why) = why {
            let state = StateRow::begin(fingerprint, row.clone(), number + 1);
            batch = history::write(batch, name, &state)?;
            batch = history::note(store, batch, name, Happening::Activated, &row, Some(&why))?;
        }
        Ok((slot(connection, Lineup::of(active)), batch))
    }

    /// The line-up that a row tells of.
    fn resume(
        &self,
        connection: &config::Connection,
        trust: &Trust,
        configured: &Plugin,
        state: &StateRow,
    ) -> Result<Lineup, Error> {
        let load = |row: &GenerationRow| -> Result<Arc<Generation>, Error> {
            let plugin = if row.kept {
                let kept = self.shelf.find(connection.name(), row.number);
                let kept = kept.ok_or_else(|| Error::Kept {
                    connection: connection.name().to_owned(),
                    number: row.number,
                })?;
                self.load(trust, &kept)?
            } else {
                configured.clone()
            };
            Ok(Arc::new(self.join(connection, &plugin, row.clone())?))
        };
        let trial = state.trial.as_ref().map(|trial| {
            let generation = load(&trial.generation)?;
            Ok::<_, Error>(Arc::new(Trial::new(generation, trial.canary.clone())))
        });
        Ok(Lineup {
            active: load(&state.active)?,
            previous: state.previous.as_ref().map(&load).transpose()?,
            trial: trial.transpose()?,
        })
    }
}

fn slot(connection: &config::Connection, lineup: Lineup) -> Slot {
    let (name, enabled) = (connection.name(), connection.enabled());
    Slot::new(name, enabled, lineup, connection.breaker())
}

fn row_of(plugin: &Plugin, number: u64, path: &Path, kept: bool) -> GenerationRow {
    let version = plugin.descriptor().map(|d| d.version.clone());
    GenerationRow {
        number,
        plugin: plugin.name().to_owned(),
        version: version.unwrap_or_default(),
        digest: plugin.digest().to_owned(),
        artifact: path.display().to_string(),
        since_ms: now_ms(),
        kept,
    }
}

/// Brings a new generation into service, or on trial.
pub(crate) async fn swap(
    inner: Arc<Inner>,
    slot: Arc<Slot>,
    swap: Swap,
    by_config: bool,
) -> Result<Swapped, Error> {
    let _turn = slot.changing.lock().await;
    let result = try_swap(&inner, &slot, &swap, by_config).await;
    if let Err(error) = &result
        && !matches!(error, Error::Same { .. })
    {
        tracing::warn!(connection = slot.name, %error, "a swap was refused");
        let lineup = slot.lineup.load_full();
        let row = GenerationRow {
            artifact: swap.artifact.display().to_string(),
            ..lineup.active.row.clone()
        };
        let why = error.to_string();
        note_alone(&inner, &slot, Happening::Refused, &row, &why).await;
    }
    result
}

async fn try_swap(
    inner: &Arc<Inner>,
    slot: &Slot,
    swap: &Swap,
    by_config: bool,
) -> Result<Swapped, Error> {
    let lineup = slot.lineup.load_full();
    if let Some(trial) = &lineup.trial {
        return Err(Error::OnTrial {
            connection: slot.name.clone(),
            number: trial.generation.row.number,
        });
    }
    let mut state = current_state(inner, slot, &lineup)?;
    let number = state.next;
    let candidate = candidate(inner, slot, &swap.artifact, number).await?;
    if candidate.row.digest == lineup.active.row.digest {
        return Err(Error::Same {
            connection: slot.name.clone(),
            digest: candidate.row.digest.clone(),
        });
    }
    let changes = compare(slot, &lineup, &candidate, swap.force)?;
    if !swap.force {
        check(slot, &lineup, &candidate).await?;
    }
    let candidate = keep(inner, slot, &swap.artifact, candidate).await?;
    let candidate = Arc::new(candidate);
    let next = match swap.canary {
        None => Lineup {
            active: Arc::clone(&candidate),
            previous: Some(Arc::clone(&lineup.active)),
            trial: None,
        },
        Some(config) => {
            let trial = Trial::new(Arc::clone(&candidate), Canary::new(config, now_ms()));
            Lineup {
                trial: Some(Arc::new(trial)),
                ..(*lineup).clone()
            }
        }
    };
    state.next = number + 1;
    if by_config {
        state.configured = history::fingerprint(candidate.connection.plugin());
    }
    let what = match swap.canary {
        None => Happening::Activated,
        Some(_) => Happening::Tried,
    };
    publish(inner, slot, next, state, what, &candidate.row, None).await?;
    Ok(Swapped {
        generations: slot.generations(),
        changes,
    })
}

/// What the store says of a connection, or what the start made of it.
fn current_state(inner: &Inner, slot: &Slot, lineup: &Lineup) -> Result<StateRow, Error> {
    if let Some(state) = history::state(&*inner.store, &slot.name)? {
        return Ok(state);
    }
    let active = &lineup.active;
    let fingerprint = history::fingerprint(active.connection.plugin());
    let next = active.row.number + 1;
    Ok(StateRow::begin(fingerprint, active.row.clone(), next))
}

/// Everything that can be found wrong without calling it.
async fn candidate(
    inner: &Arc<Inner>,
    slot: &Slot,
    path: &Path,
    number: u64,
) -> Result<Generation, Error> {
    let (inner, name, path) = (Arc::clone(inner), slot.name.clone(), path.to_owned());
    off_thread(move || {
        let connection = configured(&inner.config, &name)?;
        let trust = inner.config.trust(connection);
        let plugin = inner.workshop.load(&trust, &path)?;
        let row = row_of(&plugin, number, &path, false);
        inner.workshop.join(connection, &plugin, row)
    })
    .await
}

fn configured<'a>(config: &'a Config, name: &str) -> Result<&'a config::Connection, Error> {
    config
        .connection(name)
        .ok_or_else(|| Error::UnknownConnection {
            connection: name.to_owned(),
        })
}

fn compare(
    slot: &Slot,
    lineup: &Lineup,
    candidate: &Generation,
    force: bool,
) -> Result<Vec<Change>, Error> {
    let (old, new) = (&lineup.active.connection, &candidate.connection);
    let changes = compatibility::diff(old.descriptor(), new.descriptor());
    let (before, after) = (&lineup.active.row.plugin, &candidate.row.plugin);
    let another = (before != after).then(|| format!("it is `{after}`, and `{before}` serves"));
    let lost = changes.iter().filter(|change| change.breaking);
    let lost = lost.map(|change| format!("`{}`: {}", change.action, change.what));
    let breaking: Vec<String> = another.into_iter().chain(lost).collect();
    if breaking.is_empty() || force {
        return Ok(changes);
    }
    Err(Error::Incompatible {
        connection: slot.name.clone(),
        changes: breaking,
    })
}

/// Asks the new generation whether what is behind it works. If the one that serves says the same,
/// the plugin is not to blame, and the message says so.
async fn check(slot: &Slot, lineup: &Lineup, candidate: &Generation) -> Result<(), Error> {
    let Err(failure) = healthy(&candidate.connection).await else {
        return Ok(());
    };
    let also_old = failure.class.is_outage()
        && !failure.is_crash()
        && healthy(&lineup.active.connection).await.is_err();
    Err(Error::CheckFailed {
        connection: slot.name.clone(),
        failure,
        remedy: if also_old {
            "so does the generation that serves: wait until the system works again, or use --force"
        } else {
            "the generation that serves stays; mend the plugin, or use --force"
        },
    })
}

async fn healthy(connection: &cofferdam_host::Connection) -> Result<(), Failure> {
    match connection.check().await {
        Ok(health) if health.status == HealthStatus::Unhealthy => Err(Failure::new(
            Class::Unavailable,
            "check.unhealthy",
            health.message,
        )),
        Ok(_) => Ok(()),
        Err(failure) if failure.class == Class::Unsupported => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// Keeps a copy, and makes sure that it is of what was checked.
async fn keep(
    inner: &Arc<Inner>,
    slot: &Slot,
    path: &Path,
    mut candidate: Generation,
) -> Result<Generation, Error> {
    let (inner, name, path) = (Arc::clone(inner), slot.name.clone(), path.to_owned());
    off_thread(move || {
        let Some(kept) = (inner.workshop.shelf).keep(&name, candidate.row.number, &path)? else {
            return Ok(candidate);
        };
        let trust = inner.config.trust(configured(&inner.config, &name)?);
        let copy = inner.workshop.load(&trust, &kept)?;
        let original = candidate.connection.plugin();
        if history::fingerprint(&copy) != history::fingerprint(original) {
            let path = path.display().to_string();
            return Err(Error::Moved { path });
        }
        candidate.row.kept = true;
        Ok(candidate)
    })
    .await
}

/// Makes the line-up durable, then visible.
async fn publish(
    inner: &Arc<Inner>,
    slot: &Slot,
    next: Lineup,
    mut state: StateRow,
    what: Happening,
    about: &GenerationRow,
    why: Option<&str>,
) -> Result<(), Error> {
    state.active = next.active.row.clone();
    state.previous = next.previous.as_ref().map(|g| g.row.clone());
    state.trial = next.trial.as_ref().map(|trial| TrialRow {
        generation: trial.generation.row.clone(),
        canary: trial.canary(),
    });
    let store = &*inner.store;
    let batch = history::write(Batch::new(), &slot.name, &state)?;
    let batch = history::note(store, batch, &slot.name, what, about, why)?;
    store.commit(batch).await?;
    let numbers: Vec<u64> = state.generations().map(|row| row.number).collect();
    let is_other = next.active.row.number != slot.lineup.load().active.row.number;
    let old = slot.lineup.swap(Arc::new(next));
    if is_other && old.active.held_until_ms().is_some() {
        // What opened the breaker has gone.
        slot.reset_breaker();
    }
    slot.parked.notify_one();
    slot.judged.notify_one();
    tracing::info!(
        connection = slot.name,
        generation = about.number,
        version = about.version,
        what = what.as_str(),
        why,
        "generations changed"
    );
    let (inner, name) = (Arc::clone(inner), slot.name.clone());
    off_thread(move || {
        inner.workshop.shelf.retain(&name, &numbers);
        Ok(())
    })
    .await
}

/// The generation on trial takes over. `expected` is the number that was judged; a person who asks
/// means whichever is on trial.
pub(crate) async fn promote(
    inner: Arc<Inner>,
    slot: Arc<Slot>,
    expected: Option<u64>,
    why: String,
) -> Result<Generations, Error> {
    let _turn = slot.changing.lock().await;
    let lineup = slot.lineup.load_full();
    let trial = lineup.trial.as_ref();
    let trial = trial.filter(|t| expected.is_none_or(|n| n == t.generation.row.number));
    let Some(trial) = trial else {
        return Err(Error::NoTrial {
            connection: slot.name.clone(),
        });
    };
    let next = Lineup {
        active: Arc::clone(&trial.generation),
        previous: Some(Arc::clone(&lineup.active)),
        trial: None,
    };
    let state = current_state(&inner, &slot, &lineup)?;
    let about = &trial.generation.row;
    let what = Happening::Promoted;
    publish(&inner, &slot, next, state, what, about, Some(&why)).await?;
    Ok(slot.generations())
}

/// The generation on trial goes; without one, the generation that served before comes back.
/// `expected` is the number of the generation that has to go.
pub(crate) async fn roll_back(
    inner: Arc<Inner>,
    slot: Arc<Slot>,
    expected: Option<u64>,
    why: String,
) -> Result<Generations, Error> {
    let _turn = slot.changing.lock().await;
    let lineup = slot.lineup.load_full();
    let (about, next) = match (&lineup.trial, &lineup.previous) {
        (Some(trial), _) => (
            &trial.generation.row,
            Lineup {
                trial: None,
                ..(*lineup).clone()
            },
        ),
        (None, Some(previous)) => (
            &lineup.active.row,
            Lineup {
                active: Arc::clone(previous),
                previous: None,
                trial: None,
            },
        ),
        (None, None) => {
            return Err(Error::NothingBefore {
                connection: slot.name.clone(),
            });
        }
    };
    if expected.is_some_and(|number| number != about.number) {
        // Somebody was faster.
        return Ok(slot.generations());
    }
    let state = current_state(&inner, &slot, &lineup)?;
    let what = Happening::RolledBack;
    publish(&inner, &slot, next, state, what, about, Some(&why)).await?;
    Ok(slot.generations())
}

/// What a judgement leads to.
pub(crate) async fn obey(inner: &Arc<Inner>, slot: &Arc<Slot>, number: u64, verdict: Verdict) {
    let result = match verdict {
        Verdict::None => return,
        Verdict::Promote => {
            let why = "the trial went well".to_owned();
            promote(Arc::clone(inner), Arc::clone(slot), Some(number), why).await
        }
        Verdict::RollBack { reason } => {
            roll_back(Arc::clone(inner), Arc::clone(slot), Some(number), reason).await
        }
    };
    match result {
        // The trial was ended by a person meanwhile.
        Ok(_) | Err(Error::NoTrial { .. } | Error::NothingBefore { .. }) => {}
        Err(error) => tracing::error!(connection = slot.name, %error, "a trial could not be ended"),
    }
}

/// Keeps what is known of the trial, so that a restart goes on with it.
pub(crate) async fn save_trial(inner: &Arc<Inner>, slot: &Slot) -> Result<(), Error> {
    let _turn = slot.changing.lock().await;
    let lineup = slot.lineup.load_full();
    let Some(trial) = &lineup.trial else {
        return Ok(());
    };
    let mut state = current_state(inner, slot, &lineup)?;
    state.trial = Some(TrialRow {
        generation: trial.generation.row.clone(),
        canary: trial.canary(),
    });
    let batch = history::write(Batch::new(), &slot.name, &state)?;
    Ok(inner.store.commit(batch).await?)
}

/// Writes into the history what changed nothing. That it cannot be written stops nobody.
pub(crate) async fn note_alone(
    inner: &Inner,
    slot: &Slot,
    what: Happening,
    about: &GenerationRow,
    why: &str,
) {
    let store = &*inner.store;
    let noted = history::note(store, Batch::new(), &slot.name, what, about, Some(why));
    let written = match noted {
        Ok(batch) => store.commit(batch).await.map_err(Error::from),
        Err(error) => Err(error),
    };
    if let Err(error) = written {
        tracing::error!(connection = slot.name, %error, "the history could not be written");
    }
}

/// What happened to the generations of a connection, newest first.
pub(crate) fn history_of(
    store: &dyn JournalStore,
    connection: &str,
) -> Result<Vec<HistoryRow>, Error> {
    history::rows(store, connection)
}
