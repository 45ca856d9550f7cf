//! Named tensors in the [safetensors](https://huggingface.co/docs/safetensors) format: weights, inputs and results.
//!
//! F32, F16, BF16, I32, U32 and BOOL become the [`DType`] of that name; I64 becomes i32 if every element fits. Other types
//! are refused by name.
//!
//! ```
//! use std::collections::BTreeMap;
//! use tilewise::{Tensor, safetensors};
//! let weights = BTreeMap::from([("w".to_string(), Tensor::new([2], vec![1.0f32, 2.0])?)]);
//! let bytes = safetensors::to_bytes(&weights)?;
//! assert_eq!(safetensors::from_bytes(&bytes)?, weights);
//! # Ok::<(), tilewise::Error>(())
//! ```

use std::{borrow::Cow, collections::BTreeMap};

use ::safetensors::{Dtype, SafeTensors, View, tensor::TensorView};

use super::{DType, Tensor};
use crate::{Error, Result};

const WHAT: &str = "safetensors";

/// The tensors in the bytes of a file, by name.
///
/// ```
/// use std::collections::BTreeMap;
/// use tilewise::{Tensor, safetensors};
/// let bytes = safetensors::to_bytes(&BTreeMap::from([("w".to_string(), Tensor::scalar(2.0))]))?;
/// assert_eq!(safetensors::from_bytes(&bytes)?["w"].as_f32(), Some(&[2.0][..]));
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Format`] if the bytes are no file of this format, if a tensor has another type than those above, or if an
/// I64 element does not fit an i32.
pub fn from_bytes(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| Error::format(WHAT, e.to_string()))?;
    file.iter().map(|(name, view)| Ok((name.to_string(), tensor(name, &view)?))).collect()
}

/// The bytes of a file with these tensors.
///
/// ```
/// use std::collections::BTreeMap;
/// use tilewise::{Tensor, safetensors};
/// let bytes = safetensors::to_bytes(&BTreeMap::from([("w".to_string(), Tensor::scalar(2.0))]))?;
/// assert!(bytes.ends_with(&2.0f32.to_le_bytes()));
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Format`] if the header would be longer than the format allows.
pub fn to_bytes(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    ::safetensors::serialize(tensors, None).map_err(|e| Error::format(WHAT, e.to_string()))
}

/// The tensors in a file, by name.
///
/// ```
/// use tilewise::safetensors;
/// # let path = std::env::temp_dir().join(format!("tilewise-load-{}.safetensors", std::process::id()));
/// # safetensors::save(&path, &[("w".to_string(), tilewise::Tensor::scalar(2.0))].into())?;
/// let weights = safetensors::load(&path)?;
/// assert_eq!(weights["w"].as_f32(), Some(&[2.0][..]));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Format`], which names the file, if it can't be read, and as [`from_bytes`].
#[cfg(feature = "native")]
pub fn load(path: impl AsRef<std::path::Path>) -> Result<BTreeMap<String, Tensor>> {
    let path = path.as_ref();
    let what = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| Error::format(&what, format!("can't be read: {e}")))?;
    from_bytes(&bytes).map_err(|e| Error::format(what, e.to_string()))
}

/// Writes tensors to a file. A file of this name is replaced.
///
/// ```
/// use tilewise::{Tensor, safetensors};
/// # let path = std::env::temp_dir().join(format!("tilewise-save-{}.safetensors", std::process::id()));
/// safetensors::save(&path, &[("w".to_string(), Tensor::scalar(2.0))].into())?;
/// assert_eq!(safetensors::load(&path)?["w"], Tensor::scalar(2.0));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Format`], which names the file, if it can't be written, and as [`to_bytes`].
#[cfg(feature = "native")]
pub fn save(path: impl AsRef<std::path::Path>, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let path = path.as_ref();
    std::fs::write(path, to_bytes(tensors)?)
        .map_err(|e| Error::format(path.display().to_string(), format!("can't be written: {e}")))
}

fn tensor(name: &str, view: &TensorView<'_>) -> Result<Tensor> {
    decode(name, view.dtype(), view.shape(), view.data())
}

