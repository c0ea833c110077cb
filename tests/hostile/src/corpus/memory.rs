//! Guests that want all memory.

use super::{Case, compute::SPIN};
use crate::guest::Text;

/// Grows memory 0 until it gets no more, writes to all of it, and traps.
pub(crate) const BOMB: &str = "
    (loop $more
      (local.set $i (memory.grow (i32.const 16)))
      (if (i32.eq (local.get $i) (i32.const -1)) (then unreachable))
      (memory.fill (i32.mul (local.get $i) (i32.const 65536)) (i32.const 165) (i32.const 1048576))
      (br $more))";

pub(super) fn cases() -> Vec<Case> {
    // 62 MiB of the 64: copied and filled without end, each of them one instruction.
    let bulk = Text::attack(
        "(drop (memory.grow (i32.const 990)))
        (loop $again
          (memory.fill (i32.const 131072) (i32.const 165) (i32.const 64000000))
          (memory.copy (i32.const 131072) (i32.const 131073) (i32.const 63000000))
          (br $again))",
    );
    let many = Text::attack(
        "(drop (memory.grow $other (i32.const 32)))
        (drop (memory.grow $other (i32.const 32)))
        (if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable))
        (if (i32.eq (memory.grow $other (i32.const 64)) (i32.const -1)) (then unreachable))",
    )
    .core("(memory $other 2)");
    let table = Text::attack(
        "(loop $more
          (if (i32.eq (table.grow $t (ref.null func) (i32.const 10000)) (i32.const -1))
            (then unreachable))
          (br $more))",
    )
    .core("(table $t 0 funcref)");
    let in_start =
        Text::default().core(format!("(func $bomb (local $i i32) {BOMB}) (start $bomb)"));
    vec![
        Case::stopped("memory_bomb", Text::attack(BOMB), "limit.memory"),
        Case::stopped("memory_bomb_in_start", in_start, "limit.memory").never_recovers(),
        Case::stopped("memory_bomb_over_many_memories", many, "limit.memory").memory(8 << 20),
        Case::stopped("table_bomb", table.clone(), "limit.memory").memory(512 << 10),
        // The slot ends before the sum does.
        Case::stopped("table_bomb_beyond_the_slot", table, "limit.memory"),
        Case::stopped("bulk_memory_at_the_limit", bulk, "limit.cpu").cpu(100),
        Case::refused(
            "ten_thousand_memories",
            || {
                Text::attack(SPIN)
                    .core("(memory 0)".repeat(10_000))
                    .component()
            },
            &["CD0313"],
        ),
        Case::refused(
            "fifty_memories",
            || Text::attack(SPIN).core("(memory 0)".repeat(50)).component(),
            &["CD0313"],
        ),
        Case::refused(
            "fifty_tables",
            || {
                let core = "(table 0 funcref)".repeat(50);
                Text::attack(SPIN).core(core).component()
            },
            &["CD0313"],
        ),
    ]
}
