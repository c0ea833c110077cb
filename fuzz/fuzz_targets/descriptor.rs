//! A descriptor: any text is taken or refused, and what is taken can be read again.

#![no_main]

use cofferdam_core::descriptor::Descriptor;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Descriptor::parse(text) {
        Ok(descriptor) => assert!(!descriptor.name.is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
