//! Colours, only for terminals and only if nobody asked for none (`NO_COLOR`).

use std::io::IsTerminal as _;

/// Colours a text, or leaves it alone.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    colours: bool,
}

impl Style {
    /// For stdout.
    pub fn stdout() -> Self {
        Self {
            colours: std::io::stdout().is_terminal() && wanted(),
        }
    }

    /// For stderr.
    pub fn stderr() -> Self {
        Self {
            colours: stderr_is_terminal(),
        }
    }

    /// Without colours.
    #[cfg(test)]
    pub fn plain() -> Self {
        Self { colours: false }
    }

    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colours {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Whether stderr may be coloured.
pub fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal() && wanted()
}

fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
