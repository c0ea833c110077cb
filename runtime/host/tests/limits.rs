//! Every limit has a guest that breaks it; the next call works, and so does the neighbour.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cofferdam_core::failure::{Class, EffectState, Failure};
use cofferdam_host::{Connection, ConnectionSpec, Host, HostOptions, KeyValue, Limits, Services};
use common::web::Web;
use common::{call, connect, fails, guest, host, services, unruly, unruly_spec, wat};
use serde_json::json;

/// Breaks a limit with a guest written by hand, and sees that the next call works.
async fn breaks(core: &str, body: &str, limits: Limits) -> Failure {
    let host = host();
    let plugin = host.load(wat::connector(core, body)).unwrap();
    let mut spec = ConnectionSpec::new("breaker");
    spec.limits = limits;
    let connection = connect(&plugin, spec);
    let (failure, _) = fails(&connection, call("go", json!({}))).await;
    assert_eq!(failure.effect, EffectState::None, "{failure}");
    let good = host.load(wat::connector("", "")).unwrap();
    let good = connect(&good, ConnectionSpec::new("good"));
    assert!(good.invoke(call("go", json!({}))).await.result.is_ok());
    assert!(
        connection.check().await.is_ok(),
        "the same connection works on"
    );
    failure
}

const SPIN: &str = "(loop $again (br $again))";

#[tokio::test]
async fn a_loop_is_cut_by_its_cpu_time() {
    let limits = Limits {
        cpu_time: Duration::from_millis(50),
        ..Limits::default()
    };
    let failure = breaks("", SPIN, limits).await;
    assert_eq!(
        (failure.class, failure.code.as_str()),
        (Class::Internal, "limit.cpu")
    );
}

#[tokio::test]
async fn a_loop_is_cut_by_its_fuel() {
    let limits = Limits {
        fuel: Some(1_000_000),
        ..Limits::default()
    };
    let failure = breaks("", SPIN, limits).await;
    assert_eq!(
        (failure.class, failure.code.as_str()),
        (Class::Internal, "limit.fuel")
    );
}

#[tokio::test]
async fn a_loop_is_cut_by_the_callers_deadline() {
    let plugin = host().load(wat::connector("", SPIN)).unwrap();
    let connection = connect(&plugin, ConnectionSpec::new("crm"));
    let mut call = call("go", json!({}));
    call.timeout = Duration::from_millis(60);
    let began = Instant::now();
    let (failure, outcome) = fails(&connection, call).await;
    assert_eq!(
        (failure.class, failure.code.as_str()),
        (Class::Timeout, "timeout")
    );
    assert_eq!(failure.effect, EffectState::None);
    // The host names the limit that it enforced: here the caller's, whose name the caller knows.
    assert_eq!(
        failure.message,
        "no answer within 60ms; the call was given 60ms"
    );
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(outcome.usage.wall >= Duration::from_millis(60));
}

#[tokio::test]
async fn a_call_that_the_connection_gives_no_more_time_is_told_of_its_limit() {
    let plugin = host().load(wat::connector("", SPIN)).unwrap();
    let mut spec = ConnectionSpec::new("crm");
    spec.limits.timeout = Duration::from_millis(60);
    let mut call = call("go", json!({}));
    call.timeout = Duration::from_mins(1);
    let (failure, _) = fails(&connect(&plugin, spec), call).await;
    assert_eq!(failure.class, Class::Timeout);
    let told = "; `limits.timeout` of the connection is 60ms";
    assert!(failure.message.ends_with(told), "{failure}");
}

#[tokio::test]
async fn waiting_costs_no_cpu_time() {
    let mut spec = unruly_spec(None);
    spec.limits.cpu_time = Duration::from_millis(200);
    let outcome = unruly(spec).invoke(call("sleep", json!({"ms": 600}))).await;
    assert_eq!(outcome.result, Ok(json!({"count": 600})));
    assert!(outcome.usage.wall >= Duration::from_millis(600));
    assert!(outcome.usage.cpu < Duration::from_millis(200));
}

