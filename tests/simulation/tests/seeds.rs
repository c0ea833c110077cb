//! Ten thousand worlds; what is promised holds in each. `cargo xtask simulate` plays more.
//!
//! In five parts, so that they share the processors.

use cofferdam_simulation::{Options, host, play};

const PART: u64 = 2_000;

fn whatever_goes_wrong_what_is_promised_holds(part: u64) {
    let host = host().expect("wasmtime can be set up");
    for seed in part * PART..(part + 1) * PART {
        let played = play(seed, &host, Options::default()).expect("a world can be made");
        assert!(
            played.violations.is_empty(),
            "seed {seed}: {}\nagain, step by step: cargo xtask simulate --seed {seed} --trace",
            played.violations[0]
        );
    }
}

#[test]
fn whatever_goes_wrong_what_is_promised_holds_1() {
    whatever_goes_wrong_what_is_promised_holds(0);
}

#[test]
fn whatever_goes_wrong_what_is_promised_holds_2() {
    whatever_goes_wrong_what_is_promised_holds(1);
}

#[test]
fn whatever_goes_wrong_what_is_promised_holds_3() {
    whatever_goes_wrong_what_is_promised_holds(2);
}

#[test]
fn whatever_goes_wrong_what_is_promised_holds_4() {
    whatever_goes_wrong_what_is_promised_holds(3);
}

#[test]
fn whatever_goes_wrong_what_is_promised_holds_5() {
    whatever_goes_wrong_what_is_promised_holds(4);
}

#[test]
fn one_seed_gives_one_history() {
    let host = host().expect("wasmtime can be set up");
    for seed in 0..200 {
        let histories = [0, 1].map(|_| {
            let played = play(seed, &host, Options::default()).expect("a world can be made");
            (played.history, played.steps)
        });
        assert_eq!(histories[0], histories[1], "seed {seed}");
    }
}

#[test]
fn worlds_differ_and_go_wrong() {
    let host = host().expect("wasmtime can be set up");
    let worlds: Vec<_> = (0..100)
        .map(|seed| play(seed, &host, Options::default()).expect("a world can be made"))
        .collect();
    let mut histories: Vec<_> = worlds.iter().map(|played| &played.history).collect();
    histories.sort();
    histories.dedup();
    assert_eq!(histories.len(), worlds.len());
    let restarted = worlds.iter().filter(|played| played.processes > 1).count();
    assert!(
        restarted > 30,
        "only {restarted} of 100 worlds saw a process end"
    );
}
