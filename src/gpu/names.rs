use std::collections::HashMap;

use super::{device::Inner, given::Purpose};
use crate::{DType, Error, Result, Shape, Tensor};

/// Gathers everything that is wrong with a list of named things, so that one error can say it all.
pub(super) struct NameCheck<'a> {
    kind: &'static str,
    kinds: &'static str,
    wanted: Vec<&'a str>,
    /// How many of them, from the first on, must be given.
    required: usize,
    places: HashMap<&'a str, usize>,
    taken: Vec<bool>,
    problems: Vec<String>,
}

impl<'a> NameCheck<'a> {
    pub(super) fn new(kind: &'static str, kinds: &'static str, wanted: impl Iterator<Item = &'a str>) -> Self {
        let (places, taken, problems) = (HashMap::new(), Vec::new(), Vec::new());
        let mut check = NameCheck { kind, kinds, wanted: Vec::new(), required: 0, places, taken, problems };
        check.allow(wanted);
        check.required = check.wanted.len();
        check
    }

    /// These may be given too.
    pub(super) fn allow(&mut self, optional: impl Iterator<Item = &'a str>) {
        for name in optional {
            self.places.insert(name, self.wanted.len());
            self.wanted.push(name);
            self.taken.push(false);
        }
    }

    /// The place of a name among those that are wanted, if it is one and given for the first time.
    pub(super) fn take(&mut self, name: &str) -> Option<usize> {
        match self.places.get(name) {
            Some(&at) if !self.taken[at] => {
                self.taken[at] = true;
                Some(at)
            }
            Some(_) => {
                self.problems.push(format!("`{name}` is given twice"));
                None
            }
            None => {
                self.problems.push(format!("there is no {} `{name}`", self.kind));
                None
            }
        }
    }

    pub(super) fn tensor(&mut self, name: &str, tensor: &Tensor, dtype: DType, shape: &Shape) {
        if tensor.dtype() != dtype || tensor.shape() != shape {
            let (given, is) = (tensor.dtype(), tensor.shape());
            self.problems.push(format!("`{name}` is {given} {is}, expected {dtype} {shape}"));
        }
    }

    pub(super) fn buffer(&mut self, gpu: &Inner, name: &str, given: wgpu::BufferSlice<'_>, purpose: &Purpose) {
        let faults = purpose.faults(gpu, given);
        self.problems.extend(faults.into_iter().map(|fault| format!("the buffer of `{name}` {fault}")));
    }

    pub(super) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    pub(super) fn finish(mut self) -> Result<()> {
        let missing = self.wanted[..self.required].iter().zip(&self.taken).filter(|(_, taken)| !**taken);
        self.problems.extend(missing.map(|(name, _)| format!("{} `{name}` is missing", self.kind)));
        if self.problems.is_empty() {
            return Ok(());
        }
        let list = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        Err(Error::Binding(format!(
            "{}; the program's {} are: {}",
            self.problems.join("; "),
            self.kinds,
            if self.wanted.is_empty() { "none".into() } else { list(&self.wanted) }
        )))
    }
}
