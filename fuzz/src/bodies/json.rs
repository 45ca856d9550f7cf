//! JSON that is nearly right.

use arbitrary::{Result, Unstructured};
use serde_json::{Map, Value};

/// Numbers at the edges of what readers and sizes take, and what is no number in JSON.
const EDGES: [&str; 34] = [
    "0",
    "-0.0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "16",
    "64",
    "255",
    "256",
    "1024",
    "65535",
    "65536",
    "16777217",
    "2147483646",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e999",
    "-1e999",
    "3.5e38",
    "1e20",
    "1e-45",
    "0.5",
    "NaN",
];

/// What stands before the text of a number that [`Value`] can't hold.
const RAW: char = '\u{1}';

/// A number with this text, whatever it is.
fn raw(text: &str) -> Value {
    Value::String(format!("{RAW}{text}"))
}

/// A number at an edge, or what stands for one in tensors.
pub(super) fn edge(u: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match u.int_in_range(0..=19)? {
        0 => "NaN".into(),
        1 => "inf".into(),
        2 => "-inf".into(),
        3 => Value::Null,
        4 => Value::Bool(u.arbitrary()?),
        5 => Value::Array(Vec::new()),
        _ => raw(u.choose(&EDGES)?),
    })
}

/// A size that may well fit: small, or near another.
pub(super) fn size(u: &mut Unstructured<'_>, near: u64) -> Result<Value> {
    Ok(match u.int_in_range(0..=9)? {
        0 => edge(u)?,
        1 => near.wrapping_add(1).into(),
        2 => near.saturating_sub(1).into(),
        3 => near.wrapping_mul(2).into(),
        4 => 0.into(),
        _ => u.int_in_range(1..=9u64)?.into(),
    })
}

/// The text of a document.
pub(super) fn text(document: &Value) -> String {
    let escaped = format!("\"\\u{:04x}", u32::from(RAW));
    let written = document.to_string();
    let mut parts = written.split(escaped.as_str());
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |text, part| match part.split_once('"') {
        Some((number, rest)) => text + number + rest,
        None => text + part,
    })
}

/// The places of a document, as JSON pointers.
fn places(value: &Value) -> Vec<String> {
    fn collect(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_string());
        match value {
            Value::Array(items) => items.iter().enumerate().for_each(|(i, x)| collect(x, &format!("{at}/{i}"), found)),
            Value::Object(fields) => fields.iter().for_each(|(key, x)| {
                collect(x, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut found = Vec::new();
    collect(value, "", &mut found);
    found
}

/// Changes one place. `words` are names that mean something somewhere in such documents.
pub(super) fn mutate(u: &mut Unstructured<'_>, document: &mut Value, words: &[&str]) -> Result<()> {
    let places = places(document);
    let at = u.choose(&places)?.clone();
    let other = document.pointer(u.choose(&places)?).cloned().unwrap_or_default();
    let word = *u.choose(words)?;
    let kind = u.int_in_range(0..=15u8)?;
    let edge = edge(u)?;
    let deep = u.int_in_range(1..=300usize)?;
    let index = u.arbitrary::<u16>()? as usize;
    let Some(place) = document.pointer_mut(&at) else { return Ok(()) };
    match (kind, place) {
        (0..=3, place @ Value::Number(_)) | (0, place @ (Value::String(_) | Value::Bool(_) | Value::Null)) => {
            *place = edge;
        }
        (4, Value::Number(n)) => *n = n.as_i64().map_or(1, |n| n.wrapping_add(1)).into(),
        (5, Value::Number(n)) => *n = n.as_i64().map_or(-1, |n| n.wrapping_sub(1)).into(),
        (6, Value::Number(n)) => *n = n.as_i64().map_or(2, |n| n.wrapping_mul(2)).into(),
        (1..=6, Value::String(text)) => *text = word.into(),
        (1..=6, Value::Bool(flag)) => *flag = !*flag,
        (0..=3, Value::Array(items)) if !items.is_empty() => {
            let i = index % items.len();
            match kind {
                0 => drop(items.remove(i)),
                1 => items.insert(i, items[i].clone()),
                2 => items.swap(0, i),
                _ => items.truncate(i),
            }
        }
        (4..=6, Value::Array(items)) => items.push(if kind == 4 { edge } else { other }),
        (0..=3, Value::Object(fields)) if !fields.is_empty() => {
            let key = fields.keys().nth(index % fields.len()).cloned().unwrap_or_default();
            match kind {
                0 => drop(fields.remove(&key)),
                1 => drop(fields.insert(key, edge)),
                2 => drop(fields.insert(key, other)),
                _ => {
                    let moved = fields.remove(&key).unwrap_or_default();
                    fields.insert(word.into(), moved);
                }
            }
        }
        (4..=6, Value::Object(fields)) => drop(fields.insert(word.into(), if kind == 4 { edge } else { other })),
        (7, place) => {
            // Deeper than any reader takes, or nearly.
            let inner = place.take();
            *place = (0..deep).fold(inner, |inner, _| Value::Array(vec![inner]));
        }
        (8, place) => *place = Value::Object(Map::new()),
        (9, place) => *place = edge,
        (_, place) => *place = other,
    }
    Ok(())
}

/// Changes bytes, whatever they mean.
pub(super) fn garble(u: &mut Unstructured<'_>, bytes: &mut Vec<u8>) -> Result<()> {
    let (from, to) = (u.arbitrary::<u16>()? as usize, u.arbitrary::<u16>()? as usize);
    let (from, to) = (from % (bytes.len() + 1), to % (bytes.len() + 1));
    let (from, to) = (from.min(to), from.max(to));
    match u.int_in_range(0..=5u8)? {
        0 => bytes.truncate(to),
        1 => drop(bytes.drain(from..to.min(from + 8))),
        2 => {
            let copy = bytes[from..to.min(from + 64)].to_vec();
            bytes.splice(to..to, copy);
        }
        3 => bytes.insert(from, u.arbitrary()?),
        4 if from < bytes.len() => bytes[from] ^= 1 << u.int_in_range(0..=7u8)?,
        _ if from < bytes.len() => bytes[from] = *u.choose(b"{}[]\",:0-.eE\\ \x00\xff\xc3")?,
        _ => {}
    }
    Ok(())
}
