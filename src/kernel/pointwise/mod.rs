//! Chains of pointwise functions.

mod expression;
mod problem;
mod round;

use super::{
    Binding, Candidate, Kernel, Operand, Problem, Profile, Specialization,
    access::{
        bits::COMPONENTS,
        strided::{View, Words, touched},
    },
    blocks::{self, Blocks},
    variant::Only,
};
use crate::{DType, Result};
pub use problem::{Arg, Dropping, Instr, PointwiseProblem};
pub(super) use round::{Store, round};

const PLAIN: Only = blocks::only("pointwise");

impl Problem for PointwiseProblem {
    fn family(&self) -> &'static str {
        PLAIN.family
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        PLAIN.candidates(self.needs(), profile)
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        let elements = self.check()?;
        PLAIN.check(variant, self.needs(), profile)?;
        let mut words = Words::default();
        let word = self.word(elements, profile);
        let dtypes: Vec<DType> = self.operands.iter().map(|&(dtype, _)| dtype).collect();
        let value = expression::value_functions(&dtypes, &self.body, self.dtype, &mut words)?;
        let draws = expression::draws(&self.body, &mut words);
        let mut source = Specialization::new("pointwise::plain").region("NARROW", true).function("value", value);
        let mut bindings = Vec::with_capacity(self.operands.len() + 1);
        let mut bytes = (elements * self.dtype.bytes()) as u64;
        let (mut loads, mut reads) = (0, String::new());
        for (n, (dtype, layout)) in self.operands.iter().enumerate() {
            let reader = View::whole(layout).reader(&format!("read{n}"), &self.buffer(n), *dtype, word, &mut words);
            loads += reader.loads;
            reads = reads + "\n" + &reader.definition;
            if self.in_place != Some(n) {
                source = source.ty(&format!("block{n}"), reader.block).region(&format!("X{n}"), true);
                bindings.push(Binding::read(Operand::Input(n)));
            }
            bytes += touched(layout) * dtype.bytes() as u64;
        }
        bindings.push(Binding::write(Operand::Output(0)));
        // A seed's words are one block.
        let block = |n: usize| if self.is_seed(n) { "0u" } else { "i" };
        let read: String = (0..dtypes.len()).map(|n| format!("let r{n} = read{n}({}); ", block(n))).collect();
        let read = draws.iter().fold(read, |read, (word, draw)| format!("{read}let {word} = {draw}; "));
        let one = |c: &str| {
            let operands = (0..dtypes.len()).map(|n| format!("r{n}.{c}"));
            let arguments: Vec<String> = operands.chain(draws.iter().map(|(word, _)| format!("{word}.{c}"))).collect();
            format!("value({})", arguments.join(", "))
        };
        let source = source.function(
            "elements",
            format!(
                "fn elements(i: u32) -> vec4<u32> {{ {read}return vec4<u32>({}); }}{reads}",
                COMPONENTS.map(one).join(", ")
            ),
        );
        let launch = Blocks {
            family: PLAIN.family,
            label: variant,
            source,
            bindings,
            words,
            dtype: self.dtype,
            elements,
            word,
            loads,
            flops: self.body.iter().map(Instr::cost).sum::<u64>() * elements as u64,
            bytes,
        };
        Ok(Kernel { launches: vec![launch.launch(profile)?], workspace: Vec::new() })
    }

    fn summary(&self) -> String {
        let names: Vec<&str> = self.body.iter().map(Instr::name).collect();
        let dtypes: Vec<&str> = self.operands.iter().map(|(dtype, _)| dtype.name()).collect();
        let in_place = self.in_place.map_or(String::new(), |n| format!(" in place of x{n}"));
        format!("{} ({}) -> {} {}{in_place}", names.join(" "), dtypes.join(", "), self.dtype, self.shape)
    }

    fn allows_in_place(&self, input: usize) -> bool {
        self.fits_in_place(input)
    }

    fn set_in_place(&mut self, input: usize) {
        self.in_place = Some(input);
    }
}
