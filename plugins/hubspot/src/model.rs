//! What goes in and out, and HubSpot's own shapes.

use std::collections::BTreeMap;

use cofferdam_sdk::prelude::*;

/// A contact, as HubSpot has it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Contact {
    /// HubSpot's id of the record.
    pub id: String,
    /// The properties that were asked for; those without a value are null.
    #[serde(default)]
    pub properties: BTreeMap<String, Option<String>>,
    /// When it was made (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// When it was last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// Whether it is archived.
    #[serde(default)]
    pub archived: bool,
}

/// Which contact to read: by id or by e-mail address.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GetContact {
    /// HubSpot's id. Give this or `email`.
    #[serde(default)]
    pub id: Option<String>,
    /// The contact's address. Give this or `id`.
    #[serde(default)]
    pub email: Option<String>,
    /// The properties to return; HubSpot's default set if there are none.
    #[serde(default)]
    pub properties: Vec<String>,
}

/// What to search for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SearchContacts {
    /// Words to look for in the default text properties.
    #[serde(default)]
    pub query: Option<String>,
    /// Conditions that must all hold; at most 6.
    #[serde(default)]
    #[schemars(length(max = 6))]
    pub filters: Vec<Filter>,
    /// The properties to return.
    #[serde(default)]
    pub properties: Vec<String>,
    /// How many contacts to return: 1 to 100.
    #[serde(default = "page")]
    #[schemars(range(min = 1, max = 100))]
    pub limit: u32,
    /// Where to go on: `next` of the page before.
    #[serde(default)]
    pub after: Option<String>,
}

fn page() -> u32 {
    20
}

/// One condition on a property.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Filter {
    /// The property: `lifecyclestage`.
    pub property_name: String,
    /// HubSpot's word: `EQ`, `NEQ`, `LT`, `GT`, `IN`, `HAS_PROPERTY`, `CONTAINS_TOKEN` …
    pub operator: String,
    /// What to compare with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What to compare with, for `IN` and `NOT_IN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<String>>,
}

/// One page of contacts.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContactPage {
    /// The contacts of this page.
    pub contacts: Vec<Contact>,
    /// How many there are on all pages.
    pub total: u64,
    /// Where the next page begins; missing on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A contact to create or update.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct UpsertContact {
    /// The address that identifies the contact.
    #[schemars(length(min = 3, max = 320))]
    pub email: String,
    /// Properties to set: `firstname`, `lastname`, `company`, `phone` or your own.
    #[serde(default)]
    pub properties: BTreeMap<String, PropertyValue>,
}

/// A property's value. HubSpot keeps all of them as text.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum PropertyValue {
    /// Text.
    Text(String),
    /// A number.
    Number(f64),
    /// True or false.
    Flag(bool),
    /// Clears the property.
    Null(()),
}

impl PropertyValue {
    /// The value as HubSpot takes it; empty text clears a property.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Null(()) => String::new(),
        }
    }
}

/// The contact after an upsert.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Upserted {
    /// HubSpot's id of the record.
    pub id: String,
    /// The address that identifies it.
    pub email: String,
    /// Whether this call made the contact.
    pub created: bool,
    /// The properties that HubSpot returned.
    pub properties: BTreeMap<String, Option<String>>,
}

/// Which contact to archive.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ArchiveContact {
    /// HubSpot's id.
    #[schemars(length(min = 1))]
    pub id: String,
}

/// What archiving did.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Archived {
    /// HubSpot's id.
    pub id: String,
    /// Whether it was gone before this call.
    pub already_archived: bool,
}

/// HubSpot's answer to a search.
#[derive(Debug, Deserialize)]
pub(crate) struct SearchAnswer {
    #[serde(default)]
    pub(crate) total: u64,
    pub(crate) results: Vec<Contact>,
    #[serde(default)]
    pub(crate) paging: Option<Paging>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Paging {
    pub(crate) next: Option<Next>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Next {
    pub(crate) after: String,
}

/// HubSpot's answer to a batch of upserts: 200, or 207 with errors.
#[derive(Debug, Deserialize)]
pub(crate) struct BatchAnswer {
    #[serde(default)]
    pub(crate) results: Vec<BatchContact>,
    #[serde(default)]
    pub(crate) errors: Vec<VendorError>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct BatchContact {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) properties: BTreeMap<String, Option<String>>,
    #[serde(default)]
    pub(crate) new: bool,
}

/// HubSpot's way to tell an error.
#[derive(Debug, Deserialize)]
pub(crate) struct VendorError {
    #[serde(default)]
    pub(crate) category: String,
    #[serde(default)]
    pub(crate) message: String,
}