#[tokio::test]
async fn memory_is_bounded_over_all_memories_and_tables() {
    let grow = "(if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable))";
    let two = "(memory $other 32)";
    let limits = Limits {
        memory_bytes: 6 << 20,
        ..Limits::default()
    };
    // Two pages and 32 pages and 64 pages are more than 6 MiB, and no two of them are.
    let failure = breaks(two, grow, limits.clone()).await;
    assert_eq!(
        (failure.class, failure.code.as_str()),
        (Class::Internal, "limit.memory")
    );

    let table = "(table $t 0 funcref)";
    let grow = "(if (i32.eq (table.grow $t (ref.null func) (i32.const 90000)) (i32.const -1)) (then unreachable))";
    let limits = Limits {
        memory_bytes: 512 << 10,
        ..limits
    };
    let failure = breaks(table, grow, limits).await;
    assert_eq!(failure.code, "limit.memory");
}

#[tokio::test]
async fn a_component_that_needs_too_much_from_the_start_is_told() {
    let plugin = host().load(wat::connector("(memory $big 64)", "")).unwrap();
    let mut spec = ConnectionSpec::new("crm");
    spec.limits.memory_bytes = 1 << 20;
    let (failure, _) = fails(&connect(&plugin, spec), call("go", json!({}))).await;
    assert_eq!(failure.code, "limit.memory");
}

#[tokio::test]
async fn a_trap_and_a_deep_recursion_are_charged_to_the_plugin() {
    let failure = breaks("", "unreachable", Limits::default()).await;
    assert_eq!(
        (failure.class, failure.code.as_str()),
        (Class::Internal, "plugin.trap")
    );
    assert!(failure.message.contains("unreachable"), "{failure}");
    let deep = "(func $deep (call $deep))";
    let failure = breaks(deep, "(call $deep)", Limits::default()).await;
    assert_eq!(failure.code, "limit.stack");
}

#[tokio::test]
async fn what_a_guest_returns_is_bounded_before_it_is_copied() {
    let huge = "(return (block (result i32)
        (drop (memory.grow (i32.const 900)))
        (memory.fill (i32.const 65536) (i32.const 32) (i32.const 55000000))
        (i32.store8 (i32.const 32) (i32.const 0))
        (i32.store (i32.const 36) (i32.const 65536))
        (i32.store (i32.const 40) (i32.const 55000000))
        (i32.const 32)))";
    let failure = breaks("", huge, Limits::default()).await;
    assert_eq!(
        (failure.class, failure.code.as_str()),
        (Class::Internal, "limit.host-resources")
    );
}

#[tokio::test]
async fn unruly_guests_get_the_code_of_the_limit_they_break() {
    let mut spec = unruly_spec(None);
    spec.limits.cpu_time = Duration::from_millis(300);
    let connection = unruly(spec);
    for (action, input, class, code) in [
        ("spin", json!({}), Class::Internal, "limit.cpu"),
        ("trap", json!({}), Class::Internal, "plugin.trap"),
        ("panic", json!({}), Class::Internal, "plugin.trap"),
        ("overflow", json!({}), Class::Internal, "plugin.trap"),
        ("bomb", json!({}), Class::Internal, "limit.memory"),
        (
            "big-output",
            json!({"bytes": 2_000_000}),
            Class::Internal,
            "limit.output",
        ),
        ("not-json", json!({}), Class::Internal, "output.json"),
        ("wrong-shape", json!({}), Class::Internal, "output.schema"),
        (
            "sleep",
            json!({"ms": -1}),
            Class::InvalidInput,
            "input.schema",
        ),
        ("nothing", json!({}), Class::Unsupported, "action.unknown"),
    ] {
        let (failure, _) = fails(&connection, call(action, input)).await;
        assert_eq!(
            (failure.class, failure.code.as_str()),
            (class, code),
            "{action}: {failure}"
        );
        let effect = if code == "output.schema" {
            EffectState::Applied
        } else {
            EffectState::None
        };
        assert_eq!(failure.effect, effect, "{action}");
        let next = connection
            .invoke(call("echo", json!({"a": [1, "b"]})))
            .await;
        assert_eq!(next.result, Ok(json!({"a": [1, "b"]})), "after {action}");
    }
}

