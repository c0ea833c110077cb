//! More leads than the example has, and leads that are none.

use std::fmt::Write as _;

/// Rows that no workflow should take, below the example's head
/// (`email,firstName,lastName,company,country,phone,employees,source,plan,amount,card`).
const BROKEN: [&str; 6] = [
    // No address.
    ",No,Address,Nowhere Ltd,FI,,,,starter,29.00,pm_card_visa",
    // Words where numbers belong.
    "w{}@example.com,Words,Number,Words Ltd,FI,,many,,starter,forty,pm_card_visa",
    // Less than nothing.
    "n{}@example.com,Neg,Ative,Negative Ltd,FI,,,,starter,-49.00,pm_card_visa",
    // A plan that is not sold.
    "p{}@example.com,Other,Plan,Other Ltd,FI,,,,\"'; drop table leads; --\",29.00,pm_card_visa",
    // A country that is none, with characters that terminals obey.
    "c{}@example.com,Con,Trol,Control Ltd,\u{1b}[31m,,,,starter,29.00,pm_card_visa",
    // Columns in another order.
    "Swapped {},s{}@example.com,29.00,starter,pm_card_visa,,,,FI,Swapped Ltd,",
];

/// The first so many rows, and the same people under other addresses when there are no more.
pub fn many(csv: &str, count: usize) -> String {
    let mut lines = csv.lines();
    let head = lines.next().unwrap_or_default();
    let rows: Vec<&str> = lines.collect();
    let mut text = format!("{head}\n");
    for index in 0..count {
        let row = rows[index % rows.len()];
        match index / rows.len() {
            0 => text.push_str(row),
            round if row.starts_with(',') => {
                let _ = write!(text, "r{round}.{index}@example.com{row}");
            }
            round => {
                let _ = write!(text, "r{round}.{row}");
            }
        }
        text.push('\n');
    }
    text
}

/// The same leads with one that is none after every so many.
pub fn with_broken(csv: &str, every: usize) -> String {
    let mut text = String::new();
    let mut broken = BROKEN.iter().cycle();
    for (index, line) in csv.lines().enumerate() {
        text.push_str(line);
        text.push('\n');
        if index % every == 1
            && let Some(row) = broken.next()
        {
            text.push_str(&row.replace("{}", &index.to_string()));
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::example::LEADS;

    #[test]
    fn more_leads_than_the_example_has_are_other_leads() {
        let csv = many(LEADS, 250);
        let emails: std::collections::BTreeSet<&str> = csv
            .lines()
            .skip(1)
            .filter_map(|line| line.split(',').next())
            .collect();
        assert_eq!(csv.lines().count(), 251);
        assert!(emails.len() > 240, "{}", emails.len());
    }

    #[test]
    fn every_fourth_row_is_followed_by_a_broken_one() {
        let csv = with_broken(&many(LEADS, 100), 4);
        assert_eq!(csv.lines().count(), 101 + 25);
    }
}
