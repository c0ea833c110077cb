//! The trial of a new generation beside the stable one, as a pure machine.
//!
//! A share of the calls, chosen by a hash of their idempotency key, goes to the new generation.
//! Both see the same mix of inputs, so that what differs is the plugin. The verdict is taken by
//! error rate (a one-sided two-proportion z-test at 99 %, so that a small sample condemns nobody)
//! and, at the end, by the 95th percentile of the latency of calls that worked.

use serde::{Deserialize, Serialize};

/// How a trial is run and judged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// The share of calls that go to the new generation, in percent; 1 to 100.
    pub share_percent: u8,
    /// How long the trial takes, in milliseconds; longer if the sample is too small by then.
    pub duration_ms: u64,
    /// It is neither condemned on fewer calls of the new generation nor promoted on fewer that worked;
    /// at least 1.
    pub calls_min: u32,
    /// The error rate may be higher than that of the stable generation by this much, as a ratio.
    pub error_margin_ratio: f64,
    /// The latency may be higher than that of the stable generation by this factor.
    pub latency_factor: f64,
    /// A difference in latency below this does not count, in milliseconds.
    pub latency_slack_ms: u64,
}

/// A configuration that cannot work: the key and what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the canary's {key} must be {must}")]
pub struct BadConfig {
    /// The key.
    pub key: &'static str,
    /// What its value must be.
    pub must: &'static str,
}

/// Longer than this nobody tries a plugin out.
const DURATION_MS_MAX: u64 = 30 * 24 * 3_600_000;

impl Config {
    /// The usual judgement with this share and duration.
    ///
    /// # Errors
    /// [`BadConfig`] if the share or the duration makes no sense.
    pub fn new(share_percent: u8, duration_ms: u64) -> Result<Self, BadConfig> {
        if !(1..=100).contains(&share_percent) {
            return Err(BadConfig {
                key: "share",
                must: "from 1% to 100%",
            });
        }
        if !(1..=DURATION_MS_MAX).contains(&duration_ms) {
            return Err(BadConfig {
                key: "duration",
                must: "longer than zero and at most 30 days",
            });
        }
        Ok(Self {
            share_percent,
            duration_ms,
            calls_min: 20,
            error_margin_ratio: 0.02,
            latency_factor: 1.5,
            latency_slack_ms: 20,
        })
    }
}

/// Who served a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The generation in service.
    Stable,
    /// The generation on trial.
    Trial,
}

/// What happens to a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A call ended.
    Ended {
        /// Who served it.
        side: Side,
        /// Whether it failed, whatever the reason but for being rate-limited.
        failed: bool,
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
    /// The generation on trial was held for its crashes.
    Struck,
    /// The connection's breaker opened.
    Tripped,
    /// Time has passed.
    Looked,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    None,
    /// The new generation takes over.
    Promote,
    /// The new generation goes.
    RollBack {
        /// Why, for people.
        reason: String,
    },
}

/// What is known of one side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Calls that ended.
    pub calls: u64,
    /// Those that failed.
    pub failures: u64,
    /// Calls that worked, by latency: bucket `n` holds those up to 2^(n/4) milliseconds.
    latencies: Vec<u64>,
}

/// Up to 2^(79/4) ms, some 15 minutes: longer than any call.
const BUCKETS: usize = 80;
/// One-sided 99 %.
const Z_MIN: f64 = 2.326;

impl Default for Sample {
    fn default() -> Self {
        Self {
            calls: 0,
            failures: 0,
            latencies: vec![0; BUCKETS],
        }
    }
}

impl Sample {
    fn take(&mut self, failed: bool, took_ms: u64) {
        self.calls += 1;
        if failed {
            self.failures += 1;
            return;
        }
        let bucket = (4.0 * (took_ms.max(1) as f64).log2()).ceil() as usize;
        if let Some(count) = self.latencies.get_mut(bucket.min(BUCKETS - 1)) {
            *count += 1;
        }
    }

    /// The share of failures; 0 without calls.
    pub fn error_ratio(&self) -> f64 {
        self.failures as f64 / self.calls.max(1) as f64
    }

    /// The 95th percentile of the latency of calls that worked, in milliseconds, within a fifth;
    /// `None` without any.
    pub fn p95_ms(&self) -> Option<f64> {
        let worked: u64 = self.latencies.iter().sum();
        let rank = worked - worked / 20;
        let mut seen = 0;
        let bucket = self.latencies.iter().position(|count| {
            seen += count;
            worked > 0 && seen >= rank
        })?;
        Some(2_f64.powf(bucket as f64 / 4.0))
    }
}

/// A trial under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// How it is run and judged.
    pub config: Config,
    /// When it began, in milliseconds of the caller's clock.
    pub began_ms: u64,
    /// The generation in service.
    pub stable: Sample,
    /// The generation on trial.
    pub trial: Sample,
}

