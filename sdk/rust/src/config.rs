//! The connection's settings, as the operator wrote them. They are not secret.

use serde::de::value::{MapDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, Error as _, IntoDeserializer, Visitor};
use serde_json::Value;

use crate::failure::Failure;
use crate::host;

/// One setting, or `None` if it is not set. Dots in the name go into tables.
///
/// # Errors
/// Class `invalid-input`, code `config`, if the setting is not of type `T`.
pub fn get<T: DeserializeOwned>(name: &str) -> Result<Option<T>, Failure> {
    let Some(text) = host::config(name) else {
        return Ok(None);
    };
    let mut json = serde_json::Deserializer::from_str(&text);
    serde_path_to_error::deserialize(&mut json)
        .map(Some)
        .map_err(|error| {
            let path = error.path().to_string();
            let place = if path == "." {
                name.to_owned()
            } else {
                format!("{name}.{path}")
            };
            refused(&format!("`{place}`: {}", error.inner()))
        })
}

/// Fills a struct from the settings: each field from the setting of its name.
///
/// Fields that are `Option`s or have `#[serde(default)]` may be missing. `#[serde(flatten)]`
/// does not work here, since the host is asked for each setting by name.
///
/// # Errors
/// Class `invalid-input`, code `config`, naming the setting that is missing or wrong.
pub fn read<T: DeserializeOwned>() -> Result<T, Failure> {
    serde_path_to_error::deserialize(Settings).map_err(|error| {
        let path = error.path().to_string();
        if path == "." {
            refused(&error.inner().to_string())
        } else {
            refused(&format!("`{path}`: {}", error.inner()))
        }
    })
}

fn refused(problem: &str) -> Failure {
    Failure::invalid_input(
        "config",
        format!(
            "the connection's config is wrong: {problem}; set it in `[connections.NAME.config]`"
        ),
    )
}

/// Deserialises a struct by asking the host for each of its fields.
struct Settings;

impl<'de> serde::Deserializer<'de> for Settings {
    type Error = serde_json::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        let mut settings: Vec<(&'static str, Value)> = Vec::new();
        for field in fields {
            if let Some(text) = host::config(field) {
                settings.push((field, serde_json::from_str(&text)?));
            }
        }
        visitor.visit_map(MapDeserializer::new(
            settings
                .into_iter()
                .map(|(name, value)| (Name(name), value)),
        ))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_unit()
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(serde_json::Error::custom(
            "a connector's settings must be a struct with named fields",
        ))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        option unit newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A field's name as a key of the map that the struct is read from.
struct Name(&'static str);

impl<'de> IntoDeserializer<'de, serde_json::Error> for Name {
    type Deserializer = StrDeserializer<'de, serde_json::Error>;

    fn into_deserializer(self) -> Self::Deserializer {
        self.0.into_deserializer()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Recorded;

    #[derive(Debug, serde::Deserialize, PartialEq)]
    struct Demo {
        base_url: Option<String>,
        #[serde(default = "three")]
        pages_max: u32,
        region: String,
    }

    fn three() -> u32 {
        3
    }

    #[test]
    fn a_struct_is_filled_from_settings_and_defaults() {
        let host = Recorded::new().config("region", "eu");
        let demo: Demo = host.run(|| read().unwrap());
        assert_eq!(
            demo,
            Demo {
                base_url: None,
                pages_max: 3,
                region: "eu".into()
            }
        );
    }

    #[test]
    fn a_missing_or_wrong_setting_is_named() {
        let missing = Recorded::new().run(|| read::<Demo>().unwrap_err());
        assert!(
            missing.message.contains("missing field `region`"),
            "{missing}"
        );
        let host = Recorded::new()
            .config("region", "eu")
            .config("pages_max", "many");
        let wrong = host.run(|| read::<Demo>().unwrap_err());
        assert!(
            wrong.message.contains("`pages_max`: invalid type"),
            "{wrong}"
        );
    }
}
