//! Telephone numbers in international form: `(0)40 123 4567` in Finland is `+358401234567`.
//!
//! **This connector has a defect on purpose.** It stands for a third party's plugin that works
//! in every test its author thought of: it panics on a number with an extension
//! (`+1 415 555 2671 ext. 12`, `x12`). The example shows that such a panic ends one call and
//! nothing else. Do not use it for anything but that.

use cofferdam_sdk::prelude::*;

/// The connector. It has no settings and asks for no capability.
#[derive(Debug, Deserialize)]
pub struct Normalize;

/// A number as somebody typed it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Phone {
    /// The number: `040 123 4567`, `+358 40 123 4567`, `00358 40 1234567`.
    #[schemars(length(min = 1, max = 64))]
    pub phone: String,
    /// The country to assume if the number names none: two letters, as in ISO 3166.
    #[schemars(length(min = 2, max = 2))]
    pub country: String,
}

/// The number in the form that telephone systems agree on.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct Normalized {
    /// The number as in E.164: `+358401234567`.
    pub e164: String,
}

/// Calling codes of the countries that leads come from, and the prefix that is dialled before a
/// number inside the country.
const COUNTRIES: [(&str, &str, &str); 16] = [
    ("AT", "43", "0"),
    ("AU", "61", "0"),
    ("BR", "55", "0"),
    ("CA", "1", "1"),
    ("CH", "41", "0"),
    ("DE", "49", "0"),
    ("DK", "45", ""),
    ("ES", "34", ""),
    ("FI", "358", "0"),
    ("FR", "33", "0"),
    ("GB", "44", "0"),
    ("IN", "91", "0"),
    ("JP", "81", "0"),
    ("NL", "31", "0"),
    ("SE", "46", "0"),
    ("US", "1", "1"),
];

/// E.164 allows 15 digits; fewer than 7 reach nobody from abroad.
const DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

#[connector(
    name = "normalize",
    description = "Telephone numbers in international form"
)]
impl Normalize {
    /// Writes a telephone number in international form (E.164).
    #[action(effect = read, example = r#"{"phone": "(0)40 123 4567", "country": "FI"}"#)]
    fn normalize_phone(&self, input: Phone) -> Result<Normalized, Failure> {
        let country = input.country.to_uppercase();
        let Some((_, code, trunk)) = COUNTRIES.iter().find(|(name, ..)| *name == country) else {
            let message = format!(
                "the country `{}` is not among those known here",
                input.country
            );
            return Err(Failure::invalid_input("country", message));
        };
        let international = input.phone.trim_start().starts_with('+');
        let digits = digits(&input.phone);
        let digits = if international {
            digits
        } else if let Some(rest) = digits.strip_prefix("00") {
            rest.to_owned()
        } else {
            format!("{code}{}", digits.strip_prefix(trunk).unwrap_or(&digits))
        };
        if !DIGITS.contains(&digits.len()) {
            let message = format!("{} digits cannot be a telephone number", digits.len());
            return Err(Failure::invalid_input("length", message));
        }
        Ok(Normalized {
            e164: format!("+{digits}"),
        })
    }

    fn check(&self) -> Result<Health, Failure> {
        Ok(Health::healthy("it needs nobody"))
    }
}

/// The digits, without what people put between them.
fn digits(phone: &str) -> String {
    phone
        .chars()
        .filter(|c| !c.is_whitespace() && !"+()-./".contains(*c))
        // The defect: an extension has letters.
        .map(|c| c.to_digit(10).expect("a telephone number has digits only"))
        .filter_map(|digit| char::from_digit(digit, 10))
        .collect()
}

#[cfg(test)]
mod tests {
    use cofferdam_sdk::testing::Recorded;

    use super::*;

    fn normalized(phone: &str, country: &str) -> Result<Value, Failure> {
        let input = json!({"phone": phone, "country": country});
        Recorded::new().invoke::<Normalize>("normalize-phone", input)
    }

    #[test]
    fn numbers_get_the_form_of_e164() {
        for (phone, country, expected) in [
            ("(0)40 123 4567", "FI", "+358401234567"),
            ("+49 (30) 901820", "FI", "+4930901820"),
            ("0049 30 901820", "us", "+4930901820"),
            ("415-555-2671", "US", "+14155552671"),
            ("1 415 555 2671", "CA", "+14155552671"),
        ] {
            assert_eq!(
                normalized(phone, country).unwrap(),
                json!({"e164": expected})
            );
        }
    }

    #[test]
    fn what_cannot_be_a_number_is_refused() {
        assert_eq!(normalized("12", "FI").unwrap_err().code, "length");
        assert_eq!(normalized("040 1234567", "XX").unwrap_err().code, "country");
    }

    #[test]
    #[should_panic(expected = "digits only")]
    fn an_extension_brings_it_down() {
        let _ = normalized("+1 415 555 2671 ext. 12", "US");
    }
}
