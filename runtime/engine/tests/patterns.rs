//! What stands in for an answer, second attempts, checks and reviews, through a whole runtime, with
//! restarts in between, at which the test sets the clock on.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cofferdam::{
    Call, Class, Clock, Config, Connection, Connector, Decision, Descriptor, Effect, EffectState,
    Error, Failure, Health, Provenance, RunView, Runtime, Status,
};
use cofferdam_store::{JournalStore, KeyRange, MemoryStore, Table};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use common::{descriptor, healthy, sources};

/// Answers what the test has put down, in order; then `{"n": <calls so far>}`.
#[derive(Default)]
struct Script {
    calls: Mutex<Vec<Call>>,
    /// How many calls came to an end by themselves.
    ended: AtomicUsize,
    answers: Mutex<Vec<Answer>>,
    /// Lets calls that are held go.
    released: Notify,
}

enum Answer {
    Now(Result<Value, Failure>),
    /// After so long.
    After(Duration, Value),
    /// When the test releases it.
    Held,
}

impl Script {
    /// What the next calls answer.
    fn then(&self, answers: impl IntoIterator<Item = Answer>) {
        self.answers.lock().extend(answers);
    }

    fn called(&self) -> Vec<String> {
        let calls = self.calls.lock();
        calls.iter().map(|call| call.action.clone()).collect()
    }
}

#[async_trait]
impl Connector for Script {
    fn descriptor(&self) -> Descriptor {
        let actions = [
            ("read", Effect::Read),
            ("keep", Effect::Idempotent),
            ("pay", Effect::Once),
            ("undo", Effect::Idempotent),
        ];
        descriptor("script", &actions)
    }

    async fn invoke(&self, call: Call) -> Result<Value, Failure> {
        let number = {
            let mut calls = self.calls.lock();
            calls.push(call);
            calls.len()
        };
        let answer = {
            let mut answers = self.answers.lock();
            (!answers.is_empty()).then(|| answers.remove(0))
        };
        let answer = match answer {
            None => Ok(json!({"n": number})),
            Some(Answer::Now(answer)) => answer,
            Some(Answer::After(time, answer)) => {
                tokio::time::sleep(time).await;
                Ok(answer)
            }
            Some(Answer::Held) => {
                self.released.notified().await;
                Ok(json!("held"))
            }
        };
        self.ended.fetch_add(1, Ordering::Relaxed);
        answer
    }

    async fn lookup(&self, _: &str, _: &str) -> Result<Option<Value>, Failure> {
        Ok(None)
    }

    async fn check(&self) -> Result<Health, Failure> {
        Ok(healthy())
    }
}

/// A store, connectors and a clock that outlive each runtime.
struct World {
    store: Arc<dyn JournalStore>,
    main: Arc<Script>,
    spare: Arc<Script>,
    clock: Clock,
}

impl World {
    fn new() -> Self {
        Self {
            store: Arc::new(MemoryStore::new()),
            main: Arc::default(),
            spare: Arc::default(),
            clock: Clock::tokio(86_400_000),
        }
    }

    async fn open_with(&self, main: Connection) -> Runtime {
        let config = Config::new()
            .with_connection(main)
            .with_connection(Connection::new("spare", "none"));
        Runtime::builder(config)
            .store(Arc::clone(&self.store))
            .connector("main", self.main.clone())
            .connector("spare", self.spare.clone())
            .clock(self.clock)
            .open()
            .await
            .unwrap()
    }

    async fn open(&self) -> Runtime {
        self.open_with(Connection::new("main", "none")).await
    }

    /// The next runtime is opened so much later.
    fn later(&mut self, time: Duration) {
        let now_ms = self.clock.now_ms();
        self.clock = Clock::tokio(now_ms + u64::try_from(time.as_millis()).unwrap());
    }

    fn kept(&self) -> usize {
        let rows = self.store.scan(Table::Cache, KeyRange::all(), 100);
        rows.unwrap().len()
    }
}

async fn begin(runtime: &Runtime, tasks: &str) -> String {
    let definition = runtime.define(&sources(tasks)).unwrap();
    runtime.start(&definition, json!({})).await.unwrap()
}

async fn play(runtime: &Runtime, tasks: &str) -> RunView {
    let run = begin(runtime, tasks).await;
    runtime.wait(&run).await.unwrap()
}

