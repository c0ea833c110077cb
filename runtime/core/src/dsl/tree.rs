//! YAML as a tree that knows where each part stands.
//!
//! YAML 1.2 with the core schema: `no` is a string. JSON is YAML. Aliases are followed by
//! copying, each copy counted, so that a few lines cannot unfold into gigabytes.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use serde_json::{Number, Value};

/// No document is longer, in bytes.
pub(super) const BYTES_MAX: usize = 1024 * 1024;
/// No document is nested deeper.
pub(super) const DEPTH_MAX: usize = 64;
/// No document has more parts, copies of aliases included.
pub(super) const NODES_MAX: usize = 100_000;

/// A position in a text; both numbers begin with 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Spot {
    pub line: usize,
    pub column: usize,
}

/// A part of a document.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub spot: Spot,
    pub data: Data,
}

/// What a part is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Data {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One entry of a map.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub key: String,
    pub spot: Spot,
    pub value: Node,
}

/// Why a text is not a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Defect {
    pub code: &'static str,
    pub spot: Spot,
    pub cause: String,
    pub remedy: &'static str,
}

impl Node {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.data {
            Data::Null => "nothing",
            Data::Bool(_) => "a boolean",
            Data::Number(_) => "a number",
            Data::String(_) => "text",
            Data::List(_) => "a list",
            Data::Map(_) => "a map",
        }
    }

    /// The entry with this key, if this is a map and has one.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.data {
            Data::Map(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }

    /// The same as JSON.
    pub(super) fn to_value(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(b) => Value::Bool(*b),
            Data::Number(n) => Value::Number(n.clone()),
            Data::String(s) => Value::String(s.clone()),
            Data::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Data::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|e| (e.key.clone(), e.value.to_value()))
                    .collect(),
            ),
        }
    }
}

/// Parses a text that holds one document.
pub(super) fn parse(text: &str) -> Result<Node, Defect> {
    let start = Spot { line: 1, column: 1 };
    if text.len() > BYTES_MAX {
        let cause = format!(
            "the document has {} bytes; {BYTES_MAX} are allowed",
            text.len()
        );
        return Err(large(start, cause));
    }
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|e| not_yaml(&e))?;
        if matches!(event, Event::StreamEnd) {
            break;
        }
        builder.take(event, spot(span))?;
    }
    builder.root.ok_or(Defect {
        code: "CD0100",
        spot: start,
        cause: "the document is empty".into(),
        remedy: "a workflow needs at least `document` and `do`",
    })
}

fn not_yaml(error: &ScanError) -> Defect {
    let spot = Spot {
        line: error.marker().line().max(1),
        column: error.marker().col() + 1,
    };
    // The parser has a limit of its own, which a flow style document meets before ours.
    if error.info().contains("recursion limit") {
        return large(spot, format!("it is nested deeper than {DEPTH_MAX} levels"));
    }
    Defect {
        code: "CD0100",
        spot,
        cause: format!("this is not YAML: {}", error.info()),
        remedy: "mind the indentation, and quote texts that contain `: `, `#`, `{` or `[`",
    }
}

fn spot(span: Span) -> Spot {
    Spot {
        line: span.start.line().max(1),
        column: span.start.col() + 1,
    }
}

fn large(spot: Spot, cause: String) -> Defect {
    Defect {
        code: "CD0101",
        spot,
        cause,
        remedy: "split the workflow with `run: workflow`",
    }
}

/// A list or map that is not closed yet.
struct Open {
    spot: Spot,
    anchor: usize,
    parts: Parts,
}

enum Parts {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        key: Option<(String, Spot)>,
    },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    root: Option<Node>,
    documents: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, spot: Spot) -> Result<(), Defect> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Defect {
                        code: "CD0100",
                        spot,
                        cause: "there is a second document after `---`".into(),
                        remedy: "put each workflow into a file of its own",
                    });
                }
                Ok(())
            }
            Event::Alias(anchor) => self.alias(anchor, spot),
            Event::Scalar(text, style, anchor, tag) => {
                let data = scalar(text.into_owned(), style, tag.as_deref(), spot)?;
                self.finish(Node { spot, data }, anchor, 1)
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(spot, anchor, tag.as_deref(), Parts::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                let parts = Parts::Map {
                    entries: Vec::new(),
                    key: None,
                };
                self.begin(spot, anchor, tag.as_deref(), parts)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
        }
    }

    fn begin(
        &mut self,
        spot: Spot,
        anchor: usize,
        tag: Option<&Tag>,
        parts: Parts,
    ) -> Result<(), Defect> {
        if let Some(tag) = tag {
            return Err(bad_tag(tag, spot));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(large(
                spot,
                format!("it is nested deeper than {DEPTH_MAX} levels"),
            ));
        }
        self.count(1, spot)?;
        self.open.push(Open {
            spot,
            anchor,
            parts,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Defect> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let data = match open.parts {
            Parts::List(items) => Data::List(items),
            Parts::Map { entries, .. } => Data::Map(entries),
        };
        self.finish(
            Node {
                spot: open.spot,
                data,
            },
            open.anchor,
            0,
        )
    }

    fn alias(&mut self, anchor: usize, spot: Spot) -> Result<(), Defect> {
        let Some((node, size)) = self.anchors.get(&anchor) else {
            return Err(Defect {
                code: "CD0100",
                spot,
                cause: "this alias refers to a part that is not complete yet".into(),
                remedy: "write the part out",
            });
        };
        let (node, size) = (node.clone(), *size);
        if self.open.len() + depth(&node) > DEPTH_MAX {
            return Err(large(
                spot,
                format!("it is nested deeper than {DEPTH_MAX} levels"),
            ));
        }
        self.finish(node, 0, size)
    }

    fn count(&mut self, nodes: usize, spot: Spot) -> Result<(), Defect> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err(large(spot, format!("it has more than {NODES_MAX} parts")));
        }
        Ok(())
    }

    /// Puts a complete part where it belongs. `nodes` is how many it adds to the count.
    fn finish(&mut self, node: Node, anchor: usize, nodes: usize) -> Result<(), Defect> {
        self.count(nodes, node.spot)?;
        if anchor != 0 {
            let size = size(&node);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.parts {
            Parts::List(items) => items.push(node),
            Parts::Map { entries, key } => {
                if let Some((name, spot)) = key.take() {
                    entries.push(Entry {
                        key: name,
                        spot,
                        value: node,
                    });
                } else {
                    *key = Some(fresh_key(node, entries)?);
                }
            }
        }
        Ok(())
    }
}