impl Canary {
    /// A trial that begins now.
    pub fn new(config: Config, now_ms: u64) -> Self {
        Self {
            config,
            began_ms: now_ms,
            stable: Sample::default(),
            trial: Sample::default(),
        }
    }

    /// Takes one event.
    pub fn step(&mut self, event: Event, now_ms: u64) -> Verdict {
        match event {
            Event::Ended {
                side,
                failed,
                took_ms,
            } => {
                let sample = match side {
                    Side::Stable => &mut self.stable,
                    Side::Trial => &mut self.trial,
                };
                sample.take(failed, took_ms);
            }
            Event::Struck => return roll_back("it crashed too often".to_owned()),
            Event::Tripped if self.is_to_blame() => {
                let rate = percent(self.trial.error_ratio());
                return roll_back(format!(
                    "the breaker opened, and {rate} of its calls had failed"
                ));
            }
            Event::Tripped | Event::Looked => {}
        }
        self.judge(now_ms)
    }

    fn judge(&self, now_ms: u64) -> Verdict {
        let (trial, stable) = (self.trial.error_ratio(), self.stable.error_ratio());
        let sampled = self.trial.calls >= u64::from(self.config.calls_min);
        if sampled && trial - stable > self.config.error_margin_ratio && self.z() > Z_MIN {
            return roll_back(format!(
                "{} of its calls failed, against {} of the stable generation's",
                percent(trial),
                percent(stable)
            ));
        }
        let over = now_ms >= self.began_ms.saturating_add(self.config.duration_ms);
        // What only failed beside a stable generation that failed as well has proved nothing.
        let worked = self.trial.calls - self.trial.failures;
        if !over || worked < u64::from(self.config.calls_min) {
            return Verdict::None;
        }
        match (self.trial.p95_ms(), self.stable.p95_ms()) {
            (Some(trial), Some(stable)) if self.is_slower(trial, stable) => roll_back(format!(
                "its 95th percentile is {trial:.0} ms, against {stable:.0} ms of the stable generation"
            )),
            _ => Verdict::Promote,
        }
    }

    fn is_slower(&self, trial_ms: f64, stable_ms: f64) -> bool {
        trial_ms > stable_ms * self.config.latency_factor
            && trial_ms - stable_ms > self.config.latency_slack_ms as f64
    }

    /// Whether the trial fails more often than the stable generation at all.
    fn is_to_blame(&self) -> bool {
        self.trial.failures > 0 && self.trial.error_ratio() > self.stable.error_ratio()
    }

    /// How many standard deviations the trial's error rate lies above the stable one's. A stable
    /// generation that was not called at all is taken to be without failures.
    fn z(&self) -> f64 {
        let n1 = self.trial.calls as f64;
        let n2 = if self.stable.calls == 0 {
            n1
        } else {
            self.stable.calls as f64
        };
        let pooled = (self.trial.failures + self.stable.failures) as f64 / (n1 + n2);
        let deviation = (pooled * (1.0 - pooled) * (1.0 / n1 + 1.0 / n2)).sqrt();
        if deviation > 0.0 {
            (self.trial.error_ratio() - self.stable.error_ratio()) / deviation
        } else {
            0.0
        }
    }
}

/// Who serves the call with this key. The same key always goes to the same side, so that all
/// attempts of a call meet the same code.
pub fn side_of(config: &Config, key: &str) -> Side {
    if share_of(key) < u64::from(config.share_percent) * 100 {
        Side::Trial
    } else {
        Side::Stable
    }
}

fn roll_back(reason: String) -> Verdict {
    Verdict::RollBack { reason }
}

fn percent(ratio: f64) -> String {
    format!("{:.1} %", ratio * 100.0)
}

