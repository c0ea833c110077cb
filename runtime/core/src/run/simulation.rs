//! A small seeded simulator: the machine on a virtual clock, with connectors that fail in every
//! way, a breaker that refuses, and a runtime that is killed between any two events.
//!
//! An oracle counts what really happened at the services. One seed gives one history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::checkpoint::check::read_back;
use super::tests::{bindings, compile};
use super::*;
use crate::call::{Decision, Lookup};
use crate::descriptor::Effect as Repeat;
use crate::failure::{Class, EffectState, Failure};

/// `SplitMix64` (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn percent(&mut self, share: u64) -> bool {
        self.roll() % 100 < share
    }
}

/// What the services saw: how often the effect of each key happened.
#[derive(Default)]
struct Services {
    effects: BTreeMap<String, u32>,
    outputs: BTreeMap<String, Value>,
    /// On which connections each effect happened.
    places: BTreeMap<String, BTreeSet<String>>,
    /// Charges that arrived after they had been refunded.
    too_late: Vec<String>,
}

impl Services {
    /// One request arrives. Keyed actions take effect once per key; `once` actions each time.
    fn happen(&mut self, attempt: &Attempt) -> Value {
        if attempt.action == "charge" && self.outputs.contains_key(&refund_of(attempt)) {
            self.too_late.push(attempt.key.clone());
        }
        let count = self.effects.entry(attempt.key.clone()).or_default();
        match attempt.effect {
            Repeat::Read => {}
            Repeat::Idempotent => *count = 1,
            Repeat::Once => *count += 1,
        }
        if attempt.effect != Repeat::Read {
            let places = self.places.entry(attempt.key.clone()).or_default();
            places.insert(attempt.connection.clone());
        }
        self.answer(&attempt.key)
    }

    fn answer(&mut self, key: &str) -> Value {
        let output = json!({"key": key});
        self.outputs.insert(key.to_owned(), output.clone());
        output
    }

    /// A call is in an outbox: it will arrive.
    fn accept(&mut self, key: &str) {
        *self.effects.entry(key.to_owned()).or_default() += 1;
        self.answer(key);
    }
}

/// The key under which the charge of this attempt is refunded.
fn refund_of(attempt: &Attempt) -> String {
    attempt.key.replacen('/', "undo:/", 1)
}

struct World {
    dice: Dice,
    now_ms: u64,
    journal: Vec<(u64, Event)>,
    /// How much of the journal a crash cannot take away.
    durable: usize,
    services: Services,
    todo: Vec<Effect>,
    under_way: Vec<Attempt>,
    /// The same run, forgetting what it may, and read back from a checkpoint now and then.
    twin: Run,
    /// Whether people look into what came of a call.
    is_patient: bool,
    /// Answers that are on their way.
    late: Vec<Event>,
    /// The key of what each task calls.
    keys: BTreeMap<String, String>,
}

const BAD_LUCK_PERCENT: u64 = 30;
const STEPS_MAX: usize = 3_000;

impl World {
    /// Tells the machine what happened; false if it did not fit.
    fn feed(&mut self, run: &mut Run, event: Event) -> bool {
        if self.dice.percent(5) {
            self.twin = read_back(&self.twin);
        }
        let stepped = run.step(event.clone(), self.now_ms);
        let same = self.twin.step(event.clone(), self.now_ms);
        assert_eq!(same, stepped, "{event:?}");
        assert_same(&self.twin, run);
        let Ok(effects) = stepped else {
            return false;
        };
        self.journal.push((self.now_ms, event));
        for effect in &effects {
            if let Effect::Attempt(Attempt { task, key, .. }) | Effect::Lookup { task, key, .. } =
                effect
            {
                self.keys.insert(task.clone(), key.clone());
            }
        }
        self.todo.extend(effects);
        true
    }

