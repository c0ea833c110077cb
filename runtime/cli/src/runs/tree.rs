//! A run, drawn.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cofferdam::{RunView, Status, TaskReport, TaskStatus, Wait, WaitFor};

use super::{instant, span};
use crate::style::Style;

/// Draws a run as a tree of tasks, and says what happens next.
pub fn draw(view: &RunView, now_ms: u64, resume: &str, style: Style) -> String {
    let mut text = String::new();
    let status = match view.status {
        Status::Completed => style.good(view.status.as_str()),
        Status::Faulted | Status::Cancelled => style.bad(view.status.as_str()),
        Status::Queued
        | Status::Running
        | Status::Waiting
        | Status::Suspended
        | Status::Compensating => style.warn(view.status.as_str()),
    };
    let degraded = if view.degraded {
        style.warn(", degraded")
    } else {
        String::new()
    };
    let _ = writeln!(
        text,
        "{}  {status}{degraded}  {}",
        style.bold(&view.run),
        view.workflow
    );
    let until = view.ended_ms.unwrap_or(now_ms);
    let word = if view.ended_ms.is_some() {
        "took"
    } else {
        "for"
    };
    let _ = writeln!(
        text,
        "begun {}, {word} {}",
        instant(view.begun_ms),
        span(view.begun_ms, until)
    );
    if let Some(first) = view.records_from {
        let _ = writeln!(
            text,
            "its records before number {first} were removed ([store] records-max): tasks that ended before may be missing"
        );
    }
    let children = children(&view.tasks);
    branch(&mut text, view, &children, None, "", (now_ms, style));
    text.push('\n');
    for line in next(view, now_ms, resume) {
        let _ = writeln!(text, "{line}");
    }
    text
}

type Children = BTreeMap<Option<usize>, Vec<usize>>;

/// The tasks below each task, by index; tasks of the run itself are below `None`.
fn children(tasks: &[TaskReport]) -> Children {
    let index: BTreeMap<&str, usize> = tasks
        .iter()
        .enumerate()
        .map(|(index, task)| (task.task.as_str(), index))
        .collect();
    let mut children = Children::new();
    for (at, task) in tasks.iter().enumerate() {
        let above = ancestors(&task.task).find_map(|above| index.get(above).copied());
        children.entry(above).or_default().push(at);
    }
    children
}

/// `/a/[0]`, then `/a`, for `/a/[0]/b`.
fn ancestors(key: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(key), |key| key.rfind('/').map(|at| &key[..at]))
        .skip(1)
        .filter(|key| !key.is_empty())
}

