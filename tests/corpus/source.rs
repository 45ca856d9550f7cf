use std::{collections::BTreeMap, path::Path};

use safetensors::{Dtype, SafeTensors};
use tilewise::{DType, Shape, Tensor};

/// A tensor of a case file, in any dtype.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    dtype: Dtype,
    shape: Shape,
    bytes: Vec<u8>,
}

impl Source {
    /// Every tensor of a file.
    pub(crate) fn read(path: &Path) -> Result<BTreeMap<String, Source>, String> {
        let fail = |e: String| format!("{}: {e}", path.display());
        let bytes = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| fail(e.to_string()))?;
        let all = file.iter().map(|(name, view)| {
            let source = Source { dtype: view.dtype(), shape: view.shape().into(), bytes: view.data().to_vec() };
            (name.to_string(), source)
        });
        Ok(all.collect())
    }

    /// The name of the dtype as NumPy and ONNX have it.
    pub(crate) fn dtype_name(&self) -> &'static str {
        match self.dtype {
            Dtype::F32 => "float32",
            Dtype::F16 => "float16",
            Dtype::BF16 => "bfloat16",
            Dtype::F64 => "float64",
            Dtype::I8 => "int8",
            Dtype::I16 => "int16",
            Dtype::I32 => "int32",
            Dtype::I64 => "int64",
            Dtype::U8 => "uint8",
            Dtype::U16 => "uint16",
            Dtype::U32 => "uint32",
            Dtype::U64 => "uint64",
            Dtype::BOOL => "bool",
            _ => "another dtype",
        }
    }

    pub(crate) fn is_integer(&self) -> bool {
        matches!(self.dtype, Dtype::I32 | Dtype::I64)
    }

    /// As data of a graph, if the graph has the dtype.
    pub(crate) fn tensor(&self) -> Option<Tensor> {
        let dtype = match self.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::I32 => DType::I32,
            Dtype::U32 => DType::U32,
            Dtype::BOOL => DType::Bool,
            _ => return None,
        };
        Tensor::from_bytes(dtype, &self.shape, &self.bytes).ok()
    }

    /// As integers, if it holds i32 or i64.
    pub(crate) fn integers(&self) -> Option<Vec<i64>> {
        match self.dtype {
            Dtype::I64 => {
                Some(self.bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("8"))).collect())
            }
            Dtype::I32 => Some(self.tensor()?.as_i32()?.iter().map(|&x| x.into()).collect()),
            _ => None,
        }
    }

    /// As i32, if it holds i32, or i64 that all fit: indices, lengths and positions.
    pub(crate) fn index(&self) -> Option<Tensor> {
        let narrow: Result<Vec<i32>, _> = self.integers()?.into_iter().map(i32::try_from).collect();
        Tensor::new(&self.shape, narrow.ok()?).ok()
    }
}
