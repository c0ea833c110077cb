//! How runs begin: ids and keys, what a repeated start does, and waiting for a turn.

use std::sync::Arc;

use cofferdam_core::depth;
use cofferdam_core::run::{Event, Run, Status};
use cofferdam_store::{Batch, KeyRange, Table};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::definition::Definition;
use crate::mutation::Mutation;
use crate::queue::{self, PRIORITY_DEFAULT, PRIORITY_MAX};
use crate::rows::{RunRow, decode, encode};
use crate::runner::{Begin, Runner};
use crate::runtime::{Inner, Runtime};
use crate::{Error, query};

/// How a run is begun. All of it may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StartOptions {
    /// The run's id; made up if none. Starting a run that exists already gives that run, so that
    /// a caller that does not know whether its last start arrived just starts again.
    pub id: Option<String>,
    /// What the start is for, instead of an id: an order's number, say. Starts of one workflow
    /// (whatever its version) for one tenant with one key are one start, and give one run;
    /// [`StartOptions::on_conflict`] says otherwise. The input has to be the same each time.
    pub key: Option<String>,
    /// What a start does that finds a run of its id or key.
    pub on_conflict: OnConflict,
    /// Whom the run belongs to; plugins are told, and keep small state for each tenant.
    /// Letters, digits, `-`, `_`, `.`, `:`; empty if it does not matter.
    pub tenant: String,
    /// Among the runs of a tenant that wait for a place, those with a higher priority go first;
    /// 0 to 9, default 5.
    pub priority: Option<u8>,
    /// Runs with one concurrency key go one after another, or as many at a time as the
    /// configuration's `[workflows.concurrency]` says. A run holds its key until it has ended.
    pub concurrency_key: Option<String>,
}

/// What a start does that finds a run of its id or key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnConflict {
    /// Gives that run, whether or not it has ended.
    #[default]
    UseExisting,
    /// Fails with [`Error::Exists`].
    Fail,
    /// Begins another run if that one faulted or was cancelled; else gives that run. Needs a key.
    RestartIfFaulted,
    /// Begins another run if that one has ended; else gives that run. Needs a key.
    RestartIfEnded,
}

const NAME_LEN_MAX: usize = 100;
const KEY_BYTES_MAX: usize = 512;
/// Runs of one key that are looked through for the last one.
const GENERATIONS_MAX: usize = 10_000;
/// Well below what a record of the store may have.
const INPUT_BYTES_MAX: usize = 8 << 20;
/// How often the row of a run that another caller begins is looked for.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(5);