    /// Begins an attempt, as the engine does: intent first, durable if it matters.
    fn attempt(&mut self, run: &mut Run, attempt: Attempt) {
        if self.dice.percent(10) {
            let failure = Failure::new(Class::Unavailable, "breaker.open", "out");
            self.feed(
                run,
                Event::Refused {
                    ticket: attempt.ticket,
                    failure,
                },
            );
            return;
        }
        let begun = Event::Started {
            ticket: attempt.ticket,
            digest: "d".into(),
        };
        if !self.feed(run, begun) {
            return; // Withdrawn: something around the task has ended.
        }
        if attempt.effect != Repeat::Read {
            self.durable = self.journal.len();
        }
        self.under_way.push(attempt);
    }

    fn end(&mut self, run: &mut Run) {
        let index = (self.dice.roll() as usize) % self.under_way.len();
        let attempt = self.under_way.swap_remove(index);
        let ticket = attempt.ticket;
        if !self.dice.percent(BAD_LUCK_PERCENT) {
            let output = self.services.happen(&attempt);
            self.feed(run, Event::Succeeded { ticket, output });
            return;
        }
        let class = Class::ALL[(self.dice.roll() % 12) as usize];
        let happened = self.dice.percent(50);
        if happened {
            self.services.happen(&attempt);
        }
        let told = if happened || self.dice.percent(20) {
            EffectState::Unknown
        } else {
            EffectState::None
        };
        let failure = Failure::new(class, "sim", "sim").with_effect(told);
        let draw = self.dice.roll() as u32;
        self.feed(
            run,
            Event::Failed {
                ticket,
                failure,
                draw,
            },
        );
    }

    fn look_up(&mut self, run: &mut Run, ticket: u64, key: &str) {
        let answer = match self.services.outputs.get(key) {
            _ if self.dice.percent(20) => Lookup::Failed {
                failure: Failure::new(Class::Unavailable, "sim", "sim"),
            },
            Some(output) => Lookup::Found {
                output: output.clone(),
            },
            None => Lookup::Absent,
        };
        let draw = self.dice.roll() as u32;
        let answered = Event::LookedUp {
            ticket,
            answer,
            draw,
        };
        if self.dice.percent(70) {
            self.feed(run, answered);
        } else {
            self.late.push(answered);
        }
    }

    /// A person finds out what came of a call, or gives up; none if that cannot be told yet.
    fn decision(&mut self, task: &str) -> Option<Decision> {
        let key = self.keys.get(task).cloned().unwrap_or_default();
        let reason = "simulated".to_owned();
        if !self.is_patient {
            return Some(Decision::Reject { reason });
        }
        if self.dice.percent(30) || self.under_way.iter().any(|a| a.key == key) {
            return None;
        }
        Some(match self.services.outputs.get(&key).cloned() {
            _ if self.dice.percent(20) => Decision::Reject { reason },
            Some(output) => Decision::Approve { output },
            None => Decision::Retry,
        })
    }

    fn recall(&mut self, run: &mut Run, ticket: u64) {
        let at_ms = self.now_ms;
        let found = self.dice.percent(50).then(|| Kept {
            output: json!({"kept": true}),
            at_ms,
        });
        self.feed(run, Event::Recalled { ticket, found });
    }

    /// The process is killed: what was not durable is gone, and requests under way may or may
    /// not still arrive.
    fn crash(&mut self, fresh: &Run) -> Run {
        for attempt in std::mem::take(&mut self.under_way) {
            if self.dice.percent(50) {
                self.services.happen(&attempt);
            }
        }
        self.late.clear();
        self.journal.truncate(self.durable.max(1));
        let mut run = fresh.clone();
        self.twin = fresh.clone().slim();
        for (at, event) in &self.journal {
            run.step(event.clone(), *at).expect("a journal folds");
            let same = self.twin.step(event.clone(), *at);
            same.expect("whether or not it forgets");
        }
        assert_same(&self.twin, &run);
        self.todo = run.outstanding();
        for ticket in run.in_flight() {
            self.feed(&mut run, Event::Lost { ticket });
        }
        run
    }

