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

/// The key of the header that is no tensor.
const METADATA: &str = "__metadata__";

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
    check_head(bytes, bytes.len() as u64).map_err(|message| Error::format(WHAT, message))?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| Error::format(WHAT, damaged(&e)))?;
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
/// [`Error::Format`] if the header would be longer than the format allows; as [`check_names`].
pub fn to_bytes(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    check_names(tensors.keys().map(String::as_str))?;
    ::safetensors::serialize(tensors, None).map_err(|e| Error::format(WHAT, e.to_string()))
}

/// Whether tensors of these names can be in a file: to be asked before they are computed.
///
/// ```
/// use tilewise::safetensors;
/// assert!(safetensors::check_names(["y", "loss"]).is_ok());
/// assert!(safetensors::check_names(["y", "__metadata__"]).is_err());
/// ```
///
/// # Errors
/// [`Error::Format`] for the name that the format has for itself.
pub fn check_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<()> {
    match names.into_iter().find(|name| *name == METADATA) {
        None => Ok(()),
        Some(_) => Err(Error::format(
            WHAT,
            format!("a tensor can't be called `{METADATA}`, which the format has for itself: give it another name"),
        )),
    }
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

/// Writes tensors to a file. A file of this name is replaced when all is written ([`files::write`](crate::files::write)).
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
    let bytes = to_bytes(tensors)?;
    crate::files::write(path, &bytes)
}

/// An error if a file that begins so, and has so many bytes, has no header of this format. Of other formats it says how to
/// convert them.
pub(crate) fn check_head(head: &[u8], bytes: u64) -> Result<(), String> {
    let fault = |message: String| Err(other_format(head).unwrap_or(message));
    let Some(length) = head.first_chunk::<8>() else {
        return fault(format!("{bytes} bytes are no safetensors file: the length of its header alone has 8"));
    };
    let length = u64::from_le_bytes(*length);
    if length > bytes.saturating_sub(8) {
        return fault(format!(
            "no safetensors file, or one that is cut off: its header would have {length} bytes, and the file has {bytes}"
        ));
    }
    match head.get(8) {
        Some(b'{') => Ok(()),
        _ => fault("no safetensors file: its header is no JSON object".into()),
    }
}

/// What a file of another format is, by how it begins, and what to do with it.
fn other_format(head: &[u8]) -> Option<String> {
    const TORCH: &str = "convert it in Python: safetensors.torch.save_file(torch.load(\"x.pt\", weights_only=True), \
                         \"x.safetensors\")";
    let (what, then) = match head {
        [b'P', b'K', 3 | 5, 4 | 6, ..] => ("a zip archive, as torch.save writes (.pt, .pth, .bin)", TORCH),
        [0x80, 2..=5, ..] => ("a pickle, as old versions of torch.save wrote (.pt, .pth, .bin)", TORCH),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => (
            "an array of NumPy (.npy)",
            "convert it in Python: safetensors.numpy.save_file({\"x\": numpy.load(\"x.npy\")}, \"x.safetensors\")",
        ),
        [0x89, b'H', b'D', b'F', ..] => (
            "an HDF5 file, as Keras writes (.h5)",
            "load it in Python, and save its arrays by safetensors.numpy.save_file",
        ),
        [b'G', b'G', b'U', b'F', ..] => {
            ("a GGUF file, as llama.cpp reads", "take the safetensors files of the model that it was made from")
        }
        head if head.starts_with(b"version https://git-lfs") => {
            ("a pointer of Git LFS in the place of the file", "fetch the file by git lfs pull")
        }
        [b'<', ..] => ("a web page", "the download did not give the file: fetch it again"),
        [b'{' | b'[', ..] => {
            ("JSON text", "tensors are in .safetensors files; an index of them has a name that ends in .json")
        }
        _ => return None,
    };
    Some(format!("this is {what}, no safetensors file: {then}"))
}

/// What the reader of the format says of a file whose header is there.
fn damaged(error: &::safetensors::SafeTensorError) -> String {
    format!("the file is damaged: {error}")
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

    /// Files that people give in the place of safetensors, and what they are told.
    #[test]
    fn other_formats_are_named_with_a_way_out() {
        let torch = "convert it in Python: safetensors.torch.save_file(torch.load(\"x.pt\", weights_only=True), \
                     \"x.safetensors\")";
        for (bytes, expected) in [
            (
                &b"PK\x03\x04\0\0\x08\x08\0\0"[..],
                format!("this is a zip archive, as torch.save writes (.pt, .pth, .bin), no safetensors file: {torch}"),
            ),
            (
                b"\x80\x02\x8a\nl\xfc\x9c\x46\xf9",
                format!("this is a pickle, as old versions of torch.save wrote (.pt, .pth, .bin), no safetensors file: {torch}"),
            ),
            (
                b"{\"nodes\": [], \"outputs\": []}",
                "this is JSON text, no safetensors file: tensors are in .safetensors files; an index of them has a name that ends \
                 in .json"
                    .into(),
            ),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
                "this is a pointer of Git LFS in the place of the file, no safetensors file: fetch the file by git lfs pull".into(),
            ),
            (
                b"GGUF\x03\0\0\0\0\0",
                "this is a GGUF file, as llama.cpp reads, no safetensors file: take the safetensors files of the model that it was \
                 made from"
                    .into(),
            ),
            (b"junk", "4 bytes are no safetensors file: the length of its header alone has 8".into()),
            (
                b"\xff\0\0\0\0\0\0\0{}",
                "no safetensors file, or one that is cut off: its header would have 255 bytes, and the file has 10".into(),
            ),
            (b"\x02\0\0\0\0\0\0\0xx", "no safetensors file: its header is no JSON object".into()),
        ] {
            let message = from_bytes(bytes).expect_err(&expected).to_string();
            assert_eq!(message, format!("safetensors: {expected}"));
        }
    }

    #[test]
    fn names_of_the_format_are_refused() {
        let error = to_bytes(&[("__metadata__".to_string(), Tensor::scalar(1.0))].into()).expect_err("reserved");
        assert_eq!(
            error.to_string(),
            "safetensors: a tensor can't be called `__metadata__`, which the format has for itself: give it another name"
        );
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
