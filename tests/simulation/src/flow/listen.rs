//! Tasks that listen, in every way that the language has.

use serde_json::{Value, json};

use super::{Author, Place};

/// Types of events. Somebody goes on publishing each of them, so that nobody waits in vain.
pub const KINDS: [&str; 3] = ["sim.a", "sim.b", "sim.c"];
/// What events are about.
pub const ORDERS: [&str; 2] = ["x", "y"];

impl Author<'_> {
    pub(super) fn listen(&mut self, name: &str, place: &Place, nests: bool) -> Value {
        let mut task = json!({"listen": {"to": self.strategy()}});
        if self.dice.percent(50) {
            let ms = self.dice.range(200..=20_000);
            task["timeout"] = json!({"after": {"milliseconds": ms}});
        }
        if nests && self.dice.percent(40) {
            task["listen"]["read"] = json!("envelope");
            let mut inner = place.deeper();
            let item = format!("event_{name}");
            inner.loops.push(format!("{item}.id"));
            let body = self.block(&inner, false);
            task["foreach"] = json!({"item": item, "at": format!("at_{name}"), "do": body});
        }
        task
    }

    fn strategy(&mut self) -> Value {
        let kind = *self.dice.pick(&KINDS);
        let other = *self.dice.pick(&KINDS);
        let filter = |kind: &str| json!({"with": {"type": kind}});
        let about = |kind: &str, order: Option<&str>| {
            let mut correlate = json!({"order": {"from": ".data.order"}});
            if let Some(order) = order {
                correlate["order"]["expect"] = json!(order);
            }
            json!({"with": {"type": kind}, "correlate": correlate})
        };
        match self.dice.range(0..=7) {
            0 => json!({"one": filter(kind)}),
            1 => json!({"one": about(kind, Some(*self.dice.pick(&ORDERS)))}),
            2 => json!({"all": [filter(kind), filter(other)]}),
            3 => json!({"all": [about(kind, None), about(other, None)]}),
            4 => json!({"any": [filter(kind), filter(other)]}),
            5 => json!({"any": []}),
            6 => {
                let enough = self.dice.range(2..=3);
                json!({"any": [filter(kind)], "until": format!("${{ length >= {enough} }}")})
            }
            _ => {
                json!({"any": [filter("sim.a"), filter("sim.b")], "until": {"one": filter("sim.c")}})
            }
        }
    }
}