    fn step(&mut self, run: &mut Run) {
        let due = run
            .next_due_ms()
            .is_some_and(|due_ms| due_ms <= self.now_ms);
        if due && self.dice.percent(30) {
            self.feed(run, Event::Tick);
            return;
        }
        if !self.late.is_empty() && self.dice.percent(30) {
            let answered = self.late.remove(0);
            self.feed(run, answered);
            return;
        }
        let choice = self.dice.roll() % 3;
        if let Some(effect) = (choice > 0 || self.under_way.is_empty())
            .then(|| self.todo.pop())
            .flatten()
        {
            match effect {
                Effect::Attempt(attempt) => self.attempt(run, attempt),
                Effect::Lookup { ticket, key, .. } => self.look_up(run, ticket, &key),
                Effect::Recall { ticket, .. } => self.recall(run, ticket),
                // Dropped, it may have arrived all the same.
                Effect::Cancel { ticket } => self.under_way.retain(|a| a.ticket != ticket),
                Effect::Park { task, .. } if self.dice.percent(70) => {
                    self.feed(run, Event::Recovered { task });
                }
                Effect::Defer { ticket, .. } if self.dice.percent(30) => {
                    self.feed(run, Event::NotDeferred { ticket });
                }
                Effect::Defer {
                    ticket, deferred, ..
                } => {
                    if self.feed(run, Event::Deferred { ticket }) {
                        // The row and the event are written together.
                        self.durable = self.journal.len();
                        self.services.accept(&deferred.key);
                    }
                }
                Effect::Review { ref task, .. } => {
                    let task = task.clone();
                    match self.decision(&task) {
                        Some(decision) => {
                            self.feed(run, Event::Decided { task, decision });
                        }
                        None => self.todo.insert(0, effect),
                    }
                }
                Effect::Park { .. }
                | Effect::ReviewClosed { .. }
                | Effect::Keep { .. }
                | Effect::Emit { .. }
                | Effect::Listen { .. }
                | Effect::Hear { .. }
                | Effect::ListenClosed { .. }
                | Effect::Begin { .. }
                | Effect::Finished => {}
            }
        } else if !self.under_way.is_empty() {
            self.end(run);
        } else if let Some(due_ms) = run.next_due_ms() {
            self.now_ms = self.now_ms.max(due_ms);
            self.feed(run, Event::Tick);
        }
        self.now_ms += self.dice.roll() % 50;
    }
}

const WORKFLOW: &str = r#"
document: {dsl: "1.0.3", namespace: sim, name: intake, version: "1.0.0"}
do:
  - crm:
      call: crm.upsert
      with: {email: "${ .email }"}
      metadata: {cofferdam: {compensate: {call: archive, with: {key: "${ $output.key }"}}}}
  - side:
      fork:
        branches:
          - mail: {call: mail.send, with: {}}
          - deposit:
              call: pay.charge
              with: {}
              metadata: {cofferdam: {compensate: {call: refund, with: {}}}}
          - chat:
              call: chat.post
              with: {}
              metadata: {cofferdam: {critical: false, onOutage: fallback}}
          - hedged:
              call: pay.charge
              with: {}
              metadata: {cofferdam: {hedge: PT0.01S, compensate: {call: refund, with: {}}}}
  - items:
      for: {each: item, in: "${ [1, 2, 3] }"}
      metadata: {cofferdam: {maxConcurrency: 2}}
      do:
        - look: {call: crm.get, with: {item: "${ $item }"}, metadata: {cofferdam: {hedge: PT0.02S, failover: [crm-eu], onOutage: fallback, fallback: [{cache: {maxAge: PT1H}}]}}}
  - charge: {call: pay.charge, with: {}}
"#;

