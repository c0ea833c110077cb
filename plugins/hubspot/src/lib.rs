//! Contacts in HubSpot's CRM (API v3).
//!
//! Settings: `base_url`, default `https://api.hubapi.com`. Secret: `HUBSPOT_TOKEN`, a private
//! app's access token with the scopes `crm.objects.contacts.read` and `.write`.

mod model;
#[cfg(test)]
mod tests;

use cofferdam_sdk::prelude::*;

pub use model::*;

/// The connector and its settings.
#[derive(Debug, Deserialize)]
pub struct HubSpot {
    #[serde(default = "vendor")]
    base_url: String,
}

fn vendor() -> String {
    "https://api.hubapi.com".to_owned()
}

#[connector(name = "hubspot", description = "Contacts in HubSpot's CRM")]
impl HubSpot {
    /// Reads one contact, by id or by e-mail address.
    #[action(effect = read, example = r#"{"email": "ada@example.com"}"#)]
    fn get_contact(&self, input: GetContact) -> Result<Contact, Failure> {
        let (key, id_property) = match (&input.id, &input.email) {
            (Some(id), None) => (id, None),
            (None, Some(email)) => (email, Some("email")),
            _ => {
                return Err(Failure::invalid_input(
                    "key",
                    "give either `id` or `email`, not both",
                ));
            }
        };
        let mut request = http::Request::get(self.contacts(&[key])?);
        if let Some(property) = id_property {
            request = request.query("idProperty", property);
        }
        if !input.properties.is_empty() {
            request = request.query("properties", input.properties.join(","));
        }
        send(request)?.json()
    }

    /// Searches contacts, one page at a time. A contact that was just written may take some
    /// seconds to be found.
    #[action(
        effect = read,
        example = r#"{"filters": [{"propertyName": "lifecyclestage", "operator": "EQ", "value": "lead"}], "limit": 50}"#
    )]
    fn search_contacts(&self, input: SearchContacts) -> Result<ContactPage, Failure> {
        let mut body = json!({"limit": input.limit});
        if let Some(query) = &input.query {
            body["query"] = json!(query);
        }
        if !input.filters.is_empty() {
            body["filterGroups"] = json!([{"filters": input.filters}]);
        }
        if !input.properties.is_empty() {
            body["properties"] = json!(input.properties);
        }
        if let Some(after) = &input.after {
            body["after"] = json!(after);
        }
        let request = http::Request::post(self.contacts(&["search"])?)
            .json(&body)
            .reads();
        let answer: SearchAnswer = send(request)?.json()?;
        Ok(ContactPage {
            contacts: answer.results,
            total: answer.total,
            next: answer
                .paging
                .and_then(|paging| paging.next)
                .map(|next| next.after),
        })
    }

    /// Creates a contact, or updates the one with this e-mail address.
    #[action(
        effect = idempotent,
        compensated_by = "archive-contact",
        example = r#"{"email": "ada@example.com", "properties": {"firstname": "Ada"}}"#
    )]
    fn upsert_contact(&self, input: UpsertContact) -> Result<Upserted, Failure> {
        let mut properties: Value = input
            .properties
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.to_text())))
            .collect();
        properties["email"] = json!(input.email);
        let body = json!({"inputs": [
            {"id": input.email, "idProperty": "email", "properties": properties}
        ]});
        let request = http::Request::post(self.contacts(&["batch", "upsert"])?).json(&body);
        let answer: BatchAnswer = send(request)?.json()?;
        if let Some(error) = answer.errors.first() {
            return Err(Failure::invalid_input(
                code(&error.category),
                &error.message,
            ));
        }
        let Some(contact) = answer.results.into_iter().next() else {
            let message = "HubSpot answered without the contact that it was given";
            return Err(Failure::internal("hubspot.answer", message).effect(EffectState::Applied));
        };
        Ok(Upserted {
            id: contact.id,
            email: input.email,
            created: contact.new,
            properties: contact.properties,
        })
    }

    /// Archives a contact. One that is archived already, or was never there, is fine.
    #[action(effect = idempotent, example = r#"{"id": "512"}"#)]
    fn archive_contact(&self, input: ArchiveContact) -> Result<Archived, Failure> {
        let request = http::Request::delete(self.contacts(&[&input.id])?);
        match send(request) {
            Ok(_) => Ok(Archived {
                id: input.id,
                already_archived: false,
            }),
            Err(failure) if failure.class == Class::NotFound => Ok(Archived {
                id: input.id,
                already_archived: true,
            }),
            Err(failure) => Err(failure),
        }
    }

    fn check(&self) -> Result<Health, Failure> {
        send(http::Request::get(self.contacts(&[])?).query("limit", 1))?;
        Ok(Health::healthy("HubSpot answers and takes the token"))
    }

    fn contacts(&self, segments: &[&str]) -> Result<String, Failure> {
        let path = [&["crm", "v3", "objects", "contacts"], segments].concat();
        http::url(&self.base_url, &path)
    }
}

/// Sends with the token. A refusal gets HubSpot's own words.
fn send(request: http::Request) -> Result<http::Response, Failure> {
    let response = request
        .bearer(secrets::placeholder("HUBSPOT_TOKEN")?)
        .send()?;
    if response.is_success() {
        return Ok(response);
    }
    let failure = response.failure();
    Err(match response.json::<VendorError>() {
        Ok(error) if !error.category.is_empty() => {
            failure.reworded(code(&error.category), error.message)
        }
        _ => failure,
    })
}

/// `VALIDATION_ERROR` as a code: `hubspot.validation_error`.
fn code(category: &str) -> String {
    format!("hubspot.{}", category.to_lowercase())
}
