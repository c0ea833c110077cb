//! What one sees while it runs: a bar and a line for each connection, drawn in place on a
//! terminal; elsewhere a plain line now and then. All of it goes to standard error.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use super::message::{Line, Snapshot};
use crate::style::Style;

/// Without a terminal, a line of progress at most so often.
const PLAIN_EVERY: Duration = Duration::from_secs(2);
const BAR_CHARS: usize = 32;
/// What a terminal has that does not tell its width.
const WIDTH_DEFAULT: usize = 80;
/// Columns of a connection's line before its last failure, and one that stays free: some terminals
/// wrap a line that fills them.
const FAILURE_AT: usize = 53;

/// Draws.
pub struct Screen {
    is_terminal: bool,
    style: Style,
    leads: usize,
    /// Lines that the next drawing overwrites.
    drawn: usize,
    told: Option<Duration>,
}

impl Screen {
    pub fn new() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            style: Style::stderr(),
            leads: 0,
            drawn: 0,
            told: None,
        }
    }

    /// A new showing.
    pub fn begin(&mut self, title: &str, leads: usize) {
        self.leads = leads;
        self.told = None;
        write(&format!("\n{}\n", self.style.bold(title)));
    }

    /// Something happened.
    pub fn tell(&mut self, at: Duration, what: &str) {
        let line = format!("  {:>5.1} s  {}\n", at.as_secs_f64(), self.style.warn(what));
        let mut text = self.erase();
        text.push_str(&line);
        write(&text);
    }

    /// How things are.
    pub fn draw(&mut self, snapshot: &Snapshot, at: Duration) {
        if self.is_terminal {
            let mut text = self.erase();
            let lines = self.lines(snapshot, at);
            self.drawn = lines.len();
            for line in lines {
                text.push_str(&line);
                text.push('\n');
            }
            write(&text);
        } else if self
            .told
            .is_none_or(|told| at.saturating_sub(told) >= PLAIN_EVERY)
        {
            self.told = Some(at);
            write(&format!(
                "  {:>5.1} s  {}\n",
                at.as_secs_f64(),
                self.progress(snapshot)
            ));
        }
    }

    /// The showing is over; what was drawn last stays.
    pub fn end(&mut self) {
        self.drawn = 0;
    }

    /// Goes back to the first drawn line and clears from there.
    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\u{1b}[{lines}A\u{1b}[J"),
        }
    }

    fn lines(&self, snapshot: &Snapshot, at: Duration) -> Vec<String> {
        let width = width();
        let settled = snapshot.ended + snapshot.review + snapshot.twice;
        let filled = settled.min(self.leads) * BAR_CHARS / self.leads.max(1);
        let arrived = snapshot.arrived.min(self.leads) * BAR_CHARS / self.leads.max(1);
        let waiting = arrived.saturating_sub(filled);
        let bar = format!(
            "  {}{}{}  {:.1} s",
            self.style.good(&"█".repeat(filled)),
            self.style.warn(&"▒".repeat(waiting)),
            self.style
                .dim(&"░".repeat(BAR_CHARS.saturating_sub(filled + waiting))),
            at.as_secs_f64(),
        );
        let head = format!(
            "  {:<10} {:<9} {:>9} {:>7} {:>9}  {}",
            "connection", "breaker", "in flight", "parked", "failures", "last failure"
        );
        let mut lines = vec![bar, clip(&format!("  {}", self.progress(snapshot)), width)];
        lines.push(self.style.dim(&clip(&head, width)));
        lines.extend(
            snapshot
                .connections
                .iter()
                .map(|line| self.connection(line, width)),
        );
        lines
    }

    fn progress(&self, snapshot: &Snapshot) -> String {
        let parked: usize = snapshot.connections.iter().map(|line| line.parked).sum();
        let twice = match snapshot.twice {
            0 => String::new(),
            twice => format!(" ({twice} there before)"),
        };
        format!(
            "{} of {} leads arrived{twice} · {} done ({} degraded, {} faulted) · {} parked · {} in review",
            snapshot.arrived,
            self.leads,
            snapshot.ended,
            snapshot.degraded,
            snapshot.faulted,
            parked,
            snapshot.review,
        )
    }

    fn connection(&self, line: &Line, width: usize) -> String {
        let breaker = format!("{:<9}", line.breaker);
        let breaker = match line.breaker.as_str() {
            "Closed" => self.style.good(&breaker),
            "HalfOpen" => self.style.warn(&breaker),
            _ => self.style.bad(&breaker),
        };
        let failure = line.last_failure.as_deref().unwrap_or_default();
        let failure = clip(failure, width.saturating_sub(FAILURE_AT));
        format!(
            "  {:<10} {breaker} {:>9} {:>7} {:>9}  {}",
            line.name,
            line.in_flight,
            line.parked,
            line.failures,
            self.style.dim(&failure),
        )
    }
}

/// Standard error may be gone; then nobody looks.
fn write(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// At most so many characters. A line that wraps would be drawn over wrongly.
pub fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut clipped: String = text.chars().take(width.saturating_sub(1)).collect();
    clipped.push('…');
    clipped
}

fn width() -> usize {
    let size =
        rustix::termios::tcgetwinsize(std::io::stderr()).map(|size| usize::from(size.ws_col));
    size.ok()
        .filter(|width| *width > 0)
        .unwrap_or(WIDTH_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_longer_than_the_terminal_is_wide() {
        let screen = Screen {
            is_terminal: true,
            style: Style::plain(),
            leads: 100,
            drawn: 0,
            told: None,
        };
        let line = Line {
            name: "crm".to_owned(),
            breaker: "Open".to_owned(),
            last_failure: Some("unavailable: ".repeat(30)),
            ..Line::default()
        };
        let drawn = screen.connection(&line, 80);
        assert_eq!(drawn.chars().count(), 79, "{drawn}");
    }

    #[test]
    fn a_drawing_overwrites_the_one_before() {
        let mut screen = Screen {
            is_terminal: true,
            style: Style::plain(),
            leads: 1,
            drawn: 9,
            told: None,
        };
        assert_eq!(screen.erase(), "\u{1b}[9A\u{1b}[J");
        assert_eq!(screen.erase(), "");
    }
}