/// Everything that can be entered again, and much that cannot.
const LOOPS: &str = r#"
document: {dsl: "1.0.3", namespace: sim, name: loops, version: "1.0.0"}
do:
  - again:
      try:
        - each:
            for: {each: n, in: "${ [1, 2, 3] }"}
            do:
              - pay: {call: pay.charge, with: {n: "${ $n }"}, timeout: {after: PT0.2S}, metadata: {cofferdam: {hedge: PT0.01S}}}
              - tell: {call: chat.post, with: {}, metadata: {cofferdam: {critical: false, onExhausted: fault}}}
      catch:
        retry: {delay: PT0.05S, limit: {attempt: {count: 2}}}
        do:
          - noted: {set: {given: up}}
  - rounds:
      do:
        - count: {set: {n: "${ (.n // 0) + 1 }"}}
        - keep: {call: crm.upsert, with: {n: "${ .n }"}, output: {as: "${ $input }"}, metadata: {cofferdam: {fallback: [{call: crm-eu.upsert, with: {other: true}}, {value: {}}]}}}
        - more: {switch: [{on: {when: "${ .n < 4 }", then: count}}, {enough: {then: exit}}]}
  - many:
      for: {each: m, in: "${ [range(6)] }"}
      metadata: {cofferdam: {maxConcurrency: 3, toleratedFailurePercent: 50}}
      do:
        - inner:
            try:
              - named: {call: pay.charge, with: {}, metadata: {cofferdam: {idempotencyKey: '${ "key-" + ($m % 2 | tostring) }'}}}
            catch: {errors: {with: {status: 400}}}
        - booked: {call: pay.charge, with: {}, timeout: {after: PT0.1S}, metadata: {cofferdam: {compensate: {call: refund, with: {}}}}}
        - later: {call: chat.post, with: {}, metadata: {cofferdam: {onOutage: queueAndForward}}}
  - nap: {wait: {milliseconds: 20}}
"#;

/// Tasks that name one key, side by side.
const SHARED: &str = r#"
document: {dsl: "1.0.3", namespace: sim, name: shared, version: "1.0.0"}
do:
  - side:
      fork:
        branches:
          - mail: {call: mail.send, with: {}, metadata: {cofferdam: {idempotencyKey: "${ \"mail\" }", attempts: 3}}}
          - late: {do: [{w: {wait: {milliseconds: 40}}}, {mail: {call: mail.send, with: {}, metadata: {cofferdam: {idempotencyKey: "${ \"mail\" }", attempts: 2}}}}]}
          - chat: {call: chat.post, with: {}, metadata: {cofferdam: {idempotencyKey: "${ \"chat\" }", critical: false, onOutage: {queueAndForward: {deliverWithin: PT2H}}}}}
          - chat2: {call: chat.post, with: {}, metadata: {cofferdam: {idempotencyKey: "${ \"chat\" }", critical: false}}}
          - chat3: {call: chat.post, with: {}, metadata: {cofferdam: {idempotencyKey: "${ \"chat\" }", attempts: 2, onOutage: {queueAndForward: {deliverWithin: PT2H}}}}}
          - crm: {call: crm.upsert, with: {}, metadata: {cofferdam: {idempotencyKey: "${ \"crm\" }", failover: [crm-eu]}}}
          - crm2: {call: crm.upsert, with: {}, metadata: {cofferdam: {idempotencyKey: "${ \"crm\" }", onUnknown: review}}}
"#;

/// What is seen from outside, whether or not it forgets.
fn assert_same(twin: &Run, run: &Run) {
    assert_eq!(twin.outstanding(), run.outstanding());
    assert_eq!(twin.in_flight(), run.in_flight());
    assert_eq!(twin.next_due_ms(), run.next_due_ms());
    assert_eq!(twin.status(), run.status());
    assert_eq!(twin.outcome(), run.outcome());
    assert_eq!(twin.is_degraded(), run.is_degraded());
    assert_eq!(twin.waits(), run.waits());
}

/// Plays one history to its end and returns the run and what the services saw.
fn play(seed: u64) -> (Run, Services) {
    play_in(WORKFLOW, seed)
}

