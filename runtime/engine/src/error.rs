//! What can go wrong at the runtime's boundary.

use cofferdam_core::failure::Class;
use serde_json::{Value, json};

/// Why the runtime could not do what it was asked. A *run* that fails is no error of the runtime:
/// its end says so.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    /// A workflow is wrong.
    #[error(transparent)]
    Workflow(#[from] cofferdam_core::dsl::Errors),
    /// A workflow calls what the configuration does not offer.
    #[error("{origin}:{line}: CD0250: {problem}\nhelp: {remedy}")]
    Binding {
        /// The workflow's file.
        origin: String,
        /// 1-based line of the task.
        line: usize,
        /// What does not fit.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// A plugin was not admitted.
    #[error("CD{}: {source}", source.code().trim_start_matches("CD"))]
    Host {
        /// Why.
        #[from]
        source: cofferdam_host::Error,
    },
    /// The store failed.
    #[error("{}: {source}", source.code())]
    Store {
        /// Why.
        #[from]
        source: cofferdam_store::Error,
    },
    /// A file cannot be read.
    #[error(
        "CD0251: cannot read `{path}`: {source}; check that the path is right, that it may be read, and that it is \
         text in UTF-8"
    )]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A row of the store is not what this version understands.
    #[error(
        "CD0252: the store's {what} `{key}` cannot be understood: {source}; \
         it was written by another version, or the store is damaged: run `cofferdam doctor`"
    )]
    Row {
        /// The kind of row.
        what: &'static str,
        /// Its key.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A large value that a row refers to is not in the store as it was put there.
    #[error(
        "CD0240: the store's {what} `{key}` refers to payload {hash}, {reason}; the store is damaged: \
         `cofferdam doctor` lists all that is missing, and `cofferdam restore` makes a store of a backup"
    )]
    Payload {
        /// The kind of row.
        what: &'static str,
        /// Its key; of a record of a journal the run and the record.
        key: String,
        /// Hash of the payload.
        hash: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Runs that are to be removed cannot be named like this.
    #[error("CD0241: what is to be purged {what}")]
    Purge {
        /// What is wrong, and what to do instead.
        what: String,
    },
    /// What was to be purged is gone in part. [`Error::details`] names the runs.
    #[error(
        "{why}; {} of {} runs were removed before that, and the others are still there, but for those that \
         were being removed just then: purge what `cofferdam runs list` shows when that is put right", removed.len(), removed.len() + kept.len()
    )]
    PurgeStopped {
        /// Those that are gone.
        removed: Vec<String>,
        /// Those that are still there, as far as is known: of a removal that the store could not confirm a
        /// restart tells.
        kept: Vec<String>,
        /// What happened.
        why: Box<Self>,
    },
    /// A value cannot be written as JSON.
    #[error("CD0253: a value cannot be written as JSON: {source}")]
    Encode {
        /// Why.
        source: serde_json::Error,
    },
    /// A journal does not fit its workflow.
    #[error(
        "CD0254: the journal of run `{run}` breaks off at record {seq}: {reason}; run `cofferdam doctor`"
    )]
    Journal {
        /// The run.
        run: String,
        /// The record.
        seq: u64,
        /// Why.
        reason: String,
    },
    /// There is no such run.
    #[error("CD0255: there is no run `{run}`; `cofferdam runs list` shows those that there are")]
    NoRun {
        /// What was asked for.
        run: String,
    },
    /// A run's id cannot be one.
    #[error(
        "CD0256: `{run}` cannot be the id of a run: use 1 to 100 letters, digits, `-`, `_`, `.` and `:`"
    )]
    RunId {
        /// What was asked for.
        run: String,
    },
    /// A decision about a task that does not wait for one.
    #[error(
        "CD0257: task `{task}` of run `{run}` does not wait for a decision; `cofferdam reviews list` shows those that do"
    )]
    NoReview {
        /// The run.
        run: String,
        /// The task.
        task: String,
    },
    /// A decision that cannot be taken about a task in review.
    #[error(
        "CD0285: `{what}` does not fit task `{task}` of run `{run}`: an output can be accepted only where there \
         is one to look at, and what is known to have happened is not retried if repeating it hurts; approve \
         or answer with an output, or reject"
    )]
    UnfitDecision {
        /// The run.
        run: String,
        /// The task.
        task: String,
        /// What was decided.
        what: &'static str,
    },
    /// A decision that takes back what is known by another task.
    #[error(
        "CD0286: `{what}` of task `{task}` of run `{run}` takes back what is known: another task that has the same \
         idempotency key was decided first, or found it out, and its call happened; approve with the same output, \
         answer with the output that this task is to go on with, or reject"
    )]
    TakenBack {
        /// The run.
        run: String,
        /// The task.
        task: String,
        /// What was decided.
        what: &'static str,
    },
    /// A run stopped because the store failed.
    #[error(
        "CD0259: run `{run}` stopped: {reason}; nothing is lost, and it goes on when that is put right \
         and the runtime is opened again"
    )]
    Stopped {
        /// The run.
        run: String,
        /// Why.
        reason: String,
        /// Whether the store is the reason.
        is_storage: bool,
    },
    /// A run cannot go on with this configuration.
    #[error(
        "CD0260: run `{run}` uses connection `{connection}`, which this configuration does not have; \
         pass the `--config FILE` that the run was begun with"
    )]
    NoConnection {
        /// The run.
        run: String,
        /// The connection.
        connection: String,
    },
    /// An input that the store could not give back.
    #[error("CD0261: the input {what}; pass a reference to it instead, or split it")]
    Input {
        /// What is wrong with it.
        what: String,
    },
    /// The id is taken by a run of another workflow.
    #[error("CD0262: run `{run}` exists and is one of `{workflow}`; choose another id")]
    OtherRun {
        /// The run.
        run: String,
        /// Its workflow.
        workflow: String,
    },
    /// A verb that does not fit where a run is.
    #[error("CD0220: run `{run}` is {} and cannot be {verb}; {remedy}", status.as_str())]
    WrongState {
        /// The run.
        run: String,
        /// Where it is.
        status: cofferdam_core::run::Status,
        /// What was to be done.
        verb: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
    /// What a run did was undone: it cannot go on from there.
    #[error(
        "CD0221: run `{run}` undid what it had done when it faulted, so that it cannot go on from there; \
         begin it again with `cofferdam runs restart {run}`"
    )]
    Undone {
        /// The run.
        run: String,
    },
    /// To go on from where it failed would do something twice or mix answers.
    #[error(
        "CD0229: run `{run}` cannot go on from where it failed: {why}; \
         begin it again with `cofferdam runs restart {run}`, or take another way with `cofferdam runs fork {run} --from TASK`"
    )]
    NoWayOn {
        /// The run.
        run: String,
        /// Why not.
        why: &'static str,
    },
    /// What is asked for needs records that were removed.
    #[error(
        "CD0230: run `{run}` is long, and its records before number {first} were removed ([store] records-max): \
         what its tasks gave is not known any more; begin it again with `cofferdam runs restart {run}`"
    )]
    Pruned {
        /// The run.
        run: String,
        /// The first record that is kept.
        first: u64,
    },
    /// A run whose first records were removed cannot be read from its checkpoint.
    #[error(
        "CD0231: run `{run}` cannot go on: its records before number {first} were removed ([store] records-max), \
         and its checkpoint cannot be used: {why}; run `cofferdam doctor`, and restore a backup if the store is damaged"
    )]
    Checkpoint {
        /// The run.
        run: String,
        /// The first record that is kept.
        first: u64,
        /// What is wrong with the checkpoint.
        why: String,
    },
    /// A task that never began.
    #[error(
        "CD0222: run `{run}` never began a task `{task}`{}; `cofferdam runs show {run}` names those that it did",
        if task.starts_with('/') { "" } else { ": a task is named by its path, which begins with `/`" }
    )]
    NoTask {
        /// The run.
        run: String,
        /// What was asked for.
        task: String,
    },
    /// A start with a key that was used with another input.
    #[error(
        "CD0223: key `{key}` belongs to run `{run}`, which was started with another input; \
         use another key for another input"
    )]
    KeyConflict {
        /// The key.
        key: String,
        /// Its run.
        run: String,
    },
    /// A start that is not to find a run found one.
    #[error("CD0224: run `{run}` exists and is {}, and a new one was asked for; choose another id", status.as_str())]
    Exists {
        /// The run.
        run: String,
        /// Where it is.
        status: cofferdam_core::run::Status,
    },
    /// An option of a start that cannot be.
    #[error("CD0225: {what}")]
    StartOption {
        /// What is wrong, and what to do.
        what: String,
    },
    /// There is no such dead letter.
    #[error(
        "CD0226: run `{run}` is no dead letter; `cofferdam deadletters list` shows those that there are"
    )]
    NoDeadLetter {
        /// What was asked for.
        run: String,
    },
    /// Too much was finished to be carried over.
    #[error(
        "CD0227: what run `{run}` finished has {bytes} bytes, and at most {bytes_max} can be carried over; \
         begin it again with `cofferdam runs restart {run}`"
    )]
    Carry {
        /// The run.
        run: String,
        /// Their size.
        bytes: usize,
        /// The most.
        bytes_max: usize,
    },
    /// An answer that is too large to be sent.
    #[error(
        "CD0228: the answer has {bytes} bytes, and at most {bytes_max} are sent to another process; \
         ask for less, or stop the process that has the store open and ask again"
    )]
    AnswerSize {
        /// Its size.
        bytes: usize,
        /// The most.
        bytes_max: u64,
    },
    /// There is no such connection.
    #[error(
        "CD0263: there is no connection `{connection}`; `cofferdam connection list` shows those that there are"
    )]
    UnknownConnection {
        /// What was asked for.
        connection: String,
    },
    /// A new generation takes away what workflows may rely on.
    #[error(
        "CD0264: connection `{connection}`: the new plugin cannot take over: {}; the old generation stays. \
         Keep what is gone, or use --force if no run relies on it",
        changes.join("; ")
    )]
    Incompatible {
        /// The connection.
        connection: String,
        /// What is gone.
        changes: Vec<String>,
    },
    /// A new generation does not work.
    #[error(
        "CD0265: connection `{connection}`: the new plugin's check failed: {failure}; {remedy}"
    )]
    CheckFailed {
        /// The connection.
        connection: String,
        /// What it told.
        failure: cofferdam_core::failure::Failure,
        /// What to do.
        remedy: &'static str,
    },
    /// A trial is under way.
    #[error(
        "CD0266: connection `{connection}`: generation {number} is on trial; \
         end that with `cofferdam plugin promote {connection}` or `cofferdam plugin rollback {connection}` first"
    )]
    OnTrial {
        /// The connection.
        connection: String,
        /// The generation.
        number: u64,
    },
    /// No trial is under way.
    #[error(
        "CD0267: connection `{connection}` has no generation on trial; \
         `cofferdam plugin history {connection}` shows what happened"
    )]
    NoTrial {
        /// The connection.
        connection: String,
    },
    /// There is nothing to go back to.
    #[error(
        "CD0268: connection `{connection}` has no generation before the one that serves; \
         swap in the one that you want with `cofferdam plugin swap {connection} ARTIFACT`"
    )]
    NothingBefore {
        /// The connection.
        connection: String,
    },
    /// The new generation is the one that serves.
    #[error("CD0269: connection `{connection}` is served by this component already ({digest})")]
    Same {
        /// The connection.
        connection: String,
        /// The component's digest.
        digest: String,
    },
    /// A copy of an artifact cannot be written.
    #[error(
        "CD0270: cannot keep a copy of the plugin at `{path}`: {source}; the old generation stays. \
         Make room there and try again"
    )]
    Shelf {
        /// Where.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A copy of an artifact is gone.
    #[error(
        "CD0272: generation {number} of connection `{connection}` is not in the store's folder any more, and the \
         configuration names another plugin"
    )]
    Kept {
        /// The connection.
        connection: String,
        /// The generation.
        number: u64,
    },
    /// Another process cannot be asked, or cannot ask.
    #[error(
        "CD0273: the control socket `{path}`: {source}; `cofferdam doctor` looks at the store's folder"
    )]
    Control {
        /// The socket.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Nobody can be asked through a socket whose path is longer than the system allows.
    #[error(
        "CD0273: the control socket `{path}`: its path has {bytes} bytes, and the system allows {bytes_max}: \
         no other process can ask the one that has this store open; name the store's folder by a shorter \
         path, such as a relative one or a link"
    )]
    ControlPath {
        /// The socket.
        path: String,
        /// How long its path is.
        bytes: usize,
        /// The most.
        bytes_max: usize,
    },
    /// Another process did not answer.
    #[error(
        "CD0276: the process behind `{path}` did not answer: {source}; what was asked for may have happened: \
         `cofferdam runs list` and `cofferdam plugin history CONNECTION` tell, once that process answers or is gone"
    )]
    Unanswered {
        /// The socket.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Another process refused.
    #[error("{message}")]
    Remote {
        /// What it said, with the code of its error.
        message: String,
        /// The class of its error.
        class: Class,
        /// Whether its store is the reason.
        is_storage: bool,
        /// Its [`Error::details`].
        details: Option<Value>,
    },
    /// Something is no event that can be published.
    #[error("CD0277: {0}")]
    Event(#[from] cofferdam_core::cloud_event::Invalid),
    /// A name that no subscriber can have.
    #[error(
        "CD0278: `{name}` cannot be the name of a subscriber; use 1 to 64 letters, digits, `-`, `_` and `.`"
    )]
    Subscriber {
        /// The name.
        name: String,
    },
    /// There is no such subscriber.
    #[error("CD0279: there is no subscriber `{name}`; `cofferdam events subscribers` lists them")]
    NoSubscriber {
        /// The name.
        name: String,
    },
    /// Events were let go before a subscriber came to them.
    #[error(
        "CD0280: subscriber `{name}` came too late for {missed} events, which are not kept any more; it goes on with the oldest that is: keep more with `keep` in [events], or read faster"
    )]
    Lagged {
        /// The subscriber.
        name: String,
        /// How many.
        missed: u64,
    },
    /// A workflow waits for events that nobody publishes.
    #[error(
        "CD0281: workflow {workflow} waits for `{kind}`, and runs publish no such events: set `lifecycle = \"{wanted}\"` in [events]"
    )]
    NoLifecycle {
        /// The workflow.
        workflow: String,
        /// The type of event.
        kind: String,
        /// What has to be set.
        wanted: &'static str,
    },
    /// There is no such schedule.
    #[error("CD0282: there is no schedule `{name}`; `cofferdam schedules list` lists them")]
    NoSchedule {
        /// The name.
        name: String,
    },
    /// A panic in this program stopped a run.
    #[error(
        "CD0275: a defect of this program stopped run `{run}`; nothing that was acknowledged is lost, and \
         the run goes on when the runtime is opened again; please report what the log says of it"
    )]
    Defect {
        /// The run.
        run: String,
    },
    /// The runtime is shutting down.
    #[error("CD0258: the runtime is shutting down; what was begun goes on when it is opened again")]
    ShuttingDown,
}

