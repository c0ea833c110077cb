//! A TOML text that knows where everything in it stands.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cofferdam_core::manifest::parse_bytes;
use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::error::{Error, Place};

/// What belongs to a file as a whole.
pub(super) struct Document<'a> {
    pub origin: &'a str,
    pub text: &'a str,
    /// What relative paths are relative to.
    pub base_dir: &'a Path,
    /// The environment, by name.
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

impl Document<'_> {
    pub fn place(&self, key: &str, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place {
            origin: self.origin.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            key: key.to_owned(),
        }
    }

    /// A path as the file means it.
    pub fn path(&self, text: &str) -> PathBuf {
        self.base_dir.join(text)
    }
}

/// A table and its place.
#[derive(Clone)]
pub(super) struct Section<'a> {
    pub document: &'a Document<'a>,
    pub key: String,
    pub table: &'a DeTable<'a>,
    offset: usize,
}

impl<'a> Section<'a> {
    pub fn root(document: &'a Document<'a>, table: &'a DeTable<'a>) -> Self {
        Self {
            document,
            key: String::new(),
            table,
            offset: 0,
        }
    }

    /// Where the table begins.
    pub fn place(&self) -> Place {
        self.document.place(&self.key, self.offset)
    }

    /// Refuses every key that is not in the list.
    pub fn only(&self, known: &[&str]) -> Result<(), Error> {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let place = self.document.place(&self.path_of(name), key.span().start);
                return Err(Error::UnknownKey {
                    place,
                    remedy: did_you_mean(name, known),
                });
            }
        }
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<Item<'a>> {
        let (key, value) = self.table.iter().find(|(key, _)| key.get_ref() == name)?;
        Some(self.item(key.get_ref(), value.get_ref(), key.span(), value.span()))
    }

    pub fn require(&self, name: &str, remedy: &str) -> Result<Item<'a>, Error> {
        self.get(name).ok_or_else(|| Error::Missing {
            place: self.place().with_key(self.path_of(name)),
            remedy: remedy.to_owned(),
        })
    }

    /// A table inside this one; absent is not an error.
    pub fn section(&self, name: &str) -> Result<Option<Section<'a>>, Error> {
        self.get(name).map(|item| item.section()).transpose()
    }

    /// Every entry, in the order of the text.
    pub fn items(&self) -> Vec<Item<'a>> {
        let mut items: Vec<_> = self
            .table
            .iter()
            .map(|(key, value)| self.item(key.get_ref(), value.get_ref(), key.span(), value.span()))
            .collect();
        items.sort_by_key(|item| item.offset);
        items
    }

    fn item(
        &self,
        name: &str,
        value: &'a DeValue<'a>,
        key_span: Range<usize>,
        value_span: Range<usize>,
    ) -> Item<'a> {
        // The value of `[a.b]` stands at its header; so does its key, and both are on the line.
        let offset = if value.is_table() {
            key_span.start
        } else {
            value_span.start
        };
        Item {
            document: self.document,
            key: self.path_of(name),
            name: name.to_owned(),
            value,
            offset,
        }
    }

    fn path_of(&self, name: &str) -> String {
        if self.key.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.key)
        }
    }
}

/// A value and its place.
pub(super) struct Item<'a> {
    pub document: &'a Document<'a>,
    /// With its tables.
    pub key: String,
    /// The last part of the key.
    pub name: String,
    pub value: &'a DeValue<'a>,
    offset: usize,
}

impl<'a> Item<'a> {
    pub fn place(&self) -> Place {
        self.document.place(&self.key, self.offset)
    }

    pub fn refuse(&self, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::Value {
            place: self.place(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// The value as a message repeats it.
    pub fn shown(&self) -> String {
        match self.value {
            DeValue::String(text) => format!("\"{text}\""),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Datetime(date) => date.to_string(),
            DeValue::Array(_) => "the list".to_owned(),
            DeValue::Table(_) => "the table".to_owned(),
        }
    }

    fn wrong_type(&self, wanted: &'static str) -> Error {
        let found = match self.value {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        Error::Type {
            place: self.place(),
            found,
            wanted,
        }
    }

    pub fn section(&self) -> Result<Section<'a>, Error> {
        let table = self
            .value
            .as_table()
            .ok_or_else(|| self.wrong_type("a table"))?;
        Ok(Section {
            document: self.document,
            key: self.key.clone(),
            table,
            offset: self.offset,
        })
    }

    pub fn str(&self) -> Result<&'a str, Error> {
        self.value
            .as_str()
            .ok_or_else(|| self.wrong_type("text in quotes"))
    }

    /// Text that is not empty.
    pub fn text(&self) -> Result<&'a str, Error> {
        let text = self.str()?;
        if text.trim().is_empty() {
            return Err(self.refuse("it is empty", "write a value, or leave the key out"));
        }
        Ok(text)
    }

    pub fn bool(&self) -> Result<bool, Error> {
        self.value
            .as_bool()
            .ok_or_else(|| self.wrong_type("`true` or `false`"))
    }

    pub fn integer(&self, min: u64, max: u64) -> Result<u64, Error> {
        let wrong = || self.wrong_type("a whole number");
        let number = self.value.as_integer().ok_or_else(wrong)?;
        u64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| {
                let remedy = format!("write a whole number from {min} to {max}");
                self.refuse(format!("{number} is out of range"), remedy)
            })
    }

