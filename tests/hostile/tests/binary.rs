//! Damaged components are refused or run; they never end the host, and never take long.

use cofferdam_host::{Host, HostOptions};
use cofferdam_hostile::{Text, guest};
use proptest::prelude::*;

fn host() -> Host {
    Host::new(HostOptions {
        concurrency_max: 1,
        ..HostOptions::default()
    })
    .expect("a host")
}

fn component() -> Vec<u8> {
    Text::default().component().expect("the text is right")
}

/// Codes of components that are no components, or not ours.
const REFUSED: [&str; 8] = [
    "CD0303", "CD0304", "CD0305", "CD0306", "CD0307", "CD0308", "CD0311", "CD0313",
];

#[test]
fn no_part_of_a_component_is_taken_for_the_whole() {
    let (host, whole) = (host(), component());
    let mut refused = 0;
    for bytes in 0..whole.len() {
        let loaded = host.load(guest::artifact(whole[..bytes].to_vec()));
        // Without its last section it lacks its descriptor only.
        match loaded {
            Ok(plugin) => assert!(plugin.descriptor().is_none(), "at {bytes}"),
            Err(error) => {
                assert!(REFUSED.contains(&error.code()), "at {bytes}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > whole.len() / 2, "{refused} of {}", whole.len());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn flipped_bits_are_survived(flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 1..4)) {
        let mut bytes = component();
        for (place, bit) in flips {
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
        }
        // Whatever it says, it says it; a descriptor may be damaged too.
        if let Err(error) = host().load(guest::artifact(bytes)) {
            prop_assert!(error.code().starts_with("CD03"));
        }
    }
}
