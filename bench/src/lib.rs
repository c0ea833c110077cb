//! What the benches share: where plugins are, percentiles, and how loaded the machine is.
//!
//! Every bench prints one JSON object: the machine's load before and after, the floor measured in
//! the same run, our figures, and the ratios between them. Figures from a loaded machine are
//! flagged as `noisy` and worth nothing.

pub mod fresh;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Where the stamped plugins are: `COFFERDAM_PLUGINS`, set by `cargo xtask bench`.
///
/// # Errors
/// If the variable is not set.
pub fn plugins() -> Result<PathBuf> {
    let folder = std::env::var_os("COFFERDAM_PLUGINS")
        .context("COFFERDAM_PLUGINS is not set; run this by `cargo xtask bench`")?;
    Ok(PathBuf::from(folder))
}

/// Whether to measure briefly: `--quick` was given.
pub fn quick() -> bool {
    std::env::args().any(|a| a == "--quick")
}

/// The duration below which the given share of the samples lies, in microseconds.
pub fn percentile_us(samples: &mut [Duration], share_ratio: f64) -> f64 {
    if samples.is_empty() {
        return 0.0;
    }
    samples.sort_unstable();
    let index = ((samples.len() - 1) as f64 * share_ratio).round() as usize;
    samples[index].as_secs_f64() * 1e6
}

/// The one-minute load average, and whether it makes figures worthless on this machine.
pub fn load() -> Value {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = text
        .split(' ')
        .next()
        .and_then(|t| t.parse().ok())
        .unwrap_or(f64::NAN);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    json!({"load1": load, "cores": cores, "noisy": load > 0.7 * cores as f64})
}

/// A ratio with three digits.
pub fn ratio(ours: f64, floor: f64) -> Value {
    if floor > 0.0 {
        json!((ours / floor * 1e3).round() / 1e3)
    } else {
        Value::Null
    }
}

/// Bytes of memory that this process has, and the most that it ever had since the last reset.
pub fn resident_bytes() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1_024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// Begins to count the most memory anew, where the system lets us.
pub fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Seconds of CPU time of this process so far, from `/proc/self/stat`; zero where there is none.
pub fn cpu_seconds() -> f64 {
    const TICKS_PER_S: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|t| t.parse::<f64>().ok())
        .sum();
    ticks / TICKS_PER_S
}
