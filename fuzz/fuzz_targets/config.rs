//! A configuration: any text is taken or refused with its place. Nothing in it is opened or run.

#![no_main]

use std::path::Path;

use cofferdam::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Files that a text names are read where it says; fuzzing is to stay in its own folder.
    if text.contains("file") {
        return;
    }
    if let Err(error) = Config::parse(text, "cofferdam.toml", Path::new("nowhere")) {
        assert!(error.to_string().contains("cofferdam.toml"), "{error}");
    }
});
