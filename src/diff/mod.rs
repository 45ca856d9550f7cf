//! Floor 7: finds where your own implementation first departs, and which mistake gives its numbers.
//!
//! A [`Diff`] takes a graph, its inputs and parameters, and the results of another implementation for some of the graph's
//! values (a *dump*). It walks through the values in order, and compares each twice:
//!
//! - **overall**, with the graph's result from the inputs: here errors add up;
//! - **alone**, with the graph's result *from their values* just before it: this shows which step is wrong. One mistake does not
//!   mask the next, because each step starts from their values.
//!
//! Where a value departs alone, hypotheses are tested: each is the same part of the graph with one common mistake (mask inverted,
//! heads not transposed back, keys from the wrong sequence, …), run in the reference on their values. The report names a
//! hypothesis only if it brings the error down to rounding. If several do, it names all; if none does, it says where the
//! difference is, and how large.
//!
//! Values are found by their traces ([`Graph::trace`]; the layers of [`nn`](crate::nn) leave PyTorch's module paths), names or
//! outputs. Attention is written out here, so a dump may also have `scores`, `masked_scores` and `weights` under the
//! path of an attention.
//!
//! ```
//! use std::collections::BTreeMap;
//! use tilewise::{DType, Graph, Tensor, diff::{Diff, Verdict}};
//! let mut g = Graph::new();
//! let x = g.input("x", DType::F32, [4])?;
//! let y = g.gelu(x)?;
//! g.output("y", y)?;
//! let x = Tensor::new([4], vec![-1.0f32, 0.5, 1.0, 2.0])?;
//! let theirs = Tensor::new([4], vec![0.0f32, 0.5, 1.0, 2.0])?; // somebody's relu
//! let given = BTreeMap::from([("x".to_string(), x)]);
//! let dump = BTreeMap::from([("y".to_string(), theirs)]);
//! let report = Diff::new(&g, &given, &dump).run()?;
//! let departed = report.first_departure().expect("relu is not gelu");
//! assert_eq!(departed.verdict, Verdict::Departs);
//! assert_eq!(departed.finding.as_ref().map(|f| f.fits[0].name.as_str()), Some("relu instead of gelu (erf)"));
//! # Ok::<(), tilewise::Error>(())
//! ```

mod dump;
mod expand;
mod hypotheses;
mod investigate;
mod measure;
mod model;
mod names;
mod rebuild;
mod visible;
mod walk;

use std::collections::BTreeMap;

pub use dump::{check_given, rename};
pub use model::{ActivationKind, Model, ModelKind};
use serde::Serialize;

use crate::{DType, Graph, Shape, Tensor};

/// A comparison to be made; see the [module](self).
#[derive(Clone, Debug)]
pub struct Diff<'a> {
    /// What should be computed.
    pub graph: &'a Graph,
    /// The graph's inputs and parameters; there may be more.
    pub given: &'a BTreeMap<String, Tensor>,
    /// What the other implementation gave, by name.
    pub theirs: &'a BTreeMap<String, Tensor>,
    /// What a device gave, by the same names: taken for the overall comparison instead of the reference.
    pub device: Option<&'a BTreeMap<String, Tensor>>,
    /// What is allowed, relative to the peak of a value. Without it: what is natural for the dtype of the dump and the
    /// depth of the graph, `√depth · (16·u + 4·√K·2⁻²⁴)`, where u is half the spacing of the dtype at 1 and K the
    /// longest sum; or four times the error of a plain f32 evaluation, if that is more.
    pub tolerance: Option<f64>,
    /// Rows that are padding: what differs there only is no departure.
    pub padding: &'a [Padding],
    /// Whether departures are investigated.
    pub hypotheses: bool,
}

/// Which rows of values are padding.
#[derive(Clone, Debug, PartialEq)]
pub struct Padding {
    /// The input that says so.
    pub name: String,
    /// For values whose path begins with this.
    pub prefix: String,
    /// Items and positions.
    pub sizes: [usize; 2],
    /// `[B, T]`: true = padding.
    pub rows: Vec<bool>,
    /// Values are `[B, T, …]`; otherwise `[T, B, …]`.
    pub batch_first: bool,
}

