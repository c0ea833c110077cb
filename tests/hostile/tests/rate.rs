//! A connection is called no more often than its rate allows, and runs get along with that.

use std::collections::BTreeMap;
use std::time::Duration;

use cofferdam::{Class, Config, Runtime, Source, Sources, Status};
use cofferdam_core::rate::Rate;
use cofferdam_host::{ConnectionSpec, Limits, Occupancy};
use cofferdam_hostile::harness::{self, call};
use cofferdam_hostile::{Text, guest};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_mins(1);

#[tokio::test]
async fn calls_beyond_the_rate_are_turned_away_and_told_when_to_come_back() {
    let host = harness::host(None).expect("a host");
    let plugin = host.load(Text::default().artifact().expect("the text is right"));
    let mut spec = ConnectionSpec::new("rated");
    let rate = Rate::new(1, Duration::from_hours(1), 2).expect("it makes sense");
    spec.limits.rate = Some(rate);
    let connection = plugin.expect("it loads").connect(spec, harness::services());
    let connection = connection.expect("it connects");
    let go = || connection.invoke(call(guest::ACTION, guest::good(), LONG));
    assert_eq!(go().await.result, Ok(Value::Null));
    assert_eq!(go().await.result, Ok(Value::Null));
    let failure = go().await.result.expect_err("it is the third at once");
    assert_eq!(
        (failure.class, failure.code.as_str()),
        (Class::RateLimited, "limit.rate")
    );
    let hour_ms = 3_600_000;
    let wait_ms = failure.retry_after_ms.expect("it says when");
    assert!((1..=hour_ms).contains(&wait_ms), "{wait_ms}");
    assert!(connection.check().await.is_ok(), "checks are not counted");
    assert_eq!(connection.occupancy(), Occupancy::default());
}

#[tokio::test]
async fn a_call_that_finds_no_place_is_not_charged() {
    let host = harness::host(None).expect("a host");
    let plugin = host.load(
        cofferdam_hostile::chameleon::chameleon()
            .artifact()
            .expect("right"),
    );
    let mut spec = ConnectionSpec::new("rated");
    spec.limits = Limits {
        rate: Some(Rate::new(1, Duration::from_hours(1), 2).expect("it makes sense")),
        concurrency_max: 1,
        queue_max: 0,
        ..Limits::default()
    };
    let connection = plugin.expect("it loads").connect(spec, harness::services());
    let connection = connection.expect("it connects");
    let go = |input| connection.invoke(call(guest::ACTION, input, LONG));
    let mut waits = Box::pin(go(cofferdam_hostile::chameleon::Attack::Sleep.input()));
    assert!(futures::poll!(waits.as_mut()).is_pending());
    for _ in 0..5 {
        let failure = go(guest::good())
            .await
            .result
            .expect_err("there is no place");
        assert_eq!(failure.code, "busy");
    }
    drop(waits);
    assert_eq!(go(guest::good()).await.result, Ok(Value::Null));
}

#[tokio::test]
async fn a_run_waits_for_its_turn_and_the_breaker_stays_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    let plugin = folder.path().join("plugin.wasm");
    let component = Text::default().component().expect("the text is right");
    std::fs::write(&plugin, component).expect("it can be written");
    let config = format!(
        "plugins.allow-unsigned = true\n[connections.rated]\nplugin = '{}'\nrate-limit = {{ calls = 1 }}\nretry = {{ delay = '1ms' }}\nbreaker = {{ minimum-number-of-calls = 1, sliding-window-size = 2 }}\n",
        plugin.display()
    );
    let file = folder.path().join("cofferdam.toml");
    std::fs::write(&file, config).expect("it can be written");
    let config = Config::load(&file)
        .expect("it is right")
        .with_store(folder.path().join("store"));
    let runtime = Runtime::open(config).await.expect("it opens");
    let task = |n| format!("  - t{n}: {{call: rated.go, with: {{}}}}\n");
    let tasks = (0..3).map(task).collect::<Vec<_>>().concat();
    let main = Source {
        origin: "rated.yaml".into(),
        text: format!(
            "document: {{dsl: \"1.0.3\", namespace: t, name: rated, version: \"1.0.0\"}}\ndo:\n{tasks}"
        ),
    };
    let others = BTreeMap::new();
    let definition = runtime
        .define(&Sources { main, others })
        .expect("it is right");
    let run = runtime
        .start(&definition, json!({}))
        .await
        .expect("it starts");
    let end = runtime.wait(&run).await.expect("it ends");
    assert_eq!(end.status, Status::Completed, "{end:?}");
    let state = runtime
        .connections()
        .into_iter()
        .next()
        .expect("there is one");
    assert_eq!((state.breaker.as_str(), state.failures), ("Closed", 0));
    let told = format!("{end:?}");
    assert!(
        told.contains("limit.rate"),
        "nothing was turned away: {told}"
    );
    runtime.shutdown().await;
}
