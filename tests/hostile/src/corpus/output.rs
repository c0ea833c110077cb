//! Guests whose answer is the attack.

use super::Case;
use crate::guest::Text;

pub(super) fn cases() -> Vec<Case> {
    // A JSON text of 2 MB, and one of 50 MB that is never copied whole.
    let long = |pages: u32, bytes: u32| {
        let last = 131_072 + bytes - 1;
        Text::attack(format!(
            "(drop (memory.grow (i32.const {pages})))
            (memory.fill (i32.const 131072) (i32.const 97) (i32.const {bytes}))
            (i32.store8 (i32.const 131072) (i32.const 34))
            (i32.store8 (i32.const {last}) (i32.const 34))
            (return (call $answer (i32.const 131072) (i32.const {bytes})))"
        ))
    };
    let nested = Text::attack(
        "(drop (memory.grow (i32.const 16)))
        (memory.fill (i32.const 131072) (i32.const 91) (i32.const 500000))
        (memory.fill (i32.const 631072) (i32.const 93) (i32.const 500000))
        (return (call $answer (i32.const 131072) (i32.const 1000000)))",
    );
    // `[0,0,0,…]` of 1 MB: half a million values, which is let pass.
    let many = Text::attack(
        "(drop (memory.grow (i32.const 32)))
        (i64.store (i32.const 131072) (i64.const 0x2c302c302c302c30))
        (local.set $i (i32.const 8))
        (loop $double
          (memory.copy (i32.add (i32.const 131072) (local.get $i)) (i32.const 131072) (local.get $i))
          (local.set $i (i32.shl (local.get $i) (i32.const 1)))
          (br_if $double (i32.lt_u (local.get $i) (i32.const 1000000))))
        (i32.store8 (i32.const 131072) (i32.const 0x5b))
        (i32.store8 (i32.const 131073) (i32.const 0x20))
        (i32.store8 (i32.const 1131072) (i32.const 0x30))
        (i32.store8 (i32.const 1131073) (i32.const 0x5d))
        (return (call $answer (i32.const 131072) (i32.const 1000002)))",
    );
    let not_utf8 = Text::attack(
        "(memory.fill (i32.const 4096) (i32.const 255) (i32.const 100))
        (return (call $answer (i32.const 4096) (i32.const 100)))",
    );
    let outside = Text::attack("(return (call $answer (i32.const -256) (i32.const 1000)))");
    let not_json = Text::attack(
        "(memory.fill (i32.const 4096) (i32.const 97) (i32.const 100))
        (return (call $answer (i32.const 4096) (i32.const 100)))",
    );
    vec![
        Case::stopped("output_over_the_limit", long(64, 2_000_000), "limit.output"),
        Case::stopped(
            "output_of_fifty_megabytes",
            long(900, 50_000_000),
            "limit.host-resources",
        ),
        Case::stopped("deeply_nested_output", nested, "output.depth"),
        Case::answers("output_of_half_a_million_values", many),
        Case::stopped("output_that_is_not_utf8", not_utf8, "plugin.trap"),
        Case::stopped("output_outside_of_memory", outside, "plugin.trap"),
        Case::stopped("output_that_is_not_json", not_json, "output.json"),
    ]
}