impl Error {
    /// What kind of failure this is, for exit codes and for callers that retry.
    pub fn class(&self) -> Class {
        match self {
            Self::Config(_)
            | Self::Workflow(_)
            | Self::Binding { .. }
            | Self::Host { .. }
            | Self::Read { .. }
            | Self::RunId { .. }
            | Self::ControlPath { .. }
            | Self::Purge { .. }
            | Self::StartOption { .. }
            | Self::NoConnection { .. }
            | Self::Event(_)
            | Self::Subscriber { .. }
            | Self::NoLifecycle { .. }
            | Self::Input { .. } => Class::InvalidInput,
            Self::OtherRun { .. }
            | Self::UnfitDecision { .. }
            | Self::TakenBack { .. }
            | Self::WrongState { .. }
            | Self::Undone { .. }
            | Self::NoWayOn { .. }
            | Self::Pruned { .. }
            | Self::KeyConflict { .. }
            | Self::Exists { .. }
            | Self::Carry { .. }
            | Self::Incompatible { .. }
            | Self::OnTrial { .. }
            | Self::NoTrial { .. }
            | Self::NothingBefore { .. }
            | Self::Same { .. } => Class::Conflict,
            Self::CheckFailed { .. } => Class::Refused,
            Self::Remote { class, .. } => *class,
            Self::PurgeStopped { why, .. } => why.class(),

            Self::Store { source } => source.class(),
            Self::Row { .. }
            | Self::Payload { .. }
            | Self::Journal { .. }
            | Self::Checkpoint { .. }
            | Self::Encode { .. }
            | Self::Kept { .. }
            | Self::Control { .. }
            | Self::Defect { .. }
            | Self::Shelf { .. } => Class::Internal,
            Self::AnswerSize { .. } => Class::Unsupported,
            Self::Lagged { .. } => Class::Other,
            Self::NoTask { .. }
            | Self::NoSubscriber { .. }
            | Self::NoSchedule { .. }
            | Self::NoDeadLetter { .. }
            | Self::NoRun { .. }
            | Self::NoReview { .. }
            | Self::UnknownConnection { .. } => Class::NotFound,
            Self::Stopped { .. } | Self::Unanswered { .. } | Self::ShuttingDown => {
                Class::Unavailable
            }
        }
    }

    /// What a program may want to know besides, as an object: the runs that were `removed` and those
    /// that were `kept`.
    pub fn details(&self) -> Option<Value> {
        match self {
            Self::PurgeStopped { removed, kept, .. } => {
                Some(json!({"removed": removed, "kept": kept}))
            }
            Self::Remote { details, .. } => details.clone(),
            _ => None,
        }
    }

    /// Whether another process has the store open.
    pub fn is_in_use(&self) -> bool {
        matches!(
            self,
            Self::Store {
                source: cofferdam_store::Error::InUse { .. }
            }
        )
    }

    /// Whether the store is the reason.
    pub fn is_storage(&self) -> bool {
        match self {
            Self::Store { .. }
            | Self::Row { .. }
            | Self::Payload { .. }
            | Self::Journal { .. }
            | Self::Checkpoint { .. }
            | Self::Shelf { .. } => true,
            Self::Stopped { is_storage, .. } | Self::Remote { is_storage, .. } => *is_storage,
            Self::PurgeStopped { why, .. } => why.is_storage(),
            _ => false,
        }
    }
}
