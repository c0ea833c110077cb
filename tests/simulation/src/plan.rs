//! Everything that is fixed for a seed: the configuration, the workflow, who starts what.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use cofferdam::config::{Admission, Tenant};
use cofferdam::{Config, Connection, HealthConfig, OnConflict, OnOutage, Sources, StartOptions};
use cofferdam_core::breaker;
use cofferdam_core::quarantine;
use cofferdam_core::rate::Rate;
use cofferdam_core::retry::{Backoff, Growth, Jitter};
use cofferdam_core::workflow::{OnDeadline, ReviewPolicy};
use cofferdam_host::Limits;
use serde_json::json;

use crate::dice::Dice;
use crate::flow::{self, CONNECTIONS, Flow, Promise};
use crate::oracle::Oracle;
use crate::swarm::Swarm;
use crate::world::World;

/// Schedules of instants, and of events; their workflows are files of these names.
pub(crate) const OF_TIME: [&str; 3] = ["every", "cron", "after"];
const OF_EVENTS: [&str; 2] = ["each", "pairs"];

/// What is played in the world of one seed.
pub(crate) struct Plan {
    pub config: Config,
    pub flow: Flow,
    /// Who begins a run; several may begin the same one.
    pub starts: Vec<Start>,
    /// The schedules, by name.
    pub schedules: Vec<&'static str>,
    /// After how many records a checkpoint is written, in some worlds.
    pub checkpoint_every: Option<u64>,
}

/// One caller.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// What the run is called in the history; its id, unless it is begun by key.
    pub name: String,
    pub options: StartOptions,
    /// Whether the caller may give up before it is answered.
    pub is_hasty: bool,
    /// How long after the beginning of the world the caller comes.
    pub after_ms: u64,
}

impl Plan {
    pub fn new(world: &World) -> Self {
        let mut state = world.lock();
        let swarm = state.swarm;
        let mut dice = state.dice.split();
        let flow = flow::write(&mut dice, swarm);
        state.note("", &flow.sources.main.text);
        for other in flow.sources.others.values() {
            state.note("", &other.text);
        }
        let config = CONNECTIONS.iter().fold(Config::new(), |config, name| {
            config.with_connection(connection(name, &mut dice, swarm))
        });
        let durability = *dice.pick(&[
            cofferdam::Durability::OutputCommit,
            cofferdam::Durability::OutputCommit,
            cofferdam::Durability::EveryTask,
        ]);
        let config = config.with_durability(durability);
        for connection in config.connections() {
            let most = connection.spec().limits.concurrency_max as usize;
            let name = connection.name().to_owned();
            state.services.concurrency_max.insert(name, most);
        }
        let starts = (1..=dice.range(1..=3)).map(Start::plain).collect();
        let checkpoint_every = dice.percent(60).then(|| dice.range(1..=5));
        let forgets = checkpoint_every.is_some() && dice.percent(40);
        let config = if forgets {
            config.with_records_max(dice.range(1..=12))
        } else {
            config
        };
        let mut plan = Self {
            config,
            flow,
            starts,
            schedules: Vec::new(),
            checkpoint_every,
        };
        plan.add_patterns(&mut dice, swarm);
        if swarm.is_plain() {
            return plan;
        }
        state.note("", &format!("{swarm:?}"));
        for start in &plan.starts {
            state.note("", &format!("{start:?}"));
        }
        plan
    }

    /// Tells the oracle what it holds the engine to.
    pub fn tell(&self, oracle: &mut Oracle) {
        oracle.promises.clone_from(&self.flow.promises);
        let Sources { main, others } = &self.flow.sources;
        let probe = flow::probe().sources.main;
        for source in others.values().chain([main, &probe]) {
            oracle.texts.add(&source.text);
        }
        for workflow in self.config.workflows() {
            let text = std::fs::read_to_string(&workflow.file);
            oracle.texts.add(&text.unwrap_or_default());
        }
        oracle.waits.clone_from(&self.flow.waits);
        oracle.waits.insert("rest".to_owned(), 2_500);
        for (task, connection) in [("look", "crm"), ("note", "mail")] {
            let promise = Promise {
                connection: connection.to_owned(),
                ..Promise::default()
            };
            oracle.promises.insert(task.to_owned(), promise);
        }
        oracle.kept_ms = self.config.retention().map(|kept| kept.as_millis() as u64);
        oracle.admission.clone_from(self.config.admission());
        for connection in self.config.connections() {
            if let Some(rate) = connection.spec().limits.rate {
                let name = connection.name().to_owned();
                oracle.pace.rates.insert(name, rate);
            }
        }
        for start in &self.starts {
            if let (Some(id), Some(priority)) = (&start.options.id, start.options.priority) {
                oracle.lines.priorities.insert(id.clone(), priority);
            }
            if let Some(id) = &start.options.id {
                let tenant = start.options.tenant.clone();
                oracle.starts.insert(id.clone(), tenant);
            }
            if start.options.key.is_some() {
                oracle.on_conflict = start.options.on_conflict;
            }
        }
    }

