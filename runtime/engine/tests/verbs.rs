//! What people do with runs, with a restart in between: cancel, suspend, resume, restart, fork,
//! redrive, and starting under a key.

#![allow(clippy::unwrap_used, reason = "a test whose stage cannot be set fails")]

mod common;

use std::sync::Arc;

use cofferdam::{
    Config, Definition, Error, LetterFilter, OnConflict, RunView, Runtime, StartOptions, Status,
};
use cofferdam_store::{JournalStore, MemoryStore};
use serde_json::{Value, json};

use common::sources;

const WAIT: &str = "  - w: {wait: {hours: 1}}\n  - a: {set: {woken: true}}\n";
/// Publishes an event, then faults unless `n` is at least zero.
const PICKY: &str = "  - tell: {emit: {event: {with: {source: \"https://example.com/t\", type: com.example.seen, data: {n: \"${ .n }\"}}}}}\n  - check: {if: \"${ .n < 0 }\", raise: {error: {type: \"https://example.com/errors/negative\", status: 400, detail: no}}}\n  - done: {set: {n: \"${ .n }\"}}\n";

struct Stage {
    store: Arc<dyn JournalStore>,
    runtime: Runtime,
}

impl Stage {
    async fn new() -> Self {
        let store: Arc<dyn JournalStore> = Arc::new(MemoryStore::new());
        let runtime = open(&store).await;
        Self { store, runtime }
    }

    /// The process ends, and another one begins.
    async fn restarted(self) -> Self {
        self.runtime.shutdown().await;
        let runtime = open(&self.store).await;
        Self { runtime, ..self }
    }

    fn define(&self, tasks: &str) -> Definition {
        self.runtime.define(&sources(tasks)).unwrap()
    }

    async fn start(&self, tasks: &str, input: Value) -> String {
        let definition = self.define(tasks);
        self.runtime.start(&definition, input).await.unwrap()
    }

    async fn start_with(
        &self,
        tasks: &str,
        input: Value,
        options: StartOptions,
    ) -> Result<String, Error> {
        let definition = self.define(tasks);
        self.runtime.start_with(&definition, input, options).await
    }

    async fn ended(&self, run: &str) -> RunView {
        self.runtime.wait(run).await.unwrap()
    }

    async fn settled(&self, run: &str) -> Status {
        self.runtime.settle(run).await.unwrap().status
    }

    async fn faulted(&self, n: i64) -> String {
        let run = self.start(PICKY, json!({"n": n})).await;
        assert_eq!(self.ended(&run).await.status, Status::Faulted);
        run
    }

    fn events(&self) -> usize {
        self.runtime.query().events().unwrap().len()
    }

    fn letters(&self) -> Vec<String> {
        let letters = self.runtime.query().dead_letters().unwrap();
        letters.into_iter().map(|letter| letter.run).collect()
    }
}

async fn open(store: &Arc<dyn JournalStore>) -> Runtime {
    Runtime::builder(Config::new())
        .store(Arc::clone(store))
        .open()
        .await
        .unwrap()
}

fn key(key: &str, on_conflict: OnConflict) -> StartOptions {
    StartOptions {
        key: Some(key.to_owned()),
        on_conflict,
        ..StartOptions::default()
    }
}

#[tokio::test]
async fn a_cancelled_run_stays_cancelled_and_says_why() {
    let stage = Stage::new().await;
    let run = stage.start(WAIT, json!({})).await;
    assert_eq!(stage.settled(&run).await, Status::Waiting);
    let why = || Some("not needed".to_owned());
    stage.runtime.cancel(&run, why(), false).await.unwrap();
    let stage = stage.restarted().await;
    let view = stage.ended(&run).await;
    assert_eq!(view.status, Status::Cancelled);
    assert_eq!(view.cancelled.unwrap().reason, why());
    // Again does no harm; another end is refused.
    stage.runtime.cancel(&run, None, false).await.unwrap();
    let refused = stage.runtime.suspend(&run, None).await.unwrap_err();
    assert!(refused.to_string().contains("CD0220"), "{refused}");
    assert!(stage.letters().is_empty());
    stage.runtime.shutdown().await;
}

