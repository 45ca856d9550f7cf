use super::real::{Real, round_to};
use crate::{DType, Data, Error, Result, Shape, Tensor};

/// A dense row-major array: what the reference computes with.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<T> {
    shape: Shape,
    data: Vec<T>,
}

impl<T: Copy> Array<T> {
    /// An array of this shape, its elements in row-major order.
    ///
    /// ```
    /// use tilewise::reference::Array;
    /// let x = Array::new([2, 2], vec![1.0, 2.0, 3.0, 4.0])?;
    /// assert_eq!(x.map(|x| 2.0 * x).data(), [2.0, 4.0, 6.0, 8.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the shape has another number of elements; as [`Shape::checked_elements`] if it has too many.
    pub fn new(shape: impl Into<Shape>, data: Vec<T>) -> Result<Self> {
        let shape = shape.into();
        if shape.checked_elements("array")? == data.len() {
            Ok(Array { shape, data })
        } else {
            Err(Error::op("array", format!("{} elements were given for shape {shape}", data.len())))
        }
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The elements.
    pub fn data(&self) -> &[T] {
        &self.data
    }

    /// The elements, moved out.
    pub fn into_data(self) -> Vec<T> {
        self.data
    }

    /// A function of each element.
    pub fn map<U: Copy>(&self, f: impl FnMut(T) -> U) -> Array<U> {
        Array { shape: self.shape.clone(), data: self.data.iter().copied().map(f).collect() }
    }

    /// The elements at these places, under this shape.
    pub(super) fn pick(&self, places: &[usize], shape: Shape) -> Self {
        Array { shape, data: places.iter().map(|&place| self.data[place]).collect() }
    }

    /// The elements read as `shape` by NumPy's broadcasting rule, which the caller has checked.
    pub(super) fn stretched(&self, shape: &Shape) -> Self {
        if self.shape == *shape { self.clone() } else { self.pick(&stretch(&self.shape, shape), shape.clone()) }
    }
}

/// The steps between neighbours along each axis of a dense row-major array.
pub(super) fn steps(shape: &[usize]) -> Vec<isize> {
    (0..shape.len()).map(|axis| shape[axis + 1..].iter().product::<usize>() as isize).collect()
}

/// The places that a walk over `sizes` with `steps` visits, in row-major order: `start + Σ i[axis]·steps[axis]`.
pub(super) fn walk(start: isize, sizes: &[usize], steps: &[isize]) -> Vec<usize> {
    if sizes.contains(&0) {
        return Vec::new();
    }
    let mut places = vec![start];
    for (&size, &step) in sizes.iter().zip(steps) {
        places = places.iter().flat_map(|&place| (0..size as isize).map(move |i| place + i * step)).collect();
    }
    places.into_iter().map(|place| place as usize).collect()
}

/// For each element of `to`, the place of the element of `from` that broadcasting puts there.
pub(super) fn stretch(from: &[usize], to: &[usize]) -> Vec<usize> {
    let new = to.len() - from.len();
    let mut strides = vec![0; to.len()];
    for (axis, step) in steps(from).into_iter().enumerate() {
        if from[axis] != 1 {
            strides[new + axis] = step;
        }
    }
    walk(0, to, &strides)
}

/// A value of a graph: floats in the arithmetic of the evaluation, all else exact.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<R> {
    /// [`DType::F32`], [`DType::F16`] or [`DType::BF16`], which `dtype` says.
    Float {
        /// The dtype in the graph.
        dtype: DType,
        /// The elements.
        array: Array<R>,
    },
    /// [`DType::I32`].
    I32(Array<i32>),
    /// [`DType::U32`].
    U32(Array<u32>),
    /// [`DType::Bool`].
    Bool(Array<bool>),
}

impl<R: Real> Value<R> {
    /// The dtype in the graph.
    pub fn dtype(&self) -> DType {
        match self {
            Value::Float { dtype, .. } => *dtype,
            Value::I32(_) => DType::I32,
            Value::U32(_) => DType::U32,
            Value::Bool(_) => DType::Bool,
        }
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        match self {
            Value::Float { array, .. } => array.shape(),
            Value::I32(array) => array.shape(),
            Value::U32(array) => array.shape(),
            Value::Bool(array) => array.shape(),
        }
    }