/// Whether this can be the name of a run, a tenant or a concurrency key: such names are parts of
/// keys in the store.
pub(crate) fn is_name(name: &str) -> bool {
    let is_fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    (1..=NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(is_fine)
}

/// Refuses what could not be read back from the journal.
pub(crate) fn check_input(input: &Value) -> Result<(), Error> {
    if !depth::is_fine(input) {
        let what = format!("nests deeper than {} levels", depth::DEPTH_MAX);
        return Err(Error::Input { what });
    }
    let bytes = encode(input)?.len();
    if bytes > INPUT_BYTES_MAX {
        let what = format!("has {bytes} bytes, and at most {INPUT_BYTES_MAX} are taken");
        return Err(Error::Input { what });
    }
    Ok(())
}

impl StartOptions {
    fn check(&self) -> Result<(), Error> {
        let refuse = |what: String| Err(Error::StartOption { what });
        if let Some(id) = self.id.as_ref().filter(|id| !is_name(id)) {
            return Err(Error::RunId { run: id.clone() });
        }
        if self.id.is_some() && self.key.is_some() {
            return refuse("an id and a key are two names for one run: give one of them".into());
        }
        if let Some(key) = &self.key
            && !(1..=KEY_BYTES_MAX).contains(&key.len())
        {
            return refuse(format!(
                "the key has {} bytes: use 1 to {KEY_BYTES_MAX}, such as those of a hash of what it stands for",
                key.len()
            ));
        }
        if self.key.is_none() && self.on_conflict.restarts() {
            return refuse(
                "only a start with a key can begin another run: an id names one run for ever"
                    .into(),
            );
        }
        for (what, name) in [
            ("tenant", Some(&self.tenant).filter(|t| !t.is_empty())),
            ("concurrency key", self.concurrency_key.as_ref()),
        ] {
            if let Some(name) = name.filter(|name| !is_name(name)) {
                return refuse(format!(
                    "`{name}` cannot be a {what}: use 1 to {NAME_LEN_MAX} letters, digits, `-`, `_`, `.` and `:`"
                ));
            }
        }
        if let Some(priority) = self.priority.filter(|p| *p > PRIORITY_MAX) {
            return refuse(format!(
                "priority {priority} is none: use 0 to {PRIORITY_MAX}"
            ));
        }
        Ok(())
    }
}

impl OnConflict {
    fn restarts(self) -> bool {
        matches!(self, Self::RestartIfFaulted | Self::RestartIfEnded)
    }

    /// Whether another run is to be begun where this one is.
    fn begins_another(self, status: Status) -> bool {
        match self {
            Self::UseExisting | Self::Fail => false,
            Self::RestartIfFaulted => matches!(status, Status::Faulted | Status::Cancelled),
            Self::RestartIfEnded => status.is_final(),
        }
    }
}

impl Runtime {
    /// Begins a run and returns its id. When this returns, the run is on the disk and will be
    /// brought to its end whatever happens to this process.
    ///
    /// # Errors
    /// [`Error::Store`]: then the run may or may not have begun; start it again under the same id.
    /// If the disk is full it has not.
    pub async fn start(&self, definition: &Definition, input: Value) -> Result<String, Error> {
        self.start_with(definition, input, StartOptions::default())
            .await
    }

    /// [`Runtime::start`] with options.
    ///
    /// # Errors
    /// [`Error::RunId`] and [`Error::StartOption`] for options that cannot be; [`Error::OtherRun`],
    /// [`Error::KeyConflict`] and [`Error::Exists`] if there is a run that does not fit; as for
    /// [`Runtime::start`].
    pub async fn start_with(
        &self,
        definition: &Definition,
        input: Value,
        options: StartOptions,
    ) -> Result<String, Error> {
        if self.inner.closing.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        options.check()?;
        check_input(&input)?;
        let hash = input_hash(&input)?;
        let (run, existing) = self.inner.named(definition, &options)?;
        if let Some(row) = existing {
            fits(&row, definition, &options, &hash)?;
            // What was read may not be on the disk yet, and this answer says that it is.
            self.inner.is_on_disk(&run).await?;
            return Ok(run);
        }
        // Only what is begun takes room.
        self.inner.check_room()?;
        let row = RunRow {
            tenant: options.tenant.clone(),
            priority: options.priority.unwrap_or(PRIORITY_DEFAULT),
            concurrency_key: options.concurrency_key.clone(),
            key: options.key.clone(),
            input_hash: Some(hash.clone()),
            ..RunRow::new(&run, definition, self.inner.clock.now_ms())
        };
        let is_ours = self
            .inner
            .begin(row, definition, First::Begun(input))
            .await?;
        if !is_ours && let Some(row) = self.inner.row(&run)? {
            fits(&row, definition, &options, &hash)?;
        }
        Ok(run)
    }
}

/// Whether the run that there is can be the answer to a start.
fn fits(
    row: &RunRow,
    definition: &Definition,
    options: &StartOptions,
    hash: &str,
) -> Result<(), Error> {
    let run = row.run.clone();
    if options.key.is_none() && row.workflow != definition.name() {
        let workflow = row.workflow.clone();
        return Err(Error::OtherRun { run, workflow });
    }
    if options.on_conflict == OnConflict::Fail {
        let status = row.status;
        return Err(Error::Exists { run, status });
    }
    if let Some(key) = &options.key
        && row.input_hash.as_deref() != Some(hash)
    {
        let key = key.clone();
        return Err(Error::KeyConflict { key, run });
    }
    Ok(())
}

/// How a run's journal begins.
pub(crate) enum First {
    /// With its input; at once if there is room.
    Begun(Value),
    /// As the continuation of another one.
    Forked(Box<Event>),
}

impl Inner {
    /// The id of the run that these options name, and the run if there is one.
    fn named(
        &self,
        definition: &Definition,
        options: &StartOptions,
    ) -> Result<(String, Option<RunRow>), Error> {
        if let Some(key) = &options.key {
            return self.named_by_key(definition, key, options);
        }
        let Some(id) = &options.id else {
            return Ok((self.next_id(), None));
        };
        Ok((id.clone(), self.row(id)?))
    }

    /// The ids of a key's runs follow from the key, so that two starts at the same time meet at one
    /// id, and the guard of its journal lets one of them begin.
    fn named_by_key(
        &self,
        definition: &Definition,
        key: &str,
        options: &StartOptions,
    ) -> Result<(String, Option<RunRow>), Error> {
        let document = &definition.workflow().document;
        let parts = [&options.tenant, &document.namespace, &document.name, key];
        let text = serde_json::to_string(&parts).map_err(|source| Error::Encode { source })?;
        let hash = blake3::hash(text.as_bytes()).to_hex();
        let base = format!("key-{}", &hash[..32]);
        let range = KeyRange::prefix(base.as_bytes());
        let rows = self.store.scan(Table::Run, range, GENERATIONS_MAX)?;
        let generation = |run: &str| match run.strip_prefix(&base) {
            Some("") => Some(1),
            Some(rest) => rest.strip_prefix('.')?.parse::<u32>().ok(),
            None => None,
        };
        let last = rows
            .iter()
            .filter_map(|(key, bytes)| {
                let run = std::str::from_utf8(key).ok()?;
                Some((generation(run)?, run, bytes))
            })
            .max_by_key(|(generation, ..)| *generation);
        let Some((generation, run, bytes)) = last else {
            return Ok((base, None));
        };
        let row: RunRow = decode("run", run, bytes)?;
        let is_forgotten = self.armed.has(Mutation::ForgetKeys) && row.status.is_final();
        if options.on_conflict.begins_another(row.status) || is_forgotten {
            return Ok((format!("{base}.{}", generation + 1), None));
        }
        Ok((run.to_owned(), Some(row)))
    }

    /// Begins a run, or puts it in the queue; false if another caller began it.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        mut row: RunRow,
        definition: &Definition,
        first: First,
    ) -> Result<bool, Error> {
        let run = row.run.clone();
        // A run that it begins in its first step is looked up by it before it is in the store.
        self.remember(definition);
        let machine = Run::new(&run, definition.workflow(), definition.bindings()).slim();
        let mut rows = Batch::new();
        let hash = definition.hash().as_bytes();
        if self.store.get(Table::Definition, hash)?.is_none() {
            rows = rows.put(Table::Definition, hash, definition.pinned());
        }
        let place = match &first {
            First::Begun(_) if row.concurrency_key.is_none() => {
                self.gate.try_enter(&row.tenant, &run)
            }
            First::Begun(_) | First::Forked(_) => None,
        };
        if place.is_none() {
            row.status = Status::Queued;
            row.queued_ms = Some(row.begun_ms);
            row.queue_seq = self.gate.next_seq(row.begun_ms);
            rows = queue::waits(rows, &row);
        }
        let event = match first {
            First::Begun(input) if place.is_some() => Event::Begun { input },
            First::Begun(input) => Event::Queued { input },
            First::Forked(event) => *event,
        };
        let (told, answer) = oneshot::channel();
        let begin = Begin { event, told };
        let runner = Runner::begin(Arc::clone(self), machine, row, rows, begin);
        self.spawn(run.clone(), Some(runner), place, None);
        match answer.await {
            Ok(answer) => answer,
            Err(_) if self.closing.is_cancelled() => Err(Error::ShuttingDown),
            // Another start of the same run was first; its answer is ours.
            Err(_) => self.begun_elsewhere(&run).await.map(|()| false),
        }
    }

    async fn begun_elsewhere(&self, run: &str) -> Result<(), Error> {
        loop {
            let changed = self.waiters.changed(run);
            if self.row(run)?.is_some() {
                return self.is_on_disk(run).await;
            }
            if !self.is_held(run) {
                let reason = "it could not be begun".to_owned();
                return Err(Error::Stopped {
                    run: run.to_owned(),
                    reason,
                    is_storage: true,
                });
            }
            // The row appears while the run is held: look again soon, or when it is let go of.
            let _ = tokio::time::timeout(LOOK_AGAIN, changed).await;
        }
    }

    pub(crate) fn row(&self, run: &str) -> Result<Option<RunRow>, Error> {
        query::row(&*self.store, run)
    }
}

impl RunRow {
    /// A run that begins now.
    pub(crate) fn new(run: &str, definition: &Definition, begun_ms: u64) -> Self {
        Self {
            run: run.to_owned(),
            workflow: definition.name(),
            definition: definition.hash().to_owned(),
            status: Status::Running,
            degraded: false,
            begun_ms,
            ended_ms: None,
            due_ms: None,
            tenant: String::new(),
            priority: PRIORITY_DEFAULT,
            concurrency_key: None,
            key: None,
            input_hash: None,
            queued_ms: None,
            pending: None,
            pending_payload: None,
            queue_seq: 0,
        }
    }
}

/// The same for the same input, in whatever order its keys stand.
fn input_hash(input: &Value) -> Result<String, Error> {
    let text = encode(&sorted(input))?;
    Ok(blake3::hash(&text).to_hex()[..32].to_owned())
}

/// Inputs are no deeper than [`depth::DEPTH_MAX`].
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
