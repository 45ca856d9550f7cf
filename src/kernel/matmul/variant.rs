use super::{Axis, MatmulProblem, View};
use crate::{
    Error, Result,
    kernel::{Binding, Candidate, Kernel, Launch, Operand, Profile, Specialization, fold_grid, unary_wgsl},
};

/// How a product is computed: a shader and its tile shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// One element an invocation.
    Plain,
}

impl Variant {
    const ALL: [Variant; 1] = [Variant::Plain];

    pub(super) fn named(name: &str) -> Result<Self> {
        let known = Variant::ALL.map(Variant::name).join(", ");
        Variant::ALL
            .into_iter()
            .find(|variant| variant.name() == name)
            .ok_or_else(|| Error::op("matmul", format!("there is no variant `{name}`; there are {known}")))
    }

    fn name(self) -> &'static str {
        match self {
            Variant::Plain => "plain",
        }
    }

    /// The dispatches, or why there can be none.
    pub(super) fn kernel(self, problem: &MatmulProblem, profile: &Profile) -> Result<Kernel> {
        match self {
            Variant::Plain => {
                const WG: u32 = 64;
                let template = include_str!("../../../shaders/matmul.wgsl");
                let source = problem.specialization("matmul", template).value("WG", WG).source()?;
                let elements = (problem.products() * problem.m * problem.n) as u64;
                Ok(Kernel {
                    launches: vec![Launch {
                        label: self.name().into(),
                        source,
                        bindings: problem.bindings(),
                        params: problem.params(),
                        grid: fold_grid(elements.div_ceil(u64::from(WG)), profile, "matmul")?,
                        flops: problem.flops(),
                        bytes: problem.bytes,
                    }],
                    scratch: Vec::new(),
                })
            }
        }
    }
}

/// Every variant with a verdict, in order of preference.
pub(super) fn candidates(_problem: &MatmulProblem, _profile: &Profile) -> Vec<Candidate> {
    vec![Candidate::usable(Variant::Plain.name(), "runs everywhere")]
}

impl MatmulProblem {
    fn flops(&self) -> u64 {
        2 * (self.products() * self.m * self.n) as u64 * self.k as u64
    }

    /// The slots that every shader of the family has.
    fn specialization(&self, name: &'static str, template: &'static str) -> Specialization {
        let specialization = Specialization::new(name, template)
            .value("BATCH_AXES", self.batch.len())
            .region("BIAS", self.bias.is_some())
            .region("RESIDUAL", self.residual.is_some());
        match self.activation {
            Some(function) => specialization.function("activation", unary_wgsl(function, "activation")),
            None => specialization,
        }
    }

    /// Inputs in order, then the output.
    fn bindings(&self) -> Vec<Binding> {
        let options = usize::from(self.bias.is_some()) + usize::from(self.residual.is_some());
        let inputs = self.factors.into_iter().chain(2..2 + options);
        let mut bindings: Vec<Binding> = inputs.map(|i| Binding::read(Operand::Input(i))).collect();
        bindings.push(Binding::write(Operand::Output(0)));
        bindings
    }

    /// The words of `Params`.
    fn params(&self) -> Vec<u32> {
        // Indices are sums modulo 2³², so that negative strides need no sign.
        let word = |stride: isize| stride as u32;
        let mut params =
            vec![self.m as u32, self.n as u32, self.k as u32, self.products() as u32, self.scale.to_bits()];
        let absent = View { offset: 0, row: 0, column: 0 };
        for view in [self.a, self.b, self.bias.unwrap_or(absent), self.residual.unwrap_or(absent)] {
            params.extend([view.offset as u32, word(view.row), word(view.column)]);
        }
        for &Axis { size, strides } in self.batch.iter().rev() {
            params.push(size as u32);
            params.extend(strides.map(word));
        }
        params
    }
}