    /// The elements, if they are floats.
    pub fn floats(&self) -> Option<&Array<R>> {
        if let Value::Float { array, .. } = self { Some(array) } else { None }
    }

    /// The elements, if they are i32.
    pub fn i32s(&self) -> Option<&Array<i32>> {
        if let Value::I32(array) = self { Some(array) } else { None }
    }

    /// The elements, if they are u32.
    pub fn u32s(&self) -> Option<&Array<u32>> {
        if let Value::U32(array) = self { Some(array) } else { None }
    }

    /// The elements, if they are bool.
    pub fn bools(&self) -> Option<&Array<bool>> {
        if let Value::Bool(array) = self { Some(array) } else { None }
    }

    /// Every element as f64; true is 1.
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Value::Float { array, .. } => array.data.iter().map(|x| x.wide()).collect(),
            Value::I32(array) => array.data.iter().map(|&x| f64::from(x)).collect(),
            Value::U32(array) => array.data.iter().map(|&x| f64::from(x)).collect(),
            Value::Bool(array) => array.data.iter().map(|&x| f64::from(u8::from(x))).collect(),
        }
    }

    /// What is left once it is stored: floats in the arithmetic's own way, see [`Real::stored`].
    pub(super) fn stored(self) -> Self {
        match self {
            Value::Float { dtype, array } => Value::Float { dtype, array: array.map(|x| x.stored(dtype)) },
            exact @ (Value::I32(_) | Value::U32(_) | Value::Bool(_)) => exact,
        }
    }

    /// Numbers as a value of `dtype`: floats are rounded to it, integers truncate and saturate, anything but 0 is true.
    pub(crate) fn from_f64(dtype: DType, shape: Shape, data: &[f64]) -> Self {
        fn array<T>(shape: Shape, data: &[f64], f: impl Fn(f64) -> T) -> Array<T> {
            Array { shape, data: data.iter().map(|&x| f(x)).collect() }
        }
        match dtype {
            DType::I32 => Value::I32(array(shape, data, |x| x as i32)),
            DType::U32 => Value::U32(array(shape, data, |x| x as u32)),
            DType::Bool => Value::Bool(array(shape, data, |x| x != 0.0)),
            DType::F32 | DType::F16 | DType::BF16 => {
                Value::Float { dtype, array: array(shape, data, |x| R::of(round_to(x, dtype))) }
            }
        }
    }

    /// The elements, each rounded once to the dtype.
    ///
    /// ```
    /// use tilewise::{DType, reference::{Array, Value}};
    /// let x = Value::Float { dtype: DType::F16, array: Array::new([1], vec![1.0 / 3.0])? };
    /// assert_eq!(x.to_tensor()?.to_f64(), [0.333251953125]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// None: it returns a `Result` because [`Tensor::new`] does.
    pub fn to_tensor(&self) -> Result<Tensor> {
        let shape = self.shape().clone();
        match self {
            Value::I32(array) => Tensor::new(shape, array.data.clone()),
            Value::U32(array) => Tensor::new(shape, array.data.clone()),
            Value::Bool(array) => Tensor::new(shape, array.data.clone()),
            Value::Float { dtype, array } => {
                let rounded = array.data.iter().map(|x| round_to(x.wide(), *dtype));
                let wrong = || Error::dtype("reference", "floats", dtype, "f32, f16 or bf16");
                Tensor::new(shape, Data::floats(*dtype, rounded).ok_or_else(wrong)?)
            }
        }
    }
}

impl<R: Real> From<&Tensor> for Value<R> {
    fn from(tensor: &Tensor) -> Self {
        let shape = tensor.shape().clone();
        match tensor.data() {
            Data::I32(data) => Value::I32(Array { shape, data: data.clone() }),
            Data::U32(data) => Value::U32(Array { shape, data: data.clone() }),
            Data::Bool(data) => Value::Bool(Array { shape, data: data.clone() }),
            Data::F32(_) | Data::F16(_) | Data::BF16(_) => Value::Float {
                dtype: tensor.dtype(),
                array: Array { shape, data: tensor.to_f64().into_iter().map(R::of).collect() },
            },
        }
    }
}