/// A tensor from its bytes in a file; `name` is for messages.
#[expect(clippy::wildcard_enum_match_arm, reason = "the format has more dtypes, and gets new ones")]
pub(crate) fn decode(name: &str, dtype: Dtype, shape: &[usize], data: &[u8]) -> Result<Tensor> {
    let fail = |message: String| Error::format(WHAT, format!("tensor `{name}`: {message}"));
    let dtype = match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I32 => DType::I32,
        Dtype::U32 => DType::U32,
        Dtype::BOOL => DType::Bool,
        Dtype::I64 => {
            let wide: Vec<i64> = bytemuck::pod_collect_to_vec(data);
            let narrow = wide
                .iter()
                .map(|&x| i32::try_from(x).map_err(|_| fail(format!("{x} does not fit i32, which I64 is read as"))));
            let narrow = narrow.collect::<Result<Vec<i32>>>()?;
            return Tensor::new(shape, narrow).map_err(|e| fail(e.to_string()));
        }
        other => return Err(fail(format!("{other} is not supported; convert it to F32, F16, BF16, I32, U32 or BOOL"))),
    };
    Tensor::from_bytes(dtype, shape, data).map_err(|e| fail(e.to_string()))
}

impl View for &Tensor {
    fn dtype(&self) -> Dtype {
        match Tensor::dtype(self) {
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            DType::I32 => Dtype::I32,
            DType::U32 => Dtype::U32,
            DType::Bool => Dtype::BOOL,
        }
    }

    fn shape(&self) -> &[usize] {
        Tensor::shape(self)
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.as_bytes())
    }

    fn data_len(&self) -> usize {
        self.as_bytes().len()
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn every_dtype_comes_back() {
        let tensors = [
            ("f32", Tensor::new([2, 1], vec![1.5f32, f32::NEG_INFINITY])),
            ("f16", Tensor::new([3], vec![f16::ONE, f16::MAX, f16::NEG_ONE])),
            ("bf16", Tensor::new([1], vec![bf16::PI])),
            ("i32", Tensor::new([2], vec![i32::MIN, 7])),
            ("u32", Tensor::new([], vec![u32::MAX])),
            ("bool", Tensor::new([3], vec![true, false, true])),
            ("empty", Tensor::zeros(DType::F16, [0, 4])),
        ];
        let tensors: BTreeMap<String, Tensor> =
            tensors.map(|(name, tensor)| (name.to_string(), tensor.expect("fits"))).into();
        assert_eq!(from_bytes(&to_bytes(&tensors).expect("writes")).expect("reads"), tensors);
    }

    fn file(dtype: Dtype, shape: &[usize], data: &[u8]) -> Vec<u8> {
        let view = TensorView::new(dtype, shape.to_vec(), data).expect("fits");
        ::safetensors::serialize([("x", view)], None).expect("writes")
    }

    #[test]
    fn i64_is_read_as_i32_if_it_fits() {
        let small = file(Dtype::I64, &[2], bytemuck::cast_slice(&[-3i64, 1 << 30]));
        assert_eq!(from_bytes(&small).expect("reads")["x"].as_i32(), Some(&[-3, 1 << 30][..]));
        let large = from_bytes(&file(Dtype::I64, &[1], bytemuck::cast_slice(&[1i64 << 31]))).expect_err("too large");
        assert_eq!(large.to_string(), "safetensors: tensor `x`: 2147483648 does not fit i32, which I64 is read as");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let double = from_bytes(&file(Dtype::F64, &[1], &[0; 8])).expect_err("not supported").to_string();
        assert!(double.contains("tensor `x`: F64 is not supported"), "{double}");
        let good = file(Dtype::F32, &[2], &[0; 8]);
        for broken in [&[][..], &good[..7], &good[..good.len() - 1], b"{\"not\": \"a safetensors file\"}"] {
            let message = from_bytes(broken).expect_err("malformed").to_string();
            assert!(message.starts_with("safetensors: "), "{message}");
        }
    }

    #[cfg(feature = "native")]
    #[test]
    fn a_missing_file_is_named() {
        let message = load("no/such/file.safetensors").expect_err("missing").to_string();
        assert!(message.starts_with("no/such/file.safetensors: can't be read: "), "{message}");
    }
}
