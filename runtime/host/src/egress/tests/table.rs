//! The table `tests/tables/egress.txt`: what a guest asks for, and where that leads.

use std::sync::Arc;

use http::Request;

use super::network::{Fake, scope, send, told};
use crate::spec::Grants;

const TABLE: &str = include_str!("../../../tests/tables/egress.txt");
/// So many rows at least; a table that was cut would pass as well.
const ROWS_MIN: usize = 120;

struct Row<'a> {
    line: usize,
    grant: &'a str,
    url: String,
    verdict: &'a str,
}

/// The rows, and the names that the table's network knows.
fn read() -> (Vec<Row<'static>>, Vec<(&'static str, Vec<&'static str>)>) {
    let (mut rows, mut names) = (Vec::new(), Vec::new());
    for (index, line) in TABLE.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("name ") {
            let mut words = name.split_whitespace();
            names.push((words.next().unwrap(), words.collect()));
            continue;
        }
        let cells: Vec<&str> = line.split(" | ").map(str::trim).collect();
        let [grant, url, verdict] = cells[..] else {
            panic!("line {}: three cells, please", index + 1);
        };
        // So that control characters can be seen in the table.
        let url = url.replace("\\t", "\t").replace("\\n", "\n");
        let url = url.replace("\\r", "\r").replace("\\0", "\0");
        rows.push(Row {
            line: index + 1,
            grant,
            url,
            verdict,
        });
    }
    (rows, names)
}

#[tokio::test]
async fn every_url_of_the_table_leads_where_it_says_and_nowhere_else() {
    let (rows, names) = read();
    assert!(rows.len() >= ROWS_MIN, "{} rows", rows.len());
    let mut misses = Vec::new();
    for row in rows {
        let mut network = Fake::default();
        for (name, addresses) in &names {
            network = network.knows(name, addresses);
        }
        let network = Arc::new(network);
        let found = follow(&row, &network).await;
        let fits = match row.verdict.split_once(": ") {
            Some(("denied", reason)) => found.starts_with("denied: ") && found.contains(reason),
            _ => found == row.verdict,
        };
        if !fits {
            let Row { line, grant, .. } = row;
            let text = format!("line {line}: {grant} | {} | {}", row.url, row.verdict);
            misses.push(format!("{text}\n   found: {found}"));
        }
    }
    assert!(misses.is_empty(), "\n{}\n", misses.join("\n"));
}

/// Where a request leads, in the words of the table.
async fn follow(row: &Row<'_>, network: &Arc<Fake>) -> String {
    let (private, patterns) = match row.grant.strip_prefix("private ") {
        Some(rest) => (true, rest),
        None => (false, row.grant),
    };
    let grants = Grants {
        http: patterns.split_whitespace().map(str::to_owned).collect(),
        allow_private: private,
        ..Grants::default()
    };
    let scope = scope(&grants, network);
    let Ok(request) = Request::builder().uri(&row.url).body("") else {
        assert!(network.lookups.lock().is_empty());
        return "denied: not a URL".to_owned();
    };
    assert!(
        send(&scope, request).await.is_err(),
        "no line leads anywhere"
    );
    let dialled = network.dialled.lock().clone();
    if dialled.is_empty() {
        return format!("denied: {}", told(&scope).trim());
    }
    let dialled: Vec<String> = dialled.iter().map(ToString::to_string).collect();
    format!("dials {}", dialled.join(" "))
}
