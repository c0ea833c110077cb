//! The contacts of one portal, and what HubSpot refuses to store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde_json::json;

use crate::service::Effects;

/// The first id given out; contacts of a real portal have ids of several digits too.
const FIRST_ID: u64 = 50_001;

/// One contact. The id and both timestamps are also among its properties, as HubSpot has them.
#[derive(Debug, Clone)]
pub(super) struct Contact {
    pub(super) id: u64,
    pub(super) properties: BTreeMap<String, String>,
    pub(super) archived: bool,
}

impl Contact {
    /// What names the contact in the record of effects.
    fn key(&self) -> String {
        self.properties
            .get("email")
            .cloned()
            .unwrap_or_else(|| format!("id:{}", self.id))
    }
}

#[derive(Debug, Default)]
pub(super) struct Store {
    contacts: BTreeMap<u64, Contact>,
    pub(super) effects: Effects,
}

/// A request that HubSpot turns down.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) category: &'static str,
    pub(super) message: String,
}

/// One input of a batch: the property that identifies (`None`: the object id), its value, and
/// what is to be set.
pub(super) type Upsert<'a> = (Option<&'a str>, String, BTreeMap<String, String>);

impl Refusal {
    pub(super) fn validation(message: impl Into<String>) -> Self {
        Self {
            status: 400,
            category: "VALIDATION_ERROR",
            message: message.into(),
        }
    }

    pub(super) fn no_route() -> Self {
        Self {
            status: 404,
            category: "OBJECT_NOT_FOUND",
            message: "resource not found".to_owned(),
        }
    }

    pub(super) fn bad_method() -> Self {
        Self {
            status: 405,
            category: "VALIDATION_ERROR",
            message: "method not allowed".to_owned(),
        }
    }

    fn not_found() -> Self {
        let message = "Object not found.  objectId are usually numeric.".to_owned();
        Self {
            status: 404,
            category: "OBJECT_NOT_FOUND",
            message,
        }
    }

    fn duplicate(id: u64) -> Self {
        let message = format!("Contact already exists. Existing ID: {id}");
        Self {
            status: 409,
            category: "CONFLICT",
            message,
        }
    }

    /// HubSpot packs the list of invalid values as JSON into the message.
    fn invalid(error: &str, name: &str, message: &str) -> Self {
        let detail =
            json!([{ "isValid": false, "message": message, "error": error, "name": name }]);
        Self::validation(format!("Property values were not valid: {detail}"))
    }
}

impl Store {
    /// Every contact, archived ones too, in the order of their ids.
    pub(super) fn all(&self) -> impl Iterator<Item = &Contact> {
        self.contacts.values()
    }

    /// A contact that is not archived.
    pub(super) fn get(&self, id: u64) -> Result<&Contact, Refusal> {
        self.contacts
            .get(&id)
            .filter(|contact| !contact.archived)
            .ok_or_else(Refusal::not_found)
    }

    /// A live contact by its id, or by the unique property `by`.
    pub(super) fn find(&self, value: &str, by: Option<&str>) -> Result<&Contact, Refusal> {
        match by {
            None | Some("hs_object_id") => {
                self.get(value.parse().map_err(|_| Refusal::not_found())?)
            }
            Some("email") => self.by_email(value).ok_or_else(Refusal::not_found),
            Some(other) => Err(not_unique(other)),
        }
    }

    fn by_email(&self, email: &str) -> Option<&Contact> {
        let email = email.trim().to_lowercase();
        self.contacts
            .values()
            .find(|contact| !contact.archived && contact.properties.get("email") == Some(&email))
    }

    pub(super) fn create(&mut self, properties: BTreeMap<String, String>) -> Result<u64, Refusal> {
        let properties = checked(properties)?;
        if let Some(existing) = properties
            .get("email")
            .and_then(|email| self.by_email(email))
        {
            return Err(Refusal::duplicate(existing.id));
        }
        Ok(self.insert(properties))
    }

    pub(super) fn update(
        &mut self,
        id: u64,
        changes: BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        let changes = checked(changes)?;
        if let Some(other) = changes
            .get("email")
            .and_then(|email| self.by_email(email))
            .filter(|other| other.id != id)
        {
            return Err(Refusal::duplicate(other.id));
        }
        self.get(id)?;
        self.apply(id, changes);
        Ok(())
    }

    /// Archives a contact; doing so again is no error and no second effect.
    pub(super) fn archive(&mut self, id: &str) -> Result<(), Refusal> {
        let id: u64 = id.parse().map_err(|_| Refusal::not_found())?;
        let contact = self.contacts.get_mut(&id).ok_or_else(Refusal::not_found)?;
        if !contact.archived {
            contact.archived = true;
            let key = format!("archive:{}", contact.key());
            *self.effects.entry(key).or_default() += 1;
        }
        Ok(())
    }