fn unavailable() -> Failure {
    Failure::new(Class::Unavailable, "down", "down")
}

fn down() -> Answer {
    Answer::Now(Err(unavailable()))
}

fn nobody_knows() -> Answer {
    Answer::Now(Err(unavailable().with_effect(EffectState::Unknown)))
}

const CACHED: &str = "  - a: {call: main.read, with: {id: 7}, metadata: {cofferdam: {attempts: 1, onOutage: fallback, fallback: [{cache: {maxAge: PT1H}}, {value: none}]}}}\n";

#[tokio::test]
async fn an_earlier_answer_stands_in_also_after_a_restart() {
    let mut world = World::new();
    let first = world.open().await;
    let live = play(&first, CACHED).await;
    assert_eq!(live.provenance["/a"], Provenance::Live);
    first.shutdown().await;
    world.later(Duration::from_mins(10));
    let second = world.open().await;
    world.main.then([down()]);
    let view = play(&second, CACHED).await;
    assert_eq!(view.output, live.output);
    assert!(matches!(
        view.provenance["/a"],
        Provenance::Stale { age_s: 600.. }
    ));
    assert!(view.degraded);
    // What was asked for is not in the store, only its hash.
    let rows = world.store.scan(Table::Cache, KeyRange::all(), 10).unwrap();
    let text = String::from_utf8_lossy(&rows[0].1).into_owned();
    assert!(!text.contains("id") && text.contains("\"n\":1"), "{text}");
    second.shutdown().await;
}

#[tokio::test]
async fn an_answer_to_another_input_or_an_old_one_is_none() {
    let mut world = World::new();
    let first = world.open().await;
    play(&first, CACHED).await;
    world.main.then([down(), down()]);
    let other = play(&first, &CACHED.replace("id: 7", "id: 8")).await;
    assert_eq!(other.provenance["/a"], Provenance::Default);
    first.shutdown().await;
    world.later(Duration::from_secs(3_601));
    let second = world.open().await;
    let old = play(&second, CACHED).await;
    assert_eq!(old.provenance["/a"], Provenance::Default);
    second.shutdown().await;
}