#[tokio::test]
async fn a_run_that_is_not_there_is_told_by_every_verb() {
    let stage = Stage::new().await;
    let runtime = &stage.runtime;
    let told = [
        runtime.cancel("x", None, false).await.unwrap_err(),
        runtime.suspend("x", None).await.unwrap_err(),
        runtime.resume("x").await.unwrap_err(),
        runtime.redrive("x", None).await.unwrap_err(),
        runtime.restart("x", None, None).await.unwrap_err(),
        runtime.fork("x", "/a", None).await.unwrap_err(),
    ];
    for error in told {
        assert!(matches!(error, Error::NoRun { .. }), "{error}");
    }
    let error = runtime.discard("x").await.unwrap_err();
    assert!(matches!(error, Error::NoDeadLetter { .. }), "{error}");
}

#[tokio::test]
async fn a_suspended_run_stays_so_over_a_restart_although_its_timer_is_due() {
    let stage = Stage::new().await;
    let tasks = "  - w: {wait: {milliseconds: 1}}\n  - a: {set: {woken: true}}\n";
    let definition = stage.define(tasks);
    let slow = stage.start(WAIT, json!({})).await;
    assert_eq!(stage.settled(&slow).await, Status::Waiting);
    stage.runtime.suspend(&slow, None).await.unwrap();
    assert_eq!(stage.settled(&slow).await, Status::Suspended);
    // One that is suspended in the queue begins nothing when its turn comes.
    let options = StartOptions {
        concurrency_key: Some("one".into()),
        ..StartOptions::default()
    };
    let first = stage.start_with(WAIT, json!({}), options.clone()).await;
    let first = first.unwrap();
    let run = stage.runtime.start_with(&definition, json!({}), options);
    let run = run.await.unwrap();
    let why = Some("audit".to_owned());
    stage.runtime.suspend(&run, why.clone()).await.unwrap();
    stage.runtime.suspend(&run, None).await.unwrap();
    let stage = stage.restarted().await;
    stage.runtime.cancel(&first, None, false).await.unwrap();
    assert_eq!(stage.settled(&run).await, Status::Suspended);
    let view = stage.runtime.run(&run).unwrap();
    assert_eq!(view.suspended.unwrap().reason, why);
    assert_eq!(
        stage
            .runtime
            .query()
            .runs(Some(Status::Suspended), 9)
            .unwrap()
            .len(),
        2
    );
    stage.runtime.resume(&run).await.unwrap();
    assert_eq!(
        stage.ended(&run).await.output.as_deref(),
        Some(&json!({"woken": true}))
    );
    assert_eq!(stage.settled(&slow).await, Status::Suspended);
    stage.runtime.shutdown().await;
}

#[tokio::test]
async fn a_dead_letter_is_put_right_and_redriven_without_repeating_what_was_finished() {
    let stage = Stage::new().await;
    let run = stage.faulted(-1).await;
    let letter = stage.runtime.query().dead_letter(&run).unwrap();
    assert_eq!(letter.task.as_deref(), Some("/check"));
    assert_eq!(letter.task_input, Some(json!({"n": -1})));
    assert_eq!(stage.events(), 1);
    // With what it had it fails again, and is a dead letter again.
    stage.runtime.redrive(&run, None).await.unwrap();
    let stage = stage.restarted().await;
    assert_eq!(stage.ended(&run).await.status, Status::Faulted);
    assert_eq!(stage.letters(), [run.as_str()]);
    let input = Some(json!({"n": 3}));
    stage.runtime.redrive(&run, input).await.unwrap();
    let view = stage.ended(&run).await;
    assert_eq!(view.output.as_deref(), Some(&json!({"n": 3})));
    assert_eq!((stage.events(), view.redriven), (1, 2));
    assert!(stage.letters().is_empty());
    let refused = stage.runtime.redrive(&run, None).await.unwrap_err();
    assert!(refused.to_string().contains("restart"), "{refused}");
    stage.runtime.shutdown().await;
}

