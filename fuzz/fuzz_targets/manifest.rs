//! A plugin's manifest: any text is taken or refused with its place, and what is taken makes sense.

#![no_main]

use cofferdam_core::manifest::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Manifest::parse(text, "plugin.toml") {
        Ok(manifest) => {
            assert!(!manifest.name.is_empty() && manifest.name.len() <= 64);
            assert_eq!(
                manifest.limits.memory.is_some(),
                manifest.limits.memory_bytes().is_some()
            );
            assert!(
                manifest
                    .limits
                    .timeout()
                    .is_none_or(|timeout| !timeout.is_zero())
            );
            let _ = manifest.wit_major();
        }
        Err(error) => assert!(error.to_string().contains("plugin.toml")),
    }
});
