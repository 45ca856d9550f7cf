//! Floor 5: times the variants of each kernel on this adapter, and remembers the fastest.
//!
//! Without it, the order of a family's candidates decides, which depends on the kind of the adapter but not on the adapter. A
//! [`Tuner`] measures the steps of a graph: every variant that can run, in turns, several rounds, the median of each. It checks
//! the results of the fastest against those of the variant that would run without tuning, and the whole graph against the
//! reference, unless that takes minutes. A [`Table`] keeps the choices, in a file for each adapter and driver; choices for other
//! versions of a family's shaders are dropped.
//!
//! ```no_run
//! # fn main() -> tilewise::Result<()> {
//! use std::{collections::BTreeMap, time::Duration};
//! use tilewise::{DType, Graph, gpu::Gpu, tune::{Table, Tuner}};
//!
//! let mut g = Graph::new();
//! let a = g.input("a", DType::F32, [1024, 512])?;
//! let b = g.input("b", DType::F32, [512, 256])?;
//! let c = g.matmul(a, b)?;
//! g.output("c", c)?;
//!
//! let gpu = Gpu::new()?;
//! let mut table = Table::open(Table::default_path(&gpu)?, &gpu);
//! let report = Tuner::new(&gpu).budget(Duration::from_secs(60)).tune(&g, &BTreeMap::new(), &mut table.choices, |_| {})?;
//! println!("{report}");
//! table.save()?;
//!
//! let gpu = gpu.with_choices(table.choices); // what is compiled from now on takes the fastest
//! let program = gpu.compile(&g, [])?;
//! # Ok(())
//! # }
//! ```

mod table;
mod tuner;

pub use table::Table;
pub use tuner::{Checked, Event, Finding, Report, Trial, Tuner};