    /// Creates or updates every contact of a batch, or none; tells ids and which ones are new.
    pub(super) fn upsert(&mut self, inputs: &[Upsert<'_>]) -> Result<Vec<(u64, bool)>, Refusal> {
        let mut seen = BTreeSet::new();
        let mut planned = Vec::new();
        for (by, value, properties) in inputs {
            if !seen.insert(value.to_lowercase()) {
                return Err(Refusal::validation(format!(
                    "Duplicate IDs found in batch input: [{value}]"
                )));
            }
            let mut properties = properties.clone();
            let existing = match by {
                None => Some(self.find(value, None)?.id),
                Some("email") => {
                    properties
                        .entry("email".to_owned())
                        .or_insert_with(|| value.clone());
                    self.by_email(value).map(|contact| contact.id)
                }
                Some(other) => return Err(not_unique(other)),
            };
            let properties = checked(properties)?;
            let holder = properties
                .get("email")
                .and_then(|email| self.by_email(email))
                .map(|contact| contact.id);
            if let Some(other) = holder.filter(|other| Some(*other) != existing) {
                return Err(Refusal::duplicate(other));
            }
            planned.push((existing, properties));
        }
        let mut results = Vec::new();
        for (existing, properties) in planned {
            match existing {
                Some(id) => {
                    self.apply(id, properties);
                    results.push((id, false));
                }
                None => results.push((self.insert(properties), true)),
            }
        }
        Ok(results)
    }

    fn insert(&mut self, mut properties: BTreeMap<String, String>) -> u64 {
        let id = self
            .contacts
            .last_key_value()
            .map_or(FIRST_ID, |(last, _)| last + 1);
        let now = timestamp();
        properties.retain(|_, value| !value.is_empty());
        properties.insert("hs_object_id".to_owned(), id.to_string());
        properties.insert("createdate".to_owned(), now.clone());
        properties.insert("lastmodifieddate".to_owned(), now);
        let contact = Contact {
            id,
            properties,
            archived: false,
        };
        *self
            .effects
            .entry(format!("create:{}", contact.key()))
            .or_default() += 1;
        self.contacts.insert(id, contact);
        id
    }

    /// Sets properties of a contact; an empty value clears one.
    fn apply(&mut self, id: u64, changes: BTreeMap<String, String>) {
        if let Some(contact) = self.contacts.get_mut(&id) {
            contact.properties.extend(changes);
            contact.properties.retain(|_, value| !value.is_empty());
            contact
                .properties
                .insert("lastmodifieddate".to_owned(), timestamp());
        }
    }
}

/// Refuses what no contact may have, and writes e-mail addresses as HubSpot does: in lower case.
///
/// A portal's own properties cannot be known here, so every name that HubSpot would let one
/// define is taken to exist.
fn checked(mut properties: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Refusal> {
    for name in properties.keys() {
        let starts = name.starts_with(|letter: char| letter.is_ascii_lowercase());
        let legal =
            |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
        if !starts || !name.chars().all(legal) {
            return Err(Refusal::invalid(
                "PROPERTY_DOESNT_EXIST",
                name,
                &format!("Property \"{name}\" does not exist"),
            ));
        }
        if matches!(
            name.as_str(),
            "hs_object_id" | "createdate" | "lastmodifieddate"
        ) {
            let message = format!("\"{name}\" is a read only property; its value cannot be set.");
            return Err(Refusal::invalid("READ_ONLY_VALUE", name, &message));
        }
    }
    if let Some(email) = properties.get_mut("email") {
        *email = email.trim().to_lowercase();
        if !email.is_empty() && !is_email(email) {
            return Err(Refusal::invalid(
                "INVALID_EMAIL",
                "email",
                &format!("Email address {email} is invalid"),
            ));
        }
    }
    Ok(properties)
}

fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    let labels = domain.split('.').count() > 1 && domain.split('.').all(|label| !label.is_empty());
    let plain = |letter: char| {
        !letter.is_whitespace() && !letter.is_control() && !"@,;<>()".contains(letter)
    };
    !local.is_empty() && labels && local.chars().all(plain) && domain.chars().all(plain)
}

fn not_unique(name: &str) -> Refusal {
    Refusal::validation(format!(
        "Property \"{name}\" is not a unique identifier of contacts"
    ))
}

/// The time as HubSpot writes it.
pub(super) fn timestamp() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_a_name_and_a_dotted_domain() {
        for good in ["ada@example.com", "a.b+c@mail.example.co"] {
            assert!(is_email(good), "{good}");
        }
        for bad in [
            "",
            "ada",
            "ada@",
            "@example.com",
            "ada@example",
            "ada@@example.com",
            "a b@example.com",
            "a@.com",
        ] {
            assert!(!is_email(bad), "{bad}");
        }
    }
}