fn play_in(workflow: &str, seed: u64) -> (Run, Services) {
    let fresh = Run::new(
        format!("run-{seed}"),
        compile(workflow),
        Arc::new(bindings()),
    );
    let mut world = World {
        dice: Dice(seed),
        now_ms: 1_000,
        journal: Vec::new(),
        durable: 0,
        services: Services::default(),
        todo: Vec::new(),
        under_way: Vec::new(),
        twin: fresh.clone().slim(),
        is_patient: workflow == SHARED,
        late: Vec::new(),
        keys: BTreeMap::new(),
    };
    let mut run = fresh.clone();
    world.feed(
        &mut run,
        Event::Begun {
            input: json!({"email": "ada@example.com"}),
        },
    );
    world.durable = 1;
    for _ in 0..STEPS_MAX {
        if run.outcome().is_some() && world.under_way.is_empty() {
            return (run, world.services);
        }
        if world.dice.percent(3) {
            run = world.crash(&fresh);
        }
        world.step(&mut run);
    }
    panic!(
        "seed {seed}: the run has not ended: {:#?}",
        run.reports().collect::<Vec<_>>()
    );
}

fn seeds() -> std::ops::Range<u64> {
    let from = std::env::var("COFFERDAM_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    from.map_or(0..3_000, |seed| seed..seed + 1)
}

#[test]
fn whatever_fails_every_run_ends_and_no_effect_happens_twice() {
    for seed in seeds() {
        let (_, services) = play(seed);
        for (key, count) in services.effects {
            assert!(
                count <= 1,
                "COFFERDAM_SEED={seed}: `{key}` happened {count} times"
            );
        }
    }
}

#[test]
fn whatever_fails_tasks_that_share_a_key_have_one_effect_in_one_place() {
    for seed in seeds() {
        let (run, services) = play_in(SHARED, seed);
        for (key, count) in &services.effects {
            let places = services.places.get(key).map_or(0, BTreeSet::len);
            assert!(
                *count <= 1 && places <= 1,
                "COFFERDAM_SEED={seed}: `{key}` happened {count} times in {places} places: {:#?}",
                run.reports().collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn a_completed_run_has_had_each_effect_that_it_reports_as_live() {
    for seed in seeds() {
        let (run, services) = play(seed);
        if !matches!(run.outcome(), Some(Outcome::Completed { .. })) {
            continue;
        }
        for report in run
            .reports()
            .filter(|r| r.provenance == Some(Provenance::Live))
        {
            let key = format!("{}{}", run.id(), report.task);
            assert!(
                services.outputs.contains_key(&key),
                "COFFERDAM_SEED={seed}: {key}"
            );
        }
    }
}

#[test]
fn a_faulted_run_leaves_nothing_that_was_not_undone_or_told() {
    for seed in seeds() {
        let (run, services) = play(seed);
        let crm = format!("{}/crm", run.id());
        if !matches!(run.outcome(), Some(Outcome::Faulted { .. }))
            || !services.outputs.contains_key(&crm)
        {
            continue;
        }
        let undo = run.reports().find(|r| r.task == "undo:/crm");
        assert!(
            undo.is_some(),
            "COFFERDAM_SEED={seed}: the contact was made and never undone"
        );
    }
}

#[test]
fn nothing_arrives_after_its_own_undoing() {
    for seed in seeds() {
        let (_, services) = play(seed);
        assert_eq!(services.too_late, [""; 0], "COFFERDAM_SEED={seed}");
    }
}

#[test]
fn in_loops_whatever_fails_a_run_that_forgets_and_is_read_back_does_the_same() {
    for seed in seeds().take(600) {
        let (_, services) = play_in(LOOPS, seed);
        // A task that is tried again with a key of the workflow's own is another effect.
        for (key, count) in services.effects {
            assert!(
                count <= 1,
                "COFFERDAM_SEED={seed}: `{key}` happened {count} times"
            );
        }
    }
}

#[test]
fn one_seed_gives_one_history() {
    for seed in 0..50 {
        assert_eq!(
            play(seed).0.reports().collect::<Vec<_>>(),
            play(seed).0.reports().collect::<Vec<_>>()
        );
    }
}
