//! One cell of the matrix: a connection and a service of its own, and what was seen there.

use cofferdam::{
    AttemptReport, Decision, Definition, EffectState, RunView, Runtime, Status, WaitsFor,
};
use cofferdam_standins::{Options, Standins};
use cofferdam_store::{JournalStore, MemoryStore};
use serde_json::{Value, json};

use super::services::Service;
use super::stage::{LOOK_EVERY, WAIT_MAX};
use super::table::{NOTHING, Row, Seen};

/// No backoff is longer. They are drawn evenly from nothing to this.
const DELAY_MS_MAX: u64 = 100;
/// How long a call may take; those that are to time out have less.
const TIMEOUT: &str = "20s";
/// Far more than a call takes on a machine that is busy, far less than anybody wants to wait.
const TIMEOUT_SHORT: &str = "4s";

/// The key of the workflow's only task.
const TASK: &str = "/call";

/// A row of the table, and where it is tried.
pub(crate) struct Cell {
    pub(crate) row: Row,
    connection: String,
    service: Service,
    standins: Standins,
}

impl Cell {
    pub(crate) async fn new(index: usize, row: Row) -> Self {
        let service = Service::of(row.effect());
        Self {
            connection: format!("c{index}"),
            service,
            standins: Standins::start(Options::default()).await.unwrap(),
            row,
        }
    }

    pub(crate) fn is_slow(&self) -> bool {
        self.row.fault() == "timeout"
    }

    /// Its part of the configuration. The breaker opens after as many failures as there are
    /// attempts: not sooner, or it would refuse the last.
    pub(crate) fn config(&self) -> String {
        let Self { connection, .. } = self;
        let (secret, _) = self.service.secret();
        let url = self.service.url(&self.standins);
        let plugin = self.service.plugin();
        let timeout = if self.is_slow() {
            TIMEOUT_SHORT
        } else {
            TIMEOUT
        };
        format!(
            r#"
            [connections.{connection}]
            plugin = "{plugin}"
            config = {{ base_url = "{url}" }}
            secrets.{secret} = {{ file = "{secret}", audience = ["127.0.0.1"] }}
            grants.http = ["{url}"]
            limits.timeout = "{timeout}"
            retry = {{ attempts = 3, delay = "{DELAY_MS_MAX}ms", max-delay = "{DELAY_MS_MAX}ms" }}
            timeout.start-to-close = "{timeout}"
            [connections.{connection}.breaker]
            sliding-window-size = 3
            minimum-number-of-calls = 3
            wait-duration-in-open-state = "500ms"
            "#
        )
    }

    pub(crate) fn workflow(&self) -> String {
        let (action, with) = self.service.action();
        let call = format!("{}.{action}", self.connection);
        let document = json!({
            "document": {"dsl": "1.0.3", "namespace": "tests", "name": "fault", "version": "1.0.0"},
            "do": [{"call": {"call": call, "with": with}}],
        });
        document.to_string()
    }

    /// Meets the fault, then sees the service well again.
    pub(crate) async fn observe(
        &self,
        runtime: &Runtime,
        store: &MemoryStore,
        definition: &Definition,
    ) -> Seen {
        let fault = self.service.fault(self.row.fault());
        let fault = match self.row.strikes() {
            "first" => fault.times(1),
            _ => fault,
        };
        self.service
            .set_faults(&self.standins, vec![fault])
            .await
            .unwrap();
        let run = runtime.start(definition, json!({})).await.unwrap();
        let view = self.settled(runtime, &run).await;
        let ends = disposition(runtime, &view);
        let (counted, _) = self.breaker(runtime);
        if ends == "parked" {
            // Probes that fail count like calls that fail. If it stays closed, the row will say so.
            within(|| self.breaker(runtime).1 == "Open").await;
        }
        let (_, breaker) = self.breaker(runtime);
        let applied = self.service.applied(&self.standins);
        let attempts = &view.tasks[0].attempts;
        let failures = || {
            attempts
                .iter()
                .filter_map(|attempt| attempt.failure.as_ref())
        };
        let mut seen = Seen {
            class: failures()
                .map(|failure| failure.class.to_string())
                .collect(),
            code: failures().map(|failure| failure.code.clone()).collect(),
            left_behind: failures().map(|failure| word(failure.effect)).collect(),
            attempts: attempts.len(),
            waits: waits(attempts, &draws(store, &run)),
            counted: counted.to_owned(),
            breaker: breaker.to_owned(),
            applied,
            duplicates: duplicates(applied),
            ends,
            afterwards: String::new(),
        };
        seen.afterwards = self.afterwards(runtime, &run, &seen).await;
        seen
    }

