//! The one way by which a generation comes into service, whoever asks: the start, the command
//! line, an embedding program, the file watch.
//!
//! Read → signature → static check of imports against the contract and the grants → compile →
//! compare the descriptor with that of the generation that serves → ask the new one's `check` →
//! keep copies → commit the row → publish. Whatever fails, the old generation stays and the reason is told and
//! kept. A crash before the commit leaves the old generation in service, one after it the new one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cofferdam_core::breaker;
use cofferdam_core::canary::{self, Canary, Verdict};
use cofferdam_core::compatibility::{self, Change};
use cofferdam_host::{Artifact, Host, Plugin, Services, Shared, Trust};
use cofferdam_store::{Batch, JournalStore};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::admission::healthy;
use crate::ambient::Clock;
use crate::builder::off_thread;
use crate::config::{self, Config};
use crate::connections::Slot;
use crate::connector::{Backend, Connector};
use crate::generations::{Generation, GenerationRow, Generations, Lineup, Trial};
use crate::history::{self, Happening, HistoryRow, StateRow, TrialRow};
use crate::runtime::Inner;
use crate::shelf::Shelf;
use crate::trust::{self, Unsigned};
use crate::{outbox, service};

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
    /// What the generations of each connection have in common.
    pub shared: Mutex<HashMap<String, Shared>>,
    pub clock: Clock,
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
        let mut spec = connection.spec_for(plugin.manifest());
        let name = connection.name().to_owned();
        spec.shared = self.shared.lock().entry(name).or_default().clone();
        let policy = connection.binding_policy_for(plugin.manifest());
        let joined = plugin.connect(spec, self.services.clone())?;
        let strikes = connection.quarantine();
        Ok(Generation::new(
            row,
            Backend::Chamber(joined),
            policy,
            strikes,
        ))
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
        let number = state.as_ref().map_or(1, |state| state.next);
        let now_ms = self.clock.now_ms();
        let row = row_of(configured, number, path, now_ms);
        if let Some(state) = &state {
            let is_named = state.configured == fingerprint;
            let resumed = is_named.then(|| self.resume(connection, trust, configured, state));
            let why = match resumed {
                Some(Ok(lineup)) => return Ok((self.slot(store, connection, lineup)?, batch)),
                // The row stays: when the copy is put back, the next start serves it again.
                Some(Err(error)) => {
                    tracing::error!(connection = name, %error, "the generation that served cannot be loaded; serving what is configured");
                    format!("what served cannot be loaded: {error}")
                }
                // Who changes the configuration's plugin means it.
                None => {
                    let state = StateRow::begin(fingerprint, row.clone(), number + 1);
                    batch = history::write(batch, name, &state)?;
                    "the configuration names another plugin than before".to_owned()
                }
            };
            let what = Happening::Activated;
            batch = history::note(store, batch, name, what, &row, Some(&why), now_ms)?;
        }
        let active = self.join(connection, configured, row)?;
        Ok((self.slot(store, connection, Lineup::of(active))?, batch))
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
            let plugin = match self.shelf.find(connection.name(), row.number) {
                Some(kept) => self.load(trust, &kept)?,
                None => configured.clone(),
            };
            if plugin.digest() != row.digest {
                return Err(Error::Kept {
                    connection: connection.name().to_owned(),
                    number: row.number,
                });
            }
            Ok(Arc::new(self.join(connection, &plugin, row.clone())?))
        };
        // Only the one that serves is needed: without the others it serves all the same.
        let optional = |row: &GenerationRow| match load(row) {
            Ok(generation) => Some(generation),
            Err(error) => {
                let (connection, generation) = (connection.name(), row.number);
                tracing::error!(connection, generation, %error, "a generation that does not serve cannot be loaded");
                None
            }
        };
        let trial = state.trial.as_ref().and_then(|trial| {
            let generation = optional(&trial.generation)?;
            Some(Arc::new(Trial::new(generation, trial.canary.clone())))
        });
        Ok(Lineup {
            active: load(&state.active)?,
            since_ms: state.active.since_ms,
            previous: state.previous.as_ref().and_then(optional),
            trial,
        })
    }

    /// A connection that is served by code of the program.
    pub fn open_program(
        &self,
        store: &dyn JournalStore,
        connection: &config::Connection,
        connector: &Arc<dyn Connector>,
    ) -> Result<Slot, Error> {
        let backend = Backend::program(Arc::clone(connector), connection.spec().limits);
        let descriptor = backend.descriptor();
        let row = GenerationRow {
            number: 1,
            plugin: descriptor.name.clone(),
            version: descriptor.version.clone(),
            digest: PROGRAM.to_owned(),
            artifact: PROGRAM.to_owned(),
            since_ms: self.clock.now_ms(),
        };
        let (policy, strikes) = (connection.binding_policy(), connection.quarantine());
        let active = Generation::new(row, backend, policy, strikes);
        self.slot(store, connection, Lineup::of(active))
    }

    fn slot(
        &self,
        store: &dyn JournalStore,
        connection: &config::Connection,
        lineup: Lineup,
    ) -> Result<Slot, Error> {
        let saved = service::read(store, connection.name())?;
        let slot = Slot::new(connection, lineup, saved, self.clock);
        outbox::count(store, &slot)?;
        Ok(slot)
    }
}

