//! The bus: what was published is there, everybody gets it, and nobody waits for anybody.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use cofferdam::{
    Clock, CloudEvent, Config, Error, EventOptions, Lifecycle, Runtime, StartAt, Status,
    SubscribeOptions, Subscriber,
};
use cofferdam_store::{Fault, JournalStore, MemoryStore, Options, SledStore};
use serde_json::{Value, json};

use common::{LONG, memory, sources};

async fn open_with(store: &Arc<dyn JournalStore>, events: EventOptions) -> Runtime {
    Runtime::builder(Config::new().with_events(events))
        .store(Arc::clone(store))
        .open()
        .await
        .expect("the store opens")
}

async fn open(store: &Arc<dyn JournalStore>) -> Runtime {
    open_with(store, EventOptions::default()).await
}

fn event(id: u64) -> CloudEvent {
    let value = json!({
        "specversion": "1.0", "id": id.to_string(), "source": "/test", "type": "x", "data": {"n": id},
    });
    CloudEvent::new(value).unwrap()
}

fn oldest() -> SubscribeOptions {
    SubscribeOptions {
        start: StartAt::Oldest,
        ..SubscribeOptions::default()
    }
}

/// The next `count` events, each dealt with.
async fn read(subscriber: &mut Subscriber, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let delivery = subscriber.next().await.unwrap().unwrap();
        ids.push(delivery.event.id().to_owned());
        subscriber.done(&delivery).await.unwrap();
    }
    ids
}

#[tokio::test]
async fn what_was_published_is_on_the_disk_and_has_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let disk = || -> Arc<dyn JournalStore> {
        Arc::new(SledStore::open(folder.path().join("store"), &Options::default()).unwrap())
    };
    let runtime = open(&disk()).await;
    let first = runtime.publish(event(1)).await.unwrap();
    let second = runtime.publish(event(2)).await.unwrap();
    assert!(first.seq < second.seq && !first.duplicate);
    runtime.shutdown().await;
    let runtime = open(&disk()).await;
    let third = runtime.publish(event(3)).await.unwrap();
    assert!(third.seq > second.seq, "numbers go on");
    let ids: Vec<_> = runtime
        .query()
        .events()
        .unwrap()
        .into_iter()
        .map(|row| row.event["id"].clone())
        .collect();
    assert_eq!(ids, [json!("1"), json!("2"), json!("3")]);
    runtime.shutdown().await;
}

#[tokio::test]
async fn an_event_is_published_once_also_after_a_restart() {
    let store = memory();
    let runtime = open(&store).await;
    let first = runtime.publish(event(1)).await.unwrap();
    let again = runtime.publish(event(1)).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (first.seq, true));
    runtime.shutdown().await;
    let runtime = open(&store).await;
    assert!(runtime.publish(event(1)).await.unwrap().duplicate);
    let many = (0..20).map(|_| runtime.publish(event(7)));
    let told = futures::future::join_all(many).await;
    let fresh = told.iter().filter(|p| !p.as_ref().unwrap().duplicate);
    assert_eq!(fresh.count(), 1);
    assert_eq!(runtime.query().events().unwrap().len(), 2);
    runtime.shutdown().await;
}

#[tokio::test]
async fn an_event_that_the_store_refused_can_be_published_again() {
    let memory = MemoryStore::new();
    let store: Arc<dyn JournalStore> = Arc::new(memory.clone());
    let runtime = open(&store).await;
    memory.inject(Fault::Busy);
    assert!(runtime.publish(event(1)).await.is_err());
    assert!(!runtime.publish(event(1)).await.unwrap().duplicate);
    runtime.shutdown().await;
}

