//! A page, and the sessions in it.

use std::path::Path;

/// A page of the guide.
pub(crate) struct Page {
    /// Its file's name without `.md`.
    pub name: String,
    pub text: String,
    /// What is typed and what is shown then, in the order of the page.
    pub steps: Vec<Step>,
}

/// A command, and what the terminal shows.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub line: usize,
    pub command: String,
    pub shown: String,
}

impl Page {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("readable");
        let name = path.file_stem().expect("a name").to_string_lossy();
        Self {
            name: name.into_owned(),
            steps: steps(&text),
            text,
        }
    }

    pub(crate) fn commands(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|step| step.command.as_str())
    }
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        }
        if !inside || line.starts_with("```") {
            continue;
        }
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                line: index + 1,
                command: command.to_owned(),
                shown: String::new(),
            });
        } else if let Some(step) = steps.last_mut() {
            step.shown.push_str(line);
            step.shown.push('\n');
        }
    }
    steps
}
