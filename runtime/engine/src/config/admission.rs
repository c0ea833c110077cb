//! Which runs may be in memory: `[limits] runs-active-max`, `[workflows.concurrency]`, `[tenants]`.

use std::collections::BTreeMap;

use cofferdam_core::fair::WEIGHT_MAX;

use super::document::{Item, Section};
use super::error::Error;

/// Each takes a few kilobytes besides its data; whoever has more runs at once lets them wait.
const RUNS_ACTIVE_DEFAULT: usize = 10_000;
const RUNS_ACTIVE_MAX: u64 = 1_000_000;
/// One at a time is what a concurrency key is for.
const KEY_DEFAULT: usize = 1;
const KEY_MAX: u64 = 100_000;
/// The key of the limit for all concurrency keys that are not named.
const OTHERS: &str = "default";

/// How many runs may be under way at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Runs in memory; default 10,000. Those that wait for an instant, a connection or a person
    /// are not in memory.
    pub runs_active_max: usize,
    /// Runs with a concurrency key that begin before another has ended; default 1.
    pub key_default: usize,
    /// The same for keys that are named.
    pub keys: BTreeMap<String, usize>,
    /// What tenants get; those that are not named get [`Tenant::default`].
    pub tenants: BTreeMap<String, Tenant>,
}

/// What one tenant gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenant {
    /// Its share while others wait too; default 1.
    pub weight: u32,
    /// Its runs in memory; default as many as there may be in all.
    pub runs_max: usize,
}

impl Default for Tenant {
    fn default() -> Self {
        Self {
            weight: 1,
            runs_max: usize::MAX,
        }
    }
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            runs_active_max: RUNS_ACTIVE_DEFAULT,
            key_default: KEY_DEFAULT,
            keys: BTreeMap::new(),
            tenants: BTreeMap::new(),
        }
    }
}

impl Admission {
    /// What this tenant gets.
    pub fn tenant(&self, name: &str) -> Tenant {
        self.tenants.get(name).copied().unwrap_or_default()
    }

    /// How many runs with this concurrency key may be under way.
    pub fn key(&self, name: &str) -> usize {
        self.keys.get(name).copied().unwrap_or(self.key_default)
    }
}

pub(super) fn admission(root: &Section<'_>) -> Result<Admission, Error> {
    let mut admission = Admission::default();
    if let Some(limits) = root.section("limits")?
        && let Some(item) = limits.get("runs-active-max")
    {
        admission.runs_active_max = count(&item, RUNS_ACTIVE_MAX)?;
    }
    if let Some(workflows) = root.section("workflows")?
        && let Some(keys) = workflows.section("concurrency")?
    {
        for item in keys.items() {
            let most = count(&item, KEY_MAX)?;
            if item.name == OTHERS {
                admission.key_default = most;
            } else {
                admission.keys.insert(item.name.clone(), most);
            }
        }
    }
    if let Some(tenants) = root.section("tenants")? {
        for item in tenants.items() {
            let section = item.section()?;
            section.only(&["weight", "runs-max"])?;
            let mut tenant = Tenant::default();
            if let Some(weight) = section.get("weight") {
                tenant.weight = weight.integer(1, u64::from(WEIGHT_MAX))? as u32;
            }
            if let Some(most) = section.get("runs-max") {
                tenant.runs_max = count(&most, RUNS_ACTIVE_MAX)?;
            }
            if !crate::start::is_name(&item.name) {
                return Err(item.refuse(
                    "no run can have this tenant",
                    "use 1 to 100 letters, digits, `-`, `_`, `.` and `:`",
                ));
            }
            admission.tenants.insert(item.name.clone(), tenant);
        }
    }
    Ok(admission)
}

fn count(item: &Item<'_>, most: u64) -> Result<usize, Error> {
    let count = item.integer(1, most)?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}