/// What the walk found, value by value.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The values that both sides have, in an order of execution.
    pub points: Vec<Point>,
    /// Names of the dump that the graph does not know, each with the nearest that it knows.
    pub unknown: Vec<(String, Vec<String>)>,
    /// Values of the graph that the dump does not have.
    pub missing: Vec<String>,
    /// What is odd about the masks that were given: they are taken as they are.
    pub warnings: Vec<String>,
    /// The least precise dtype in the dump, from which the tolerance comes.
    #[serde(serialize_with = "dtype")]
    pub dtype: DType,
}

fn dtype<S: serde::Serializer>(dtype: &DType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(dtype.name())
}

/// One value in both implementations.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Its name.
    pub name: String,
    /// Its shape here.
    pub shape: Shape,
    /// What it is.
    pub verdict: Verdict,
    /// From the inputs on; `None` if shapes differ.
    pub overall: Option<Apart>,
    /// From their values on; `None` if shapes differ.
    pub alone: Option<Apart>,
    /// The first element that departs alone (or overall, if none does alone).
    pub first: Option<Element>,
    /// What is to be said beside the numbers.
    pub notes: Vec<String>,
    /// What was found out about a departure.
    pub finding: Option<Finding>,
}

/// What is to be thought of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Equal within the tolerance.
    Agrees,
    /// It differs in padded positions only, where anything may stand.
    Padding,
    /// Wrong only because of what it was computed from.
    Inherits,
    /// Right values went in, wrong ones came out: this is where to look.
    Departs,
    /// The shapes differ.
    Shape,
}

/// How far two values are apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Apart {
    /// The largest difference of two elements; padding does not count.
    pub error: f64,
    /// The largest magnitude on this side.
    pub peak: f64,
    /// The largest difference that passes.
    pub allowed: f64,
}

impl Apart {
    /// Whether the difference passes. False for NaN.
    pub fn is_close(&self) -> bool {
        self.error <= self.allowed
    }

    /// The error relative to the peak.
    pub fn relative(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.peak }
    }
}

/// One element on both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Element {
    /// Where it stands.
    pub index: Vec<usize>,
    /// In the dump.
    pub theirs: f64,
    /// Here.
    pub ours: f64,
}

/// What was found out about a departure.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Finding {
    /// What explains it to within rounding, best first: one is an answer, several fit equally.
    pub fits: Vec<Explanation>,
    /// The hypothesis that came nearest, if none fits.
    pub nearest: Option<Explanation>,
    /// How many hypotheses were tested.
    pub tested: usize,
    /// Which items, heads, positions or features are affected, if not all are.
    pub places: Vec<String>,
    /// Wrong elements.
    pub wrong: usize,
    /// All elements.
    pub elements: usize,
}

/// Something that may have been done differently.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// A few words.
    pub name: String,
    /// The value or module that it is about.
    pub at: String,
    /// What to look at.
    pub hint: String,
    /// The error that is left with it.
    pub error: f64,
}

impl<'a> Diff<'a> {
    /// The comparison of a dump with a graph's reference, tolerance by dtype and depth, without padding.
    pub fn new(graph: &'a Graph, given: &'a BTreeMap<String, Tensor>, theirs: &'a BTreeMap<String, Tensor>) -> Self {
        Diff { graph, given, theirs, device: None, tolerance: None, padding: &[], hypotheses: true }
    }
}

impl Report {
    /// The first value that is wrong by itself, or has another shape.
    pub fn first_departure(&self) -> Option<&Point> {
        self.departures().next()
    }

    /// Every value that is wrong by itself, or has another shape, in order: each is a mistake of its own.
    pub fn departures(&self) -> impl Iterator<Item = &Point> {
        self.points.iter().filter(|point| matches!(point.verdict, Verdict::Departs | Verdict::Shape))
    }
}
