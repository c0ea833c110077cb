//! Tasks that wait for events.

use serde_json::{Value, json};

use super::Play;
use crate::cloud_event::CloudEvent;
use crate::run::{Effect, Event, Hearing, Illegal, Outcome, Run, Status, WaitsFor};

#[allow(
    clippy::needless_pass_by_value,
    reason = "it reads better where it is called"
)]
fn event(kind: &str, data: Value) -> CloudEvent {
    let value = json!({
        "specversion": "1.0", "id": "1", "source": "/test", "type": kind, "data": data,
    });
    CloudEvent::new(value).unwrap()
}

/// A run that listens in its task `l`, and the journal that it is made of.
struct Listener {
    play: Play,
    journal: Vec<(Event, u64)>,
    seq: u64,
}

impl Listener {
    fn of(listen: &str, input: Value) -> Self {
        let tasks = format!("  - l: {listen}\n");
        let begun = Event::Begun {
            input: input.clone(),
        };
        let mut play = Play::of(&tasks, input);
        play.now_ms += 10;
        Self {
            play,
            journal: vec![(begun, 1_000)],
            seq: 0,
        }
    }

    /// Tells the run of an event; whether it took it.
    fn hear(&mut self, kind: &str, data: Value) -> bool {
        self.seq += 1;
        self.hear_as(self.seq, event(kind, data)).is_ok()
    }

    fn hear_as(&mut self, seq: u64, event: CloudEvent) -> Result<(), Illegal> {
        let task = "/l".to_owned();
        let event = Event::Heard { task, seq, event };
        let before = format!("{:?}", self.play.run);
        match self.play.run.step(event.clone(), self.play.now_ms) {
            Ok(effects) => {
                self.journal.push((event, self.play.now_ms));
                self.play.effects.extend(effects);
                Ok(())
            }
            Err(illegal) => {
                assert_eq!(
                    before,
                    format!("{:?}", self.play.run),
                    "a refusal changes nothing"
                );
                Err(illegal)
            }
        }
    }

    /// The run's output; it has to have ended, and folding its journal has to give the same run.
    fn output(&self) -> Value {
        let mut again = Run::new(
            "run-1",
            self.play.run.workflow().clone(),
            super::bindings().into(),
        );
        for (event, at) in &self.journal {
            again.step(event.clone(), *at).unwrap();
        }
        assert_eq!(format!("{again:?}"), format!("{:?}", self.play.run));
        assert!(self.is_closed(), "what was asked for is given up");
        match self.play.run.outcome() {
            Some(Outcome::Completed { output }) => (**output).clone(),
            other => panic!("{other:?}"),
        }
    }

    fn is_closed(&self) -> bool {
        let watches = |wanted: bool| {
            self.play.effects.iter().find_map(|e| match e {
                Effect::Listen { watches, .. } if wanted => Some(watches.clone()),
                Effect::ListenClosed { watches, .. } if !wanted => Some(watches.clone()),
                _ => None,
            })
        };
        watches(true).is_some() && watches(true) == watches(false)
    }
}

#[test]
fn one_event_that_fits_ends_the_task() {
    let mut run = Listener::of(
        "{listen: {to: {one: {with: {type: paid, source: /test}}}}}",
        json!({}),
    );
    assert_eq!(run.play.run.status(), Status::Waiting);
    let report = run.play.run.reports().next().unwrap().clone();
    assert_eq!(report.waits_for, Some(WaitsFor::Event));
    assert_eq!(report.waiting.as_deref(), Some("waits for an event paid"));
    assert!(!run.hear("sent", json!(1)));
    assert!(run.hear("paid", json!({"n": 1})));
    assert_eq!(run.output(), json!([{"n": 1}]));
}

#[test]
fn all_waits_for_an_event_for_each_filter_in_any_order() {
    let listen =
        "{listen: {to: {all: [{with: {type: a}}, {with: {type: b, data: '${ .n > 5 }'}}]}}}";
    let mut run = Listener::of(listen, json!({}));
    assert!(!run.hear("b", json!({"n": 5})));
    assert!(run.hear("b", json!({"n": 6})));
    assert!(!run.hear("b", json!({"n": 7})), "it has its b");
    assert!(run.hear("a", json!({"n": 0})));
    assert_eq!(run.output(), json!([{"n": 6}, {"n": 0}]));
}

#[test]
fn any_takes_events_until_a_condition_holds() {
    let mut run = Listener::of(
        "{listen: {to: {any: [], until: '( . | length ) > 2'}}}",
        json!({}),
    );
    for n in 0..3 {
        assert!(run.hear("x", json!(n)));
    }
    assert_eq!(run.output(), json!([0, 1, 2]));
}

