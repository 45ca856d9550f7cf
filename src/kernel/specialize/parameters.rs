//! The parameters of a kernel, by the names that its shader gives them.

use std::borrow::Cow;

use crate::{Error, Result};

/// Values for the fields of a shader's `Params`, by name.
///
/// [`Source::words`](super::Source::words) puts them in the shader's order. A field that stands in a region that is off is
/// left out; a name that the shader doesn't have, a field without a value, and a name that is set twice are errors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    values: Vec<(Cow<'static, str>, Value)>,
}

/// A value of a field.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    U32(u32),
    I32(i32),
    F32(f32),
    /// Of an array, whole vectors of four.
    Words(Vec<u32>),
}

/// A number that a field can have, with the field's type.
///
/// Sizes are checked to have 32 bits before. Strides become `u32`: indices are sums modulo 2³², so that negative ones need
/// no sign.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scalar(ScalarValue);

#[derive(Clone, Copy, Debug, PartialEq)]
enum ScalarValue {
    U32(u32),
    I32(i32),
    F32(f32),
}

impl From<u32> for Scalar {
    fn from(value: u32) -> Self {
        Scalar(ScalarValue::U32(value))
    }
}

impl From<usize> for Scalar {
    fn from(value: usize) -> Self {
        Scalar(ScalarValue::U32(value as u32))
    }
}

impl From<isize> for Scalar {
    fn from(value: isize) -> Self {
        Scalar(ScalarValue::U32(value as u32))
    }
}

impl From<bool> for Scalar {
    fn from(value: bool) -> Self {
        Scalar(ScalarValue::U32(value.into()))
    }
}

impl From<i32> for Scalar {
    fn from(value: i32) -> Self {
        Scalar(ScalarValue::I32(value))
    }
}

impl From<f32> for Scalar {
    fn from(value: f32) -> Self {
        Scalar(ScalarValue::F32(value))
    }
}

impl Parameters {
    /// No values yet.
    pub fn new() -> Self {
        Parameters::default()
    }

    /// Sets a field of type `u32` (sizes, strides, flags), `i32` or `f32`.
    #[must_use]
    pub fn set(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Scalar>) -> Self {
        let value = match value.into().0 {
            ScalarValue::U32(value) => Value::U32(value),
            ScalarValue::I32(value) => Value::I32(value),
            ScalarValue::F32(value) => Value::F32(value),
        };
        self.values.push((name.into(), value));
        self
    }

    /// Sets a field of type `array<vec4<u32>, N>`: 4·N words.
    #[must_use]
    pub fn set_words(mut self, name: impl Into<Cow<'static, str>>, words: Vec<u32>) -> Self {
        self.values.push((name.into(), Value::Words(words)));
        self
    }

    /// These and others.
    #[must_use]
    pub fn and(mut self, others: Parameters) -> Self {
        self.values.extend(others.values);
        self
    }
}

/// The field that says where a dispatch begins, in workgroups. It is 0 unless long work was cut
/// ([`Launch::cut`](crate::kernel::Launch::cut)), so nobody sets it by name.
const FIRST_GROUP: &str = "first_group";

/// The fields of a shader's `Params`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Fields {
    present: Vec<Field>,
    /// Names of those that stand in regions that are off.
    absent: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Field {
    name: String,
    ty: String,
}

impl Fields {
    /// Takes note of a line between `struct Params {` and `}`.
    pub(super) fn note(&mut self, line: &str, live: bool) {
        let code = line.split("//").next().unwrap_or_default().trim().trim_end_matches(',');
        let Some((name, ty)) = code.split_once(':') else { return };
        let name = name.trim().to_string();
        match live {
            true => self.present.push(Field { name, ty: ty.trim().into() }),
            false => self.absent.push(name),
        }
    }

    /// The word of the uniform block that says where a dispatch begins, if the shader asks for it.
    pub(super) fn first_group(&self) -> Option<usize> {
        // Fields of more than a word come last.
        self.present.iter().position(|field| field.name == FIRST_GROUP && field.ty == "u32")
    }

