//! Workflows made by dice: every kind of task that the language has for flow, and every policy that
//! a call can have.

mod listen;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cofferdam::{Source, Sources};
use serde_json::{Map, Value, json};

use crate::dice::Dice;
use crate::swarm::Swarm;

pub use listen::KINDS;

/// The connections that workflows call; `crm2` stands in for `crm`.
pub const CONNECTIONS: [&str; 4] = ["crm", "crm2", "pay", "mail"];

/// The connection that stands in where a workflow names a call as a fallback.
pub const OTHER: &str = "mail";

/// What the oracle needs to know of a call task, by its name.
#[derive(Debug, Clone, Default)]
pub struct Promise {
    /// The connection that it calls.
    pub connection: String,
    /// Attempts, where the workflow says so.
    pub attempts_max: Option<u32>,
    /// Undone when the run faults, even if nobody knows whether it happened.
    pub compensated: bool,
    /// Inside of a `try` that tries again: attempts are counted anew each time.
    pub tried_again: bool,
    /// Whether a slow attempt may get a second one beside it.
    pub hedged: bool,
}

/// A workflow and what the oracle holds it to.
#[derive(Debug, Clone)]
pub struct Flow {
    /// The texts.
    pub sources: Sources,
    /// By the name of the call task.
    pub promises: BTreeMap<String, Promise>,
    /// By the name of the task that waits: how long, in milliseconds.
    pub waits: BTreeMap<String, u64>,
}

/// Nesting beyond the workflow's own block.
const DEPTH_MAX: u32 = 3;
const CHILD: &str = "child";

struct Author<'d> {
    dice: &'d mut Dice,
    swarm: Swarm,
    /// Tasks that may still be written.
    left: u32,
    names: u32,
    promises: BTreeMap<String, Promise>,
    waits: BTreeMap<String, u64>,
    child: Option<Value>,
}

/// Where a task stands.
#[derive(Clone, Default)]
struct Place {
    depth: u32,
    /// What tells the iterations around it apart: variables, without their `$`.
    loops: Vec<String>,
    tried_again: bool,
}

impl Place {
    fn deeper(&self) -> Self {
        Self {
            depth: self.depth + 1,
            ..self.clone()
        }
    }
}

/// A workflow of a few tasks.
pub fn write(dice: &mut Dice, swarm: Swarm) -> Flow {
    let left = dice.range(2..=7) as u32;
    let mut author = Author {
        dice,
        swarm,
        left,
        names: 0,
        promises: BTreeMap::new(),
        waits: BTreeMap::new(),
        child: None,
    };
    let tasks = author.block(&Place::default(), true);
    let main = Source {
        origin: "main.json".to_owned(),
        text: document("main", &tasks).to_string(),
    };
    let others = author.child.take().map(|tasks| {
        let text = document(CHILD, &tasks).to_string();
        let origin = "child.json".to_owned();
        (format!("sim/{CHILD}:1.0.0"), Source { origin, text })
    });
    Flow {
        sources: Sources {
            main,
            others: others.into_iter().collect(),
        },
        promises: author.promises,
        waits: author.waits,
    }
}

/// A workflow that reads from every connection: shows that each can be called again.
pub fn probe() -> Flow {
    let reads = CONNECTIONS.iter().map(|connection| {
        let name = format!("probe-{connection}");
        let with = json!({"id": format!("${{ $workflow.id + \"|{name}\" }}")});
        json!({name: {"call": format!("{connection}.read"), "with": with}})
    });
    let main = Source {
        origin: "probe.json".to_owned(),
        text: document("probe", &reads.collect()).to_string(),
    };
    Flow {
        sources: Sources {
            main,
            others: BTreeMap::new(),
        },
        promises: BTreeMap::new(),
        waits: BTreeMap::new(),
    }
}

fn document(name: &str, tasks: &Value) -> Value {
    let head = json!({"dsl": "1.0.3", "namespace": "sim", "name": name, "version": "1.0.0"});
    json!({"document": head, "do": tasks})
}

/// What names an effect for the oracle, whatever the engine thinks of keys: run, task, iteration.
fn identity(name: &str, place: &Place) -> String {
    let mut loops = String::new();
    for at in &place.loops {
        // Writing to a string cannot fail.
        let _ = write!(loops, " + \"|\" + (${at} | tostring)");
    }
    format!("${{ $workflow.id + \"|{name}\"{loops} }}")
}