    pub fn number(&self, min: f64, max: f64) -> Result<f64, Error> {
        let text = match self.value {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => return Err(self.wrong_type("a number")),
        };
        text.parse()
            .ok()
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| {
                self.refuse(
                    format!("{text} is out of range"),
                    format!("write a number from {min} to {max}"),
                )
            })
    }

    pub fn duration(&self, max: Duration) -> Result<Duration, Error> {
        let text = self
            .value
            .as_str()
            .ok_or_else(|| self.wrong_type("a duration such as \"30s\""))?;
        let most = most(max);
        let out_of_range = |how: &str| {
            let remedy = format!("write a duration above zero and at most \"{most}\"");
            self.refuse(format!("\"{text}\" is {how}"), remedy)
        };
        if text.trim_start().starts_with('-') {
            return Err(out_of_range("negative"));
        }
        let parsed = humantime::parse_duration(text).map_err(|error| match error {
            humantime::DurationError::NumberOverflow => out_of_range("out of range"),
            error => self.refuse(
                format!("\"{text}\" is no duration: {error}"),
                "write a number and a unit, such as \"500ms\", \"30s\", \"5m\" or \"1h 30m\"",
            ),
        })?;
        if parsed.is_zero() || parsed > max {
            return Err(out_of_range("out of range"));
        }
        Ok(parsed)
    }

    pub fn duration_ms(&self, max: Duration) -> Result<u64, Error> {
        let ms = self.duration(max)?.as_millis() as u64;
        if ms == 0 {
            let problem = format!("{} is shorter than a millisecond", self.shown());
            return Err(self.refuse(problem, "write at least \"1ms\""));
        }
        Ok(ms)
    }

    pub fn bytes(&self) -> Result<u64, Error> {
        let wanted = "a size such as \"64MiB\"";
        match self.value {
            DeValue::String(text) => parse_bytes(text).ok_or_else(|| {
                self.refuse(
                    format!("\"{text}\" is no size"),
                    "write a whole number above zero and a unit: \"512B\", \"64KiB\", \"64MiB\" or \"1GiB\"; \
                     at most \"17179869183GiB\"",
                )
            }),
            DeValue::Integer(_) => self.integer(1, u64::MAX),
            _ => Err(self.wrong_type(wanted)),
        }
    }

    /// One word of a list.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Error> {
        let text = self.str()?;
        let known: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        match choices.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => Err(self.refuse(
                format!("\"{text}\" is not one of the choices"),
                did_you_mean(text, &known),
            )),
        }
    }

    pub fn items(&self) -> Result<Vec<Item<'a>>, Error> {
        let array = self
            .value
            .as_array()
            .ok_or_else(|| self.wrong_type("a list"))?;
        let item = |(index, value): (usize, &'a toml::Spanned<DeValue<'a>>)| Item {
            document: self.document,
            key: format!("{}[{index}]", self.key),
            name: index.to_string(),
            value: value.get_ref(),
            offset: value.span().start,
        };
        Ok(array.iter().enumerate().map(item).collect())
    }

    pub fn texts(&self) -> Result<Vec<String>, Error> {
        self.items()?
            .iter()
            .map(|item| item.text().map(str::to_owned))
            .collect()
    }

    /// The value as JSON; dates become text.
    pub fn json(&self) -> Result<Value, Error> {
        Ok(match self.value {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Datetime(date) => Value::String(date.to_string()),
            DeValue::Integer(number) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix());
                let too_large = |_| self.refuse("the number is too large", "write it as text");
                Value::from(parsed.map_err(too_large)?)
            }
            DeValue::Float(number) => {
                let parsed = number
                    .as_str()
                    .parse()
                    .ok()
                    .and_then(serde_json::Number::from_f64);
                Value::Number(parsed.ok_or_else(|| {
                    self.refuse("JSON has no such number", "write a finite number, or text")
                })?)
            }
            DeValue::Array(_) => Value::Array(
                self.items()?
                    .iter()
                    .map(Item::json)
                    .collect::<Result<_, _>>()?,
            ),
            DeValue::Table(_) => {
                let entries = self.section()?.items();
                let pairs = entries
                    .iter()
                    .map(|item| Ok((item.name.clone(), item.json()?)));
                Value::Object(pairs.collect::<Result<_, Error>>()?)
            }
        })
    }
}

/// A bound as somebody would write it: in days, if that is what it is made of.
fn most(bound: Duration) -> String {
    const DAY_S: u64 = 24 * 60 * 60;
    match bound.as_secs() {
        seconds if seconds > DAY_S && seconds.is_multiple_of(DAY_S) => {
            format!("{}days", seconds / DAY_S)
        }
        _ => humantime::format_duration(bound).to_string(),
    }
}

/// The known word that was probably meant, or all of them.
pub(super) fn did_you_mean(word: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 3)
        .min();
    match near {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None => format!("there are {}", list(known)),
    }
}

/// `a`, `b` and `c`.
pub(super) fn list(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        [only] => format!("`{only}`"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|name| format!("`{name}`")).collect();
            format!("{} and `{last}`", first.join(", "))
        }
    }
}

/// How many letters are wrong, missing, too many, or swapped with their neighbour (the optimal
/// string alignment distance). Underscores count as hyphens.
fn distance(a: &str, b: &str) -> usize {
    let letters = |word: &str| -> Vec<char> {
        let same = |c: char| {
            if c == '_' {
                '-'
            } else {
                c.to_ascii_lowercase()
            }
        };
        word.chars().map(same).collect()
    };
    let (a, b) = (letters(a), letters(b));
    // The distances between the first `i` letters of `a` and the first `j` of `b`.
    let mut table: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(table[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(table[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        table.push(row);
    }
    table[a.len()][b.len()]
}
