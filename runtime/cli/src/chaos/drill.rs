//! What each drill does, and what it holds the runtime to.

use std::path::Path;
use std::time::Duration;

use cofferdam::Config;
use serde_json::json;

use super::Scenario;
use super::leads;
use super::promise::Promise;
use crate::demo::ACTIVE_MAX;
use crate::demo::act::Plan;
use crate::demo::example::{CONFIG, LEADS};
use crate::demo::script::{CRM, Step, What, When};

/// What a connector that is slow lets one wait for.
const LATENCY: Duration = Duration::from_secs(30);
/// How long timeouts last if nobody says otherwise.
const TIMEOUTS_LAST: Duration = Duration::from_mins(1);
/// How long an outage lasts if nobody says otherwise.
const OUTAGE_LASTS: Duration = Duration::from_mins(5);
/// How long answers that make no sense are given if nobody says otherwise.
const CORRUPTION_LASTS: Duration = Duration::from_secs(5);
/// Leads arrive this far apart, and in a tenth of it under ten times the load.
const PACE_MS: u64 = 100;
const LEADS_DEFAULT: u64 = 100;
/// Arriving at ten times the pace, they take as long as the others.
const LEADS_SATURATION: u64 = 1_000;
/// What the CRM takes for a request under load.
const BUSY_MS: u64 = 50;
/// Room for all that waits, in the example's policies, and room for little.
const ROOMY: &str = "limits = { concurrency = 8 }\n";
const NARROW: &str = "limits = { concurrency = 2 }\nbulkhead = { queue = 8, max-wait = \"1s\" }\n";
const NARROW_QUEUE: usize = 8;
/// One of so many leads is none.
const BROKEN_EVERY: usize = 4;
/// What a drill may take besides what goes wrong.
const REST_MAX: Duration = Duration::from_mins(5);

/// One drill.
pub struct Drill {
    /// Its name on the command line.
    pub name: &'static str,
    /// What goes wrong, in a sentence.
    pub what: String,
    /// What is promised for that.
    pub promises: Vec<Promise>,
    leads: usize,
    pace_ms: u64,
    csv: String,
    active_max: usize,
    script: Vec<Step>,
    lasts: Duration,
}

/// The drill of a scenario.
pub fn of(
    scenario: Scenario,
    lasts: Option<Duration>,
    leads: Option<u64>,
    config: &Config,
) -> Drill {
    let leads = |default| usize::try_from(leads.unwrap_or(default)).unwrap_or(usize::MAX);
    match scenario {
        Scenario::Timeout => timeout(lasts.unwrap_or(TIMEOUTS_LAST), leads(LEADS_DEFAULT), config),
        Scenario::Outage => outage(lasts.unwrap_or(OUTAGE_LASTS), leads(LEADS_DEFAULT)),
        Scenario::Saturation => saturation(leads(LEADS_SATURATION), config),
        Scenario::Corruption => corruption(lasts.unwrap_or(CORRUPTION_LASTS), leads(LEADS_DEFAULT)),
    }
}

impl Drill {
    fn new(name: &'static str, what: String, leads: usize, promises: Vec<Promise>) -> Self {
        Self {
            name,
            what,
            promises: Promise::always().into_iter().chain(promises).collect(),
            leads,
            pace_ms: PACE_MS,
            csv: leads::many(LEADS, leads),
            active_max: ACTIVE_MAX,
            script: Vec::new(),
            lasts: Duration::ZERO,
        }
    }

    /// What is shown for it; the script is handed over.
    pub fn plan(&mut self, dir: &Path, config: Option<String>) -> Plan {
        Plan {
            title: self.name,
            dir: dir.to_owned(),
            leads: self.leads,
            pace_ms: self.pace_ms,
            brittle: false,
            csv: std::mem::take(&mut self.csv),
            config,
            active_max: self.active_max,
            script: std::mem::take(&mut self.script),
            takes_max: self.lasts + REST_MAX,
        }
    }
}

fn step(when: When, says: &'static str, what: What) -> Step {
    Step { when, says, what }
}

fn timeout(lasts: Duration, leads: usize, config: &Config) -> Drill {
    let limit = config.connection("crm").map_or(Duration::ZERO, |crm| {
        Duration::from_millis(crm.binding_policy().start_to_close_ms)
    });
    let what = format!("the CRM answers each request {LATENCY:?} late, for {lasts:?}");
    let promises = vec![
        Promise::CallsEnd { of: "crm", limit },
        Promise::OthersGoOn { but: "crm" },
        Promise::BreakerOpens { of: "crm" },
        Promise::Drains { of: "crm" },
    ];
    let late = json!([{"kind": "latency", "ms": LATENCY.as_millis() as u64}]);
    Drill {
        script: vec![
            step(
                When::Arrived(leads / 10),
                "the CRM answers 30 s late",
                What::Faults(CRM, late),
            ),
            step(
                When::After(lasts),
                "the CRM is well again",
                What::Recover(CRM),
            ),
        ],
        lasts,
        ..Drill::new("timeout", what, leads, promises)
    }
}

