use std::sync::Arc;

use half::{bf16, f16};

use super::{DType, Shape};
use crate::{Error, Result};

/// A dense row-major tensor in host memory. Clones share the elements.
///
/// ```
/// use tilewise::Tensor;
/// let x = Tensor::new([2, 2], vec![1.0f32, 2.0, 3.0, 4.0])?;
/// assert_eq!(x.as_f32(), Some(&[1.0, 2.0, 3.0, 4.0][..]));
/// # Ok::<(), tilewise::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Shape,
    data: Arc<Data>,
}

/// The elements of a [`Tensor`].
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Elements of [`DType::F32`].
    F32(Vec<f32>),
    /// Elements of [`DType::F16`].
    F16(Vec<f16>),
    /// Elements of [`DType::BF16`].
    BF16(Vec<bf16>),
    /// Elements of [`DType::I32`].
    I32(Vec<i32>),
    /// Elements of [`DType::U32`].
    U32(Vec<u32>),
    /// Elements of [`DType::Bool`].
    Bool(Vec<bool>),
}

macro_rules! for_each {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            Data::F32($v) => $body,
            Data::F16($v) => $body,
            Data::BF16($v) => $body,
            Data::I32($v) => $body,
            Data::U32($v) => $body,
            Data::Bool($v) => $body,
        }
    };
}

