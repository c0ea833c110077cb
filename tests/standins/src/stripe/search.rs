//! Stripe's search: clauses such as `metadata['lead']:'42'`, all joined by AND or all by OR.

use serde_json::{Value, json};

use super::ledger::{Intent, Ledger};
use super::{Refusal, page_limit};
use crate::http::Request;

/// Answers `GET /v1/payment_intents/search`, newest first. Unlike Stripe's, the index has no lag.
pub(super) fn run(ledger: &Ledger, request: &Request) -> Result<Value, Refusal> {
    let query = request
        .query("query")
        .filter(|query| !query.trim().is_empty());
    let query = Query::read(query.ok_or_else(|| Refusal::missing("query"))?)?;
    let limit = page_limit(request)?;
    let start = match request
        .query("page")
        .map(|page| page.strip_prefix("page_").unwrap_or_default().parse())
    {
        None => 0,
        Some(Ok(start)) => start,
        Some(Err(_)) => return Err(invalid("page", "The page token is not one of this search.")),
    };
    let found: Vec<&Intent> = ledger
        .intents()
        .rev()
        .filter(|intent| query.matches(intent))
        .collect();
    let page: Vec<Value> = found
        .iter()
        .skip(start)
        .take(limit)
        .map(|intent| intent.render())
        .collect();
    let next = start.saturating_add(page.len());
    let more = next < found.len();
    Ok(json!({
        "object": "search_result", "url": "/v1/payment_intents/search", "has_more": more, "data": page,
        "next_page": more.then(|| format!("page_{next}")),
    }))
}

struct Query {
    clauses: Vec<Clause>,
    any: bool,
}

struct Clause {
    negated: bool,
    field: Field,
    value: String,
}

enum Field {
    Metadata(String),
    Status,
    Currency,
    Amount,
    Customer,
}

impl Query {
    fn read(text: &str) -> Result<Self, Refusal> {
        let mut clauses = Vec::new();
        let mut joints = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (clause, after) = Clause::read(rest)?;
            clauses.push(clause);
            rest = after.trim_start();
            if rest.is_empty() {
                break;
            }
            let end = rest
                .find(char::is_whitespace)
                .ok_or_else(|| unreadable(rest))?;
            match rest[..end].to_ascii_uppercase().as_str() {
                "AND" => joints.push(false),
                "OR" => joints.push(true),
                _ => return Err(unreadable(rest)),
            }
            rest = rest[end..].trim_start();
            if rest.is_empty() {
                return Err(unreadable(text));
            }
        }
        let any = joints.contains(&true);
        if any && joints.contains(&false) {
            return Err(invalid("query", "AND and OR cannot be mixed in one query."));
        }
        Ok(Self { clauses, any })
    }

    fn matches(&self, intent: &Intent) -> bool {
        let mut clauses = self.clauses.iter();
        if self.any {
            clauses.any(|clause| clause.matches(intent))
        } else {
            clauses.all(|clause| clause.matches(intent))
        }
    }
}

impl Clause {
    /// One clause and what follows it.
    fn read(text: &str) -> Result<(Self, &str), Refusal> {
        let (negated, body) = text
            .strip_prefix('-')
            .map_or((false, text), |body| (true, body));
        let (field, rest) = if let Some(rest) = body.strip_prefix("metadata[") {
            let (key, rest) = quoted(rest).ok_or_else(|| unreadable(text))?;
            (
                Field::Metadata(key),
                rest.strip_prefix(']').ok_or_else(|| unreadable(text))?,
            )
        } else {
            let end = body.find(':').ok_or_else(|| unreadable(text))?;
            let field = match &body[..end] {
                "status" => Field::Status,
                "currency" => Field::Currency,
                "amount" => Field::Amount,
                "customer" => Field::Customer,
                other => {
                    return Err(invalid(
                        "query",
                        &format!("Field `{other}` is an unsupported search field."),
                    ));
                }
            };
            (field, &body[end..])
        };
        let rest = rest.strip_prefix(':').ok_or_else(|| unreadable(text))?;
        let (value, rest) = quoted(rest).unwrap_or_else(|| {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            (rest[..end].to_owned(), &rest[end..])
        });
        Ok((
            Self {
                negated,
                field,
                value,
            },
            rest,
        ))
    }

    fn matches(&self, intent: &Intent) -> bool {
        let equal = match &self.field {
            Field::Metadata(key) => intent.metadata.get(key) == Some(&self.value),
            Field::Status => intent.status == self.value,
            Field::Currency => intent.currency.eq_ignore_ascii_case(&self.value),
            Field::Amount => intent.amount.to_string() == self.value,
            Field::Customer => intent.customer.as_ref() == Some(&self.value),
        };
        equal != self.negated
    }
}

/// A text in single or double quotes, with `\` before a quote in it, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text
        .chars()
        .next()
        .filter(|quote| matches!(quote, '\'' | '"'))?;
    let mut content = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => content.push(letters.next()?.1),
            letter if letter == quote => return Some((content, &text[at + 1..])),
            letter => content.push(letter),
        }
    }
    None
}

fn unreadable(near: &str) -> Refusal {
    invalid(
        "query",
        &format!("We were unable to parse your search query near: {near}"),
    )
}

fn invalid(param: &str, message: &str) -> Refusal {
    Refusal::invalid("parameter_invalid", param, message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_are_read_with_either_quote_and_joined() {
        let query = Query::read(r#"metadata['lead']:'4\'2' AND -status:"canceled" AND amount:500"#)
            .unwrap();
        assert_eq!(query.clauses.len(), 3);
        assert_eq!(query.clauses[0].value, "4'2");
        assert!(query.clauses[1].negated && !query.any);
    }

    #[test]
    fn what_is_no_query_is_refused() {
        for text in [
            "lead",
            "lead:'1'",
            "metadata['a]:'1'",
            "status:'a' status:'b'",
            "status:'a' AND",
            "status:'a' AND amount:1 OR amount:2",
        ] {
            assert!(Query::read(text).is_err(), "{text}");
        }
    }
}