    /// The values as the words of the uniform block.
    pub(super) fn words(&self, kernel: &str, parameters: &Parameters) -> Result<Vec<u32>> {
        let error = |message: String| Err(Error::Shader { kernel: kernel.into(), message });
        let values = &parameters.values;
        let mut taken = vec![false; values.len()];
        let mut words = Vec::with_capacity(values.len());
        // Values mostly come in the order of the fields.
        let mut next = 0;
        for field in &self.present {
            if field.name == FIRST_GROUP {
                words.push(0);
                continue;
            }
            let found = (next..values.len()).chain(0..next).find(|&at| values[at].0 == field.name);
            let Some(at) = found else {
                return error(format!("the parameter `{}` has no value", field.name));
            };
            (taken[at], next) = (true, at + 1);
            match (&values[at].1, field.ty.as_str()) {
                (Value::U32(value), "u32") => words.push(*value),
                (Value::I32(value), "i32") => words.push(*value as u32),
                (Value::F32(value), "f32") => words.push(value.to_bits()),
                (Value::Words(values), ty) if ty.starts_with("array<vec4<u32>") => {
                    // A vector begins at 16 bytes.
                    words.resize(words.len().next_multiple_of(4), 0);
                    words.extend(values);
                }
                (value, ty) => {
                    return error(format!("the parameter `{}` is {ty}, and was given {value:?}", field.name));
                }
            }
        }
        let left = values.iter().zip(&taken).filter(|(_, taken)| !**taken).map(|((name, _), _)| name);
        for name in left {
            if name == FIRST_GROUP {
                return error(format!("the parameter `{name}` is set where a dispatch is cut, and not by name"));
            }
            if self.present.iter().any(|field| field.name == **name) {
                return error(format!("the parameter `{name}` is set twice"));
            }
            if !self.absent.iter().any(|absent| absent == name) {
                return error(format!("there is no parameter `{name}`"));
            }
        }
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        let mut fields = Fields::default();
        fields.note("  rows: u32, // R", true);
        fields.note("  // A comment: nothing.", true);
        fields.note("  scale: f32,", true);
        fields.note("  offset: i32,", true);
        fields.note("  mask_offset: u32,", false);
        fields.note("  words: array<vec4<u32>, WORDS>,", true);
        fields
    }

    #[test]
    fn values_are_put_in_the_order_of_the_fields() {
        let given = Parameters::new()
            .set("offset", -1)
            .set("scale", 1.0f32)
            .set("mask_offset", 3usize)
            .set("rows", 7usize)
            .set_words("words", vec![1, 2, 3, 4]);
        let words = fields().words("t", &given).expect("all are there");
        assert_eq!(words, [7, 1.0f32.to_bits(), u32::MAX, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_dispatch_begins_at_workgroup_0_and_nobody_says_so() {
        let mut fields = fields();
        assert_eq!(fields.first_group(), None);
        fields.present.insert(1, Field { name: FIRST_GROUP.into(), ty: "u32".into() });
        assert_eq!(fields.first_group(), Some(1));
        let given = || {
            Parameters::new().set("rows", 7usize).set("scale", 1.0f32).set("offset", 3).set_words("words", vec![9; 4])
        };
        let words = fields.words("t", &given()).expect("all are there");
        assert_eq!(words[..4], [7, 0, 1.0f32.to_bits(), 3]);
        let error = fields.words("t", &given().set(FIRST_GROUP, 0usize)).expect_err("must be refused");
        assert_eq!(
            error.to_string(),
            "shader t: the parameter `first_group` is set where a dispatch is cut, and not by name"
        );
    }

    #[test]
    fn unknown_missing_repeated_and_mistyped_are_errors() {
        let all = || {
            Parameters::new().set("rows", 7usize).set("scale", 1.0f32).set("offset", 0).set_words("words", vec![0; 4])
        };
        let message = |given: &Parameters| fields().words("t", given).expect_err("must be refused").to_string();
        assert!(fields().words("t", &all()).is_ok());
        assert_eq!(message(&all().set("row", 1usize)), "shader t: there is no parameter `row`");
        assert_eq!(message(&all().set("rows", 1usize)), "shader t: the parameter `rows` is set twice");
        let none = Parameters::new();
        assert_eq!(message(&none), "shader t: the parameter `rows` has no value");
        let mistyped = Parameters::new().set("rows", -1);
        assert_eq!(message(&mistyped), "shader t: the parameter `rows` is u32, and was given I32(-1)");
    }
}
