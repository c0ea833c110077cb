//! How a backlog is let go when its connection works again, as a pure machine.
//!
//! One first; when that went well two, then four … up to a bound, and one again after the first
//! failure: the slow start of TCP (RFC 5681, section 3.1), with a backlog in place of segments. It
//! counts what is *in flight*, not what was let go in some time, so that a connection that answers
//! slowly is not given more just because time passes.

/// The state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Lets go.
    Climbing {
        /// Most in flight at once.
        window: u32,
        /// How many ended well since the window last grew.
        good: u32,
    },
    /// Lets nothing go until [`Ramp::resume`].
    BackingOff,
}

/// How one that was let go ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Well.
    Good,
    /// In a way that speaks against the connection, or it has to wait again.
    Bad,
    /// It says nothing: it was not wanted any more.
    Neutral,
}

/// A ramp: its state and what is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ramp {
    state: State,
    in_flight: u32,
    window_max: u32,
}

impl Ramp {
    /// A ramp at its foot. At least one is let go at a time.
    pub fn new(window_max: u32) -> Self {
        Self {
            state: foot(),
            in_flight: 0,
            window_max: window_max.max(1),
        }
    }

    /// Where it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// How many were let go and have not ended.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// How many more may be let go at this moment.
    pub fn free(&self) -> u32 {
        match self.state {
            State::Climbing { window, .. } => window.saturating_sub(self.in_flight),
            State::BackingOff => 0,
        }
    }

    /// One is let go; false, and nothing happens, if none may be.
    pub fn let_go(&mut self) -> bool {
        let may = self.free() > 0;
        self.in_flight += u32::from(may);
        may
    }

    /// One that was let go has ended.
    pub fn ended(&mut self, how: Ended) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.state = match (self.state, how) {
            (State::BackingOff, Ended::Good | Ended::Bad | Ended::Neutral)
            | (State::Climbing { .. }, Ended::Bad) => State::BackingOff,
            (State::Climbing { window, good }, Ended::Neutral) => State::Climbing { window, good },
            (State::Climbing { window, good }, Ended::Good) if good + 1 >= window => {
                let window = window.saturating_mul(2).min(self.window_max);
                State::Climbing { window, good: 0 }
            }
            (State::Climbing { window, good }, Ended::Good) => State::Climbing {
                window,
                good: good + 1,
            },
        };
    }

    /// Begins again with one, after a failure or when a backlog is new. What is in flight still
    /// counts.
    pub fn resume(&mut self) {
        self.state = foot();
    }
}

fn foot() -> State {
    State::Climbing { window: 1, good: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_lets_go_one_then_two_then_four_up_to_the_bound() {
        let mut ramp = Ramp::new(6);
        let mut portions = Vec::new();
        for _ in 0..5 {
            let mut portion = 0;
            while ramp.let_go() {
                portion += 1;
            }
            portions.push(portion);
            for _ in 0..portion {
                ramp.ended(Ended::Good);
            }
        }
        assert_eq!(portions, [1, 2, 4, 6, 6]);
    }

    #[test]
    fn time_alone_lets_nothing_go() {
        let mut ramp = Ramp::new(16);
        assert!(ramp.let_go());
        assert!((0..1_000).all(|_| !ramp.let_go()));
    }

    #[test]
    fn every_pair_of_state_and_end_leads_where_it_is_written() {
        let climbing = |window, good| State::Climbing { window, good };
        for (state, how, expected) in [
            (climbing(4, 1), Ended::Good, climbing(4, 2)),
            (climbing(4, 3), Ended::Good, climbing(8, 0)),
            (climbing(8, 7), Ended::Good, climbing(8, 0)),
            (climbing(4, 3), Ended::Neutral, climbing(4, 3)),
            (climbing(4, 3), Ended::Bad, State::BackingOff),
            (State::BackingOff, Ended::Good, State::BackingOff),
            (State::BackingOff, Ended::Neutral, State::BackingOff),
            (State::BackingOff, Ended::Bad, State::BackingOff),
        ] {
            let mut ramp = Ramp {
                state,
                in_flight: 3,
                window_max: 8,
            };
            ramp.ended(how);
            assert_eq!((ramp.state, ramp.in_flight), (expected, 2));
        }
    }

    #[test]
    fn after_the_first_failure_it_begins_again_with_one() {
        let mut ramp = Ramp::new(16);
        for _ in 0..20 {
            assert!(ramp.let_go());
            ramp.ended(Ended::Good);
        }
        assert!(ramp.let_go() && ramp.let_go());
        ramp.ended(Ended::Bad);
        assert_eq!(ramp.free(), 0);
        ramp.resume();
        // The other one is still in flight.
        assert_eq!(ramp.free(), 0);
        ramp.ended(Ended::Good);
        assert_eq!(ramp.free(), 2);
    }

    proptest! {
        /// A backlog of 10,000 against a service that fails now and then and answers in any order.
        #[test]
        fn of_ten_thousand_never_more_are_in_flight_than_the_ramp_allows(
            most in 1..64_u32, draws in prop::collection::vec(any::<u8>(), 97),
        ) {
            let mut draws = draws.iter().cycle().copied();
            let mut draw = move || draws.next().unwrap_or(0);
            let (mut ramp, mut left, mut good, mut most_seen) = (Ramp::new(most), 10_000_u32, 0_u32, 0);
            while left > 0 || ramp.in_flight() > 0 {
                if ramp.state() == State::BackingOff && ramp.in_flight() == 0 {
                    ramp.resume();
                    good = 0;
                }
                while left > 0 && draw() < 128 && ramp.let_go() {
                    left -= 1;
                }
                most_seen = most_seen.max(ramp.in_flight());
                // After n good answers the window is at most n + 1: 1, 2, 4 …
                prop_assert!(ramp.in_flight() <= most.min(good + 1));
                if ramp.in_flight() > 0 {
                    let bad = draw() < 8;
                    ramp.ended(if bad { Ended::Bad } else { Ended::Good });
                    good += u32::from(!bad);
                    left += u32::from(bad);
                }
            }
            prop_assert!(most_seen <= most);
        }
    }
}