    fn add_patterns(&mut self, dice: &mut Dice, swarm: Swarm) {
        if swarm.queue {
            let more = dice.range(2..=5);
            let from = self.starts.len() as u64;
            self.starts
                .extend((1..=more).map(|n| Start::plain(from + n)));
            for start in &mut self.starts {
                let tenant = *dice.pick(&["", "acme", "zeta"]);
                tenant.clone_into(&mut start.options.tenant);
                start.options.priority = Some(dice.range(0..=9) as u8);
                let key = dice.pick(&[None, Some("k1"), Some("k2")]);
                start.options.concurrency_key = key.map(ToOwned::to_owned);
            }
            self.config = std::mem::take(&mut self.config).with_admission(admission(dice));
            if swarm.crowd {
                let from = self.starts.len() as u64;
                let more = dice.range(6..=10);
                self.starts.extend((1..=more).map(|n| {
                    let mut start = Start::plain(from + n);
                    "acme".clone_into(&mut start.options.tenant);
                    start
                }));
            }
        }
        if swarm.keys {
            let conflict = *dice.pick(&[
                OnConflict::UseExisting,
                OnConflict::UseExisting,
                OnConflict::RestartIfFaulted,
            ]);
            let callers = dice.range(2..=4);
            self.starts
                .extend((1..=callers).map(|n| Start::by_key(n, conflict)));
        }
        if swarm.reuse {
            self.come_again(dice);
        }
        if swarm.queue || swarm.keys {
            for start in &mut self.starts {
                start.is_hasty = dice.percent(25);
            }
        }
        if swarm.retention {
            let longest = if swarm.reuse { 180 } else { 600 };
            let kept = Duration::from_secs(dice.range(60..=longest));
            self.config = std::mem::take(&mut self.config).with_retention(kept);
        }
        if swarm.schedules {
            self.schedules.push(*dice.pick(&OF_TIME));
            if swarm.events {
                self.schedules.push(*dice.pick(&OF_EVENTS));
            }
            for name in &self.schedules {
                let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("workflows");
                let file = folder.join(format!("{name}.json"));
                let config = std::mem::take(&mut self.config);
                self.config = config.with_workflow(*name, file, json!({}));
            }
        }
    }
}

impl Plan {
    /// Some come with the key when its run has ended, and some when it is gone.
    fn come_again(&mut self, dice: &mut Dice) {
        let restarts = dice.percent(40);
        let callers = self.starts.iter().filter(|s| s.options.key.is_some());
        let (from, more) = (callers.count() as u64, dice.range(1..=3));
        let conflict = self.starts.last().map(|start| start.options.on_conflict);
        for n in 1..=more {
            let mut start = Start::by_key(from + n, conflict.unwrap_or_default());
            start.after_ms = dice.range(30_000..=400_000);
            self.starts.push(start);
        }
        for start in &mut self.starts {
            if restarts && start.options.key.is_some() {
                start.options.on_conflict = OnConflict::RestartIfEnded;
            }
        }
    }
}

impl Start {
    fn plain(n: u64) -> Self {
        let name = format!("run-{n}");
        let id = Some(name.clone());
        Self {
            name,
            options: StartOptions {
                id,
                ..StartOptions::default()
            },
            is_hasty: false,
            after_ms: 0,
        }
    }

    fn by_key(caller: u64, on_conflict: OnConflict) -> Self {
        Self {
            name: format!("caller {caller} of order-7"),
            options: StartOptions {
                key: Some("order-7".to_owned()),
                on_conflict,
                ..StartOptions::default()
            },
            is_hasty: false,
            after_ms: 0,
        }
    }
}

