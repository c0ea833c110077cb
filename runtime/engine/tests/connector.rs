//! Connections that code of the embedding program serves, for its own tests and simulations.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cofferdam::{
    Call, Clock, Config, Connection, Connector, Descriptor, Effect, EffectState, Error, Failure,
    Health, Rng, Runtime, StartOptions, Status, Swap,
};
use cofferdam_host::Limits;
use serde_json::{Value, json};

use common::{descriptor, healthy, sources};

/// Doubles `n`; hangs if it is told to.
#[derive(Default)]
struct Doubler {
    calls: AtomicU32,
    begun: Mutex<Vec<tokio::time::Instant>>,
}

#[async_trait]
impl Connector for Doubler {
    fn descriptor(&self) -> Descriptor {
        descriptor("doubler", &[("double", Effect::Idempotent)])
    }

    async fn invoke(&self, call: Call) -> Result<Value, Failure> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.begun
            .lock()
            .expect("no panic")
            .push(tokio::time::Instant::now());
        let takes_s = call.input["takesS"].as_u64().unwrap_or_default();
        tokio::time::sleep(Duration::from_secs(takes_s)).await;
        if call.input["hang"] == json!(true) {
            std::future::pending::<()>().await;
        }
        Ok(json!({"n": call.input["n"].as_i64().unwrap_or_default() * 2}))
    }

    async fn lookup(&self, _: &str, _: &str) -> Result<Option<Value>, Failure> {
        Ok(None)
    }

    async fn check(&self) -> Result<Health, Failure> {
        Ok(healthy())
    }
}

fn config() -> Config {
    let connection = Connection::new("sum", "no-such-plugin")
        .with_timeouts(Duration::from_millis(20), Duration::from_millis(20))
        .with_on_outage(cofferdam::OnOutage::Fail);
    Config::new().with_connection(connection)
}