#[test]
fn any_without_until_takes_the_first() {
    let mut run = Listener::of(
        "{listen: {to: {any: [{with: {type: a}}, {with: {type: b}}]}}}",
        json!({}),
    );
    assert!(!run.hear("c", json!(0)));
    assert!(run.hear("b", json!(1)));
    assert_eq!(run.output(), json!([1]));
}

#[test]
fn what_ends_the_task_is_not_part_of_its_output() {
    let listen = "{listen: {to: {any: [{with: {type: a}}], until: {all: [{with: {type: x}}, {with: {type: y}}]}}}}";
    let mut run = Listener::of(listen, json!({}));
    for (kind, takes) in [
        ("a", true),
        ("x", true),
        ("x", false),
        ("a", true),
        ("y", true),
    ] {
        assert_eq!(run.hear(kind, json!(kind)), takes, "{kind}");
    }
    assert_eq!(run.output(), json!(["a", "a"]));
}

#[test]
fn a_task_that_nothing_ends_goes_on_and_keeps_nothing() {
    let mut run = Listener::of("{listen: {to: {any: [], until: false}}}", json!({}));
    for n in 0..super::super::TAKEN_MAX + 10 {
        assert!(run.hear("x", json!(n)));
    }
    assert_eq!(run.play.run.status(), Status::Waiting);
}

#[test]
fn a_task_that_takes_too_much_fails_with_a_reason() {
    let listen = "{listen: {to: {any: [], until: '. | length < 0'}}}";
    let mut run = Listener::of(listen, json!({}));
    let large = "x".repeat(1 << 19);
    while run.play.run.outcome().is_none() {
        assert!(run.hear("x", json!(large)));
    }
    let told = format!("{:?}", run.play.run.outcome());
    assert!(told.contains("foreach.output"), "{told}");
    assert!(run.is_closed());
}

#[test]
fn correlations_connect_an_event_with_the_run_and_with_other_events() {
    let listen = "{listen: {to: {all: [\
        {with: {type: a}, correlate: {order: {from: .data.id, expect: '${ .id }'}, room: {from: .data.room}}},\
        {with: {type: b}, correlate: {room: {from: .data.room}}}]}}}";
    let mut run = Listener::of(listen, json!({"id": 7}));
    let Some(Effect::Listen { watches, .. }) = run
        .play
        .effects
        .iter()
        .find(|e| matches!(e, Effect::Listen { .. }))
    else {
        panic!()
    };
    assert_eq!(watches[0].shape.from, [".data.id"]);
    assert_eq!(watches[0].values, [json!(7)]);
    assert!(!run.hear("a", json!({"id": 8, "room": 1})));
    assert!(!run.hear("a", json!({"id": 7})), "no room to be known by");
    assert!(run.hear("a", json!({"id": 7.0, "room": 1})));
    assert!(!run.hear("b", json!({"room": 2})));
    assert!(run.hear("b", json!({"room": 1})));
    run.output();
}

#[test]
fn filters_see_the_data_of_the_run() {
    let listen = "{listen: {to: {one: {with: {type: a, subject: '${ $input.who }', data: {n: '${ . > $input.n }', k: x}}}}}}";
    let mut run = Listener::of(listen, json!({"who": "ada", "n": 2}));
    let about = |subject: &str, n: u64| {
        let value = json!({
            "specversion": "1.0", "id": "1", "source": "/t", "type": "a",
            "subject": subject, "data": {"n": n, "k": "x", "more": true},
        });
        CloudEvent::new(value).unwrap()
    };
    assert!(run.hear_as(1, about("bob", 3)).is_err());
    assert!(run.hear_as(2, about("ada", 2)).is_err());
    assert!(run.hear_as(3, about("ada", 3)).is_ok());
    run.output();
}

#[test]
fn a_filter_that_fails_on_an_event_lets_nothing_through() {
    let listen = "{listen: {to: {one: {with: {data: '${ error(\"no\") }'}}}}}";
    let mut run = Listener::of(listen, json!({}));
    assert!(!run.hear("x", json!({"deep": [[[1]]]})));
    assert_eq!(run.play.run.status(), Status::Waiting);
}

#[test]
fn events_are_read_as_the_task_says() {
    for (read, expected) in [
        ("data", json!({"n": 1})),
        ("raw", json!("{\"n\":1}")),
        ("envelope", event("x", json!({"n": 1})).to_value()),
    ] {
        let listen = format!("{{listen: {{to: {{any: []}}, read: {read}}}}}");
        let mut run = Listener::of(&listen, json!({}));
        assert!(run.hear("x", json!({"n": 1})));
        assert_eq!(run.output(), json!([expected]));
    }
}

