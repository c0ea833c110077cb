//! What really happened, counted at the services, and not what the runtime says of itself.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

use super::message::{Done, Ended, Outcome};
use super::standins::Standins;

/// How often each thing happened for each address.
#[derive(Debug, Default)]
struct Counted {
    /// Contacts that the CRM has now.
    contacts: BTreeMap<String, i64>,
    /// Mails that the server took.
    mails: BTreeMap<String, u64>,
    /// Charges that were captured.
    charges: BTreeMap<String, u64>,
    /// Rows that the database has.
    rows: BTreeSet<String>,
}

/// What it adds up to.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Different leads whose input is valid.
    pub valid: usize,
    /// Leads whose input was refused, kept with the reason.
    pub invalid: usize,
    /// Valid leads that have contact, row, mail and charge.
    pub served: usize,
    /// Valid leads that were refused for a reason (a declined card), with nothing left behind.
    pub undone: usize,
    /// Valid leads that wait for a person, with everything that the person needs.
    pub in_review: usize,
    /// Valid leads that are none of these: nobody will ever see to them.
    pub lost: usize,
    /// Leads that were charged more than once.
    pub charged_twice: usize,
    /// Leads that were mailed more than once.
    pub mailed_twice: usize,
    /// Effects that happened twice under one key: payments and mails.
    pub repeated_keys: usize,
    /// Valid leads with a contact, a row or a charge, and without the rest.
    pub half_done: usize,
}

impl Tally {
    /// Whether nothing was lost, done twice or left half-done.
    pub fn is_clean(&self) -> bool {
        self.lost + self.charged_twice + self.mailed_twice + self.repeated_keys + self.half_done
            == 0
    }
}

/// Asks the services and puts it together.
pub async fn count(standins: &Standins, done: &Done) -> Result<Tally> {
    let mut counted = Counted {
        rows: done.rows.iter().map(|row| row.to_lowercase()).collect(),
        ..Counted::default()
    };
    let hubspot = standins.effects("hubspot").await?;
    for (key, times) in entries(&hubspot, "effects")? {
        let times = times.as_i64().unwrap_or_default();
        match key.split_once(':') {
            Some(("create", email)) => {
                *counted.contacts.entry(email.to_owned()).or_default() += times;
            }
            Some(("archive", email)) => {
                *counted.contacts.entry(email.to_owned()).or_default() -= times;
            }
            _ => {}
        }
    }
    let stripe = standins.effects("stripe").await?;
    for (email, charged) in entries(&stripe["business"], "charged_by_email")? {
        let charges = charged
            .get("charges")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        *counted.charges.entry(email.to_lowercase()).or_default() += charges;
    }
    let mailbox = standins.state("smtp").await?;
    for mail in mailbox
        .get("messages")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        for recipient in mail
            .get("rcpt_to")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let email = recipient.as_str().unwrap_or_default().to_lowercase();
            *counted.mails.entry(email).or_default() += 1;
        }
    }
    let smtp = standins.effects("smtp").await?;
    let repeated_keys =
        entries(&stripe, "duplicates")?.count() + entries(&smtp, "duplicates")?.count();
    Ok(Tally {
        repeated_keys,
        ..add_up(&counted, &done.leads)
    })
}

fn entries<'a>(
    value: &'a Value,
    key: &str,
) -> Result<impl Iterator<Item = (&'a String, &'a Value)>> {
    let map = value.get(key).and_then(Value::as_object);
    Ok(map
        .with_context(|| format!("the stand-ins told no `{key}`"))?
        .iter())
}

fn add_up(counted: &Counted, leads: &[Ended]) -> Tally {
    let mut tally = Tally {
        charged_twice: counted.charges.values().filter(|times| **times > 1).count(),
        mailed_twice: counted.mails.values().filter(|times| **times > 1).count(),
        ..Tally::default()
    };
    // A lead may be there twice without a journal; what became of the last counts.
    let mut by_email = BTreeMap::new();
    for lead in leads {
        match (&lead.email, lead.outcome) {
            (_, Outcome::Invalid) | (None, _) => tally.invalid += 1,
            (Some(email), _) => {
                by_email.insert(email.as_str(), lead);
            }
        }
    }
    tally.valid = by_email.len();
    for (email, lead) in by_email {
        let is_contact = counted.contacts.get(email).is_some_and(|times| *times > 0);
        let is_row = counted.rows.contains(email);
        let is_mailed = counted.mails.contains_key(email);
        let is_charged = counted.charges.get(email).is_some_and(|times| *times > 0);
        if is_contact && is_row && is_mailed && is_charged {
            tally.served += 1;
        } else if lead.outcome == Outcome::Review {
            tally.in_review += 1;
        } else {
            let left = is_contact || is_row || is_charged;
            let kept = lead.outcome == Outcome::DeadLetter;
            tally.undone += usize::from(kept && !left);
            tally.lost += usize::from(!kept);
            tally.half_done += usize::from(left);
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lead(email: &str, outcome: Outcome) -> Ended {
        Ended {
            run: email.to_owned(),
            line: 2,
            email: Some(email.to_owned()),
            outcome,
            parts: Vec::new(),
            reason: None,
        }
    }

    fn all_of(emails: &[&str]) -> Counted {
        Counted {
            contacts: emails
                .iter()
                .map(|email| ((*email).to_owned(), 1))
                .collect(),
            mails: emails
                .iter()
                .map(|email| ((*email).to_owned(), 1))
                .collect(),
            charges: emails
                .iter()
                .map(|email| ((*email).to_owned(), 1))
                .collect(),
            rows: emails.iter().map(|email| (*email).to_owned()).collect(),
        }
    }

    #[test]
    fn a_run_that_says_completed_without_a_charge_is_lost() {
        let mut counted = all_of(&["a", "b"]);
        counted.charges.remove("b");
        let tally = add_up(
            &counted,
            &[lead("a", Outcome::Whole), lead("b", Outcome::Whole)],
        );
        assert_eq!((tally.served, tally.lost, tally.half_done), (1, 1, 1));
        assert!(!tally.is_clean());
    }

    #[test]
    fn a_second_charge_or_mail_is_seen() {
        let mut counted = all_of(&["a"]);
        counted.charges.insert("a".to_owned(), 2);
        counted.mails.insert("a".to_owned(), 3);
        let tally = add_up(&counted, &[lead("a", Outcome::Whole)]);
        assert_eq!((tally.charged_twice, tally.mailed_twice), (1, 1));
        assert!(!tally.is_clean());
    }

    #[test]
    fn a_dead_letter_counts_as_undone_only_if_nothing_is_left() {
        let mut counted = Counted::default();
        counted.contacts.insert("a".to_owned(), 0);
        counted.contacts.insert("b".to_owned(), 1);
        let leads = [
            lead("a", Outcome::DeadLetter),
            lead("b", Outcome::DeadLetter),
        ];
        let tally = add_up(&counted, &leads);
        assert_eq!((tally.undone, tally.lost, tally.half_done), (1, 0, 1));
    }
}
