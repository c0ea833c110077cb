//! Whose turn it is: stride scheduling (Waldspurger and Weihl, 1995).
//!
//! Each party has a pass; the lowest goes next and is moved on by a stride that is the smaller the
//! larger its weight. Over time each gets its share, and one that comes late is not owed the past.

use std::collections::BTreeMap;

/// Divides well by all small weights.
const STRIDE: u128 = 1 << 40;

/// The largest weight that counts; more would round to no stride at all.
pub const WEIGHT_MAX: u32 = 1_000_000;

/// Passes of the parties that wait.
#[derive(Debug, Clone, Default)]
pub struct Fair {
    passes: BTreeMap<String, u128>,
    /// The pass of who went last: where those begin that were not there.
    at: u128,
}

impl Fair {
    /// The party among those who wait that goes next; none if nobody waits. `waiting` gives names
    /// and weights from 1 to [`WEIGHT_MAX`]. Parties of equal right go in the order of their names.
    pub fn next<'a>(
        &mut self,
        waiting: impl IntoIterator<Item = (&'a str, u32)>,
    ) -> Option<String> {
        let at = self.at;
        let pass = |name: &str| self.passes.get(name).copied().unwrap_or(at).max(at);
        let (pass, name, weight) = waiting
            .into_iter()
            .map(|(name, weight)| (pass(name), name, weight))
            .min_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)))?;
        self.at = pass;
        let stride = STRIDE / u128::from(weight.clamp(1, WEIGHT_MAX));
        self.passes.insert(name.to_owned(), pass + stride);
        // Who is behind begins where the others are: it need not be remembered.
        self.passes.retain(|_, pass| *pass > self.at);
        Some(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(fair: &mut Fair, waiting: &[(&str, u32)], turns: usize) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..turns {
            let name = fair.next(waiting.iter().copied()).unwrap();
            *shares.entry(name).or_default() += 1;
        }
        shares
    }

    #[test]
    fn each_gets_its_share() {
        let shares = shares(&mut Fair::default(), &[("a", 3), ("b", 1)], 400);
        assert_eq!((shares["a"], shares["b"]), (300, 100));
    }

    #[test]
    fn nobody_waits_longer_than_the_others_need_for_their_share() {
        let mut fair = Fair::default();
        let waiting = [("large", 9), ("small", 1)];
        let turns: Vec<_> = (0..30).map(|_| fair.next(waiting).unwrap()).collect();
        assert!(
            turns
                .windows(11)
                .all(|w| w.iter().any(|name| name == "small"))
        );
    }

    #[test]
    fn who_comes_late_is_not_owed_the_past() {
        let mut fair = Fair::default();
        shares(&mut fair, &[("a", 1)], 1_000);
        let shares = shares(&mut fair, &[("a", 1), ("late", 1)], 10);
        assert_eq!((shares["a"], shares["late"]), (5, 5));
    }

    #[test]
    fn nobody_is_next_where_nobody_waits() {
        assert_eq!(Fair::default().next([]), None);
    }
}