fn admission(dice: &mut Dice) -> Admission {
    let mut tenant = || Tenant {
        weight: dice.range(1..=3) as u32,
        runs_max: *dice.pick(&[1, 2, usize::MAX]),
    };
    let tenants = BTreeMap::from([("acme".to_owned(), tenant()), ("zeta".to_owned(), tenant())]);
    Admission {
        runs_active_max: dice.range(1..=3) as usize,
        key_default: 1,
        keys: BTreeMap::from([("k2".to_owned(), dice.range(1..=2) as usize)]),
        tenants,
    }
}

fn rate(dice: &mut Dice) -> Rate {
    let (calls, burst) = (dice.range(1..=10) as u32, dice.range(1..=3) as u32);
    let rate = Rate::new(calls, Duration::from_secs(1), burst);
    let wait = Duration::from_millis(dice.range(100..=5_000));
    rate.map_or_else(|e| unreachable!("{e}"), |rate| rate.with_max_wait(wait))
}

fn review(dice: &mut Dice) -> ReviewPolicy {
    let people = ["ann", "bob"];
    let count = dice.range(0..=2) as usize;
    ReviewPolicy {
        deadline_ms: Some(dice.range(500..=40_000)),
        on_deadline: if count > 0 && dice.percent(60) {
            OnDeadline::Escalate
        } else {
            OnDeadline::Reject
        },
        escalate_to: people.iter().take(count).map(ToString::to_string).collect(),
    }
}

fn connection(name: &str, dice: &mut Dice, swarm: Swarm) -> Connection {
    let backoff = Backoff {
        initial_ms: dice.range(1..=400),
        growth: Growth::Exponential { factor: 2.0 },
        delay_ms_max: 5_000,
        jitter: Jitter::Full,
    };
    let breaker = breaker::Config {
        sliding_window_size: 8,
        minimum_number_of_calls: dice.range(2..=6) as usize,
        wait_duration_in_open_state_ms: dice.range(100..=3_000),
        permitted_number_of_calls_in_half_open_state: dice.range(1..=3) as u32,
        slow_call_duration_ms: 400,
        ..breaker::Config::default()
    };
    let rate = swarm.rates.then(|| rate(dice));
    let limits = Limits {
        rate: rate.filter(|_| dice.percent(60)),
        concurrency_max: dice.range(1..=4) as u32,
        timeout: Duration::from_millis(dice.range(100..=2_000)),
        ..Limits::default()
    };
    let mut on_outage = match dice.range(0..=5) {
        0 => OnOutage::Fail,
        1 => OnOutage::Fallback,
        2..=3 => OnOutage::Park {
            deadline_ms: dice.range(1_000..=120_000),
        },
        _ => OnOutage::Park {
            deadline_ms: 60 * 60 * 1_000,
        },
    };
    if swarm.outbox && dice.percent(50) {
        on_outage = OnOutage::QueueAndForward {
            deliver_within_ms: dice.range(5_000..=600_000),
        };
    }
    if swarm.tame {
        on_outage = OnOutage::Fail;
    }
    let quarantine = quarantine::Config {
        delay_ms: dice.range(100..=2_000),
        delay_ms_max: 10_000,
        ..quarantine::Config::default()
    };
    let attempt = Duration::from_millis(dice.range(100..=1_500));
    let connection = Connection::new(name, "simulated")
        .with_retry(dice.range(1..=4) as u32, backoff)
        .with_breaker(breaker)
        .with_limits(limits)
        .with_on_outage(on_outage)
        .with_quarantine(quarantine)
        .with_timeouts(attempt, Duration::from_secs(dice.range(2..=60)));
    let backups: &[&str] = if name == "crm" && dice.percent(60) {
        &["crm2"]
    } else {
        &[]
    };
    let mut connection = connection.with_backups(backups.iter().copied());
    if swarm.health && dice.percent(70) {
        connection = connection.with_health(HealthConfig {
            interval_ms: dice.range(300..=3_000),
            timeout_ms: dice.range(100..=1_000),
            unhealthy_threshold: dice.range(1..=3) as u32,
            healthy_threshold: dice.range(1..=3) as u32,
            slow_ms: None,
        });
    }
    if swarm.deadlines && dice.percent(70) {
        connection = connection.with_review(review(dice));
    }
    if swarm.outbox && dice.percent(30) {
        connection = connection.with_outbox_max(dice.range(1..=2) as usize);
    }
    connection
}
