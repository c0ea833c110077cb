//! A packed plugin: any bytes are read or refused, nobody is trusted who was not named, and what was
//! read packs again into the plugin that it was.

#![no_main]

use cofferdam_host::{Artifact, Trust};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(artifact) = Artifact::from_archive(bytes, "fuzzed.cofferdam") else {
        return;
    };
    let refused = Trust::default().judge(&artifact);
    assert!(refused.is_err(), "{refused:?} with no key to trust");
    // One that was never stamped is read, to be refused where it is loaded.
    let Ok(packed) = artifact.pack() else {
        return;
    };
    let again = Artifact::from_archive(&packed.to_archive(), "again.cofferdam");
    let again = again.expect("what was packed here is whole");
    assert_eq!(again.component(), artifact.component());
    assert_eq!(
        again.digest().expect("packed"),
        artifact.digest().expect("packed")
    );
});