/// Where a plugin's digest and file stand, for a connection that code of the program serves.
const PROGRAM: &str = "program";

fn row_of(plugin: &Plugin, number: u64, path: &Path, since_ms: u64) -> GenerationRow {
    let version = plugin.descriptor().map(|d| d.version.clone());
    GenerationRow {
        number,
        plugin: plugin.name().to_owned(),
        version: version.unwrap_or_default(),
        digest: plugin.digest().to_owned(),
        artifact: path.display().to_string(),
        since_ms,
    }
}

/// Brings a new generation into service, or on trial. `by_config` says that it is what the
/// configuration names.
pub(crate) async fn swap(
    inner: Arc<Inner>,
    slot: Arc<Slot>,
    swap: Swap,
    by_config: bool,
) -> Result<Swapped, Error> {
    let result = tokio::select! {
        biased;
        result = try_swap(&inner, &slot, &swap, by_config) => result,
        () = inner.closing.cancelled() => Err(Error::ShuttingDown),
    };
    if let Err(error) = &result
        && !matches!(error, Error::Same { .. } | Error::ShuttingDown)
    {
        tracing::warn!(connection = slot.name, %error, "a swap was refused");
        let row = GenerationRow {
            artifact: swap.artifact.display().to_string(),
            ..slot.lineup.load().active.row.clone()
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
    // One swap after another; a rollback does not wait for the slow part.
    let _swapping = slot.swapping.lock().await;
    let lineup = slot.lineup.load_full();
    let served = plugin_of(slot, &lineup)?;
    no_trial(slot, &lineup)?;
    let number = current_state(inner, slot, &lineup)?.next;
    let candidate = Arc::new(candidate(inner, slot, &swap.artifact, number).await?);
    let plugin = candidate
        .connection
        .plugin()
        .ok_or_else(|| by_program(slot))?;
    let fingerprint = history::fingerprint(plugin);
    if fingerprint == history::fingerprint(served) {
        return Err(Error::Same {
            connection: slot.name.clone(),
            digest: candidate.row.digest.clone(),
        });
    }
    let changes = compare(slot, &lineup, &candidate, swap.force)?;
    if !swap.force {
        check(slot, &lineup, &candidate).await?;
    }
    let _turn = slot.changing.lock().await;
    let now = slot.lineup.load_full();
    if !Arc::ptr_eq(&now.active, &lineup.active) {
        // Taken back meanwhile: what it was compared with serves no more.
        compare(slot, &now, &candidate, swap.force)?;
    }
    settle(inner).await?;
    let mut state = current_state(inner, slot, &now)?;
    keep(
        inner,
        slot,
        &[
            (number, plugin),
            (now.active.row.number, plugin_of(slot, &now)?),
        ],
    )
    .await?;
    state.next = number + 1;
    if by_config {
        state.configured = fingerprint;
    }
    let now_ms = inner.clock.now_ms();
    let (what, next) = match swap.canary {
        None => (
            Happening::Activated,
            now.replaced_by(Arc::clone(&candidate), now_ms),
        ),
        Some(config) => {
            let trial = Trial::new(Arc::clone(&candidate), Canary::new(config, now_ms));
            (Happening::Tried, now.with_trial(Some(Arc::new(trial))))
        }
    };
    publish(inner, slot, next, state, what, &candidate.row, None).await?;
    Ok(Swapped {
        generations: slot.generations(),
        changes,
    })
}

/// The plugin that serves.
fn plugin_of<'a>(slot: &Slot, lineup: &'a Lineup) -> Result<&'a Plugin, Error> {
    let plugin = lineup.active.connection.plugin();
    plugin.ok_or_else(|| by_program(slot))
}