    /// Waits until nothing more happens while the fault lasts.
    async fn settled(&self, runtime: &Runtime, run: &str) -> RunView {
        let mut view = runtime.run(run).unwrap();
        within(|| {
            view = runtime.run(run).unwrap();
            let waits_for = view.tasks.first().and_then(|task| task.waits_for);
            let waits = matches!(waits_for, Some(WaitsFor::Connection | WaitsFor::Person));
            view.status.is_final() || waits
        })
        .await;
        view
    }

    /// Whether anything was counted against the connection, and whether calls go through.
    fn breaker(&self, runtime: &Runtime) -> (&'static str, &'static str) {
        let states = runtime.connections();
        let state = states.iter().find(|state| state.name == self.connection);
        let state = state.unwrap();
        let counted = if state.failures > 0 { "yes" } else { "no" };
        let breaker = match state.breaker.as_str() {
            "Closed" => "Closed",
            // Half-open is an open one that tries.
            _ => "Open",
        };
        (counted, breaker)
    }

    /// What happens when the service is well again. A person, where one is asked, does what the
    /// table says. Then it must have happened exactly once.
    async fn afterwards(&self, runtime: &Runtime, run: &str, seen: &Seen) -> String {
        self.service
            .set_faults(&self.standins, Vec::new())
            .await
            .unwrap();
        let told = match (seen.ends.as_str(), self.row.afterwards()) {
            ("completed" | "dead letter" | "faulted", _) => return NOTHING.to_owned(),
            ("review", told @ "approve") => {
                if !within(|| self.service.applied(&self.standins) > 0).await {
                    return "retry".to_owned();
                }
                let output = self.service.output();
                let decision = Decision::Approve { output };
                runtime.decide(run, TASK, decision).await.unwrap();
                told
            }
            ("review", told @ "retry") => {
                runtime.decide(run, TASK, Decision::Retry).await.unwrap();
                told
            }
            ("review", _) => return "approve or retry".to_owned(),
            _ => "goes on",
        };
        let is_over = || runtime.run(run).unwrap().status.is_final();
        within(is_over).await;
        let view = runtime.run(run).unwrap();
        let applied = self.service.applied(&self.standins);
        let once = u64::from(self.service.changes_something());
        if (view.status, applied) == (Status::Completed, once) {
            told.to_owned()
        } else {
            let (status, duplicates) = (view.status.as_str(), duplicates(applied));
            format!("{told}: {status}, applied {applied} times, {duplicates} duplicates")
        }
    }
}

/// Waits until something holds; false if it never does.
async fn within(mut holds: impl FnMut() -> bool) -> bool {
    let looking = async {
        while !holds() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, looking).await.is_ok()
}

/// A run asks for one thing: whatever was done after the first time was done again.
fn duplicates(applied: u64) -> u64 {
    applied.saturating_sub(1)
}

fn disposition(runtime: &Runtime, view: &RunView) -> String {
    let letters = runtime.query().dead_letters().unwrap();
    let is_letter = letters.iter().any(|letter| letter.run == view.run);
    match (view.status, view.tasks[0].waits_for) {
        (Status::Faulted, _) if is_letter => "dead letter".to_owned(),
        (_, Some(WaitsFor::Person)) => "review".to_owned(),
        (_, Some(WaitsFor::Connection)) => "parked".to_owned(),
        (status, _) => status.as_str().to_owned(),
    }
}

/// What lies between one attempt and the next, by the journal's own times.
fn waits(attempts: &[AttemptReport], draws: &[u64]) -> Vec<String> {
    let pairs = attempts.iter().zip(attempts.iter().skip(1));
    let wait = |((before, after), draw): ((&AttemptReport, &AttemptReport), &u64)| {
        let ended_ms = before.ended_ms.unwrap();
        let waited_ms = after.started_ms.saturating_sub(ended_ms);
        let asked_ms = before.failure.as_ref().unwrap().retry_after_ms;
        match asked_ms.map(u64::from) {
            Some(asked_ms) if waited_ms >= asked_ms => "Retry-After".to_owned(),
            Some(asked_ms) => format!("{waited_ms} ms where {asked_ms} ms were asked for"),
            None if waited_ms >= DELAY_MS_MAX * draw / u64::from(u32::MAX) => "backoff".to_owned(),
            None => "none".to_owned(),
        }
    };
    pairs.zip(draws).map(wait).collect()
}

/// The randomness of each backoff, in the order of the failures.
fn draws(store: &MemoryStore, run: &str) -> Vec<u64> {
    let records = store.journal(run, 0, 1_000).unwrap();
    let events = records.iter().map(|(_, record)| {
        let record: Value = serde_json::from_slice(record).unwrap();
        record["event"].clone()
    });
    events
        .filter(|event| event["kind"] == "failed")
        .map(|event| event["draw"].as_u64().unwrap())
        .collect()
}

fn word(left_behind: EffectState) -> String {
    let word = match left_behind {
        EffectState::None => "none",
        EffectState::Unknown => "unknown",
        EffectState::Applied => "applied",
    };
    word.to_owned()
}
