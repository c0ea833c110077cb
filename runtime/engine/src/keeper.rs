//! Looks after the generations of one connection: ends trials, rolls back what crashes, and
//! follows the file that the configuration names.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cofferdam_core::canary::{Event, Verdict};

use crate::Error;
use crate::activation::{self, Swap};
use crate::builder::off_thread;
use crate::config::Config;
use crate::connections::Slot;
use crate::generations::Judgement;
use crate::history::Happening;
use crate::runtime::Inner;

/// How often a trial and a watched file are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A generation that is held within this time of having come into service goes back to the one
/// before it; one that crashes later has worked, and what changed is something else.
const ROLLBACK_WINDOW_MS: u64 = 60 * 60 * 1_000;

/// Runs until the runtime shuts down. `stamp` is of the plugin's file before it was loaded, so
/// that what is written meanwhile is seen.
pub(crate) async fn keep(inner: Arc<Inner>, slot: Arc<Slot>, stamp: Option<Stamp>) {
    let watches = inner.config.watches_plugins();
    let mut watch = watches.then(|| Watch::new(stamp));
    loop {
        let has_trial = slot.lineup.load().trial.is_some();
        let looks = has_trial || watch.is_some();
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => break,
            () = slot.judged.notified() => {}
            () = tokio::time::sleep(LOOK), if looks => {}
        }
        for judgement in slot.take_judgements() {
            judge(&inner, &slot, judgement).await;
        }
        look_at_trial(&inner, &slot).await;
        if let Some(watch) = &mut watch {
            watch.look(&inner, &slot).await;
        }
    }
    save_trial(&inner, &slot).await;
}

async fn judge(inner: &Arc<Inner>, slot: &Arc<Slot>, judgement: Judgement) {
    match judgement {
        Judgement::Nothing => {}
        Judgement::Decided(number, verdict) => {
            activation::obey(inner, slot, number, verdict).await;
        }
        Judgement::Held(number) => held(inner, slot, number).await,
    }
}

async fn held(inner: &Arc<Inner>, slot: &Arc<Slot>, number: u64) {
    let lineup = slot.lineup.load_full();
    let active = &lineup.active;
    if active.row.number != number {
        return;
    }
    tracing::warn!(
        connection = slot.name,
        generation = number,
        "held for its crashes"
    );
    let why = "it crashed too often";
    activation::note_alone(inner, slot, Happening::Quarantined, &active.row, why).await;
    let now_ms = inner.clock.now_ms();
    let is_new = now_ms.saturating_sub(lineup.since_ms) < ROLLBACK_WINDOW_MS;
    if is_new && lineup.previous.is_some() && lineup.trial.is_none() {
        let reason = why.to_owned();
        activation::obey(inner, slot, number, Verdict::RollBack { reason }).await;
    }
    // Without a breaker that opened nobody else wakes what is parked.
    slot.tell_changed();
}

async fn look_at_trial(inner: &Arc<Inner>, slot: &Arc<Slot>) {
    let lineup = slot.lineup.load_full();
    let Some(trial) = &lineup.trial else { return };
    match trial.step(Event::Looked, inner.clock.now_ms()) {
        Verdict::None => save_trial(inner, slot).await,
        verdict => {
            let number = trial.generation.row.number;
            activation::obey(inner, slot, number, verdict).await;
        }
    }
}

async fn save_trial(inner: &Arc<Inner>, slot: &Slot) {
    if let Err(error) = activation::save_trial(inner, slot).await {
        tracing::error!(connection = slot.name, %error, "a trial could not be kept");
    }
}

/// The file or folder that the configuration names, as it was when it was last looked at.
struct Watch {
    seen: Option<Stamp>,
    /// What was tried last, so that a file that is no plugin is tried once.
    tried: Option<Stamp>,
}

/// Changes whenever somebody writes the plugin: path, and the latest change and the size of all
/// files in it.
pub(crate) type Stamp = (PathBuf, SystemTime, u64);

impl Watch {
    fn new(loaded: Option<Stamp>) -> Self {
        Self {
            seen: loaded.clone(),
            tried: loaded,
        }
    }

    /// Swaps in what was written, once it has been still for one look.
    async fn look(&mut self, inner: &Arc<Inner>, slot: &Arc<Slot>) {
        let name = slot.name.clone();
        let looked = Arc::clone(inner);
        let now = off_thread(move || Ok(stamp(&looked.config, &name)))
            .await
            .ok()
            .flatten();
        let is_still = now.is_some() && now == self.seen;
        self.seen.clone_from(&now);
        let Some(now) = now.filter(|_| is_still) else {
            return;
        };
        if self.tried.as_ref() == Some(&now) {
            return;
        }
        let swap = Swap {
            artifact: now.0.clone(),
            canary: None,
            force: false,
        };
        match activation::swap(Arc::clone(inner), Arc::clone(slot), swap, true).await {
            // A trial ends; then it is this file's turn.
            Err(Error::OnTrial { .. }) => {}
            // What was refused was told; it is tried again when somebody writes it again.
            Ok(_) | Err(_) => self.tried = Some(now),
        }
    }
}

pub(crate) fn stamp(config: &Config, connection: &str) -> Option<Stamp> {
    let path = config.connection(connection)?.resolve_plugin().ok()?;
    let mut files = vec![path.clone()];
    if path.is_dir() {
        files.extend(std::fs::read_dir(&path).ok()?.flatten().map(|e| e.path()));
    } else {
        files.push(path.with_file_name("plugin.toml"));
        files.push(path.with_extension("sig"));
    }
    let read = files.iter().filter_map(|file| std::fs::metadata(file).ok());
    let (mut latest, mut bytes) = (SystemTime::UNIX_EPOCH, 0);
    for metadata in read {
        latest = latest.max(metadata.modified().ok()?);
        bytes += metadata.len();
    }
    Some((path, latest, bytes))
}
