//! The leads: rows of a CSV file, as runs take them.

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

/// Columns that hold numbers. What is there and is no number stays text, for the workflow's schema
/// to refuse with a reason.
const NUMBERS: [&str; 2] = ["employees", "amount"];
/// Enough of a digest that two leads never share it.
const ID_CHARS: usize = 16;

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Lead {
    /// The id of its run.
    pub run: String,
    /// Its line in the file, the head being the first.
    pub line: usize,
    /// Its address, in lower case.
    pub email: Option<String>,
    /// The run's input.
    pub input: Value,
}

/// Reads the first `most` leads. Spaces around a value go; an empty value is an absent one.
pub fn read(csv: &str, most: usize) -> Result<Vec<Lead>> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(csv.as_bytes());
    let head = reader.headers().context("the leads have no head")?.clone();
    let mut leads = Vec::new();
    for (index, row) in reader.records().enumerate().take(most) {
        let row = row.with_context(|| format!("row {} of the leads is broken", index + 1))?;
        let input: Map<String, Value> = head
            .iter()
            .zip(&row)
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| (name.to_owned(), value(name, text)))
            .collect();
        leads.push(Lead::new(index + 2, Value::Object(input)));
    }
    Ok(leads)
}

fn value(name: &str, text: &str) -> Value {
    let number = || serde_json::from_str(text).ok().filter(Value::is_number);
    let number = if NUMBERS.contains(&name) {
        number()
    } else {
        None
    };
    number.unwrap_or_else(|| Value::from(text))
}

impl Lead {
    /// The run's id is made from the address: a lead that is in the file twice, or is given again
    /// after a crash, is the same run.
    fn new(line: usize, input: Value) -> Self {
        let email = input
            .get("email")
            .and_then(Value::as_str)
            .map(str::to_lowercase);
        let run = match &email {
            Some(email) => format!(
                "lead-{}",
                &blake3::hash(email.as_bytes()).to_hex()[..ID_CHARS]
            ),
            None => format!("line-{line}"),
        };
        Self {
            run,
            line,
            email,
            input,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lead_that_is_written_otherwise_is_the_same_run() {
        let leads = read(
            "email,amount\nada@example.com,49.00\n ADA@Example.com ,49.00\n",
            9,
        )
        .unwrap();
        assert_eq!(leads[0].run, leads[1].run);
        assert_eq!((leads[0].line, leads[1].line), (2, 3));
    }

    #[test]
    fn numbers_are_numbers_and_what_is_none_is_kept() {
        let leads = read("email,amount,employees\n,forty,\nb@example.com,29.5,3\n", 9).unwrap();
        assert_eq!(leads[0].input, json!({"amount": "forty"}));
        assert_eq!(leads[0].run, "line-2");
        assert_eq!(
            leads[1].input,
            json!({"email": "b@example.com", "amount": 29.5, "employees": 3})
        );
    }

    #[test]
    fn the_example_has_a_hundred_leads_with_dirt() {
        let leads = read(super::super::example::LEADS, usize::MAX).unwrap();
        assert_eq!(leads.len(), 100);
        let runs: std::collections::BTreeSet<_> = leads.iter().map(|lead| &lead.run).collect();
        assert_eq!(runs.len(), 98, "two rows are there twice");
        assert_eq!(leads.iter().filter(|lead| lead.email.is_none()).count(), 1);
    }
}
