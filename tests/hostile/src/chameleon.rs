//! One guest that attacks in several ways, for random sequences of good and hostile calls.

use serde_json::{Value, json};

use crate::corpus::parts;
use crate::guest::Text;

/// How it can attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// Does not end.
    Spin,
    /// Traps.
    Trap,
    /// Takes all memory.
    Memory,
    /// Uses up the stack.
    Stack,
    /// Takes all handles.
    Handles,
    /// Waits for ever.
    Sleep,
}

impl Attack {
    /// Every attack.
    pub const ALL: [Self; 6] = [
        Self::Spin,
        Self::Trap,
        Self::Memory,
        Self::Stack,
        Self::Handles,
        Self::Sleep,
    ];

    /// The input that asks for it; as long as [`crate::guest::attack`], or it would be a good one.
    pub fn input(self) -> Value {
        json!(match self {
            Self::Spin => "0-spin",
            Self::Trap => "1-trap",
            Self::Memory => "2-grow",
            Self::Stack => "3-deep",
            Self::Handles => "4-make",
            Self::Sleep => "5-wait",
        })
    }

    /// The codes with which it may end, under a short deadline and a small CPU time.
    pub fn codes(self) -> &'static [&'static str] {
        match self {
            Self::Spin => &["limit.cpu", "timeout"],
            Self::Trap => &["plugin.trap", "timeout"],
            Self::Memory => &["limit.memory", "limit.cpu", "timeout"],
            Self::Stack => &["limit.stack", "limit.cpu", "timeout"],
            Self::Handles => &["limit.host-resources", "limit.cpu", "timeout"],
            Self::Sleep => &["timeout"],
        }
    }
}

/// The guest.
pub fn chameleon() -> Text {
    let attack = format!(
        "(local.set $i (i32.load8_u offset=1 (local.get $input)))
        (if (i32.eq (local.get $i) (i32.const 48)) (then {spin}))
        (if (i32.eq (local.get $i) (i32.const 49)) (then unreachable))
        (if (i32.eq (local.get $i) (i32.const 51)) (then (call $deep)))
        (if (i32.eq (local.get $i) (i32.const 52)) (then {handles}))
        (if (i32.eq (local.get $i) (i32.const 53))
          (then (call $block (call $subscribe (i64.const -1)))))
        (if (i32.eq (local.get $i) (i32.const 50)) (then {memory}))",
        spin = parts::SPIN,
        handles = parts::HANDLES,
        memory = parts::BOMB,
    );
    let mut text = parts::with_clock(attack);
    text.core.push_str("(func $deep (call $deep))");
    text
}