#[tokio::test]
async fn only_answers_that_somebody_wants_are_kept_and_no_more_than_allowed() {
    let world = World::new();
    let limits = cofferdam::AnswerLimits {
        entries_max: 2,
        ..cofferdam::AnswerLimits::default()
    };
    let main = Connection::new("main", "none").with_answer_limits(limits);
    let runtime = world.open_with(main).await;
    play(&runtime, "  - a: {call: main.read, with: {}}\n").await;
    assert_eq!(world.kept(), 0);
    for id in 0..5 {
        play(&runtime, &CACHED.replace("id: 7", &format!("id: {id}"))).await;
    }
    assert_eq!(world.kept(), 2);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_connection_can_keep_the_answers_of_all_that_read() {
    let world = World::new();
    let main = Connection::new("main", "none")
        .with_cache(Duration::from_mins(1))
        .with_on_outage(cofferdam::OnOutage::Fallback);
    let runtime = world.open_with(main).await;
    let task = "  - a: {call: main.read, with: {}, metadata: {cofferdam: {attempts: 1}}}\n";
    play(&runtime, task).await;
    world.main.then([down()]);
    let view = play(&runtime, task).await;
    assert!(matches!(view.provenance["/a"], Provenance::Stale { .. }));
    runtime.shutdown().await;
}

const HEDGED: &str = "  - a: {call: main.read, with: {}, metadata: {cofferdam: {hedge: PT0.02S, failover: [spare]}}}\n";

#[tokio::test]
async fn the_first_success_of_two_attempts_counts_and_the_slower_is_dropped() {
    let world = World::new();
    let runtime = world.open().await;
    world.main.then([Answer::Held]);
    let view = play(&runtime, HEDGED).await;
    assert_eq!(view.output.as_deref(), Some(&json!({"n": 1})));
    assert_eq!(view.provenance["/a"].to_string(), "backup:spare");
    let [first, second] = &view.tasks[0].attempts[..] else {
        panic!("{:?}", view.tasks)
    };
    assert!(first.dropped && second.hedge);
    // It was dropped where it was.
    runtime.shutdown().await;
    assert_eq!(world.main.ended.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn the_slower_of_two_attempts_is_dropped_while_its_run_goes_on() {
    let world = World::new();
    let main = Connection::new("main", "none").with_limits(cofferdam_host::Limits {
        concurrency_max: 1,
        ..cofferdam_host::Limits::default()
    });
    let runtime = world.open_with(main).await;
    world.main.then([Answer::Held]);
    // There is one place, which the second task gets only if the first attempt has left it.
    let tasks = HEDGED.to_owned() + "  - b: {call: main.read, with: {}}\n";
    let view = play(&runtime, &tasks).await;
    assert_eq!(view.output.as_deref(), Some(&json!({"n": 2})));
    // It left by being dropped: one that runs into its timeout counts as a failure.
    let states = runtime.connections();
    assert!(states.iter().all(|state| state.failures == 0), "{states:?}");
    runtime.shutdown().await;
}

#[tokio::test]
async fn an_attempt_that_ends_soon_gets_no_second_one() {
    let world = World::new();
    let runtime = world.open().await;
    let task = HEDGED.replace("PT0.02S", "PT1H");
    assert_eq!(play(&runtime, &task).await.tasks[0].attempts.len(), 1);
    assert_eq!(world.spare.called(), [""; 0]);
    runtime.shutdown().await;
}

#[tokio::test]
async fn second_attempts_are_at_most_a_tenth_of_the_calls_and_a_few_at_once() {
    let world = World::new();
    let runtime = world.open().await;
    let task = HEDGED.replace("PT0.02S, failover: [spare]", "PT0.001S");
    let slow = || Answer::After(Duration::from_millis(25), json!("slow"));
    let mut calls = 0;
    for _ in 0..60 {
        world.main.answers.lock().clear();
        world.main.then([slow(), slow()]);
        calls += play(&runtime, &task).await.tasks[0].attempts.len();
    }
    // Ten that were saved up, and one for ten calls.
    assert!((61..=76).contains(&calls), "{calls}");
    runtime.shutdown().await;
}

#[tokio::test]
async fn no_second_attempt_is_made_when_the_connection_has_enough_to_do() {
    let world = World::new();
    let main = Connection::new("main", "none").with_limits(cofferdam_host::Limits {
        concurrency_max: 1,
        ..cofferdam_host::Limits::default()
    });
    let runtime = world.open_with(main).await;
    let slow = Answer::After(Duration::from_millis(200), json!("slow"));
    world.main.then([slow]);
    let task = HEDGED.replace("PT0.02S, failover: [spare]", "PT0.001S");
    assert_eq!(play(&runtime, &task).await.tasks[0].attempts.len(), 1);
    runtime.shutdown().await;
}

#[tokio::test]
async fn two_attempts_that_a_crash_cuts_short_are_found_in_the_journal() {
    let world = World::new();
    let first = world.open().await;
    world.main.then([Answer::Held, Answer::Held]);
    let task = "  - a: {call: main.keep, with: {}, metadata: {cofferdam: {hedge: PT0.02S}}}\n";
    let run = begin(&first, task).await;
    while world.main.called().len() < 2 {
        tokio::task::yield_now().await;
    }
    let keys: Vec<_> = {
        let calls = world.main.calls.lock();
        calls.iter().map(|c| c.idempotency_key.clone()).collect()
    };
    assert_eq!(keys[0], keys[1]);
    // Both intents are on the disk; their outcomes are not.
    first.shutdown().await;
    let second = world.open().await;
    let view = second.wait(&run).await.unwrap();
    assert_eq!(view.status, Status::Completed);
    let ended: Vec<_> = view.tasks[0]
        .attempts
        .iter()
        .map(|a| a.ended_ms.is_some())
        .collect();
    assert_eq!(ended, [false, false, true]);
    second.shutdown().await;
}

#[tokio::test]
async fn a_hedge_on_an_action_that_hurts_when_repeated_is_refused_with_its_line() {
    let world = World::new();
    let runtime = world.open().await;
    let task = "  - a: {call: main.pay, with: {}, metadata: {cofferdam: {hedge: PT1S}}}\n";
    let refused = runtime.define(&sources(task)).unwrap_err().to_string();
    assert!(refused.contains("test.yaml:3: CD0250"), "{refused}");
    assert!(refused.contains("startToClose"), "{refused}");
    // The connection's own applies to what can be repeated, and to nothing else.
    let main = Connection::new("main", "none").with_hedge(Duration::from_millis(10));
    runtime.shutdown().await;
    let runtime = world.open_with(main).await;
    world
        .main
        .then([Answer::After(Duration::from_millis(100), json!(1))]);
    let view = play(&runtime, &task.replace("hedge: PT1S", "critical: true")).await;
    assert_eq!(view.tasks[0].attempts.len(), 1);
    runtime.shutdown().await;
}

#[tokio::test]
async fn what_a_fallback_did_is_undone_after_a_restart() {
    let mut world = World::new();
    let first = world.open().await;
    world.main.then([down()]);
    let tasks = "  - a: {call: main.pay, with: {}, metadata: {cofferdam: {onOutage: fallback, compensate: {call: undo, with: {}}, fallback: [{call: spare.pay}]}}}\n  - w: {wait: {seconds: 30}}\n  - x: {raise: {error: {type: \"https://example.com/x\", status: 500}}}\n";
    let run = begin(&first, tasks).await;
    assert_eq!(first.settle(&run).await.unwrap().status, Status::Waiting);
    first.shutdown().await;
    world.later(Duration::from_secs(30));
    let second = world.open().await;
    let view = second.wait(&run).await.unwrap();
    assert_eq!(view.status, Status::Faulted);
    assert_eq!(world.spare.called(), ["pay", "undo"]);
    assert_eq!(world.main.called(), ["pay"]);
    second.shutdown().await;
}

const CHECKED: &str =
    "  - a: {call: main.pay, with: {}, metadata: {cofferdam: {validate: .n > 5}}}\n";

#[tokio::test]
async fn an_output_that_does_not_pass_waits_for_a_person_over_a_restart() {
    let world = World::new();
    let first = world.open().await;
    let run = begin(&first, CHECKED).await;
    first.settle(&run).await.unwrap();
    first.shutdown().await;
    let second = world.open().await;
    let review = second.query().reviews().unwrap().remove(0);
    assert_eq!(review.output, Some(json!({"n": 1})));
    assert_eq!(review.failure.code, "output.validate");
    let refused = second.decide(&run, "/a", Decision::Retry).await;
    assert!(
        matches!(refused, Err(Error::UnfitDecision { .. })),
        "{refused:?}"
    );
    second.decide(&run, "/a", Decision::Accept).await.unwrap();
    let view = second.wait(&run).await.unwrap();
    assert_eq!(view.output.as_deref(), Some(&json!({"n": 1})));
    assert_eq!(view.provenance["/a"], Provenance::Live);
    assert_eq!(second.query().reviews().unwrap(), []);
    assert_eq!(world.main.called(), ["pay"]);
    second.shutdown().await;
}

#[tokio::test]
async fn what_a_person_knows_of_a_call_is_not_taken_back_by_what_is_decided_of_another() {
    let world = World::new();
    let runtime = world.open().await;
    let lost = Failure::new(Class::Timeout, "lost", "no answer").with_effect(EffectState::Unknown);
    world.main.then([Answer::Now(Err(lost))]);
    let call =
        "{call: main.pay, with: {}, metadata: {cofferdam: {idempotencyKey: '${ \"one\" }'}}}";
    let tasks = format!("  - f: {{fork: {{branches: [{{a: {call}}}, {{b: {call}}}]}}}}\n");
    let run = begin(&runtime, &tasks).await;
    runtime.settle(&run).await.unwrap();
    assert_eq!(runtime.query().reviews().unwrap().len(), 2);
    let approve = |n| Decision::Approve {
        output: json!({"n": n}),
    };
    runtime.decide(&run, "/f/a", approve(7)).await.unwrap();
    for denies in [Decision::Retry, approve(8)] {
        let refused = runtime.decide(&run, "/f/b", denies).await;
        assert!(
            matches!(refused, Err(Error::TakenBack { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(runtime.query().reviews().unwrap().len(), 1);
    runtime.decide(&run, "/f/b", approve(7)).await.unwrap();
    let view = runtime.wait(&run).await.unwrap();
    assert_eq!(view.output.as_deref(), Some(&json!([{"n": 7}, {"n": 7}])));
    assert_eq!(world.main.called(), ["pay"]);
    runtime.shutdown().await;
}

#[tokio::test]
async fn an_answer_of_a_person_says_so() {
    let world = World::new();
    let runtime = world.open().await;
    let run = begin(&runtime, CHECKED).await;
    runtime.settle(&run).await.unwrap();
    let output = json!({"n": 9});
    let answer = Decision::Answer { output };
    runtime.decide(&run, "/a", answer).await.unwrap();
    let view = runtime.wait(&run).await.unwrap();
    assert_eq!(view.output.as_deref(), Some(&json!({"n": 9})));
    assert_eq!(view.provenance["/a"], Provenance::Manual);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_review_goes_on_to_the_next_one_and_ends_at_its_deadline_while_nothing_runs() {
    let mut world = World::new();
    let first = world.open().await;
    world.main.then([nobody_knows(), nobody_knows()]);
    let task = |how: &str| {
        format!(
            "  - a: {{call: main.pay, with: {{}}, metadata: {{cofferdam: {{onUnknown: {{review: {{deadline: PT1H, {how}}}}}}}}}}}\n"
        )
    };
    let escalated = begin(&first, &task("escalateTo: head")).await;
    let rejected = begin(&first, &task("onDeadline: reject")).await;
    for run in [&escalated, &rejected] {
        first.settle(run).await.unwrap();
    }
    assert_eq!(first.active_runs(), 0);
    let reviews = first.query().reviews().unwrap();
    // The clock goes on between the step that asks and the row that is written.
    let hour_ms = 3_599_000..=3_600_000;
    assert!(
        reviews
            .iter()
            .all(|r| hour_ms.contains(&(r.due_ms.unwrap() - r.at_ms)))
    );
    first.shutdown().await;
    world.later(Duration::from_hours(1));
    let second = world.open().await;
    let view = second.wait(&rejected).await.unwrap();
    assert_eq!(view.status, Status::Faulted);
    // Its row says that it waits before its deadline is looked at, too.
    let review = loop {
        match &second.query().reviews().unwrap()[..] {
            [review] if review.escalations == 1 => break review.clone(),
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert_eq!(
        (&review.run, review.reviewer.as_deref()),
        (&escalated, Some("head"))
    );
    assert_eq!(review.due_ms, None);
    second.shutdown().await;
}

#[tokio::test]
async fn a_task_that_cannot_begin_in_time_uses_its_fallback_and_gives_its_place_back() {
    let world = World::new();
    let limits = cofferdam_host::Limits {
        concurrency_max: 1,
        ..cofferdam_host::Limits::default()
    };
    let main = Connection::new("main", "none").with_limits(limits);
    let runtime = world.open_with(main).await;
    world.main.then([Answer::Held]);
    let first = begin(&runtime, "  - a: {call: main.read, with: {}}\n").await;
    let task = "  - a: {call: main.read, with: {}, metadata: {cofferdam: {timeout: {scheduleToStart: PT0.05S}, fallback: [{value: none}]}}}\n";
    let view = play(&runtime, task).await;
    assert_eq!(view.provenance["/a"], Provenance::Default);
    world.main.released.notify_one();
    runtime.wait(&first).await.unwrap();
    assert_eq!(world.main.called(), ["read"]);
    runtime.shutdown().await;
}

#[tokio::test]
async fn an_attempt_gets_no_more_time_than_its_task_has() {
    let world = World::new();
    let runtime = world.open().await;
    let task = "  - a: {call: main.read, with: {}, metadata: {cofferdam: {timeout: {scheduleToClose: PT20S}}}}\n";
    play(&runtime, task).await;
    let timeout = world.main.calls.lock()[0].timeout;
    assert!(timeout <= Duration::from_secs(20), "{timeout:?}");
    runtime.shutdown().await;
}

#[tokio::test]
async fn credentials_that_are_not_accepted_park_the_task_until_they_are() {
    let world = World::new();
    let runtime = world.open().await;
    let failure = Failure::new(Class::Unauthenticated, "expired", "expired");
    world.main.then([Answer::Now(Err(failure))]);
    let run = begin(&runtime, "  - a: {call: main.pay, with: {}}\n").await;
    let view = runtime.wait(&run).await.unwrap();
    // The script's `check` is well: it is tried again as soon as the connection is.
    assert_eq!(view.status, Status::Completed);
    assert_eq!(view.tasks[0].attempts.len(), 2);
    runtime.shutdown().await;
}