/// A key's place, 0 to 9 999: FNV-1a, then the finalizer of `SplitMix64`, since keys often differ in
/// their last digit alone. Frozen: another hash would send running calls to the other side.
fn share_of(key: &str) -> u64 {
    const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash = key.bytes().fold(FNV_OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash ^ (hash >> 31)) % 10_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    fn canary(share_percent: u8) -> Canary {
        Canary::new(Config::new(share_percent, 5 * MINUTE_MS).unwrap(), 0)
    }

    fn ended(side: Side, failed: bool, took_ms: u64) -> Event {
        Event::Ended {
            side,
            failed,
            took_ms,
        }
    }

    fn feed(canary: &mut Canary, side: Side, calls: u64, failures: u64, took_ms: u64) -> Verdict {
        let mut last = Verdict::None;
        for n in 0..calls {
            // Failures spread evenly.
            let failed = n * failures / calls != (n + 1) * failures / calls;
            last = canary.step(ended(side, failed, took_ms), 1);
            if last != Verdict::None {
                break;
            }
        }
        last
    }

    #[test]
    fn a_good_trial_is_promoted_when_its_time_is_over_and_not_before() {
        let mut c = canary(10);
        assert_eq!(feed(&mut c, Side::Stable, 900, 9, 30), Verdict::None);
        assert_eq!(feed(&mut c, Side::Trial, 100, 1, 32), Verdict::None);
        assert_eq!(c.step(Event::Looked, 5 * MINUTE_MS - 1), Verdict::None);
        assert_eq!(c.step(Event::Looked, 5 * MINUTE_MS), Verdict::Promote);
    }

    #[test]
    fn a_trial_with_too_few_calls_goes_on() {
        let mut c = canary(10);
        feed(&mut c, Side::Trial, 19, 0, 30);
        assert_eq!(c.step(Event::Looked, 60 * MINUTE_MS), Verdict::None);
        let last = ended(Side::Trial, false, 30);
        assert_eq!(c.step(last, 60 * MINUTE_MS), Verdict::Promote);
    }

    #[test]
    fn a_trial_that_fails_more_often_is_rolled_back_early() {
        let mut c = canary(10);
        feed(&mut c, Side::Stable, 200, 2, 30);
        let verdict = feed(&mut c, Side::Trial, 40, 20, 30);
        assert!(matches!(verdict, Verdict::RollBack { .. }), "{verdict:?}");
    }

    #[test]
    fn an_outage_that_hits_both_sides_condemns_nobody() {
        let mut c = canary(10);
        feed(&mut c, Side::Stable, 200, 120, 30);
        assert_eq!(feed(&mut c, Side::Trial, 40, 24, 30), Verdict::None);
        assert_eq!(c.step(Event::Tripped, 2), Verdict::None);
    }

    #[test]
    fn a_trial_that_never_worked_is_not_promoted() {
        let mut c = canary(10);
        feed(&mut c, Side::Stable, 200, 200, 30);
        feed(&mut c, Side::Trial, 40, 40, 30);
        assert_eq!(c.step(Event::Looked, 60 * MINUTE_MS), Verdict::None);
    }

    #[test]
    fn a_breaker_that_trips_over_the_trial_rolls_it_back() {
        let mut c = canary(50);
        feed(&mut c, Side::Stable, 10, 0, 30);
        feed(&mut c, Side::Trial, 10, 10, 30);
        assert!(matches!(
            c.step(Event::Tripped, 2),
            Verdict::RollBack { .. }
        ));
    }

    #[test]
    fn a_slower_trial_is_rolled_back_at_the_end() {
        let mut c = canary(10);
        feed(&mut c, Side::Stable, 200, 0, 40);
        feed(&mut c, Side::Trial, 40, 0, 120);
        let verdict = c.step(Event::Looked, 5 * MINUTE_MS);
        assert!(
            matches!(&verdict, Verdict::RollBack { reason } if reason.contains("95th")),
            "{verdict:?}"
        );
    }

    #[test]
    fn a_few_milliseconds_are_no_reason() {
        let mut c = canary(10);
        feed(&mut c, Side::Stable, 200, 0, 1);
        feed(&mut c, Side::Trial, 40, 0, 4);
        assert_eq!(c.step(Event::Looked, 5 * MINUTE_MS), Verdict::Promote);
    }

    #[test]
    fn crashes_end_a_trial_whatever_the_sample() {
        let verdict = canary(10).step(Event::Struck, 0);
        assert!(matches!(verdict, Verdict::RollBack { .. }));
    }

    #[test]
    fn the_share_is_kept_and_a_key_stays_on_its_side() {
        let c = canary(10);
        let keys: Vec<_> = (0..20_000).map(|n| format!("run-{n}/charge")).collect();
        let trial = keys
            .iter()
            .filter(|k| side_of(&c.config, k) == Side::Trial)
            .count();
        assert!((1_800..2_200).contains(&trial), "{trial}");
        assert!(
            keys.iter()
                .all(|k| side_of(&canary(100).config, k) == Side::Trial)
        );
        // A side that was chosen once must be chosen by every later version.
        assert_eq!(share_of(""), 6_203);
        assert_eq!(share_of("run-1/charge"), 8_752);
    }

    #[test]
    fn shares_and_durations_without_sense_are_refused() {
        assert_eq!(Config::new(0, 1).unwrap_err().key, "share");
        assert_eq!(Config::new(101, 1).unwrap_err().key, "share");
        assert_eq!(Config::new(10, 0).unwrap_err().key, "duration");
    }

    #[test]
    fn percentiles_are_those_of_calls_that_worked() {
        let mut sample = Sample::default();
        assert_eq!(sample.p95_ms(), None);
        for took_ms in 1..=100 {
            sample.take(false, took_ms);
        }
        sample.take(true, 100_000);
        let p95 = sample.p95_ms().unwrap();
        assert!((90.0..115.0).contains(&p95), "{p95}");
        assert_eq!(sample.calls, 101);
    }
}
