//! HubSpot's search: groups of filters joined by OR, filters of a group joined by AND.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::render;
use super::store::{Contact, Refusal, Store};

/// Results of a page unless asked otherwise, and at most.
const LIMIT_DEFAULT: usize = 10;
const LIMIT_MAX: usize = 200;

/// The deepest result that paging reaches.
const RESULTS_MAX: usize = 10_000;

/// Most groups, and most filters of one group.
const GROUPS_MAX: usize = 5;
const FILTERS_MAX: usize = 6;

/// Answers the body of a search request.
pub(super) fn run(store: &Store, body: &Value) -> Result<Value, Refusal> {
    let limit = match body.get("limit") {
        None | Some(Value::Null) => LIMIT_DEFAULT,
        Some(value) => match number(value) {
            Some(limit @ 0..=LIMIT_MAX) => limit,
            _ => {
                return Err(Refusal::validation(format!(
                    "limit must be from 0 to {LIMIT_MAX}"
                )));
            }
        },
    };
    let after = match body.get("after") {
        None | Some(Value::Null) => 0,
        Some(value) if value == "" => 0,
        Some(value) => number(value)
            .ok_or_else(|| Refusal::validation("after is not a cursor of this search"))?,
    };
    if after + limit > RESULTS_MAX {
        return Err(Refusal::validation(format!(
            "paging reaches the first {RESULTS_MAX} results only"
        )));
    }
    let groups = list(body, "filterGroups", GROUPS_MAX)?;
    let groups = groups
        .iter()
        .map(Group::read)
        .collect::<Result<Vec<_>, _>>()?;
    let query = body
        .get("query")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_lowercase();
    let asked: Vec<&str> = body
        .get("properties")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();

    let live = store.all().filter(|contact| !contact.archived);
    let matching = live
        .filter(|contact| groups.is_empty() || groups.iter().any(|group| group.matches(contact)));
    let mut found: Vec<&Contact> = matching
        .filter(|contact| mentions(contact, &query))
        .collect();
    sort(&mut found, body)?;

    let page: Vec<Value> = found
        .iter()
        .skip(after)
        .take(limit)
        .map(|contact| render(contact, &asked))
        .collect();
    let next = after + page.len();
    let mut answer = json!({ "total": found.len(), "results": page });
    if next < found.len() && limit > 0 {
        answer["paging"] = json!({ "next": { "after": next.to_string() } });
    }
    Ok(answer)
}

struct Group<'a>(Vec<Filter<'a>>);

struct Filter<'a> {
    property: &'a str,
    test: Test<'a>,
}