#[tokio::test]
async fn a_panic_is_told_in_the_log() {
    let (_, outcome) = fails(&unruly(unruly_spec(None)), call("panic", json!({}))).await;
    let told = outcome
        .logs
        .iter()
        .any(|line| line.message.contains("unruly panicked on purpose"));
    assert!(told, "{:?}", outcome.logs);
}

#[tokio::test]
async fn a_flood_of_log_lines_is_cut_off_and_the_call_goes_on() {
    let outcome = unruly(unruly_spec(None))
        .invoke(call("flood-log", json!({"lines": 5000, "bytes": 100})))
        .await;
    assert_eq!(outcome.result, Ok(json!({"count": 5000})));
    let bytes: usize = outcome.logs.iter().map(|line| line.message.len()).sum();
    assert!(bytes <= (64 << 10) + 100 && bytes > 32 << 10, "{bytes}");
    assert!(
        outcome
            .logs
            .last()
            .unwrap()
            .message
            .ends_with("[the log is cut off here]")
    );
    assert!(outcome.usage.log_bytes <= 64 << 10);
}

#[tokio::test]
async fn requests_are_counted() {
    let web = Web::start("fine").await;
    let mut spec = unruly_spec(Some(&web.url));
    spec.limits.requests_max = 3;
    let connection = unruly(spec);
    let go = |n: u32| call("count-requests", json!({"url": web.url, "n": n}));
    let outcome = connection.invoke(go(3)).await;
    assert_eq!(outcome.result, Ok(json!({"count": 3})));
    assert_eq!(outcome.usage.requests, 3);
    let (failure, _) = fails(&connection, go(4)).await;
    assert_eq!(
        (failure.class, failure.code.as_str()),
        (Class::Denied, "limit.requests")
    );
    assert_eq!(failure.effect, EffectState::Unknown, "three were sent");
    assert_eq!(web.requests().len(), 6);
}