#[tokio::test]
async fn dead_letters_are_redriven_in_bulk_and_discarded() {
    let stage = Stage::new().await;
    let runs = [stage.faulted(-1).await, stage.faulted(-2).await];
    let other =
        "  - no: {raise: {error: {type: \"https://example.com/errors/other\", status: 500}}}\n";
    let odd = stage.start(other, json!({})).await;
    stage.ended(&odd).await;
    let filter = LetterFilter {
        workflow: Some("t/t".into()),
        error: Some("negative".into()),
        tenant: None,
    };
    let done = stage.runtime.redrive_all(&filter, 1).await.unwrap();
    assert_eq!(
        (done.len(), &done[0].run, &done[0].error),
        (1, &runs[0], &None)
    );
    stage.ended(&runs[0]).await;
    assert_eq!(
        stage.runtime.redrive_all(&filter, 9).await.unwrap().len(),
        2
    );
    for run in &runs {
        assert_eq!(stage.ended(run).await.status, Status::Faulted);
    }
    stage.runtime.discard(&odd).await.unwrap();
    assert!(!stage.letters().contains(&odd));
    assert_eq!(stage.runtime.run(&odd).unwrap().status, Status::Faulted);
    stage.runtime.shutdown().await;
}

#[tokio::test]
async fn a_restart_is_another_run_with_the_same_input() {
    let stage = Stage::new().await;
    let run = stage.faulted(-1).await;
    let id = Some("again".to_owned());
    let again = stage.runtime.restart(&run, None, id).await.unwrap();
    assert_eq!(stage.ended(&again).await.status, Status::Faulted);
    let newer = stage.define("  - done: {set: {was: \"${ .n }\"}}\n");
    let newer = stage.runtime.restart(&run, Some(&newer), None).await;
    let view = stage.ended(&newer.unwrap()).await;
    assert_eq!(view.output.as_deref(), Some(&json!({"was": -1})));
    assert_eq!(stage.events(), 2);
    let waits = stage.start(WAIT, json!({})).await;
    let refused = stage.runtime.restart(&waits, None, None).await.unwrap_err();
    assert!(refused.to_string().contains("runs cancel"), "{refused}");
    stage.runtime.shutdown().await;
}

#[tokio::test]
async fn a_fork_takes_over_what_was_finished_before_its_task() {
    let stage = Stage::new().await;
    let run = stage.start(PICKY, json!({"n": 1})).await;
    stage.ended(&run).await;
    let fork = stage.runtime.fork(&run, "/check", None).await.unwrap();
    let stage = stage.restarted().await;
    let view = stage.ended(&fork).await;
    assert_eq!(view.output.as_deref(), Some(&json!({"n": 1})));
    assert_eq!(view.forked_from.unwrap().run, run);
    assert_eq!(view.tasks[0].taken_from.as_deref(), Some(run.as_str()));
    assert_eq!(stage.events(), 1, "published once");
    let absent = stage.runtime.fork(&run, "/nowhere", None).await;
    assert!(matches!(absent, Err(Error::NoTask { .. })), "{absent:?}");
    let taken = stage.runtime.fork(&run, "/check", Some(fork)).await;
    assert!(matches!(taken, Err(Error::Exists { .. })), "{taken:?}");
    let bad = stage.runtime.fork(&run, "/check", Some("a/b".into())).await;
    assert!(matches!(bad, Err(Error::RunId { .. })), "{bad:?}");
    stage.runtime.shutdown().await;
}