enum Test<'a> {
    Compare(fn(Ordering) -> bool, &'a str),
    Between(&'a str, &'a str),
    In { values: Vec<&'a str>, wanted: bool },
    Known(bool),
    Token { token: &'a str, wanted: bool },
}

impl<'a> Group<'a> {
    fn read(value: &'a Value) -> Result<Self, Refusal> {
        list(value, "filters", FILTERS_MAX)?
            .iter()
            .map(Filter::read)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn matches(&self, contact: &Contact) -> bool {
        self.0.iter().all(|filter| filter.matches(contact))
    }
}

impl<'a> Filter<'a> {
    fn read(filter: &'a Value) -> Result<Self, Refusal> {
        let field = |name: &'static str| {
            let missing =
                || Refusal::validation(format!("Some required fields were not set: [{name}]"));
            filter.get(name).and_then(Value::as_str).ok_or_else(missing)
        };
        let values = || {
            let values = filter.get("values").and_then(Value::as_array);
            let values = values.ok_or_else(|| {
                Refusal::validation("Some required fields were not set: [values]")
            })?;
            Ok::<_, Refusal>(values.iter().filter_map(Value::as_str).collect::<Vec<_>>())
        };
        let test = match field("operator")? {
            "EQ" => Test::Compare(Ordering::is_eq, field("value")?),
            "NEQ" => Test::Compare(Ordering::is_ne, field("value")?),
            "LT" => Test::Compare(Ordering::is_lt, field("value")?),
            "LTE" => Test::Compare(Ordering::is_le, field("value")?),
            "GT" => Test::Compare(Ordering::is_gt, field("value")?),
            "GTE" => Test::Compare(Ordering::is_ge, field("value")?),
            "BETWEEN" => Test::Between(field("value")?, field("highValue")?),
            "IN" => Test::In {
                values: values()?,
                wanted: true,
            },
            "NOT_IN" => Test::In {
                values: values()?,
                wanted: false,
            },
            "HAS_PROPERTY" => Test::Known(true),
            "NOT_HAS_PROPERTY" => Test::Known(false),
            "CONTAINS_TOKEN" => Test::Token {
                token: field("value")?,
                wanted: true,
            },
            "NOT_CONTAINS_TOKEN" => Test::Token {
                token: field("value")?,
                wanted: false,
            },
            other => {
                return Err(Refusal::validation(format!(
                    "\"{other}\" is not an operator of a filter"
                )));
            }
        };
        Ok(Self {
            property: field("propertyName")?,
            test,
        })
    }

    fn matches(&self, contact: &Contact) -> bool {
        let value = contact.properties.get(self.property).map(String::as_str);
        let Some(value) = value else {
            // A contact without the property differs from every value.
            return match &self.test {
                Test::Known(wanted) | Test::In { wanted, .. } | Test::Token { wanted, .. } => {
                    !wanted
                }
                Test::Compare(test, _) => test(Ordering::Less) && test(Ordering::Greater),
                Test::Between(..) => false,
            };
        };
        match &self.test {
            Test::Compare(test, other) => test(compare(value, other)),
            Test::Between(low, high) => compare(value, low).is_ge() && compare(value, high).is_le(),
            Test::In { values, wanted } => {
                values.iter().any(|other| compare(value, other).is_eq()) == *wanted
            }
            Test::Known(wanted) => *wanted,
            Test::Token { token, wanted } => has_token(value, token) == *wanted,
        }
    }
}

/// Numbers by size, everything else as text without regard to case.
fn compare(left: &str, right: &str) -> Ordering {
    match (left.parse::<f64>(), right.parse::<f64>()) {
        (Ok(left), Ok(right)) => left.total_cmp(&right),
        _ => left.to_lowercase().cmp(&right.to_lowercase()),
    }
}

/// Whether one of the words of `value` is `token`, which may begin or end with a wildcard.
fn has_token(value: &str, token: &str) -> bool {
    let (value, token) = (value.to_lowercase(), token.to_lowercase());
    let core = token.trim_matches('*');
    let words = value
        .split(|letter: char| !letter.is_alphanumeric())
        .chain([value.as_str()]);
    words.into_iter().any(
        |word| match (token.starts_with('*'), token.ends_with('*')) {
            (true, true) => word.contains(core),
            (true, false) => word.ends_with(core),
            (false, true) => word.starts_with(core),
            (false, false) => word == core,
        },
    )
}

fn mentions(contact: &Contact, query: &str) -> bool {
    let searched = ["firstname", "lastname", "email", "phone", "company"];
    let mut values = searched
        .iter()
        .filter_map(|name| contact.properties.get(*name));
    query.is_empty() || values.any(|value| value.to_lowercase().contains(query))
}

fn sort(found: &mut [&Contact], body: &Value) -> Result<(), Refusal> {
    let (property, descending) = match list(body, "sorts", 1)?.first() {
        None => return Ok(()),
        Some(Value::String(name)) => match name.strip_prefix('-') {
            Some(name) => (name, true),
            None => (name.as_str(), false),
        },
        Some(sort) => {
            let name = sort.get("propertyName").and_then(Value::as_str);
            let name = name.ok_or_else(|| {
                Refusal::validation("Some required fields were not set: [propertyName]")
            })?;
            (
                name,
                sort.get("direction")
                    .is_some_and(|direction| direction == "DESCENDING"),
            )
        }
    };
    let value = |contact: &Contact| {
        contact
            .properties
            .get(property)
            .cloned()
            .unwrap_or_default()
    };
    found.sort_by(|left, right| {
        let order = compare(&value(left), &value(right));
        if descending { order.reverse() } else { order }
    });
    Ok(())
}

fn list<'a>(body: &'a Value, name: &str, count_max: usize) -> Result<&'a [Value], Refusal> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) if items.len() <= count_max => Ok(items),
        Some(Value::Array(_)) => Err(Refusal::validation(format!(
            "{name} has at most {count_max} entries"
        ))),
        Some(_) => Err(Refusal::validation(format!("{name} must be a list"))),
    }
}

/// Numbers come bare or as text.
fn number(value: &Value) -> Option<usize> {
    value
        .as_u64()
        .map(|number| number as usize)
        .or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_whole_word_unless_it_has_a_wildcard() {
        assert!(has_token("ada@example.com", "example"));
        assert!(has_token("ada@example.com", "*@example.com"));
        assert!(!has_token("ada@example.com", "exam"));
        assert!(has_token("ada@example.com", "exam*"));
    }

    #[test]
    fn numbers_compare_by_size_and_text_without_case() {
        assert_eq!(compare("9", "10"), Ordering::Less);
        assert_eq!(compare("Ada", "ada"), Ordering::Equal);
    }
}
