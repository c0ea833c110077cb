//! A program that compiles components for a host, well or badly, as it is told.

use std::io::Write;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let exit = match arguments.next().as_deref() {
        Some("compile") => cofferdam_host::compile_child(arguments).into(),
        Some("garbage") => {
            let written = std::io::stdout().write_all(&vec![0xA5; 100_000]);
            i32::from(written.is_err())
        }
        Some("environment") => {
            eprintln!("{} variables", std::env::vars().count());
            3
        }
        _ => 64,
    };
    std::process::exit(exit);
}