fn branch(
    text: &mut String,
    view: &RunView,
    children: &Children,
    above: Option<usize>,
    indent: &str,
    (now_ms, style): (u64, Style),
) {
    let Some(indices) = children.get(&above) else {
        return;
    };
    for (position, index) in indices.iter().enumerate() {
        let is_last = position + 1 == indices.len();
        let (fork, bar) = if is_last {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        let task = &view.tasks[*index];
        let prefix = above.map_or("", |above| view.tasks[above].task.as_str());
        let _ = writeln!(
            text,
            "{indent}{fork}{}",
            headline(task, prefix, now_ms, style)
        );
        let below = format!("{indent}{bar}");
        for line in remarks(task, style) {
            let _ = writeln!(text, "{below}  {line}");
        }
        branch(text, view, children, Some(*index), &below, (now_ms, style));
    }
}

fn headline(task: &TaskReport, prefix: &str, now_ms: u64, style: Style) -> String {
    let sign = match task.status {
        TaskStatus::Completed => style.good("✓"),
        TaskStatus::Failed => style.bad("✗"),
        TaskStatus::Skipped | TaskStatus::Cancelled => style.dim("–"),
        TaskStatus::Running => style.warn("…"),
        TaskStatus::Waiting => style.warn("⧖"),
    };
    let name = task
        .task
        .strip_prefix(prefix)
        .unwrap_or(&task.task)
        .trim_start_matches('/');
    let what = match task.attempts.last() {
        Some(attempt) => format!("{}.{}", attempt.connection, attempt.action),
        None => task.kind.clone(),
    };
    let took = span(task.started_ms, task.ended_ms.unwrap_or(now_ms));
    let mut line = format!("{sign} {}  {}  {took}", style.bold(name), style.dim(&what));
    if let Some(provenance) = &task.provenance {
        let word = provenance.to_string();
        let word = if provenance.is_degraded() {
            style.warn(&word)
        } else {
            style.dim(&word)
        };
        let _ = write!(line, "  {word}");
    }
    line
}

/// Attempts that did not simply succeed, why it waits, and its error.
fn remarks(task: &TaskReport, style: Style) -> Vec<String> {
    let mut lines = Vec::new();
    let only_success = task.attempts.len() == 1 && task.attempts[0].failure.is_none();
    let attempts = if only_success && task.attempts[0].ended_ms.is_some() {
        &[][..]
    } else {
        &task.attempts
    };
    for (number, attempt) in attempts.iter().enumerate() {
        let came = match (&attempt.failure, attempt.ended_ms) {
            (Some(failure), _) => style.bad(&failure.to_string()),
            (None, Some(_)) if attempt.dropped => style.dim("dropped, the other was faster"),
            (None, Some(_)) => "succeeded".to_owned(),
            (None, None) => style.warn("nobody saw its end"),
        };
        let took = attempt
            .ended_ms
            .map_or_else(String::new, |ended_ms| span(attempt.started_ms, ended_ms));
        let digest = attempt.digest.get(..8).unwrap_or(&attempt.digest);
        let at = format!("{}  {took}  plugin {digest}", instant(attempt.started_ms));
        lines.push(format!(
            "attempt {} on {}  {came}  {}",
            number + 1,
            attempt.connection,
            style.dim(&at)
        ));
    }
    if let Some(waiting) = &task.waiting {
        lines.push(style.warn(waiting));
    }
    if let Some(error) = task.error.as_ref().filter(|_| task.attempts.is_empty()) {
        lines.push(style.bad(&error.to_string()));
    }
    lines
}

/// What happens next, in plain words.
fn next(view: &RunView, now_ms: u64, resume: &str) -> Vec<String> {
    let mut lines = Vec::new();
    match view.status {
        Status::Completed if view.degraded => {
            lines.push(
                "It has ended; parts of its output are not what a healthy world would have given:"
                    .to_owned(),
            );
            for (task, provenance) in view.provenance.iter().filter(|(_, p)| p.is_degraded()) {
                lines.push(format!("  {task}: {provenance}"));
            }
        }
        Status::Completed => lines
            .push("It has ended, and every part of its output is what it should be.".to_owned()),
        Status::Faulted => {
            let why = view
                .error
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            lines.push(format!("It has faulted: {why}"));
            let undone = view
                .tasks
                .iter()
                .filter(|task| task.task.starts_with("undo:"))
                .count();
            if undone > 0 {
                lines.push(format!("{undone} tasks were undone."));
            }
        }
        Status::Cancelled => {
            let cancelled = view.cancelled.as_ref();
            let why = cancelled
                .and_then(|c| c.reason.as_deref())
                .unwrap_or("no reason was given");
            lines.push(format!("It was cancelled: {why}"));
            let did = if cancelled.is_some_and(|c| c.compensated) {
                "was undone"
            } else {
                "was left as it is"
            };
            lines.push(format!("What it had done {did}."));
        }
        Status::Compensating => lines.push(format!(
            "It undoes what it did. Should its process have died, go on with: {resume}"
        )),
        Status::Running => lines.push(format!(
            "It is under way, or was when its process died; then go on with: {resume}"
        )),
        Status::Queued | Status::Suspended | Status::Waiting => {
            waiting(view, now_ms, resume, &mut lines);
        }
    }
    lines
}

fn waiting(view: &RunView, now_ms: u64, resume: &str, lines: &mut Vec<String>) {
    for wait in &view.waits {
        let subject = if wait.task.is_empty() {
            "It"
        } else {
            &wait.task
        };
        lines.push(format!("{subject} {}.", wait.sentence(instant)));
    }
    let for_person = |wait: &&Wait| wait.r#for == WaitFor::Person;
    if let Some(wait) = view.waits.iter().find(for_person) {
        lines.push(format!(
            "Decide with: cofferdam reviews approve|retry|reject {} {}",
            view.run, wait.task
        ));
    }
    if let Some(due_ms) = view.due_ms {
        let left = if due_ms > now_ms {
            format!("in {}", span(now_ms, due_ms))
        } else {
            "which is past".to_owned()
        };
        lines.push(format!("Its next instant is {} ({left}).", instant(due_ms)));
    }
    if view.status != Status::Suspended {
        lines.push("It goes on by itself while a process has the store open.".to_owned());
    }
    lines.push(format!("Go on with: {resume}"));
}

#[cfg(test)]
mod tests {
    use cofferdam::{Class, Failure};
    use serde_json::json;

    use super::*;

    fn task(value: serde_json::Value) -> TaskReport {
        serde_json::from_value(value).unwrap()
    }

    fn view(tasks: Vec<TaskReport>, status: Status) -> RunView {
        RunView {
            run: "r1".into(),
            workflow: "demo/intake:1.0.0".into(),
            status,
            degraded: false,
            output: None,
            error: None,
            provenance: serde_json::from_value(json!({})).unwrap(),
            tasks,
            input: json!({}),
            begun_ms: 0,
            ended_ms: None,
            due_ms: Some(62_000),
            tenant: String::new(),
            suspended: None,
            cancelled: None,
            forked_from: None,
            redriven: 0,
            waits: serde_json::from_value(json!([{
                "task": "/each/[1]/charge", "for": "connection", "connection": "crm", "sinceMs": 0,
                "next": "asked again", "atMs": 5_000, "untilMs": 62_000, "then": "goes to review",
            }]))
            .unwrap(),
            records_from: None,
        }
    }

    #[test]
    fn tasks_stand_below_the_nearest_task_above_them() {
        let base = |key: &str| json!({"task": key, "reference": "/do/0", "kind": "for", "status": "running", "startedMs": 0, "attempts": []});
        let failure = Failure::new(Class::Unavailable, "down", "connection refused");
        let charge = json!({
            "task": "/each/[1]/charge", "reference": "/do/0", "kind": "call", "status": "waiting", "startedMs": 0,
            "waiting": "parked until connection `crm` works again", "waitsFor": "connection",
            "attempts": [{"connection": "crm", "action": "charge", "digest": "0123456789", "startedMs": 0, "endedMs": 1500, "failure": failure}],
        });
        let view = view(
            vec![task(base("/first")), task(base("/each")), task(charge)],
            Status::Waiting,
        );
        let drawn = draw(&view, 2_000, "cofferdam runs resume r1", Style::plain());
        assert!(
            drawn.contains(
                "├─ … first  for  2.0s\n└─ … each  for  2.0s\n   └─ ⧖ [1]/charge  crm.charge"
            ),
            "{drawn}"
        );
        assert!(drawn.contains("attempt 1 on crm  unavailable: connection refused (down)  1970-01-01T00:00:00Z  1.5s  plugin 01234567"), "{drawn}");
        assert!(
            drawn.contains("/each/[1]/charge waits for connection `crm`, since 1970-01-01T00:00:00Z; asked again at 1970-01-01T00:00:05Z; gives up at 1970-01-01T00:01:02Z and then goes to review."),
            "{drawn}"
        );
        assert!(
            drawn.contains("Its next instant is 1970-01-01T00:01:02Z (in 1m)."),
            "{drawn}"
        );
        assert!(
            drawn.ends_with("Go on with: cofferdam runs resume r1\n"),
            "{drawn}"
        );
    }
}
