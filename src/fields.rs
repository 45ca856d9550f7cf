//! JSON that doesn't fit, in words: which field, what it is, what was expected.
//!
//! serde says what it found and the Rust type that it wanted, but not where: `invalid value: integer `-1`, expected usize`.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Characters of a value that a message shows.
const SHOWN: usize = 60;

/// What a JSON text says that is an object, or what is wrong with it.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let value: Value = parse_any(text)?;
    match value.as_object() {
        Some(object) => decode(object, None),
        None => Err(format!("the text is {}, expected an object: {{…}}", shown(&value))),
    }
}

/// What a JSON text says, or what is wrong with it.
pub fn parse_any<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|e| not_json(text, &e))
}

/// What is wrong with a text that is no JSON, or not of the wanted form.
pub(crate) fn not_json(text: &str, error: &serde_json::Error) -> String {
    if text.trim().is_empty() {
        return "the text is empty, expected JSON".into();
    }
    match error.classify() {
        serde_json::error::Category::Data => in_words(&error.to_string()),
        serde_json::error::Category::Io | serde_json::error::Category::Syntax | serde_json::error::Category::Eof => {
            format!("the text is no JSON: {error}")
        }
    }
}

/// What the fields of an object say, or which one does not fit. `tag` is the field that says which others there are.
pub fn decode<T: DeserializeOwned>(object: &Map<String, Value>, tag: Option<&str>) -> Result<T, String> {
    let text = match T::deserialize(object) {
        Ok(read) => return Ok(read),
        Err(error) => error.to_string(),
    };
    let fault = |object: &Map<String, Value>| T::deserialize(object).err().map(|error| error.to_string());
    // Whether these fields alone give the same error.
    let same = |key: Option<&String>| {
        let kept = object.iter().filter(|(name, _)| Some(*name) == key || tag == Some(name.as_str()));
        fault(&kept.map(|(name, value)| (name.clone(), value.clone())).collect()).as_ref() == Some(&text)
    };
    if tag.is_some() && same(None) {
        return Err(in_words(&text));
    }
    let alone = |key: &&String| same(Some(*key));
    let culprit = object.keys().filter(|key| tag != Some(key.as_str())).find(alone);
    let named = text.split('`').nth(1).unwrap_or_default();
    let is_own = if text.starts_with("missing field") {
        // Were it there, another error would come; elsewhere it is missing still, or has no place here.
        let mut whole = object.clone();
        whole.insert(named.to_string(), Value::Null);
        fault(&whole).is_none_or(|other| other != text && !other.starts_with("unknown field"))
    } else {
        text.starts_with("unknown field") && culprit.is_some_and(|key| key == named)
    };
    match culprit.filter(|_| !is_own) {
        Some(key) => Err(about(key, &object[key], &text)),
        None => Err(in_words(&text)),
    }
}

/// A fault of a field, with its name and its value.
fn about(key: &str, value: &Value, text: &str) -> String {
    let given = shown(value);
    if let Some(rest) = text.strip_prefix("unknown variant ") {
        let (_, expected) = rest.split_once(", expected ").unwrap_or((rest, "another"));
        return format!("`{key}` is {given}, expected {}", expected.replace('`', ""));
    }
    if let Some((found, expected)) = mismatch(text) {
        let expected = expectation(expected);
        let hint = match (key, expected) {
            ("axis" | "axes" | "order", "an integer from 0 up") => " (axes are counted from 0, not from the end)",
            _ => "",
        };
        let inside = (value.is_array() || value.is_object()) && !["sequence", "map"].contains(&found);
        return match inside {
            true => format!("`{key}` is {given}: {} stands where {expected} is expected{hint}", bare(found)),
            false => format!("`{key}` is {given}, expected {expected}{hint}"),
        };
    }
    format!("`{key}`: {}", in_words(text))
}