#[tokio::test]
async fn a_deadline_after_a_request_leaves_the_effect_unknown() {
    let web = Web::start("").await;
    let connection = unruly(unruly_spec(Some(&web.url)));
    let mut call = call("fetch", json!({"url": web.url, "method": "POST"}));
    call.timeout = Duration::from_millis(400);
    let (failure, _) = fails(&connection, call).await;
    assert_eq!(failure.class, Class::Timeout, "{failure}");
    assert_eq!(failure.effect, EffectState::Unknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_answer_while_guests_spin_and_eat_memory() {
    let host = host();
    let plugin = host.load(guest("unruly")).unwrap();
    let mut spec = unruly_spec(None);
    spec.limits.cpu_time = Duration::from_millis(500);
    let bad = connect(&plugin, spec);
    let good = connect(
        &host.load(wat::connector("", "")).unwrap(),
        ConnectionSpec::new("good"),
    );
    let mut worst = tokio::task::JoinSet::new();
    for action in ["spin", "bomb", "spin"] {
        let bad = bad.clone();
        worst.spawn(async move { bad.invoke(call(action, json!({}))).await });
    }
    let mut answered = 0;
    while !worst.is_empty() {
        assert!(good.invoke(call("go", json!({}))).await.result.is_ok());
        answered += 1;
        while let Some(done) = worst.try_join_next() {
            done.unwrap().result.expect_err("it has to be stopped");
        }
    }
    assert!(answered > 10, "{answered} calls were answered meanwhile");
}

#[tokio::test]
async fn calls_beyond_the_bound_wait_and_beyond_the_queue_are_turned_away() {
    let mut spec = unruly_spec(None);
    spec.limits = Limits {
        concurrency_max: 1,
        queue_max: 1,
        ..Limits::default()
    };
    let connection = unruly(spec);
    let nap = |connection: Connection| async move {
        connection
            .invoke(call("sleep", json!({"ms": 300})))
            .await
            .result
    };
    let results = futures::future::join_all((0..3).map(|_| nap(connection.clone()))).await;
    let busy: Vec<_> = results
        .iter()
        .filter_map(|result| result.as_ref().err())
        .collect();
    assert_eq!(
        busy.len(),
        1,
        "one runs, one waits, one is turned away: {results:?}"
    );
    assert_eq!(
        (busy[0].class, busy[0].code.as_str()),
        (Class::Unavailable, "busy")
    );
}

#[tokio::test]
async fn the_pool_of_the_host_is_shared_and_not_exceeded() {
    let host = Host::new(HostOptions {
        concurrency_max: 1,
        ..HostOptions::default()
    })
    .unwrap();
    let connection = connect(&host.load(guest("unruly")).unwrap(), unruly_spec(None));
    let nap = || connection.invoke(call("sleep", json!({"ms": 100})));
    let results = futures::future::join_all((0..3).map(|_| nap())).await;
    assert!(results.iter().all(|outcome| outcome.result.is_ok()));
}

/// A store with a defect.
struct Panicking;

#[async_trait]
impl KeyValue for Panicking {
    async fn get(&self, _: &str, _: &str, _: &str) -> Result<Option<Vec<u8>>, Failure> {
        panic!("a defect in the store")
    }

    async fn set(&self, _: &str, _: &str, _: &str, _: Vec<u8>) -> Result<(), Failure> {
        Ok(())
    }

    async fn delete(&self, _: &str, _: &str, _: &str) -> Result<(), Failure> {
        Ok(())
    }
}

#[tokio::test]
async fn a_panic_in_the_host_costs_one_call() {
    let plugin = host().load(guest("unruly")).unwrap();
    let services = Services {
        kv: Arc::new(Panicking),
    };
    let connection = plugin.connect(unruly_spec(None), services).unwrap();
    let input = json!({"key": "k", "value": "v"});
    let (failure, _) = fails(&connection, call("remember", input)).await;
    assert_eq!(
        (failure.class, failure.code.as_str()),
        (Class::Internal, "host.panic")
    );
    assert!(
        connection
            .invoke(call("echo", json!(1)))
            .await
            .result
            .is_ok()
    );
}

#[tokio::test]
async fn state_is_apart_for_each_tenant_and_connection() {
    let plugin = host().load(guest("unruly")).unwrap();
    let services = services();
    let mut other = unruly_spec(None);
    other.name = "other".to_owned();
    let first = plugin.connect(unruly_spec(None), services.clone()).unwrap();
    let second = plugin.connect(other, services).unwrap();
    let remember = |tenant: &str, value: &str| {
        let mut call = call("remember", json!({"key": "k", "value": value}));
        call.tenant = tenant.to_owned();
        call
    };
    let before = |outcome: cofferdam_host::Outcome| outcome.result.unwrap()["before"].clone();
    assert_eq!(before(first.invoke(remember("a", "1")).await), json!(null));
    assert_eq!(before(first.invoke(remember("a", "2")).await), json!("1"));
    assert_eq!(before(first.invoke(remember("b", "3")).await), json!(null));
    assert_eq!(before(second.invoke(remember("a", "4")).await), json!(null));
}

#[tokio::test]
async fn a_trap_after_a_request_leaves_the_effect_unknown() {
    let web = Web::start("fine").await;
    let mut spec = unruly_spec(Some(&web.url));
    spec.limits.cpu_time = Duration::from_millis(40);
    spec.limits.requests_max = 10_000;
    let many = call("count-requests", json!({"url": web.url, "n": 10_000}));
    let (failure, _) = fails(&unruly(spec), many).await;
    assert_eq!(
        (failure.code.as_str(), failure.effect),
        ("limit.cpu", EffectState::Unknown)
    );
}

/// The CPU time of this thread.
#[cfg(unix)]
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(unix)]
#[tokio::test]
async fn a_call_that_computes_for_long_leaves_the_callers_thread() {
    let plugin = host().load(wat::connector("", SPIN)).unwrap();
    let mut spec = ConnectionSpec::new("spins");
    spec.limits.cpu_time = Duration::from_millis(400);
    let connection = connect(&plugin, spec);
    let before = thread_time();
    let (failure, outcome) = fails(&connection, call("go", json!({}))).await;
    assert_eq!(failure.code, "limit.cpu");
    assert!(outcome.usage.cpu >= Duration::from_millis(400));
    assert!(thread_time().saturating_sub(before) < outcome.usage.cpu / 2);
}