/// A key that is not there yet.
fn fresh_key(node: Node, entries: &[Entry]) -> Result<(String, Spot), Defect> {
    let spot = node.spot;
    let name = key_text(node)?;
    let Some(first) = entries.iter().find(|e| e.key == name) else {
        return Ok((name, spot));
    };
    let line = first.spot.line;
    Err(Defect {
        code: "CD0102",
        spot,
        cause: format!("the key `{name}` is here twice; the first is in line {line}"),
        remedy: "remove one of the two",
    })
}

fn key_text(node: Node) -> Result<String, Defect> {
    match node.data {
        Data::String(text) => Ok(text),
        Data::Null => Ok("null".into()),
        Data::Bool(b) => Ok(b.to_string()),
        Data::Number(n) => Ok(n.to_string()),
        Data::List(_) | Data::Map(_) => Err(Defect {
            code: "CD0100",
            spot: node.spot,
            cause: "a key must be text".into(),
            remedy: "quote it; `{ a }` and `${ a }` without quotes are maps in YAML",
        }),
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.data {
        Data::List(items) => items.iter().map(size).sum(),
        Data::Map(entries) => entries.iter().map(|e| 1 + size(&e.value)).sum(),
        _ => 0,
    }
}

fn depth(node: &Node) -> usize {
    match &node.data {
        Data::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Data::Map(entries) => 1 + entries.iter().map(|e| depth(&e.value)).max().unwrap_or(0),
        _ => 0,
    }
}

fn bad_tag(tag: &Tag, spot: Spot) -> Defect {
    Defect {
        code: "CD0100",
        spot,
        cause: format!("the tag `{tag}` is not supported"),
        remedy: "remove it; only `!!str` is known, on plain values",
    }
}

fn scalar(text: String, style: ScalarStyle, tag: Option<&Tag>, spot: Spot) -> Result<Data, Defect> {
    if let Some(tag) = tag {
        let is_text = tag.is_yaml_core_schema() && tag.suffix == "str";
        return if is_text {
            Ok(Data::String(text))
        } else {
            Err(bad_tag(tag, spot))
        };
    }
    if style != ScalarStyle::Plain {
        return Ok(Data::String(text));
    }
    plain(&text)
        .unwrap_or(Ok(Data::String(text)))
        .map_err(|cause| Defect {
            code: "CD0100",
            spot,
            cause,
            remedy: "write a number that JSON has, or quote it",
        })
}

/// A plain scalar of the core schema that is not text.
fn plain(text: &str) -> Option<Result<Data, String>> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Ok(Data::Null)),
        "true" | "True" | "TRUE" => return Some(Ok(Data::Bool(true))),
        "false" | "False" | "FALSE" => return Some(Ok(Data::Bool(false))),
        ".nan" | ".NaN" | ".NAN" => return Some(Err("`.nan` is not a number of JSON".into())),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Some(Err(format!("`{text}` is not a number of JSON")));
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
        let parsed = text.parse::<i64>().map(Number::from);
        let parsed = parsed.or_else(|_| text.parse::<u64>().map(Number::from));
        return Some(
            parsed
                .map(Data::Number)
                .map_err(|_| format!("`{text}` is too large")),
        );
    }
    float(text, unsigned)
}

fn radix(digits: &str, radix: u32) -> Option<Result<Data, String>> {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let parsed = u64::from_str_radix(digits, radix);
    Some(
        parsed
            .map(|n| Data::Number(n.into()))
            .map_err(|_| format!("`{digits}` is too large")),
    )
}

fn float(text: &str, unsigned: &str) -> Option<Result<Data, String>> {
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e.strip_prefix(['-', '+']).unwrap_or(e))),
        None => (unsigned, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let shaped = digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|e| !e.is_empty() && digits(e));
    if !shaped {
        return None;
    }
    let number = text.parse::<f64>().ok().and_then(Number::from_f64);
    Some(
        number
            .map(Data::Number)
            .ok_or_else(|| format!("`{text}` is too large")),
    )
}