/// serde's message in words, where no field is known.
fn in_words(text: &str) -> String {
    // What stands behind the message, if it is of a text.
    let (text, place) = match text.rfind(" at line ") {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    if let Some((found, expected)) = mismatch(text) {
        return format!("{} stands where {} is expected{place}", bare(found), expectation(expected));
    }
    if let Some(field) = text.strip_prefix("missing field ") {
        return format!("the field {field} is missing{place}");
    }
    if let Some((field, known)) = text.strip_prefix("unknown field ").and_then(|rest| rest.split_once(", expected ")) {
        return format!("there is no field {field}, expected {known}{place}");
    }
    format!("{text}{place}")
}

/// What was found and what was expected, if the message is of the two.
fn mismatch(text: &str) -> Option<(&str, &str)> {
    let rest =
        ["invalid type: ", "invalid value: ", "invalid length "].iter().find_map(|head| text.strip_prefix(head))?;
    rest.rsplit_once(", expected ")
}

/// What serde found, without its words for the kind: `-1` of "integer `-1`".
fn bare(found: &str) -> &str {
    match found {
        "sequence" => "a list",
        "map" => "an object",
        "unit value" => "null",
        found => found.split('`').nth(1).or(found.strip_prefix("string ")).unwrap_or(found),
    }
}

/// The name of a Rust type, or serde's words for one, in JSON's terms.
fn expectation(expected: &str) -> &str {
    match expected {
        "usize" => "an integer from 0 up",
        "u32" => "an integer from 0 to 4294967295",
        "i32" => "an integer from -2147483648 to 2147483647",
        "isize" | "i64" => "an integer",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a string" | "a borrowed string" => "a text",
        "a map" => "an object",
        "variant identifier" | "string or map" => "a name",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
}

/// Whether a value is what this JSON says; numbers by their value.
pub fn is(value: &Value, json: &str) -> bool {
    match serde_json::from_str::<Value>(json) {
        Ok(expected) => match (value.as_f64(), expected.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => *value == expected,
        },
        Err(_) => false,
    }
}

/// Whether a value turns nothing on, whatever its key means.
pub fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}

/// A value as JSON, or its beginning.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= SHOWN { text } else { text.chars().take(SHOWN - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only what can't be read is looked at")]
    struct Form {
        size: usize,
        shape: Vec<usize>,
        #[serde(default)]
        kind: Option<Kind>,
        #[serde(default)]
        inner: Option<Inner>,
        #[serde(default)]
        flag: bool,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Wide,
        Narrow,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only what can't be read is looked at")]
    struct Inner {
        left: f32,
    }

    #[test]
    fn a_field_is_named_with_its_value_and_what_was_expected() {
        for (text, expected) in [
            (r#"{"size": -1, "shape": []}"#, "`size` is -1, expected an integer from 0 up"),
            (r#"{"size": 1.5, "shape": [], "flag": true}"#, "`size` is 1.5, expected an integer from 0 up"),
            (r#"{"size": "wide", "shape": []}"#, "`size` is \"wide\", expected an integer from 0 up"),
            // Both are wrong in the same way: the first is said.
            (
                r#"{"size": -1, "shape": [2, -1]}"#,
                "`shape` is [2,-1]: -1 stands where an integer from 0 up is expected",
            ),
            (r#"{"size": 1, "shape": 7}"#, "`shape` is 7, expected a list"),
            (r#"{"size": 1, "shape": {}}"#, "`shape` is {}, expected a list"),
            (r#"{"size": 1, "shape": [], "kind": "wyde"}"#, "`kind` is \"wyde\", expected wide or narrow"),
            (r#"{"size": 1, "shape": [], "flag": 1}"#, "`flag` is 1, expected true or false"),
            (
                r#"{"size": 1, "shape": [], "inner": {"right": 1}}"#,
                "`inner`: there is no field `right`, expected `left`",
            ),
            (r#"{"size": 1, "shape": [], "inner": {}}"#, "`inner`: the field `left` is missing"),
            (r#"{"size": 1}"#, "the field `shape` is missing"),
            (
                r#"{"size": 1, "shape": [], "sise": 2}"#,
                "there is no field `sise`, expected one of `size`, `shape`, `kind`, `inner`, `flag`",
            ),
            ("[1, 2]", "the text is [1,2], expected an object: {…}"),
            (" \n", "the text is empty, expected JSON"),
            ("{\"size\": 1,", "the text is no JSON: EOF while parsing a value at line 1 column 11"),
        ] {
            assert_eq!(parse::<Form>(text).expect_err(text), expected, "{text}");
        }
    }

    #[test]
    fn long_values_are_cut() {
        let text = format!(r#"{{"size": "{}", "shape": []}}"#, "x".repeat(1000));
        let message = parse::<Form>(&text).expect_err("no size");
        assert!(
            message.starts_with("`size` is \"xxx") && message.contains("…, expected") && message.len() < 120,
            "{message}"
        );
    }
}
