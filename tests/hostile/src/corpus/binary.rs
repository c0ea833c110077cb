//! Components that hurt before they are called.

use anyhow::Result;

use super::{Case, compute::SPIN};
use crate::guest::Text;

/// Appends a custom section of so many bytes to a component.
fn padded(component: &mut Vec<u8>, bytes: usize) {
    let name = b"padding";
    component.push(0);
    let mut length = name.len() + 1 + bytes;
    while length >= 0x80 {
        component.push(length as u8 | 0x80);
        length >>= 7;
    }
    component.push(length as u8);
    component.push(name.len() as u8);
    component.extend_from_slice(name);
    component.resize(component.len() + bytes, 0xA5);
}

/// The component with padding up to so many bytes.
fn of_size(bytes: usize) -> Result<Vec<u8>> {
    let mut component = Text::attack(SPIN).component()?;
    let missing = bytes - component.len();
    padded(&mut component, missing);
    Ok(component)
}

/// A guest with so many small functions, which it calls in turn.
pub fn with_functions(functions: usize) -> Text {
    let one = |n| {
        format!("(func $f{n} (param i32) (result i32) (i32.add (local.get 0) (i32.const {n})))")
    };
    let core = (0..functions).map(one).collect::<Vec<_>>().concat();
    let last = functions - 1;
    Text::attack(format!("(drop (call $f{last} (i32.const 1))) unreachable")).core(core)
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::refused(
            "component_over_the_limit",
            || of_size((64 << 20) + 1),
            &["CD0302"],
        ),
        Case::refused("random_bytes", || Ok(noise(100_000)), &["CD0303"]),
        Case::refused(
            "random_bytes_after_a_header",
            || Ok([b"\0asm\x0d\0\x01\0".as_slice(), &noise(100_000)].concat()),
            &["CD0305"],
        ),
        Case::refused(
            "truncated_component",
            || {
                let mut component = Text::attack(SPIN).component()?;
                component.truncate(component.len() / 2);
                Ok(component)
            },
            &["CD0305"],
        ),
        Case::refused(
            "component_of_fifty_megabytes_of_nothing_needed",
            || {
                let mut component = b"\0asm\x0d\0\x01\0".to_vec();
                padded(&mut component, 50_000_000);
                Ok(component)
            },
            &["CD0306"],
        ),
        Case::stopped(
            "ten_thousand_functions",
            with_functions(10_000),
            "plugin.trap",
        ),
    ]
}

/// Bytes without sense, the same in every run (a linear congruential generator of Knuth's).
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let step = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(step).collect()
}
