//! How long the committer waits for company.
//!
//! A sync costs the same whether one commit shares it or a hundred. While it lasts, others come, and
//! they are the next group; so on a slow disk groups are large by themselves. On a fast one they
//! are not: under a load that takes up the processors, commits come slowly since so much time goes
//! into syncing groups of one or two. So the committer waits for those that it may expect, and never
//! longer than it took to write the last group: who waits for a commit waits at most twice as long.

use std::time::Duration;

/// However slow the disk is.
const WAIT_MAX: Duration = Duration::from_millis(5);

/// What the committer expects, from what it has seen.
#[derive(Debug, Default)]
pub(super) struct Pace {
    expected: usize,
    took: Duration,
}

/// For how many commits, and for how long, a group waits before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    pub(super) commits: usize,
    pub(super) time: Duration,
}

impl Pace {
    /// Of the next group.
    pub(super) fn patience(&self) -> Patience {
        Patience {
            commits: self.expected.max(1),
            time: self.took.min(WAIT_MAX),
        }
    }

    /// A group was written, and meanwhile others came: who was answered now may come back just like
    /// who came, so that one alone is never kept waiting.
    pub(super) fn wrote(&mut self, commits: usize, came: usize, took: Duration) {
        self.expected = commits + came;
        self.took = took;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_commits_alone_is_not_kept_waiting() {
        let mut pace = Pace::default();
        assert_eq!(pace.patience().commits, 1);
        pace.wrote(1, 0, Duration::from_millis(1));
        assert_eq!(pace.patience().commits, 1);
    }

    #[test]
    fn those_that_miss_each_other_are_brought_together() {
        let mut pace = Pace::default();
        pace.wrote(1, 1, Duration::from_millis(1));
        let expected = Patience {
            commits: 2,
            time: Duration::from_millis(1),
        };
        assert_eq!(pace.patience(), expected);
    }

    #[test]
    fn nobody_waits_much_longer_because_of_a_slow_disk() {
        let mut pace = Pace::default();
        pace.wrote(10, 10, Duration::from_secs(1));
        assert_eq!(pace.patience().time, WAIT_MAX);
    }
}
