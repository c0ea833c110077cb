//! Guests that do not stop, and guests that stop badly.

use cofferdam_core::failure::Class;
use serde_json::json;

use super::{Case, Ends};
use crate::guest::Text;
use crate::web::Manner;

/// Never ends, and calls nothing.
pub(crate) const SPIN: &str = "(loop $again (br $again))";

pub(super) fn cases() -> Vec<Case> {
    let mut fuel = Case::stopped("loop_without_fuel", Text::attack(SPIN), "limit.fuel");
    fuel.limits.fuel = Some(5_000_000);
    let start = Text::default().core(format!("(func $spin {SPIN}) (start $spin)"));
    let deep = Text::attack("(call $deep)").core("(func $deep (call $deep))");
    vec![
        Case::stopped("infinite_loop", Text::attack(SPIN), "limit.cpu").cpu(40),
        fuel,
        Case::text(
            "infinite_loop_past_the_deadline",
            Text::attack(SPIN),
            Class::Timeout,
            "timeout",
        )
        .timeout(150),
        Case::stopped("loop_in_start", start, "limit.cpu")
            .cpu(40)
            .never_recovers(),
        Case::stopped("deep_recursion", deep, "limit.stack"),
        Case::stopped("unreachable", Text::attack("unreachable"), "plugin.trap"),
        Case::unruly(
            "panic_with_a_secret_in_its_message",
            (
                "panic-with",
                |_| json!({"message": format!("the key is {}", crate::harness::SECRET)}),
                Manner::Prompt,
            ),
            Ends::Fails(Class::Internal, "plugin.trap"),
        ),
    ]
}