impl Data {
    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Data::F32(_) => DType::F32,
            Data::F16(_) => DType::F16,
            Data::BF16(_) => DType::BF16,
            Data::I32(_) => DType::I32,
            Data::U32(_) => DType::U32,
            Data::Bool(_) => DType::Bool,
        }
    }

    /// Numbers in a float dtype, each rounded to it; `None` if the dtype is no float.
    pub(crate) fn floats(dtype: DType, numbers: impl Iterator<Item = f64>) -> Option<Self> {
        match dtype {
            DType::F32 => Some(Data::F32(numbers.map(|x| x as f32).collect())),
            DType::F16 => Some(Data::F16(numbers.map(f16::from_f64).collect())),
            DType::BF16 => Some(Data::BF16(numbers.map(bf16::from_f64).collect())),
            DType::I32 | DType::U32 | DType::Bool => None,
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        for_each!(self, v => v.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

macro_rules! from_vec {
    ($($t:ty => $variant:ident),*) => {$(
        impl From<Vec<$t>> for Data {
            fn from(v: Vec<$t>) -> Self {
                Data::$variant(v)
            }
        }
    )*};
}
from_vec!(f32 => F32, f16 => F16, bf16 => BF16, i32 => I32, u32 => U32, bool => Bool);

impl Tensor {
    /// A tensor of this shape, its elements in row-major order.
    ///
    /// ```
    /// use tilewise::{DType, Tensor};
    /// let x = Tensor::new([2, 3], vec![1i32, 2, 3, 4, 5, 6])?;
    /// assert_eq!((x.dtype(), x.len()), (DType::I32, 6));
    /// assert!(Tensor::new([2, 2], vec![1i32, 2, 3]).is_err());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the shape has another number of elements; as [`Shape::checked_elements`] if it has too many.
    pub fn new(shape: impl Into<Shape>, data: impl Into<Data>) -> Result<Self> {
        let (shape, data) = (shape.into(), data.into());
        if shape.checked_elements("tensor")? == data.len() {
            Ok(Tensor { shape, data: Arc::new(data) })
        } else {
            Err(Error::op("tensor", format!("{} elements were given for shape {shape}", data.len())))
        }
    }

    /// An f32 tensor of rank 0.
    pub fn scalar(value: f32) -> Self {
        Tensor { shape: Shape::default(), data: Arc::new(Data::F32(vec![value])) }
    }

    /// A tensor whose elements are all zero (or false).
    ///
    /// ```
    /// use tilewise::{DType, Tensor};
    /// let x = Tensor::zeros(DType::F16, [2, 2])?;
    /// assert_eq!(x.to_f64(), [0.0; 4]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Shape::checked_elements`] if the shape has too many elements; [`Error::Op`] if this machine can't address as
    /// many bytes.
    pub fn zeros(dtype: DType, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        let n = shape.checked_elements("tensor")?;
        addressed(dtype, &shape, n, isize::MAX as usize)?;
        let data = match dtype {
            DType::F32 => Data::F32(vec![0.0; n]),
            DType::F16 => Data::F16(vec![f16::ZERO; n]),
            DType::BF16 => Data::BF16(vec![bf16::ZERO; n]),
            DType::I32 => Data::I32(vec![0; n]),
            DType::U32 => Data::U32(vec![0; n]),
            DType::Bool => Data::Bool(vec![false; n]),
        };
        Ok(Tensor { shape, data: Arc::new(data) })
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// The elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements, moved out (copied if a clone shares them).
    pub fn into_data(self) -> Data {
        Arc::unwrap_or_clone(self.data)
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements, if they are f32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        if let Data::F32(v) = &*self.data { Some(v) } else { None }
    }

    /// The elements, if they are i32.
    pub fn as_i32(&self) -> Option<&[i32]> {
        if let Data::I32(v) = &*self.data { Some(v) } else { None }
    }

    /// The elements, if they are u32.
    pub fn as_u32(&self) -> Option<&[u32]> {
        if let Data::U32(v) = &*self.data { Some(v) } else { None }
    }

    /// The elements, if they are bool.
    pub fn as_bool(&self) -> Option<&[bool]> {
        if let Data::Bool(v) = &*self.data { Some(v) } else { None }
    }

    /// Every element as f64; true is 1. Exact for each dtype.
    pub fn to_f64(&self) -> Vec<f64> {
        match &*self.data {
            Data::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::F16(v) => v.iter().map(|x| x.to_f64()).collect(),
            Data::BF16(v) => v.iter().map(|x| x.to_f64()).collect(),
            Data::I32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::U32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
        }
    }

    /// The elements as raw bytes in the machine's order.
    pub fn as_bytes(&self) -> &[u8] {
        match &*self.data {
            Data::Bool(v) => bytemuck::cast_slice(v),
            Data::F32(v) => bytemuck::cast_slice(v),
            Data::F16(v) => bytemuck::cast_slice(v),
            Data::BF16(v) => bytemuck::cast_slice(v),
            Data::I32(v) => bytemuck::cast_slice(v),
            Data::U32(v) => bytemuck::cast_slice(v),
        }
    }

    /// A tensor from raw bytes in the machine's order. `bytes` may be longer than the elements; of a bool every byte
    /// but 0 is true.
    ///
    /// ```
    /// use tilewise::{DType, Tensor};
    /// let x = Tensor::from_bytes(DType::U32, [2], &[7u32, 8, 9].map(u32::to_ne_bytes).concat())?;
    /// assert_eq!(x.as_u32(), Some(&[7, 8][..]));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if there are fewer bytes than the elements take; as [`Shape::checked_elements`] if the shape has too
    /// many.
    pub fn from_bytes(dtype: DType, shape: impl Into<Shape>, bytes: &[u8]) -> Result<Self> {
        let shape = shape.into();
        let n = shape.checked_elements("tensor")?;
        let need = addressed(dtype, &shape, n, isize::MAX as usize)?;
        let Some(bytes) = bytes.get(..need) else {
            return Err(Error::op("tensor", format!("{dtype} {shape} needs {need} bytes, {} were given", bytes.len())));
        };
        let data = match dtype {
            DType::F32 => Data::F32(bytemuck::pod_collect_to_vec(bytes)),
            DType::F16 => Data::F16(bytemuck::pod_collect_to_vec(bytes)),
            DType::BF16 => Data::BF16(bytemuck::pod_collect_to_vec(bytes)),
            DType::I32 => Data::I32(bytemuck::pod_collect_to_vec(bytes)),
            DType::U32 => Data::U32(bytemuck::pod_collect_to_vec(bytes)),
            DType::Bool => Data::Bool(bytes.iter().map(|&b| b != 0).collect()),
        };
        Ok(Tensor { shape, data: Arc::new(data) })
    }

    /// The same elements in the same order under another shape.
    ///
    /// ```
    /// use tilewise::Tensor;
    /// let x = Tensor::new([6], vec![1.0f32; 6])?.reshaped([2, 3])?;
    /// assert_eq!(x.shape(), &[2, 3].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the new shape has another number of elements.
    pub fn reshaped(self, shape: impl Into<Shape>) -> Result<Self> {
        Tensor::new(shape, self.into_data())
    }
}

/// The bytes of `n` elements, if a machine that can address `most` can hold them: one of 32 bits has not room for all that 32-bit
/// indices can tell apart.
fn addressed(dtype: DType, shape: &Shape, n: usize, most: usize) -> Result<usize> {
    n.checked_mul(dtype.bytes()).filter(|&bytes| bytes <= most).ok_or_else(|| {
        let bytes = n as u64 * dtype.bytes() as u64;
        Error::op("tensor", format!("{dtype} {shape} takes {bytes} bytes, this machine can address {most}: split it"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_for_machines_of_32_bits_too() {
        let shape = Shape::from([1 << 30]);
        assert_eq!(addressed(DType::Bool, &shape, 1 << 30, i32::MAX as usize).expect("fits"), 1 << 30);
        assert_eq!(
            addressed(DType::F32, &shape, 1 << 30, i32::MAX as usize).expect_err("2^32 bytes").to_string(),
            "tensor: f32 [1073741824] takes 4294967296 bytes, this machine can address 2147483647: split it"
        );
    }

    #[test]
    fn axes_beside_an_empty_one_count() {
        for (shape, expected) in [
            (
                vec![0, 1 << 31],
                "tensor: elements of [0, 2147483648] beside its empty axes (indices are 32-bit): 2147483648 is \
              over the limit of 2147483647; split the tensor",
            ),
            (
                vec![1 << 40, 0, 1 << 40],
                "tensor: [1099511627776, 0, 1099511627776] has more elements beside its empty axes \
              than can be counted; the limit is 2147483647 (indices are 32-bit)",
            ),
        ] {
            let error = Tensor::new(shape.clone(), Data::F32(vec![])).expect_err("too large");
            assert_eq!(error.to_string(), expected);
            Tensor::zeros(DType::F32, shape.clone()).expect_err("too large");
            Tensor::from_bytes(DType::F32, shape, &[]).expect_err("too large");
        }
        Tensor::new([0, i32::MAX as usize], Data::F32(vec![])).expect("no axis is too large");
    }
}