impl Author<'_> {
    fn name(&mut self) -> String {
        self.names += 1;
        format!("t{}", self.names)
    }

    fn block(&mut self, place: &Place, outermost: bool) -> Value {
        let mut tasks = Vec::new();
        loop {
            tasks.push(self.task(place));
            let more = self.left > 0 && (outermost || self.dice.percent(45));
            if !more {
                return Value::Array(tasks);
            }
        }
    }

    fn task(&mut self, place: &Place) -> Value {
        self.left = self.left.saturating_sub(1);
        let name = self.name();
        let nests = place.depth < DEPTH_MAX && self.left > 0;
        if let Some(task) = self.task_of_swarm(&name, place, nests) {
            return json!({name: task});
        }
        let task = match self.dice.range(0..=99) {
            0..=9 if nests => self.fork(place),
            10..=19 if nests => self.each(&name, place),
            20..=32 if nests => self.tries(place),
            33..=36 if nests => json!({"do": self.block(&place.deeper(), false)}),
            37..=41 if nests && self.child.is_none() && place.loops.is_empty() => self.runs(place),
            42..=49 => {
                let ms = self.duration_ms();
                self.waits.insert(name.clone(), ms);
                json!({"wait": {"milliseconds": ms}})
            }
            50..=53 => self.emit(&name, place),
            54..=55 => json!({"set": {"by": identity(&name, place)}}),
            56 => json!({"raise": {"error": {
                "type": "https://sim.example/errors/raised", "status": 400, "title": "Raised",
            }}}),
            _ => self.call(&name, place),
        };
        json!({name: task})
    }

    /// Mostly short, sometimes longer than a run stays in memory.
    fn duration_ms(&mut self) -> u64 {
        match self.dice.range(0..=2) {
            0 => self.dice.range(1..=50),
            1 => self.dice.range(50..=1_900),
            _ => self.dice.range(2_000..=20_000),
        }
    }

    fn fork(&mut self, place: &Place) -> Value {
        let branches: Vec<_> = (0..self.dice.range(2..=3))
            .map(|_| self.task(&place.deeper()))
            .collect();
        json!({"fork": {"compete": self.dice.percent(25), "branches": branches}})
    }

    fn each(&mut self, name: &str, place: &Place) -> Value {
        let mut inner = place.deeper();
        let at = format!("at_{name}");
        inner.loops.push(at.clone());
        let items: Vec<u64> = (0..self.dice.range(1..=3)).collect();
        let mut task = json!({
            "for": {"each": format!("item_{name}"), "at": at, "in": items},
            "do": self.block(&inner, false),
        });
        if self.dice.percent(60) {
            let mut policy = json!({"maxConcurrency": self.dice.range(2..=3)});
            if self.dice.percent(30) {
                policy["toleratedFailurePercent"] = json!(50);
            }
            task["metadata"] = json!({"cofferdam": policy});
        }
        task
    }

    fn tries(&mut self, place: &Place) -> Value {
        let mut catch = json!({});
        let again = self.dice.percent(60);
        if again {
            catch["retry"] = json!({
                "delay": {"milliseconds": self.duration_ms()},
                "limit": {"attempt": {"count": self.dice.range(1..=3)}},
            });
        }
        if !again || self.dice.percent(50) {
            catch["do"] = self.block(&place.deeper(), false);
        }
        let mut inner = place.deeper();
        inner.tried_again |= again;
        json!({"try": self.block(&inner, false), "catch": catch})
    }

    fn runs(&mut self, place: &Place) -> Value {
        // Taken before it is written, so that no workflow runs itself.
        self.child = Some(Value::Null);
        let tasks = self.block(&place.deeper(), false);
        self.child = Some(tasks);
        json!({"run": {"workflow": {"namespace": "sim", "name": CHILD, "version": "1.0.0"}}})
    }

    fn emit(&mut self, name: &str, place: &Place) -> Value {
        let mut with = json!({
            "source": "https://sim.example/", "type": "com.example.sim",
            "data": {"id": identity(name, place)},
        });
        if self.swarm.events {
            with["type"] = json!(self.dice.pick(&KINDS));
            with["data"]["order"] = json!(self.dice.pick(&listen::ORDERS));
        }
        json!({"emit": {"event": {"with": with}}})
    }

    /// A task that worlds without the pattern do not have.
    fn task_of_swarm(&mut self, name: &str, place: &Place, nests: bool) -> Option<Value> {
        if self.swarm.tame {
            return Some(self.call(name, place));
        }
        if self.swarm.events && self.dice.percent(40) {
            return Some(self.listen(name, place, nests));
        }
        if self.swarm.detached && nests && self.child.is_none() && self.dice.percent(40) {
            let mut task = self.runs(&Place::default());
            task["run"]["await"] = json!(false);
            return Some(task);
        }
        if self.swarm.hedging && self.dice.percent(5) {
            return Some(self.reads_often(name, place));
        }
        None
    }

    /// More second attempts than a connection may have at once.
    fn reads_often(&mut self, name: &str, place: &Place) -> Value {
        let mut inner = place.deeper();
        let at = format!("at_{name}");
        inner.loops.push(at.clone());
        let read = self.name();
        let promise = Promise {
            connection: "pay".to_owned(),
            tried_again: place.tried_again,
            hedged: true,
            ..Promise::default()
        };
        self.promises.insert(read.clone(), promise);
        let items: Vec<u64> = (0..30).collect();
        let call = json!({
            "call": "pay.read", "with": {"id": identity(&read, &inner)},
            "metadata": {"cofferdam": {"hedge": {"milliseconds": 1}}},
        });
        json!({
            "for": {"each": format!("item_{name}"), "at": at, "in": items},
            "do": [{read: call}],
        })
    }

    #[expect(clippy::too_many_lines, reason = "a list of dice, one for each policy")]
    fn call(&mut self, name: &str, place: &Place) -> Value {
        let connection = *self.dice.pick(&["crm", "crm", "pay", "mail"]);
        if self.swarm.tame {
            return self.tame_call(name, place, connection);
        }
        let (action, is_read, is_once, looks_up) = *self.dice.pick(&[
            ("read", true, false, false),
            ("read", true, false, false),
            ("read", true, false, false),
            ("keep", false, false, false),
            ("keep", false, false, false),
            ("mark", false, false, true),
            ("pay", false, true, false),
            ("book", false, true, true),
        ]);
        let mut promise = Promise {
            connection: connection.to_owned(),
            tried_again: place.tried_again,
            ..Promise::default()
        };
        let mut policy = Map::new();
        let mut set = |key: &str, value: Value| policy.insert(key.to_owned(), value);
        if self.dice.percent(15) {
            set("critical", json!(false));
        }
        match self.dice.range(0..=9) {
            0 => drop(set("fallback", json!([{"value": {"made": "up"}}]))),
            1 => {
                let with = json!({"id": identity(&format!("{name}~other"), place)});
                set(
                    "fallback",
                    json!([{"call": format!("{OTHER}.keep"), "with": with}]),
                );
            }
            _ => {}
        }
        match self.dice.range(0..=9) {
            0 => drop(set("onOutage", json!("fail"))),
            1 => drop(set("onOutage", json!("fallback"))),
            2..=4 => {
                let deadline = json!({"milliseconds": self.dice.range(1..=40_000)});
                set("onOutage", json!({"park": {"deadline": deadline}}));
            }
            _ => {}
        }
        let share = if self.swarm.deadlines { 60 } else { 15 };
        if self.dice.percent(share) {
            let word = if self.dice.percent(60) {
                "review"
            } else {
                "deadLetter"
            };
            set("onExhausted", json!(word));
        }
        if self.dice.percent(20) {
            let mut words = vec!["review"];
            if !is_once {
                words.push("repeat");
            }
            if looks_up {
                words.push("lookup");
            }
            set("onUnknown", json!(self.dice.pick(&words)));
        }
        if self.dice.percent(12) {
            let attempts = self.dice.range(1..=4) as u32;
            promise.attempts_max = Some(attempts);
            set("attempts", json!(attempts));
        }
        if self.dice.percent(12) {
            let ms = self.dice.range(20..=1_000);
            set("timeout", json!({"startToClose": {"milliseconds": ms}}));
        }
        if self.dice.percent(12) && place.loops.is_empty() {
            let key = format!("$workflow.id + \"-{name}\"");
            set("idempotencyKey", json!(key));
        }
        if connection != "crm" && self.dice.percent(10) {
            set("failover", json!(["crm2"]));
        }
        if !is_read && self.dice.percent(60) {
            let always = self.dice.percent(80);
            promise.compensated = always;
            set(
                "compensate",
                json!({
                    "call": "undo",
                    "with": {"id": "${ $input.id + \"|undo\" }", "of": "${ $input.id }"},
                    "when": if always { "attempted" } else { "completed" },
                }),
            );
        }
        let mut with = json!({"id": identity(name, place)});
        if self.swarm.hedging && !is_once && self.dice.percent(60) {
            promise.hedged = true;
            let ms = self.dice.range(1..=100);
            policy.insert("hedge".to_owned(), json!({"milliseconds": ms}));
        }
        let is_undone = policy.contains_key("compensate");
        if self.swarm.outbox && !is_read && !is_undone && self.dice.percent(85) {
            let seconds = *self.dice.pick(&[5, 30, 600, 3_600]);
            let within = json!({"queueAndForward": {"deliverWithin": {"seconds": seconds}}});
            policy.insert("onOutage".to_owned(), within);
        }
        if self.swarm.answers && is_read && self.dice.percent(60) {
            // Every run asks the same, so that one can have what another was answered.
            with = json!({"id": format!("any|{name}")});
            let max_age = json!({"maxAge": {"seconds": self.dice.range(1..=120)}});
            policy.insert(
                "fallback".to_owned(),
                json!([{"cache": max_age}, {"value": {"made": "up"}}]),
            );
        }
        self.promises.insert(name.to_owned(), promise);
        let mut task = json!({
            "call": format!("{connection}.{action}"),
            "with": with,
            "metadata": {"cofferdam": policy},
        });
        if self.dice.percent(8) {
            task["timeout"] = json!({"after": {"milliseconds": self.dice.range(10..=10_000)}});
        }
        task
    }

    /// One that neither waits nor asks anybody when it fails.
    fn tame_call(&mut self, name: &str, place: &Place, connection: &str) -> Value {
        let promise = Promise {
            connection: connection.to_owned(),
            ..Promise::default()
        };
        self.promises.insert(name.to_owned(), promise);
        let action = *self.dice.pick(&["read", "keep"]);
        let policy =
            json!({"onOutage": "fail", "onExhausted": "deadLetter", "onUnknown": "repeat"});
        json!({
            "call": format!("{connection}.{action}"),
            "with": {"id": identity(name, place)},
            "metadata": {"cofferdam": policy},
        })
    }
}
