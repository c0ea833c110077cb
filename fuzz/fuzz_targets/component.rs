//! A component: any bytes are admitted or refused without compiling them; what is stamped carries
//! what it was stamped with.

#![no_main]

use cofferdam_host::{Artifact, stamp};
use libfuzzer_sys::fuzz_target;

const DESCRIPTOR: &str = r#"{"name":"fuzzed","version":"1.0.0","actions":{}}"#;
const MANIFEST: &str = "name = \"fuzzed\"\nversion = \"1.0.0\"\n";

fuzz_target!(|bytes: &[u8]| {
    if let Ok(artifact) = Artifact::new(bytes.to_vec(), None, "fuzzed.wasm") {
        let _ = artifact.inspect();
    }
    let Ok(stamped) = stamp(bytes, DESCRIPTOR, Some(MANIFEST)) else {
        return;
    };
    let again = Artifact::new(stamped.clone(), None, "stamped.wasm").expect("its own manifest");
    let name = again.manifest().map(|manifest| &*manifest.name);
    assert_eq!(name, Some("fuzzed"));
    if let Ok(inspected) = again.inspect() {
        assert_eq!(
            inspected.descriptor.map(|it| it.name).as_deref(),
            Some("fuzzed")
        );
    }
    let twice = stamp(&stamped, DESCRIPTOR, Some(MANIFEST)).expect("what was stamped is whole");
    assert_eq!(twice, stamped);
});