/// Two open a new subscriber at once, and an event is published in between; what each gets first.
async fn two_begin(starts: [StartAt; 2]) -> Vec<String> {
    let store = MemoryStore::new();
    let shared: Arc<dyn JournalStore> = Arc::new(store.clone());
    let runtime = open(&shared).await;
    let options = starts.map(|start| SubscribeOptions {
        start,
        ..SubscribeOptions::default()
    });
    let [first, second] = options.map(|options| runtime.subscribe("s", options));
    store.hold();
    let release = async {
        tokio::task::yield_now().await;
        store.release();
    };
    let (first, published, second, ()) =
        tokio::join!(first, runtime.publish(event(1)), second, release);
    published.unwrap();
    let mut ids = Vec::new();
    for subscriber in [first, second] {
        let delivery = subscriber.unwrap().next().await.unwrap();
        ids.push(delivery.unwrap().event.id().to_owned());
    }
    ids
}

#[tokio::test]
async fn of_two_who_begin_one_subscriber_at_once_the_first_says_where() {
    for second in [StartAt::Now, StartAt::Oldest, StartAt::Seq(7)] {
        let got = tokio::time::timeout(LONG, two_begin([StartAt::Now, second])).await;
        let got = got.expect("the event is behind the place of the first");
        assert_eq!(got, ["1", "1"], "{second:?}");
    }
}

#[tokio::test]
async fn a_subscriber_whose_beginning_was_refused_is_begun_by_who_comes_next() {
    let store = MemoryStore::new();
    let shared: Arc<dyn JournalStore> = Arc::new(store.clone());
    let runtime = open(&shared).await;
    store.inject(Fault::Busy);
    let subscribe = || runtime.subscribe("s", SubscribeOptions::default());
    let (first, second) = tokio::join!(subscribe(), subscribe());
    assert!(first.is_err());
    let mut second = second.unwrap();
    runtime.publish(event(1)).await.unwrap();
    let got = tokio::time::timeout(LONG, read(&mut second, 1)).await;
    assert_eq!(got.expect("it is behind its place"), ["1"]);
}

/// The numbers of refused events are not given again to those who do not wait for them.
#[tokio::test(start_paused = true)]
async fn who_subscribes_after_a_refused_event_gets_the_next_also_after_a_restart() {
    let memory = MemoryStore::new();
    let store: Arc<dyn JournalStore> = Arc::new(memory.clone());
    let runtime = open(&store).await;
    runtime.publish(event(1)).await.unwrap();
    for _ in 0..3 {
        memory.inject(Fault::Busy);
        assert!(runtime.publish(event(2)).await.is_err());
    }
    let options = SubscribeOptions::default();
    runtime.subscribe("s", options.clone()).await.unwrap();
    runtime.shutdown().await;
    let runtime = open(&store).await;
    runtime.publish(event(3)).await.unwrap();
    let mut subscriber = runtime.subscribe("s", options).await.unwrap();
    let next = tokio::time::timeout(Duration::from_mins(1), read(&mut subscriber, 1)).await;
    assert_eq!(next.expect("it is not missed"), ["3"]);
    runtime.shutdown().await;
}

#[tokio::test]
async fn what_is_no_event_is_refused_and_says_why() {
    let runtime = open(&memory()).await;
    let large = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "x", "data": "x".repeat(10 << 20)});
    let deep = (0..300).fold(Value::Null, |inner, _| json!([inner]));
    let deep = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "x", "data": deep});
    for bad in [json!([]), json!({"id": "1"}), large, deep] {
        let refused = runtime.publish_json(bad).await.unwrap_err();
        assert!(matches!(refused, Error::Event(_)), "{refused}");
        assert!(refused.to_string().starts_with("CD0277: "), "{refused}");
    }
    assert!(runtime.query().events().unwrap().is_empty());
    runtime.shutdown().await;
}

#[tokio::test]
async fn what_a_run_emits_is_published_whole_and_in_order() {
    let runtime = open(&memory()).await;
    let tasks = "  - a: {emit: {event: {with: {type: first, data: {n: 1}}}}}\n  - b: {emit: {event: {with: {type: second}}}}\n";
    let definition = runtime.define(&sources(tasks)).unwrap();
    let run = runtime.start(&definition, json!({})).await.unwrap();
    runtime.wait(&run).await.unwrap();
    let mut subscriber = runtime.subscribe("s", oldest()).await.unwrap();
    let first = subscriber.next().await.unwrap().unwrap();
    assert_eq!(first.event.kind(), "first");
    assert_eq!(first.run, Some(run.clone()));
    assert_eq!(first.event.id(), format!("{run}-1"));
    subscriber.done(&first).await.unwrap();
    let second = subscriber.next().await.unwrap().unwrap();
    assert_eq!(second.event.kind(), "second");
    runtime.shutdown().await;
}

