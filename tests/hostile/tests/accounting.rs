//! Whatever is called in whatever order, and whoever stops waiting for it: in the end nothing is
//! held.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cofferdam_core::rate::Rate;
use cofferdam_host::{Connection, ConnectionSpec, Host, Limits};
use cofferdam_hostile::chameleon::{Attack, chameleon};
use cofferdam_hostile::{guest, harness};
use futures::FutureExt as _;
use proptest::prelude::*;
use serde_json::Value;

/// Connections beside each other: one with a queue, one with hardly a place, one with a rate.
const CONNECTIONS: usize = 3;
/// Calls of one sequence that are under way together.
const TOGETHER: usize = 6;

/// How often a good call is made before it is said that it cannot be.
const GOOD_TRIES_MAX: u32 = 200;

#[derive(Debug, Clone)]
enum What {
    Good,
    Attack(Attack),
}

/// One call of a sequence.
#[derive(Debug, Clone)]
struct Step {
    connection: usize,
    what: What,
    /// How often it is polled before it is dropped; none lets it end.
    polls: Option<u32>,
}

fn step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        2 => Just(What::Good),
        3 => prop::sample::select(Attack::ALL.to_vec()).prop_map(What::Attack),
    ];
    let polls = prop::option::of(0..12_u32);
    (0..CONNECTIONS, what, polls).prop_map(|(connection, what, polls)| Step {
        connection,
        what,
        polls,
    })
}

fn connections(host: &Host) -> Vec<Connection> {
    let plugin = host.load(chameleon().artifact().expect("the text is right"));
    let plugin = plugin.expect("it loads");
    let limits = Limits {
        cpu_time: Duration::from_millis(15),
        timeout: Duration::from_millis(60),
        memory_bytes: 8 << 20,
        ..Limits::default()
    };
    let narrow = Limits {
        concurrency_max: 1,
        queue_max: 1,
        ..limits.clone()
    };
    let rated = Limits {
        rate: Some(Rate::new(100, Duration::from_secs(1), 2).expect("it makes sense")),
        concurrency_max: 2,
        ..limits.clone()
    };
    let connect = |(index, limits)| {
        let mut spec = ConnectionSpec::new(format!("c{index}"));
        spec.limits = limits;
        plugin
            .connect(spec, harness::services())
            .expect("it connects")
    };
    [limits, narrow, rated]
        .into_iter()
        .enumerate()
        .map(connect)
        .collect()
}

/// Makes one call, or some polls of it. The code with which it failed.
async fn make(connection: &Connection, step: &Step) -> Option<String> {
    let (input, allowed): (Value, &[&str]) = match step.what {
        What::Good => (guest::good(), &["timeout", "limit.cpu"]),
        What::Attack(attack) => (attack.input(), attack.codes()),
    };
    let call = harness::call(guest::ACTION, input, Duration::from_mins(1));
    let mut call = Box::pin(connection.invoke(call));
    let outcome = match step.polls {
        None => call.await,
        Some(polls) => {
            for _ in 0..polls {
                if let Some(outcome) = call.as_mut().now_or_never() {
                    drop(outcome);
                    return None;
                }
                tokio::task::yield_now().await;
            }
            return None;
        }
    };
    let code = outcome.result.err().map(|failure| failure.code);
    if let Some(code) = &code {
        let refused = ["busy", "limit.rate"].contains(&code.as_str());
        assert!(
            refused || allowed.contains(&code.as_str()),
            "{step:?}: {code}"
        );
    } else {
        assert!(matches!(step.what, What::Good), "{step:?} did no harm");
    }
    code
}

/// Makes the calls of a sequence, some at the same time.
async fn drive(connections: Vec<Connection>, steps: Vec<Step>) {
    let next = Arc::new(AtomicU32::new(0));
    let (connections, steps) = (Arc::new(connections), Arc::new(steps));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TOGETHER {
        let (next, connections, steps) = (
            Arc::clone(&next),
            Arc::clone(&connections),
            Arc::clone(&steps),
        );
        tasks.spawn(async move {
            while let Some(step) = steps.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                make(&connections[step.connection], step).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("a call neither panics nor ends in another way than it may");
    }
}

/// Calls a good plugin again and again: on a busy machine a call may wait in vain for its place.
async fn call_until_served(connection: Connection) -> Result<(), String> {
    let mut code = String::new();
    for _ in 0..GOOD_TRIES_MAX {
        let call = harness::call(guest::ACTION, guest::good(), Duration::from_mins(1));
        match connection.invoke(call).await.result {
            Ok(_) => return Ok(()),
            Err(failure) => code = failure.code,
        }
    }
    Err(code)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        max_shrink_iters: 20,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn after_any_sequence_of_calls_nothing_is_held(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        // Fewer slots than calls, so that calls wait for those too.
        let host = harness::host_of(3, None).expect("a host");
        let connections = connections(&host);
        runtime.block_on(drive(connections.clone(), steps));
        let all: Vec<&Connection> = connections.iter().collect();
        if let Err(error) = runtime.block_on(harness::given_back(&host, &all)) {
            return Err(TestCaseError::fail(format!("{error:#}")));
        }
        // Every place can still be taken: all slots at the same time.
        let good = |_| call_until_served(connections[0].clone());
        let results = runtime.block_on(futures::future::join_all((0..9).map(good)));
        for code in results.into_iter().filter_map(Result::err) {
            prop_assert!(false, "a good call is never served: {code}");
        }
    }
}