#[test]
fn each_event_is_told_once_and_in_order() {
    let mut run = Listener::of(
        "{listen: {to: {any: [], until: '. | length == 2'}}}",
        json!({}),
    );
    run.hear_as(5, event("x", json!(1))).unwrap();
    for seq in [5, 4] {
        let again = run.hear_as(seq, event("x", json!(1)));
        assert_eq!(again, Err(Illegal::Unheard("/l".into())), "{seq}");
    }
    run.hear_as(6, event("x", json!(2))).unwrap();
    assert_eq!(run.output(), json!([1, 2]));
}

#[test]
fn foreach_works_on_one_event_after_the_other() {
    let listen = "{listen: {to: {any: [], until: '$context.last == 2'}}, foreach: {item: e, at: i, \
        do: [{w: {wait: {seconds: 1}}}, {s: {set: {n: '${ $e.n }', i: '${ $i }', from: '${ $input.who }'}}}], \
        output: {as: '${ {n: .n, i: .i, from: .from, e: $e} }'}, export: {as: '${ {last: .n} }'}}}";
    let mut run = Listener::of(listen, json!({"who": "ada"}));
    for n in 1..=2 {
        assert_eq!(run.play.run.hearing("/l"), Hearing::Ready);
        assert!(run.hear("x", json!({"n": n})));
        assert_eq!(run.play.run.hearing("/l"), Hearing::Busy);
        assert!(!run.hear("x", json!({"n": 9})), "it waits outside");
        run.play.now_ms += 1_000;
        run.play.tell(Event::Tick);
        run.journal.push((Event::Tick, run.play.now_ms));
    }
    assert_eq!(run.play.run.hearing("/l"), Hearing::Gone);
    let expected = |n: u64| json!({"n": n, "i": n - 1, "from": "ada", "e": {"n": n}});
    assert_eq!(run.output(), json!([expected(1), expected(2)]));
}

#[test]
fn the_time_of_a_task_that_listens_can_be_over() {
    let mut run = Listener::of(
        "{listen: {to: {any: []}}, timeout: {after: {seconds: 5}}}",
        json!({}),
    );
    run.play.now_ms = run.play.run.next_due_ms().unwrap();
    run.play.tell(Event::Tick);
    assert_eq!(run.play.run.status(), Status::Faulted);
    assert!(run.is_closed());
}

#[test]
fn what_a_listener_asked_for_is_given_up_when_something_around_it_ends() {
    let tasks = "  - f: {fork: {compete: true, branches: [{l: {listen: {to: {any: []}}}}, {w: {wait: {seconds: 1}}}]}}\n";
    let mut play = Play::of(tasks, json!({}));
    play.now_ms += 1_000;
    play.tell(Event::Tick);
    assert!(
        play.effects
            .iter()
            .any(|e| matches!(e, Effect::ListenClosed { task, .. } if task == "/f/l"))
    );
}

#[test]
fn emitted_events_are_whole_and_each_has_its_own_id() {
    let tasks = "  - a: {emit: {event: {with: {type: x, data: {n: 1}}}}}\n  - b: {emit: {event: {with: {type: x, id: mine, source: /s}}}}\n  - c: {emit: {event: {with: {type: x}}}}\n";
    let play = Play::of(tasks, json!({}));
    let events: Vec<CloudEvent> = play
        .effects
        .iter()
        .filter_map(|e| match e {
            Effect::Emit { event, .. } => Some(CloudEvent::new(event.clone()).unwrap()),
            _ => None,
        })
        .collect();
    let ids: Vec<&str> = events.iter().map(CloudEvent::id).collect();
    assert_eq!(ids, ["run-1-1", "mine", "run-1-3"]);
    assert_eq!(events[0].source(), "cofferdam:t/t:1.0.0");
    assert_eq!(events[0].get("time"), Some(&json!("1970-01-01T00:00:01Z")));
}

#[test]
fn what_is_no_event_is_not_emitted_and_the_task_fails() {
    let tasks = "  - a: {emit: {event: {with: {type: '${ .kind }', TenantId: 5}}}}\n";
    let play = Play::of(tasks, json!({"kind": "x"}));
    let told = format!("{:?}", play.run.outcome());
    assert!(
        told.contains("`TenantId` cannot be the name of an attribute"),
        "{told}"
    );
    assert!(
        !play
            .effects
            .iter()
            .any(|e| matches!(e, Effect::Emit { .. }))
    );
}