#[tokio::test]
async fn subscribers_go_on_where_they_were_and_do_not_wait_for_each_other() {
    let store = memory();
    let runtime = open(&store).await;
    let mut slow = runtime
        .subscribe("slow", SubscribeOptions::default())
        .await
        .unwrap();
    let mut quick = runtime
        .subscribe("quick", SubscribeOptions::default())
        .await
        .unwrap();
    for id in 1..=5 {
        runtime.publish(event(id)).await.unwrap();
    }
    assert_eq!(read(&mut quick, 5).await, ["1", "2", "3", "4", "5"]);
    assert_eq!(read(&mut slow, 2).await, ["1", "2"]);
    let undone = slow.next().await.unwrap().unwrap();
    assert_eq!((undone.event.id(), undone.attempt), ("3", 1));
    runtime.shutdown().await;
    let runtime = open(&store).await;
    let states = runtime.query().subscribers().unwrap();
    assert_eq!(states.iter().map(|s| s.lag).collect::<Vec<_>>(), [0, 3]);
    let mut slow = runtime.subscribe("slow", oldest()).await.unwrap();
    let again = slow.next().await.unwrap().unwrap();
    assert_eq!((again.event.id(), again.attempt), ("3", 2), "at least once");
    slow.done(&again).await.unwrap();
    assert_eq!(read(&mut slow, 2).await, ["4", "5"]);
    runtime.shutdown().await;
}

#[tokio::test]
async fn an_event_that_its_subscriber_cannot_deal_with_becomes_a_dead_letter_and_comes_back() {
    let runtime = open(&memory()).await;
    let options = SubscribeOptions {
        attempts_max: 3,
        pause: Duration::from_millis(1),
        ..SubscribeOptions::default()
    };
    let mut subscriber = runtime.subscribe("s", options).await.unwrap();
    for id in 1..=2 {
        runtime.publish(event(id)).await.unwrap();
    }
    for attempt in 1..=3 {
        let delivery = subscriber.next().await.unwrap().unwrap();
        assert_eq!((delivery.event.id(), delivery.attempt), ("1", attempt));
        subscriber.failed(&delivery, "no").await.unwrap();
    }
    assert_eq!(
        read(&mut subscriber, 1).await,
        ["2"],
        "the next one is not held up"
    );
    let dead = runtime.query().dead_events().unwrap();
    assert_eq!(
        (dead[0].subscriber.as_str(), dead[0].reason.as_str()),
        ("s", "no")
    );
    assert!(
        runtime.query().dead_letters().unwrap().is_empty(),
        "no run is a dead letter"
    );
    assert_eq!(runtime.replay_dead("s").await.unwrap(), 1);
    let again = subscriber.next().await.unwrap().unwrap();
    assert!(again.is_again && again.event.id() == "1");
    subscriber.done(&again).await.unwrap();
    assert!(runtime.query().dead_events().unwrap().is_empty());
    runtime.publish(event(3)).await.unwrap();
    assert_eq!(read(&mut subscriber, 1).await, ["3"]);
    runtime.shutdown().await;
}