#[tokio::test]
async fn code_of_the_program_serves_a_connection() {
    let doubler = Arc::new(Doubler::default());
    let runtime = Runtime::builder(config())
        .connector("sum", doubler.clone())
        .open()
        .await
        .unwrap();
    let task = "  - a: {call: sum.double, with: {n: 21}}\n";
    let definition = runtime.define(&sources(task)).unwrap();
    let run = runtime.start(&definition, json!({})).await.unwrap();
    let view = runtime.wait(&run).await.unwrap();
    assert_eq!(view.output.as_deref(), Some(&json!({"n": 42})));
    assert_eq!(doubler.calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn code_that_hangs_is_given_up_at_the_deadline_with_an_unknown_outcome() {
    let runtime = Runtime::builder(config())
        .connector("sum", Arc::new(Doubler::default()))
        .open()
        .await
        .unwrap();
    let task = "  - a: {call: sum.double, with: {hang: true}}\n";
    let definition = runtime.define(&sources(task)).unwrap();
    let run = runtime.start(&definition, json!({})).await.unwrap();
    let view = runtime.wait(&run).await.unwrap();
    assert_eq!(view.status, Status::Faulted);
    let failure = view.tasks[0].attempts[0].failure.as_ref().unwrap();
    assert_eq!(
        (failure.code.as_str(), failure.effect),
        ("timeout", EffectState::Unknown)
    );
}

#[tokio::test]
async fn a_call_that_is_given_up_names_the_key_that_gave_it_its_time() {
    let all = Duration::from_mins(1);
    for (limit, told) in [
        (
            all,
            "no answer within 20ms: that is `timeout.start-to-close` of the connection, or `startToClose` of the task",
        ),
        // The connection's own limit is not the engine's to explain.
        (Duration::from_millis(10), "no answer within 10ms"),
    ] {
        let limits = Limits {
            timeout: limit,
            ..Limits::default()
        };
        let connection = Connection::new("sum", "no-such-plugin")
            .with_timeouts(Duration::from_millis(20), all)
            .with_on_outage(cofferdam::OnOutage::Fail)
            .with_limits(limits);
        let runtime = Runtime::builder(Config::new().with_connection(connection))
            .connector("sum", Arc::new(Doubler::default()))
            .open()
            .await
            .unwrap();
        let task = "  - a: {call: sum.double, with: {hang: true}, metadata: {cofferdam: {attempts: 1, onExhausted: fault}}}\n";
        let definition = runtime.define(&sources(task)).unwrap();
        let run = runtime.start(&definition, json!({})).await.unwrap();
        let view = runtime.wait(&run).await.unwrap();
        let failure = view.tasks[0].attempts[0].failure.as_ref().unwrap();
        assert_eq!(failure.message, told);
    }
}

#[tokio::test]
async fn a_connector_for_no_connection_is_refused() {
    let opened = Runtime::builder(config())
        .connector("som", Arc::new(Doubler::default()))
        .open()
        .await;
    assert!(matches!(
        opened.err(),
        Some(Error::UnknownConnection { connection }) if connection == "som"
    ));
}

#[tokio::test]
async fn a_connection_that_the_program_serves_cannot_be_swapped() {
    let runtime = Runtime::builder(config())
        .connector("sum", Arc::new(Doubler::default()))
        .open()
        .await
        .unwrap();
    let swap = Swap {
        artifact: "plugin.wasm".into(),
        canary: None,
        force: true,
    };
    let refused = runtime.swap("sum", swap).await.unwrap_err();
    assert!(
        refused.to_string().contains("code of the program"),
        "{refused}"
    );
}

#[tokio::test]
async fn ids_and_instants_come_from_the_clock_and_the_dice_that_were_given() {
    let mut made = Vec::new();
    for _ in 0..2 {
        let runtime = Runtime::builder(Config::new())
            .clock(Clock::tokio(86_400_000))
            .rng(Rng::seeded(7))
            .open()
            .await
            .unwrap();
        let definition = runtime.define(&sources("  - a: {set: {n: 1}}\n")).unwrap();
        let options = StartOptions::default();
        let run = runtime
            .start_with(&definition, json!({}), options)
            .await
            .unwrap();
        let row = runtime.query().runs(None, 1).unwrap().remove(0);
        assert!((86_400_000..172_800_000).contains(&row.begun_ms), "{row:?}");
        made.push(run[10..].to_owned());
    }
    assert_eq!(made[0], made[1]);
}

/// A connection with this rate limit.
async fn limited(rate: &str) -> (Runtime, Arc<Doubler>) {
    let text = format!("[connections.sum]\nplugin = 'none'\nrate-limit = {rate}\n");
    let config =
        Config::parse(&text, "test.toml", std::path::Path::new(".")).expect("a configuration");
    let doubler = Arc::new(Doubler::default());
    let builder = Runtime::builder(config).connector("sum", doubler.clone());
    let opened = builder.clock(Clock::tokio(1_000)).open().await;
    (opened.expect("it opens"), doubler)
}

#[tokio::test(start_paused = true)]
async fn calls_that_come_too_soon_wait_for_their_turn_and_use_up_no_attempt() {
    let (runtime, doubler) =
        limited("{ calls = 10, per = '1s', burst = 1, max-wait = '5s' }").await;
    let task = "  - all:\n      for: {in: \"${ [1, 2, 3, 4, 5, 6] }\"}\n      \
        metadata: {cofferdam: {maxConcurrency: 6}}\n      \
        do:\n        - a: {call: sum.double, with: {n: \"${ $item }\"}}\n";
    let definition = runtime.define(&sources(task)).unwrap();
    let begun = tokio::time::Instant::now();
    let run = runtime.start(&definition, json!({})).await.unwrap();
    let view = runtime.wait(&run).await.unwrap();
    assert_eq!(view.status, Status::Completed);
    // The clock is a virtual one: the first goes at once, and the others one after the other.
    assert!(begun.elapsed() >= Duration::from_millis(500));
    assert_eq!(doubler.calls.load(Ordering::Relaxed), 6);
    assert!(view.tasks.iter().all(|task| task.attempts.len() <= 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_turn_does_not_come_is_turned_away_and_held_nothing_meanwhile() {
    let (runtime, doubler) = limited("{ calls = 1, per = '1h', max-wait = '10s' }").await;
    let task = "  - a: {call: sum.double, with: {n: 1}}\n";
    let definition = runtime.define(&sources(task)).unwrap();
    let start = async || runtime.start(&definition, json!({})).await.unwrap();
    let begun = tokio::time::Instant::now();
    let first = runtime.wait(&start().await).await.unwrap();
    assert_eq!(first.status, Status::Completed);
    let (waits, cancelled) = (start().await, start().await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    for run in [&waits, &cancelled] {
        assert_eq!(runtime.run(run).unwrap().status, Status::Running);
    }
    let state = runtime.connections().remove(0);
    assert_eq!((state.in_flight, state.queued), (0, 0));
    runtime.cancel(&cancelled, None, false).await.unwrap();
    let view = runtime.wait(&waits).await.unwrap();
    let failure = view.tasks[0].attempts[0].failure.as_ref().unwrap();
    assert_eq!(failure.code, "limit.rate");
    assert!(failure.retry_after_ms.is_some_and(|ms| ms > 3_000_000));
    // Its next attempt comes when it was told to.
    assert_eq!(
        (view.status, view.tasks[0].attempts.len()),
        (Status::Completed, 2)
    );
    assert!(begun.elapsed() >= Duration::from_hours(1));
    assert_eq!(doubler.calls.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn calls_that_waited_for_a_place_do_not_leave_all_at_once() {
    let rate = "{ calls = 1, per = '1s', burst = 1, max-wait = '1m' }\nlimits.concurrency = 2";
    let (runtime, doubler) = limited(rate).await;
    let task = "  - all:\n      for: {in: \"${ [10, 10, 0, 0, 0, 0, 0, 0] }\"}\n      \
        metadata: {cofferdam: {maxConcurrency: 8}}\n      \
        do:\n        - a: {call: sum.double, with: {takesS: \"${ $item }\"}}\n";
    let definition = runtime.define(&sources(task)).unwrap();
    let run = runtime.start(&definition, json!({})).await.unwrap();
    assert_eq!(runtime.wait(&run).await.unwrap().status, Status::Completed);
    let begun = doubler.begun.lock().unwrap().clone();
    assert_eq!(begun.len(), 8);
    for two in begun.windows(2) {
        assert!(two[1] - two[0] >= Duration::from_millis(999), "{begun:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_gone_leaves_the_line() {
    let (runtime, doubler) = limited("{ calls = 1, per = '1h', max-wait = '1h' }").await;
    let task = "  - a: {call: sum.double, with: {n: 1}}\n  - b:\n      try:\n        \
        - c: {call: sum.double, with: {n: 2}, timeout: {after: PT5S}}\n      \
        catch: {do: [{w: {wait: {minutes: 10}}}]}\n";
    let definition = runtime.define(&sources(task)).unwrap();
    let run = runtime.start(&definition, json!({})).await.unwrap();
    // A run that still had a call in the line could not be set aside.
    assert_eq!(runtime.settle(&run).await.unwrap().status, Status::Waiting);
    assert_eq!(runtime.active_runs(), 0);
    assert_eq!(doubler.calls.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_turn_or_a_place_ends_with_the_time_of_all_attempts() {
    for limits in [
        "{ calls = 1, per = '1h', max-wait = '1h' }",
        "{ calls = 100, per = '1s' }\nlimits.concurrency = 1\nbulkhead = { queue = 9, max-wait = '1h' }",
    ] {
        let (runtime, doubler) = limited(limits).await;
        let first = runtime.define(&sources(
            "  - a: {call: sum.double, with: {n: 1, takesS: 20}}\n",
        ));
        let first = runtime.start(&first.unwrap(), json!({})).await.unwrap();
        while doubler.calls.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let task = "  - a:\n      call: sum.double\n      with: {n: 2}\n      \
            metadata: {cofferdam: {onOutage: fail, timeout: {scheduleToClose: PT5S}}}\n";
        let definition = runtime.define(&sources(task)).unwrap();
        let begun = tokio::time::Instant::now();
        let run = runtime.start(&definition, json!({})).await.unwrap();
        let view = runtime.wait(&run).await.unwrap();
        let took = begun.elapsed();
        assert!((5..6).contains(&took.as_secs()), "{limits}: {took:?}");
        let details = view.error.unwrap().cofferdam.unwrap();
        assert_eq!(details.code, "timeout.schedule-to-close");
        assert_eq!(view.tasks[0].attempts.len(), 0);
        // Whose turn it was is not kept from it.
        let first = runtime.wait(&first).await.unwrap();
        assert_eq!(first.status, Status::Completed);
        assert_eq!(doubler.calls.load(Ordering::Relaxed), 1);
    }
}
