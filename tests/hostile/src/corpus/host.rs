//! Guests that make the host work, hold, copy and wait for them.

use cofferdam_core::failure::Class;

use super::Case;
use crate::guest::Text;

/// `wasi:io/poll` and `wasi:clocks/monotonic-clock`, as much of them as is used here.
const CLOCK: &str = r#"
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))
    (export "poll" (func (param "in" (list (borrow $pollable))) (result (list u32))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (export "pollable" (type $p (eq $pollable)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))"#;
const CLOCK_LOWERED: &str = r#"
  (core func $subscribe (canon lower (func $clock "subscribe-duration")))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $poll (canon lower (func $poll "poll") (memory $memory) (realloc $realloc)))"#;
const CLOCK_ARGUMENTS: &str = r#"(with "host" (instance
    (export "subscribe" (func $subscribe)) (export "block" (func $block)) (export "poll" (func $poll))))"#;
const CLOCK_CORE: &str = r#"
  (import "host" "subscribe" (func $subscribe (param i64) (result i32)))
  (import "host" "block" (func $block (param i32)))
  (import "host" "poll" (func $poll (param i32 i32 i32)))"#;

/// Makes timers until it gets no more.
pub(crate) const HANDLES: &str = "(loop $more (drop (call $subscribe (i64.const -1))) (br $more))";

/// A guest that has the clock.
pub(crate) fn with_clock(attack: impl Into<String>) -> Text {
    Text {
        attack: attack.into(),
        core: CLOCK_CORE.to_owned(),
        imports: CLOCK.to_owned(),
        lowered: CLOCK_LOWERED.to_owned(),
        arguments: CLOCK_ARGUMENTS.to_owned(),
    }
}

fn with_resource(attack: &str) -> Text {
    Text {
        attack: attack.to_owned(),
        core: r#"(import "host" "new" (func $new (param i32) (result i32)))"#.to_owned(),
        imports: String::new(),
        lowered: "(type $mine (resource (rep i32))) (core func $new (canon resource.new $mine))"
            .to_owned(),
        arguments: r#"(with "host" (instance (export "new" (func $new))))"#.to_owned(),
    }
}

fn with_log(attack: &str) -> Text {
    Text {
        attack: attack.to_owned(),
        core: r#"(import "host" "log" (func $log (param i32 i32 i32 i32 i32)))"#.to_owned(),
        imports: r#"
          (import "cofferdam:connector/log@1.0.0" (instance $log
            (type $level-t (enum "trace" "debug" "info" "warn" "error"))
            (export "level" (type $level (eq $level-t)))
            (export "write" (func
              (param "level" $level) (param "message" string) (param "fields" string)))))"#
            .to_owned(),
        lowered: r#"(core func $log (canon lower (func $log "write") (memory $memory)))"#
            .to_owned(),
        arguments: r#"(with "host" (instance (export "log" (func $log))))"#.to_owned(),
    }
}

fn with_random(attack: &str) -> Text {
    Text {
        attack: attack.to_owned(),
        core: r#"(import "host" "random" (func $random (param i64 i32)))"#.to_owned(),
        imports: r#"
          (import "wasi:random/random@0.2.0" (instance $random
            (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))"#
            .to_owned(),
        lowered: r#"(core func $random
            (canon lower (func $random "get-random-bytes") (memory $memory) (realloc $realloc)))"#
            .to_owned(),
        arguments: r#"(with "host" (instance (export "random" (func $random))))"#.to_owned(),
    }
}

pub(super) fn cases() -> Vec<Case> {
    let resources = with_resource("(loop $more (drop (call $new (i32.const 1))) (br $more))");
    // A timer, named 13 million times.
    let list = with_clock(
        "(drop (memory.grow (i32.const 900)))
        (i32.store (i32.const 131072) (call $subscribe (i64.const -1)))
        (memory.copy (i32.const 131076) (i32.const 131072) (i32.const 4))
        (local.set $i (i32.const 8))
        (loop $double
          (memory.copy (i32.add (i32.const 131072) (local.get $i)) (i32.const 131072) (local.get $i))
          (local.set $i (i32.shl (local.get $i) (i32.const 1)))
          (br_if $double (i32.lt_u (local.get $i) (i32.const 26000000))))
        (call $poll (i32.const 131072) (i32.const 13000000) (i32.const 64))",
    );
    let string = with_log(
        "(drop (memory.grow (i32.const 900)))
        (memory.fill (i32.const 131072) (i32.const 97) (i32.const 58000000))
        (call $log (i32.const 2) (i32.const 131072) (i32.const 58000000) (i32.const 0) (i32.const 0))",
    );
    let not_utf8 = with_log(
        "(memory.fill (i32.const 4096) (i32.const 255) (i32.const 100))
        (call $log (i32.const 2) (i32.const 4096) (i32.const 100) (i32.const 0) (i32.const 0))",
    );
    // 60,000 bytes a line.
    let flood = with_log(
        "(memory.fill (i32.const 65536) (i32.const 97) (i32.const 60000))
        (loop $again
          (call $log (i32.const 2) (i32.const 65536) (i32.const 60000) (i32.const 0) (i32.const 0))
          (br $again))",
    );
    let lines = with_log(
        "(drop (memory.grow (i32.const 400)))
        (memory.fill (i32.const 131072) (i32.const 97) (i32.const 20000000))
        (call $log (i32.const 2) (i32.const 131072) (i32.const 20000000) (i32.const 0) (i32.const 0))
        (call $log (i32.const 2) (i32.const 131072) (i32.const 20000000) (i32.const 0) (i32.const 0))",
    );
    // `[0,0,0,…` of 20 MB: parsed, it would take some 500 MB.
    let fields = with_log(
        "(drop (memory.grow (i32.const 400)))
        (i64.store (i32.const 131072) (i64.const 0x2c302c302c302c30))
        (local.set $i (i32.const 8))
        (loop $double
          (memory.copy (i32.add (i32.const 131072) (local.get $i)) (i32.const 131072) (local.get $i))
          (local.set $i (i32.shl (local.get $i) (i32.const 1)))
          (br_if $double (i32.lt_u (local.get $i) (i32.const 10000000))))
        (i32.store8 (i32.const 131072) (i32.const 0x5b))
        (i32.store8 (i32.const 131073) (i32.const 0x20))
        (i32.store8 (i32.const 15131072) (i32.const 0x30))
        (i32.store8 (i32.const 15131073) (i32.const 0x5d))
        (call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 131072) (i32.const 15000002))",
    );
    let sleep = "(call $block (call $subscribe (i64.const -1)))";
    vec![
        Case::stopped("handle_bomb", with_clock(HANDLES), "limit.host-resources"),
        Case::stopped("resource_bomb", resources, "limit.host-resources"),
        Case::stopped("huge_list_to_an_import", list, "limit.host-resources"),
        Case::stopped("huge_string_to_an_import", string, "limit.host-resources"),
        Case::stopped("invalid_utf8_to_an_import", not_utf8, "plugin.trap"),
        Case::stopped(
            "random_bytes_without_end",
            with_random("(call $random (i64.const -1) (i32.const 64))"),
            "limit.host-resources",
        ),
        Case::stopped("log_flood_without_end", flood, "limit.cpu").cpu(100),
        Case::answers("log_lines_of_megabytes", lines),
        Case::answers("log_fields_that_grow_when_parsed", fields),
        Case::text(
            "sleep_past_the_deadline",
            with_clock(sleep),
            Class::Timeout,
            "timeout",
        )
        .timeout(150),
    ]
}
