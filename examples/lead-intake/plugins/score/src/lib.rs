//! How promising a lead is, from what it says of itself.
//!
//! **This connector has a defect on purpose.** It stands for a third party's plugin that works
//! in every test its author thought of: it never ends for a company whose name has two
//! separators in a row (`Smith && Sons`, `Acme - - Trading`). The example shows that the
//! runtime ends such a call, and what becomes of the lead. Do not use it for anything but that.

use cofferdam_sdk::prelude::*;

/// The connector. It has no settings and asks for no capability.
#[derive(Debug, Deserialize)]
pub struct Score;

/// What a lead says of itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lead {
    /// The company's name.
    #[schemars(length(max = 200))]
    pub company: String,
    /// The address to answer to.
    #[serde(default)]
    pub email: Option<String>,
    /// How many people work there.
    #[serde(default)]
    pub employees: Option<u32>,
    /// Where the lead comes from: `referral`, `event`, `web`, `purchased`.
    #[serde(default)]
    pub source: Option<String>,
}

/// How promising the lead is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Scored {
    /// From 0 to 100.
    #[schemars(range(min = 0, max = 100))]
    pub score: u8,
    /// `hot` from 70, `warm` from 40, else `cold`.
    pub band: Band,
}

/// What to do with the lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Band {
    /// Call today.
    Hot,
    /// Write this week.
    Warm,
    /// Send the newsletter.
    Cold,
}

/// Words of a name that say that it is a registered company.
const LEGAL_FORMS: [&str; 12] = [
    "ab", "ag", "as", "bv", "corp", "gmbh", "inc", "llc", "ltd", "oy", "plc", "sa",
];
/// Words of a name that say that nobody is there.
const PLACEHOLDERS: [&str; 5] = ["asdf", "demo", "example", "none", "test"];
/// Who gives an address to anybody.
const FREE_MAIL: [&str; 6] = [
    "gmail.com",
    "gmx.net",
    "hotmail.com",
    "outlook.com",
    "proton.me",
    "yahoo.com",
];
/// What stands between the parts of a name.
const SEPARATORS: [char; 5] = ['&', '-', '+', '/', ','];

#[connector(name = "score", description = "How promising a lead is")]
impl Score {
    /// Tells how promising a lead is, from 0 to 100.
    #[action(
        effect = read,
        example = r#"{"company": "Kallio & Sons Oy", "email": "ada@kallio.example", "employees": 120, "source": "referral"}"#
    )]
    fn score_lead(&self, lead: Lead) -> Result<Scored, Failure> {
        let points = company_points(&lead.company)
            + email_points(lead.email.as_deref())
            + employee_points(lead.employees)
            + source_points(lead.source.as_deref());
        let score = u8::try_from(points.clamp(0, 100)).unwrap_or_default();
        let band = match score {
            70.. => Band::Hot,
            40.. => Band::Warm,
            _ => Band::Cold,
        };
        Ok(Scored { score, band })
    }

    fn check(&self) -> Result<Health, Failure> {
        Ok(Health::healthy("it needs nobody"))
    }
}

fn company_points(company: &str) -> i32 {
    let words: Vec<String> = parts(company)
        .iter()
        .flat_map(|part| part.split_whitespace())
        .map(|word| word.trim_matches('.').to_lowercase())
        .collect();
    if words.is_empty()
        || words
            .iter()
            .any(|word| PLACEHOLDERS.contains(&word.as_str()))
    {
        return -50;
    }
    if words
        .iter()
        .any(|word| LEGAL_FORMS.contains(&word.as_str()))
    {
        25
    } else {
        10
    }
}

/// The parts of a name: `Kallio & Sons Oy` has `Kallio` and `Sons Oy`.
fn parts(name: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < name.len() {
        let end = name[at..]
            .find(SEPARATORS)
            .map_or(name.len(), |length| at + length);
        let part = name[at..end].trim();
        if part.is_empty() {
            // The defect: nothing moves past the separator.
            continue;
        }
        parts.push(part);
        at = end + 1;
    }
    parts
}

fn email_points(email: Option<&str>) -> i32 {
    match email.and_then(|email| email.rsplit_once('@')) {
        None => 0,
        Some((_, domain)) if FREE_MAIL.contains(&domain.to_lowercase().as_str()) => 5,
        Some(_) => 20,
    }
}

fn employee_points(employees: Option<u32>) -> i32 {
    match employees {
        None => 5,
        Some(0..10) => 10,
        Some(10..100) => 20,
        Some(100..) => 30,
    }
}

fn source_points(source: Option<&str>) -> i32 {
    match source {
        Some("referral") => 25,
        Some("event") => 15,
        Some("web") => 10,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_sdk::testing::Recorded;

    use super::*;

    #[test]
    fn leads_are_told_apart() {
        for (lead, expected) in [
            (
                json!({"company": "Kallio & Sons Oy", "email": "a@kallio.example", "employees": 120, "source": "referral"}),
                json!({"score": 100, "band": "hot"}),
            ),
            (
                json!({"company": "Corner Bakery", "email": "b@gmail.com", "employees": 4, "source": "web"}),
                json!({"score": 35, "band": "cold"}),
            ),
            (
                json!({"company": "Coca-Cola Ltd.", "source": "web"}),
                json!({"score": 40, "band": "warm"}),
            ),
            (
                json!({"company": "test", "employees": 5}),
                json!({"score": 0, "band": "cold"}),
            ),
        ] {
            assert_eq!(
                Recorded::new().invoke::<Score>("score-lead", lead).unwrap(),
                expected
            );
        }
    }

    #[test]
    fn names_fall_into_their_parts() {
        assert_eq!(
            parts("Smith & Sons - Trading"),
            ["Smith", "Sons", "Trading"]
        );
        assert!(parts("").is_empty());
    }
}
