//! Tensors as JSON: `{"dtype": "f32", "shape": [2], "data": [1.5, "-inf"]}`.
//!
//! JSON has no number for ±inf and NaN; they are the strings `"inf"`, `"-inf"` and `"NaN"`.

use half::{bf16, f16};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeStruct};

use super::{DType, Data, Shape, Tensor};
use crate::{Error, Result};

/// One element as it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "an element is a number, true, false, \"inf\", \"-inf\" or \"NaN\"")]
enum Element {
    Bool(bool),
    Number(f64),
    Text(String),
}

impl Element {
    fn from_f64(x: f64) -> Self {
        match x {
            f64::INFINITY => Element::Text("inf".into()),
            f64::NEG_INFINITY => Element::Text("-inf".into()),
            x if x.is_nan() => Element::Text("NaN".into()),
            x => Element::Number(x),
        }
    }

    /// Through the shortest decimal, so that 0.1 stands there as 0.1, unless rounding twice would lose it.
    fn from_f32(x: f32) -> Self {
        match x.to_string().parse::<f64>() {
            Ok(short) if short as f32 == x => Element::from_f64(short),
            _ => Element::from_f64(f64::from(x)),
        }
    }

    fn to_f64(&self) -> Result<f64, String> {
        match self {
            Element::Number(x) => Ok(*x),
            Element::Bool(x) => Err(format!("{x} is no number")),
            Element::Text(text) => match text.as_str() {
                "inf" => Ok(f64::INFINITY),
                "-inf" => Ok(f64::NEG_INFINITY),
                "NaN" => Ok(f64::NAN),
                _ => Err(format!("`{text}` is no number; as text only inf, -inf and NaN are")),
            },
        }
    }

    fn to_float<T>(&self, dtype: DType, convert: fn(f64) -> T, back: fn(&T) -> f64) -> Result<T, String> {
        let wide = self.to_f64()?;
        let narrow = convert(wide);
        if wide.is_finite() && back(&narrow).is_infinite() {
            return Err(format!("{wide:e} is too large for {dtype}"));
        }
        Ok(narrow)
    }

    fn to_integer(&self, dtype: DType, range: (f64, f64)) -> Result<f64, String> {
        let x = self.to_f64()?;
        if x.fract() == 0.0 && (range.0..=range.1).contains(&x) { Ok(x) } else { Err(format!("{x} is no {dtype}")) }
    }

    fn to_bool(&self) -> Result<bool, String> {
        match self {
            Element::Bool(x) => Ok(*x),
            Element::Number(x) => Err(format!("{x} is no bool; expected true or false")),
            Element::Text(text) => Err(format!("`{text}` is no bool; expected true or false")),
        }
    }
}

/// An `f64` field that may be infinite or NaN, for `#[serde(with = …)]`.
pub(crate) mod number {
    use super::{Deserialize, Deserializer, Element, Serialize, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(x: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        Element::from_f64(*x).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Element::deserialize(deserializer)?.to_f64().map_err(de::Error::custom)
    }
}

impl Serialize for Tensor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let elements: Vec<Element> = match self.data() {
            Data::F32(v) => v.iter().map(|&x| Element::from_f32(x)).collect(),
            Data::Bool(v) => v.iter().map(|&x| Element::Bool(x)).collect(),
            Data::I32(v) => return self.form(serializer, v),
            Data::U32(v) => return self.form(serializer, v),
            Data::F16(_) | Data::BF16(_) => self.to_f64().into_iter().map(Element::from_f64).collect(),
        };
        self.form(serializer, &elements)
    }
}

impl Tensor {
    fn form<S: Serializer>(&self, serializer: S, elements: &impl Serialize) -> Result<S::Ok, S::Error> {
        let mut form = serializer.serialize_struct("Tensor", 3)?;
        form.serialize_field("dtype", &self.dtype())?;
        form.serialize_field("shape", self.shape())?;
        form.serialize_field("data", elements)?;
        form.end()
    }
}

impl<'de> Deserialize<'de> for Tensor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Form {
            dtype: DType,
            shape: Shape,
            data: Vec<Element>,
        }
        let Form { dtype, shape, data } = Form::deserialize(deserializer)?;
        let data = elements(dtype, &data).map_err(de::Error::custom)?;
        Tensor::new(shape, data).map_err(de::Error::custom)
    }
}

fn elements(dtype: DType, data: &[Element]) -> Result<Data> {
    fn all<T>(data: &[Element], each: impl Fn(&Element) -> Result<T, String>) -> Result<Vec<T>> {
        data.iter()
            .enumerate()
            .map(|(i, element)| each(element).map_err(|why| Error::op("tensor", format!("element {i}: {why}"))))
            .collect()
    }
    Ok(match dtype {
        DType::F32 => all(data, |x| x.to_float(dtype, |x| x as f32, |&x| f64::from(x)))?.into(),
        DType::F16 => all(data, |x| x.to_float(dtype, f16::from_f64, |x| x.to_f64()))?.into(),
        DType::BF16 => all(data, |x| x.to_float(dtype, bf16::from_f64, |x| x.to_f64()))?.into(),
        DType::I32 => {
            all(data, |x| Ok(x.to_integer(dtype, (f64::from(i32::MIN), f64::from(i32::MAX)))? as i32))?.into()
        }
        DType::U32 => all(data, |x| Ok(x.to_integer(dtype, (0.0, f64::from(u32::MAX)))? as u32))?.into(),
        DType::Bool => all(data, Element::to_bool)?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_has_no_number_for_survives() {
        let x = Tensor::new([5], vec![0.1f32, -0.0, f32::INFINITY, f32::NEG_INFINITY, 1.5e4]).expect("fits");
        let text = serde_json::to_string(&x).expect("writes");
        assert_eq!(text, r#"{"dtype":"f32","shape":[5],"data":[0.1,-0.0,"inf","-inf",15000.0]}"#);
        let back: Tensor = serde_json::from_str(&text).expect("reads");
        assert_eq!(back.as_bytes(), x.as_bytes());
        let nan: Tensor = serde_json::from_str(r#"{"dtype":"bf16","shape":[1],"data":["NaN"]}"#).expect("reads");
        assert!(nan.to_f64()[0].is_nan());
    }

    #[test]
    fn elements_that_do_not_fit_are_named() {
        for (text, expected) in [
            (r#"{"dtype":"f32","shape":[2],"data":[1, 1e39]}"#, "element 1: 1e39 is too large for f32"),
            (r#"{"dtype":"f16","shape":[1],"data":[65520]}"#, "too large for f16"),
            (r#"{"dtype":"f32","shape":[1],"data":["Inf"]}"#, "`Inf` is no number"),
            (r#"{"dtype":"i32","shape":[1],"data":[1.5]}"#, "1.5 is no i32"),
            (r#"{"dtype":"u32","shape":[1],"data":[-1]}"#, "-1 is no u32"),
            (r#"{"dtype":"bool","shape":[1],"data":[1]}"#, "1 is no bool"),
            (r#"{"dtype":"bool","shape":[1],"data":[null]}"#, "an element is a number"),
            (r#"{"dtype":"f64","shape":[1],"data":[1]}"#, "unknown variant `f64`"),
            (r#"{"dtype":"f32","shape":[2],"data":[1]}"#, "1 elements were given for shape [2]"),
            (r#"{"dtype":"f32","shape":[0],"data":[],"name":"x"}"#, "unknown field `name`"),
        ] {
            let message = serde_json::from_str::<Tensor>(text).expect_err(text).to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
