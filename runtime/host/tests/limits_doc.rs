//! `docs/limits.md` says what the code does. `COFFERDAM_WRITE_DOCS=1` writes it again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt::Write as _;
use std::path::Path;

use cofferdam_host::limits_table;

const HEAD: &str = "\
# Limits

What one call, one connection and one component may use. Every limit is enforced by the host, whatever the plugin
does; most have a hostile guest in `tests/hostile` that tries to get past them. No plugin raises one: what its
manifest asks for can only lower what the operator left at the default.

A key is written under `[connections.NAME]`, or under `[limits]` for all connections. Values out of bounds are refused
when the configuration is loaded. This page is made from the code; a test keeps it so.

| limit | default | bounds | enforced by | the caller sees |
|---|---|---|---|---|
";

#[test]
fn the_page_of_limits_is_what_the_code_says() {
    let mut page = HEAD.to_owned();
    for row in limits_table() {
        let (key, default, bounds) = (row.key, row.default, row.bounds);
        let (by, sees) = (row.enforced_by, row.caller_sees);
        writeln!(page, "| {key} | {default} | {bounds} | {by} | {sees} |").unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/limits.md");
    if std::env::var_os("COFFERDAM_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        written, page,
        "docs/limits.md differs from the code: run this test with COFFERDAM_WRITE_DOCS=1"
    );
}