fn by_program(slot: &Slot) -> Error {
    Error::Incompatible {
        connection: slot.name.clone(),
        changes: vec!["code of the program serves it, in place of a plugin".to_owned()],
    }
}

fn no_trial(slot: &Slot, lineup: &Lineup) -> Result<(), Error> {
    let Some(trial) = &lineup.trial else {
        return Ok(());
    };
    Err(Error::OnTrial {
        connection: slot.name.clone(),
        number: trial.generation.row.number,
    })
}

/// Writes what the start found out, before anything else is written about the generations. A
/// runtime that is only asked something never gets here, and leaves the store as it is.
pub(crate) async fn settle(inner: &Inner) -> Result<(), Error> {
    let found = std::mem::take(&mut *inner.found.lock());
    if found.is_empty() {
        return Ok(());
    }
    Ok(inner.store.commit(found).await?)
}

/// What the store says of a connection, or what the start made of it.
fn current_state(inner: &Inner, slot: &Slot, lineup: &Lineup) -> Result<StateRow, Error> {
    if let Some(state) = history::state(&*inner.store, &slot.name)?
        && state.active.number == lineup.active.row.number
    {
        return Ok(state);
    }
    let active = &lineup.active;
    let fingerprint = history::fingerprint(plugin_of(slot, lineup)?);
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
        let row = row_of(&plugin, number, &path, inner.clock.now_ms());
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

/// Keeps copies of these plugins under their numbers.
async fn keep(inner: &Arc<Inner>, slot: &Slot, plugins: &[(u64, &Plugin)]) -> Result<(), Error> {
    let (inner, name) = (Arc::clone(inner), slot.name.clone());
    let plugins: Vec<_> = plugins
        .iter()
        .map(|(n, plugin)| (*n, (*plugin).clone()))
        .collect();
    off_thread(move || {
        let shelf = &inner.workshop.shelf;
        // What lies under the new number is of a swap that did not come to its end.
        if let Some((new, _)) = plugins.first() {
            shelf.clear(&name, *new);
        }
        plugins
            .iter()
            .try_for_each(|(number, plugin)| shelf.keep(&name, *number, plugin.artifact()))
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
    state.active = GenerationRow {
        since_ms: next.since_ms,
        ..next.active.row.clone()
    };
    state.previous = next.previous.as_ref().map(|g| g.row.clone());
    state.trial = next.trial.as_ref().map(|trial| TrialRow {
        generation: trial.generation.row.clone(),
        canary: trial.canary(),
    });
    let store = &*inner.store;
    let batch = history::write(Batch::new(), &slot.name, &state)?;
    let batch = history::note(
        store,
        batch,
        &slot.name,
        what,
        about,
        why,
        inner.clock.now_ms(),
    )?;
    store.commit(batch).await?;
    let numbers: Vec<u64> = state.generations().map(|row| row.number).collect();
    let is_other = next.active.row.number != slot.lineup.load().active.row.number;
    let old = slot.lineup.swap(Arc::new(next));
    if is_other && old.active.held_until_ms().is_some() {
        // What opened the breaker has gone.
        slot.set_breaker(breaker::Event::Reset);
    }
    slot.tell_changed();
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
    settle(&inner).await?;
    let next = lineup.replaced_by(Arc::clone(&trial.generation), inner.clock.now_ms());
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
        (Some(trial), _) => (&trial.generation.row, lineup.with_trial(None)),
        (None, Some(previous)) => (
            &lineup.active.row,
            Lineup {
                active: Arc::clone(previous),
                since_ms: inner.clock.now_ms(),
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
    settle(&inner).await?;
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
    let _turn = slot.changing.lock().await;
    let store = &*inner.store;
    let now_ms = inner.clock.now_ms();
    let noted = history::note(
        store,
        Batch::new(),
        &slot.name,
        what,
        about,
        Some(why),
        now_ms,
    );
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
