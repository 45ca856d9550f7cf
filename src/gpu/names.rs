use crate::{DType, Error, Result, Shape, Tensor};

/// Gathers everything that is wrong with a list of named things, so that one error can say it all.
pub(super) struct NameCheck<'a> {
    kind: &'static str,
    kinds: &'static str,
    missing: Vec<&'a str>,
    optional: Vec<&'a str>,
    wanted: Vec<&'a str>,
    problems: Vec<String>,
}

impl<'a> NameCheck<'a> {
    pub(super) fn new(kind: &'static str, kinds: &'static str, wanted: impl Iterator<Item = &'a str>) -> Self {
        let wanted: Vec<&str> = wanted.collect();
        NameCheck { kind, kinds, missing: wanted.clone(), optional: Vec::new(), wanted, problems: Vec::new() }
    }

    /// These may be given too.
    pub(super) fn allow(&mut self, optional: impl Iterator<Item = &'a str>) {
        self.optional = optional.collect();
        self.wanted.extend(&self.optional);
    }

    /// Whether the name is wanted and given for the first time.
    pub(super) fn take(&mut self, name: &str) -> bool {
        for list in [&mut self.missing, &mut self.optional] {
            if let Some(at) = list.iter().position(|missing| *missing == name) {
                list.remove(at);
                return true;
            }
        }
        self.problems.push(if self.wanted.contains(&name) {
            format!("`{name}` is given twice")
        } else {
            format!("there is no {} `{name}`", self.kind)
        });
        false
    }

    pub(super) fn tensor(&mut self, name: &str, tensor: &Tensor, dtype: DType, shape: &Shape) {
        if tensor.dtype() != dtype || tensor.shape() != shape {
            let (given, is) = (tensor.dtype(), tensor.shape());
            self.problems.push(format!("`{name}` is {given} {is}, expected {dtype} {shape}"));
        }
    }

    pub(super) fn buffer(&mut self, name: &str, given: wgpu::BufferSlice<'_>, bytes: u64, alignment: u64) {
        if !given.buffer().usage().contains(wgpu::BufferUsages::STORAGE) {
            self.problems.push(format!("the buffer of `{name}` lacks the usage STORAGE"));
        }
        if given.size() < bytes {
            self.problems.push(format!(
                "the buffer of `{name}` has {} bytes from offset {}, expected at least {bytes} (whole 16-byte blocks)",
                given.size(),
                given.offset()
            ));
        }
        if given.offset() % alignment != 0 {
            self.problems.push(format!(
                "the buffer of `{name}` starts at offset {}, expected a multiple of {alignment}",
                given.offset()
            ));
        }
    }

    pub(super) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.problems.extend(self.missing.iter().map(|name| format!("{} `{name}` is missing", self.kind)));
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