#[tokio::test]
async fn starts_with_one_key_are_one_run_and_want_one_input() {
    let stage = Stage::new().await;
    let use_existing = || key("order-7", OnConflict::UseExisting);
    let input = json!({"a": 1, "b": {"c": 2, "d": 3}});
    let run = stage.start_with(WAIT, input.clone(), use_existing()).await;
    let run = run.unwrap();
    let stage = stage.restarted().await;
    let reordered = json!({"b": {"d": 3, "c": 2}, "a": 1});
    let again = stage.start_with(WAIT, reordered, use_existing()).await;
    assert_eq!(again.unwrap(), run);
    let other = stage
        .start_with(WAIT, json!({"a": 2}), use_existing())
        .await;
    assert!(matches!(other, Err(Error::KeyConflict { .. })), "{other:?}");
    let fails = stage.start_with(WAIT, input.clone(), key("order-7", OnConflict::Fail));
    let fails = fails.await;
    assert!(matches!(fails, Err(Error::Exists { .. })), "{fails:?}");
    let tenant = StartOptions {
        tenant: "acme".into(),
        ..use_existing()
    };
    let tenants = stage.start_with(WAIT, input, tenant).await.unwrap();
    assert_ne!(tenants, run, "another tenant's key is another key");
    stage.runtime.shutdown().await;
}

#[tokio::test]
async fn many_starts_with_one_key_make_one_run() {
    let stage = Stage::new().await;
    let definition = stage.define(WAIT);
    let starts = (0..20).map(|_| {
        let options = key("order-8", OnConflict::UseExisting);
        stage
            .runtime
            .start_with(&definition, json!({"n": 1}), options)
    });
    let runs = futures::future::join_all(starts).await;
    let first = runs[0].as_ref().unwrap();
    assert!(runs.iter().all(|run| run.as_ref().unwrap() == first));
    let starts = (0..20).map(|_| {
        let options = key("order-9", OnConflict::Fail);
        stage
            .runtime
            .start_with(&definition, json!({"n": 1}), options)
    });
    let runs = futures::future::join_all(starts).await;
    assert_eq!(runs.iter().filter(|run| run.is_ok()).count(), 1);
    assert_eq!(stage.runtime.query().runs(None, 99).unwrap().len(), 2);
    stage.runtime.shutdown().await;
}

#[tokio::test]
async fn a_key_is_used_again_where_that_is_asked_for() {
    let stage = Stage::new().await;
    let start = |n: i64, on_conflict| {
        stage.start_with(PICKY, json!({"n": n}), key(&format!("k{n}"), on_conflict))
    };
    let faulted = start(-1, OnConflict::UseExisting).await.unwrap();
    stage.ended(&faulted).await;
    let second = start(-1, OnConflict::RestartIfFaulted).await.unwrap();
    assert_eq!(second, format!("{faulted}.2"));
    stage.ended(&second).await;
    assert_eq!(start(-1, OnConflict::UseExisting).await.unwrap(), second);
    let fine = start(1, OnConflict::UseExisting).await.unwrap();
    stage.ended(&fine).await;
    assert_eq!(start(1, OnConflict::RestartIfFaulted).await.unwrap(), fine);
    assert_ne!(start(1, OnConflict::RestartIfEnded).await.unwrap(), fine);
    stage.runtime.shutdown().await;
}

#[tokio::test]
async fn options_that_cannot_be_are_refused_with_what_to_write() {
    let stage = Stage::new().await;
    let options = StartOptions::default;
    let bad = [
        StartOptions {
            id: Some("a".into()),
            key: Some("b".into()),
            ..options()
        },
        StartOptions {
            key: Some(String::new()),
            ..options()
        },
        StartOptions {
            key: Some("x".repeat(513)),
            ..options()
        },
        StartOptions {
            id: Some("a".into()),
            on_conflict: OnConflict::RestartIfEnded,
            ..options()
        },
        StartOptions {
            tenant: "a b".into(),
            ..options()
        },
        StartOptions {
            concurrency_key: Some("a\0b".into()),
            ..options()
        },
        StartOptions {
            priority: Some(10),
            ..options()
        },
    ];
    for options in bad {
        let refused = stage.start_with(WAIT, json!({}), options.clone()).await;
        assert!(
            matches!(refused, Err(Error::StartOption { .. })),
            "{options:?}: {refused:?}"
        );
    }
    assert!(stage.runtime.query().runs(None, 9).unwrap().is_empty());
}
