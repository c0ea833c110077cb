//! A call whose effect another task has asked for.

use super::{Hedge, Phase, Plan, State};
use crate::failure::{Class, EffectState, Failure};

impl State {
    /// An attempt of another task is under way on this connection: its end is the end of one of
    /// this call. `maybe` says whether an earlier attempt may have had the effect.
    pub(crate) fn wait_beside(&mut self, connection: &str, maybe: bool, plan: &Plan) {
        self.go_to(connection, plan);
        self.tainted |= maybe;
        self.hedge = Hedge::Off;
        self.phase = Phase::InFlight;
    }

    /// An attempt of another task on this connection has ended, and may have had the effect.
    pub(crate) fn find_out(&mut self, connection: &str, now_ms: u64, plan: &Plan) {
        self.go_to(connection, plan);
        self.tainted = true;
        self.phase = self.unknown(unseen(), None, now_ms, plan);
        self.watch_review(now_ms, plan);
    }

    fn go_to(&mut self, connection: &str, plan: &Plan) {
        let index = plan.connections.iter().position(|c| c == connection);
        self.connection = index.unwrap_or(self.connection);
        self.start_by_ms = None;
    }
}

fn unseen() -> Failure {
    Failure::new(
        Class::Unavailable,
        "effect.unknown",
        "another task made the same call, and nobody knows whether it happened",
    )
    .with_effect(EffectState::Unknown)
}