fn outage(lasts: Duration, leads: usize) -> Drill {
    let what = format!("the CRM refuses connections for {lasts:?}");
    let promises = vec![
        Promise::OthersGoOn { but: "crm" },
        Promise::BreakerOpens { of: "crm" },
        Promise::LeftAlone { is: "crm", lasts },
        Promise::Drains { of: "crm" },
    ];
    Drill {
        script: vec![
            step(
                When::Arrived(leads / 10),
                "the CRM is gone",
                What::Faults(CRM, json!([{"kind": "refuse"}])),
            ),
            step(
                When::After(lasts),
                "the CRM is well again",
                What::Recover(CRM),
            ),
        ],
        lasts,
        ..Drill::new("outage", what, leads, promises)
    }
}

/// The example's policies with little room at the CRM, which is enough for the usual load.
pub fn narrow() -> String {
    CONFIG.replacen(ROOMY, NARROW, 1)
}

/// The policies of a drill, unless somebody names others.
pub fn policies(scenario: Scenario) -> Option<String> {
    (scenario == Scenario::Saturation).then(narrow)
}

fn saturation(leads: usize, config: &Config) -> Drill {
    let what = format!(
        "{leads} leads arrive at ten times the usual pace at a CRM that takes {BUSY_MS} ms for each request"
    );
    let limits = config
        .connections()
        .map(|connection| {
            let spec = connection.spec();
            (connection.name().to_owned(), spec.limits.concurrency_max)
        })
        .collect();
    let mut promises = vec![Promise::WithinLimits { limits }, Promise::MemoryBounded];
    // Policies of somebody's own may have room for all of it.
    let crm = config.connection("crm");
    if crm.is_some_and(|crm| crm.bulkhead().queue_max <= NARROW_QUEUE) {
        promises.push(Promise::Sheds { of: "crm" });
    }
    let slow = json!([{"kind": "latency", "ms": BUSY_MS}]);
    Drill {
        script: vec![step(
            When::Arrived(0),
            "the CRM takes its time for each request",
            What::Faults(CRM, slow),
        )],
        pace_ms: PACE_MS / 10,
        active_max: usize::MAX,
        ..Drill::new("saturation", what, leads, promises)
    }
}

fn corruption(lasts: Duration, leads: usize) -> Drill {
    let broken = leads.div_ceil(BROKEN_EVERY);
    let what = format!(
        "{broken} of {} leads are none, and for {lasts:?} the CRM's answers make no sense",
        leads + broken
    );
    let promises = vec![Promise::Refused { at_least: broken }, Promise::Understood];
    let csv = leads::with_broken(&leads::many(LEADS, leads), BROKEN_EVERY);
    let step_at = |percent: usize| When::Arrived((leads + broken) * percent / 100);
    Drill {
        script: vec![
            step(
                step_at(20),
                "the CRM's answers break off",
                What::Faults(CRM, json!([{"kind": "malformed"}])),
            ),
            step(
                When::After(lasts / 3),
                "the CRM's answers lack their fields",
                What::Faults(
                    CRM,
                    json!([{"kind": "missing-field", "pointer": "/results"}]),
                ),
            ),
            step(
                When::After(lasts / 3),
                "the CRM's answers have other types",
                What::Faults(CRM, json!([{"kind": "wrong-type", "pointer": "/results"}])),
            ),
            step(
                When::After(lasts / 3),
                "the CRM is well again",
                What::Recover(CRM),
            ),
        ],
        lasts,
        csv,
        ..Drill::new("corruption", what, leads + broken, promises)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_ten_times_the_usual_meets_a_bounded_queue() {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/lead-intake");
        let config = Config::parse(&narrow(), "the configuration", Path::new(example)).unwrap();
        let crm = config.connection("crm").unwrap();
        assert_eq!(crm.bulkhead().queue_max, NARROW_QUEUE);
        assert_eq!(crm.spec().limits.concurrency_max, 2);
        let drill = saturation(100, &config);
        let sheds = |promise: &Promise| matches!(promise, Promise::Sheds { .. });
        assert!(drill.promises.iter().any(sheds));
    }
}
