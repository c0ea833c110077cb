//! How many second attempts a connection may get: a tenth of its calls, so that hedging cannot
//! double the load of a connection that is slow because it has too much to do.
//!
//! A token bucket that calls fill, as the retry budgets of Finagle and gRPC are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What one second attempt costs.
const HEDGE: u32 = 10;
/// What one call gives: second attempts are at most a tenth of the calls.
const CALL: u32 = 1;
/// What is saved up at most, and there is at the beginning: ten second attempts.
const SAVED_MAX: u32 = 10 * HEDGE;

/// The budget of one connection.
#[derive(Debug)]
pub(crate) struct HedgeBudget(AtomicU32);

/// What one second attempt costs. Dropped unused, it is given back.
pub(crate) struct Share {
    budget: Arc<HedgeBudget>,
    is_used: bool,
}

impl Default for HedgeBudget {
    fn default() -> Self {
        Self(AtomicU32::new(SAVED_MAX))
    }
}

impl HedgeBudget {
    /// A call was made.
    pub fn earn(&self) {
        let more = |saved: u32| Some((saved + CALL).min(SAVED_MAX));
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Takes what a second attempt costs, if there is enough.
    pub fn take(self: &Arc<Self>) -> Option<Share> {
        let less = |saved: u32| saved.checked_sub(HEDGE);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .ok()?;
        Some(Share {
            budget: Arc::clone(self),
            is_used: false,
        })
    }
}

impl Share {
    /// The second attempt is made.
    pub fn spend(mut self) {
        self.is_used = true;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.is_used {
            return;
        }
        let back = |saved: u32| Some((saved + HEDGE).min(SAVED_MAX));
        let _ = self
            .budget
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(budget: &Arc<HedgeBudget>) -> bool {
        budget.take().map(Share::spend).is_some()
    }

    #[test]
    fn second_attempts_are_at_most_a_tenth_of_the_calls() {
        let budget = Arc::<HedgeBudget>::default();
        let hedges = (0..10_000)
            .filter(|_| {
                budget.earn();
                spend(&budget)
            })
            .count();
        assert!((1_000..=1_010).contains(&hedges), "{hedges}");
    }

    #[test]
    fn a_quiet_time_saves_up_no_more_than_a_handful() {
        let budget = Arc::<HedgeBudget>::default();
        (0..100_000).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| spend(&budget)).count(), 10);
    }

    #[test]
    fn what_was_not_made_costs_nothing_and_gains_nothing() {
        let budget = Arc::<HedgeBudget>::default();
        for _ in 0..100 {
            drop(budget.take().expect("what is given back is there again"));
        }
        assert_eq!((0..100).filter(|_| spend(&budget)).count(), 10);
    }
}