#[tokio::test]
async fn an_event_that_brings_its_subscriber_down_comes_to_an_end() {
    let store = memory();
    for _ in 0..3 {
        let runtime = open(&store).await;
        runtime.publish(event(1)).await.unwrap();
        let options = SubscribeOptions {
            attempts_max: 3,
            ..oldest()
        };
        let mut subscriber = runtime.subscribe("s", options).await.unwrap();
        // The process dies while it works on the event.
        assert!(subscriber.next().await.unwrap().is_some());
        runtime.shutdown().await;
    }
    let runtime = open(&store).await;
    runtime.publish(event(2)).await.unwrap();
    let options = SubscribeOptions {
        attempts_max: 3,
        ..oldest()
    };
    let mut subscriber = runtime.subscribe("s", options).await.unwrap();
    assert_eq!(read(&mut subscriber, 1).await, ["2"]);
    assert_eq!(runtime.query().dead_events().unwrap().len(), 1);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_subscriber_is_set_back_and_told_again() {
    let runtime = open(&memory()).await;
    let mut subscriber = runtime.subscribe("s", oldest()).await.unwrap();
    let second = async {
        runtime.publish(event(1)).await.unwrap();
        let second = runtime.publish(event(2)).await.unwrap();
        runtime.publish(event(3)).await.unwrap();
        second.seq
    };
    let second = second.await;
    assert_eq!(read(&mut subscriber, 3).await, ["1", "2", "3"]);
    runtime.replay("s", second).await.unwrap();
    let mut subscriber = runtime.subscribe("s", oldest()).await.unwrap();
    assert_eq!(read(&mut subscriber, 2).await, ["2", "3"]);
    let unknown = runtime.replay("nobody", 1).await;
    assert!(matches!(unknown, Err(Error::NoSubscriber { .. })));
    let bad = runtime.subscribe("a/b", oldest()).await;
    assert!(matches!(bad, Err(Error::Subscriber { .. })));
    runtime.shutdown().await;
}

#[tokio::test]
async fn old_events_are_let_go_and_a_subscriber_that_comes_too_late_is_told_so() {
    let store = memory();
    let events = EventOptions {
        keep_max: 10,
        ..EventOptions::default()
    };
    let runtime = open_with(&store, events).await;
    let mut subscriber = runtime
        .subscribe("s", SubscribeOptions::default())
        .await
        .unwrap();
    for id in 1..=3 {
        runtime.publish(event(id)).await.unwrap();
    }
    assert_eq!(read(&mut subscriber, 2).await, ["1", "2"]);
    for id in 4..=30 {
        runtime.publish(event(id)).await.unwrap();
    }
    // The dispatcher lets events go when it has nothing else to do.
    while runtime.query().events().unwrap().len() > 10 {
        tokio::task::yield_now().await;
        runtime.publish(event(30)).await.unwrap();
    }
    let late = match subscriber.next().await {
        Err(error) => error,
        Ok(delivery) => panic!("{delivery:?}"),
    };
    assert!(matches!(late, Error::Lagged { missed: 18, .. }), "{late}");
    let ids = read(&mut subscriber, 10).await;
    assert_eq!((ids[0].as_str(), ids[9].as_str()), ("21", "30"));
    assert_eq!(runtime.query().subscribers().unwrap()[0].missed, 18);
    assert!(
        !runtime.publish(event(1)).await.unwrap().duplicate,
        "forgotten with the event"
    );
    runtime.shutdown().await;
}

#[tokio::test]
async fn events_are_let_go_by_age() {
    const HOUR_MS: u64 = 60 * 60 * 1_000;
    let store = memory();
    for (hours, id) in [(0, 1), (1, 2), (2, 3)] {
        let config = Config::new().with_events(EventOptions {
            keep_for: Duration::from_mins(90),
            ..EventOptions::default()
        });
        let runtime = Runtime::builder(config)
            .store(Arc::clone(&store))
            .clock(Clock::tokio(1_000_000_000_000 + hours * HOUR_MS))
            .open()
            .await
            .unwrap();
        runtime.publish(event(id)).await.unwrap();
        let wanted = if hours == 0 { 1 } else { 2 };
        while runtime.query().events().unwrap().len() > wanted {
            tokio::task::yield_now().await;
        }
        runtime.shutdown().await;
    }
}

fn kinds(runtime: &Runtime) -> Vec<String> {
    let events = runtime.query().events().unwrap();
    let kind = |row: cofferdam::EventRow| row.event["type"].as_str().unwrap().to_owned();
    events.into_iter().map(kind).collect()
}

#[tokio::test]
async fn runs_tell_of_themselves_if_they_are_asked_to() {
    let tasks = "  - a: {set: {x: 1}}\n  - b: {if: \"${ false }\", set: {x: 2}}\n";
    let short = |kind: &str| format!("io.serverlessworkflow.{kind}.v1");
    for (lifecycle, expected) in [
        (Lifecycle::Off, vec![]),
        (
            Lifecycle::Workflow,
            vec!["workflow.started", "workflow.completed"],
        ),
        (
            Lifecycle::Task,
            vec![
                "workflow.started",
                "task.created",
                "task.started",
                "task.completed",
                "task.created",
                "task.started",
                "task.completed",
                "workflow.completed",
            ],
        ),
    ] {
        let events = EventOptions {
            lifecycle,
            ..EventOptions::default()
        };
        let runtime = open_with(&memory(), events).await;
        let definition = runtime.define(&sources(tasks)).unwrap();
        let run = runtime.start(&definition, json!({})).await.unwrap();
        runtime.wait(&run).await.unwrap();
        let expected: Vec<String> = expected.into_iter().map(short).collect();
        assert_eq!(kinds(&runtime), expected);
        for row in runtime.query().events().unwrap() {
            CloudEvent::new(row.event.clone()).unwrap();
            assert_eq!(row.event["subject"], json!(run));
        }
        runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_run_that_faults_says_why() {
    let events = EventOptions {
        lifecycle: Lifecycle::Workflow,
        ..EventOptions::default()
    };
    let runtime = open_with(&memory(), events).await;
    let tasks = "  - a: {raise: {error: {type: https://x.example/no, status: 418}}}\n";
    let definition = runtime.define(&sources(tasks)).unwrap();
    let run = runtime.start(&definition, json!({})).await.unwrap();
    assert_eq!(runtime.wait(&run).await.unwrap().status, Status::Faulted);
    let rows = runtime.query().events().unwrap();
    let last = &rows.last().unwrap().event;
    assert_eq!(last["type"], "io.serverlessworkflow.workflow.faulted.v1");
    assert_eq!(last["data"]["error"]["status"], 418);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_workflow_that_waits_for_what_nobody_tells_is_refused() {
    let runtime = open(&memory()).await;
    let tasks = "  - l: {listen: {to: {one: {with: {type: io.serverlessworkflow.workflow.completed.v1}}}}}\n";
    let refused = runtime.define(&sources(tasks)).unwrap_err();
    assert!(matches!(refused, Error::NoLifecycle { .. }), "{refused}");
    runtime.shutdown().await;
}

/// Lets work get as far as it comes without the store, and drops it there.
async fn drop_midway(store: &MemoryStore, work: impl Future) {
    store.hold();
    let is_held = tokio::time::timeout(Duration::ZERO, work).await.is_err();
    store.release();
    assert!(is_held, "it waits for the store");
}

#[tokio::test]
async fn a_subscriber_whose_work_is_dropped_midway_misses_nothing_and_counts_nothing_twice() {
    let store = MemoryStore::new();
    let runtime = open(&(Arc::new(store.clone()) as Arc<dyn JournalStore>)).await;
    for id in 1..=3 {
        runtime.publish(event(id)).await.unwrap();
    }
    let mut subscriber = runtime.subscribe("s", oldest()).await.unwrap();
    for id in ["1", "2", "3"] {
        drop_midway(&store, subscriber.next()).await;
        let delivery = subscriber.next().await.unwrap().unwrap();
        assert_eq!((delivery.event.id(), delivery.attempt), (id, 1));
        drop_midway(&store, subscriber.done(&delivery)).await;
        subscriber.done(&delivery).await.unwrap();
    }
    drop(subscriber);
    let states = runtime.query().subscribers().unwrap();
    assert_eq!((states[0].lag, states[0].dead_letters), (0, 0));
    runtime.shutdown().await;
}
