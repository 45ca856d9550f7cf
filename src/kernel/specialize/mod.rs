//! From shader modules to the source of a kernel: imports are linked, slots are filled.

mod module;
mod parameters;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use module::{Line, Linked, name_of};
pub use module::{Module, fingerprint};
use parameters::Fields;
pub use parameters::{Parameters, Scalar};

use crate::{Error, Result, kernel::Backend};

/// The text of a complete WGSL module. Equal text is the same pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The shader's module, for messages and labels: `matmul::tiled`.
    pub name: &'static str,
    /// The specialised module.
    pub wgsl: String,
    /// Every index is proved in range and every loop ends (the argument is in the shader's head), so checks of bounds
    /// and loops may be left out. Only the kernels of this crate can say so.
    pub(crate) trusted: bool,
    fields: Fields,
    /// Where each line comes from: a file of `shaders/`, and the line there.
    origins: Vec<(&'static str, usize)>,
}

impl Source {
    /// A module that runs with all checks. Its entry point is `main`; see [`Launch`](super::Launch) for its bindings.
    pub fn new(name: &'static str, wgsl: impl Into<String>) -> Self {
        let mut fields = Fields::default();
        let wgsl = wgsl.into();
        let lines = wgsl.lines().skip_while(|line| !begins_parameters(line)).skip(1);
        lines.take_while(|line| line.trim() != "}").for_each(|line| fields.note(line, true));
        Source { name, wgsl, trusted: false, fields, origins: Vec::new() }
    }

    /// The words of the uniform block, from the values of its fields.
    ///
    /// # Errors
    /// [`Error::Shader`] if a name is unknown or set twice, or a field has no value or one of another type.
    pub fn words(&self, parameters: &Parameters) -> Result<Vec<u32>> {
        self.fields.words(self.name, parameters)
    }

    /// The word of the uniform block that says with which workgroup a dispatch begins: that of a field `first_group: u32`. A
    /// kernel without one is always dispatched as a whole.
    pub fn first_group(&self) -> Option<usize> {
        self.fields.first_group()
    }

    /// The file of `shaders/` and the line in it that a line of the text, counted from 1, was made of.
    pub fn origin(&self, line: usize) -> Option<(&'static str, usize)> {
        self.origins.get(line.checked_sub(1)?).copied()
    }

    /// A compiler's message with the places in its text, `wgsl:LINE:COLUMN`, as places in the files of `shaders/`.
    pub(crate) fn located(&self, message: &str) -> String {
        const MARK: &str = "wgsl:";
        let mut out = String::with_capacity(message.len());
        let mut rest = message;
        while let Some((before, after)) = rest.split_once(MARK) {
            out += before;
            let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            match after[..digits].parse().ok().and_then(|line| self.origin(line)) {
                Some((file, line)) => out += &format!("{file}:{line}"),
                None => out = out + MARK + &after[..digits],
            }
            rest = &after[digits..];
        }
        out + rest
    }
}

fn begins_parameters(line: &str) -> bool {
    line.starts_with("struct Params {")
}

/// Links the modules that a kernel imports, and fills their slots. See `shaders/README.md` for what a slot is.
///
/// ```wgsl
/// import package::attention::scores::{head_of, score_of};              <- names of another module
///
/// const BR: u32 = 16u; // @slot BR: query rows of a workgroup      <- value
/// alias elem = f32; // @slot elem: f32 | f16                        <- type
/// // @slot activation: what happens to each result                  <- function: the next line is replaced
/// fn activation(x: f32) -> f32 { return x; }
/// // @region BIAS                                                   <- kept if the region is on (`!BIAS`: if off)
/// @group(0) @binding(3) var<storage, read> bias: array<f32>;
/// // @end
/// // @unroll k KT                                                   <- repeated, `_k0` and `/*k*/0u` counted up
/// let b_k0 = b[base + /*k*/0u];
/// // @end
/// ```
///
/// Unrolls and regions nest in any order, within a module. A slot or region has one name in all modules of a kernel.
///
/// A missing, repeated or unknown slot is an error.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Specialization {
    kernel: &'static str,
    slots: BTreeMap<String, String>,
    regions: BTreeSet<String>,
    trusted: bool,
    backend: Backend,
}

/// How many sources are remembered, which is some megabytes of text.
const KNOWN_SOURCES: usize = 512;

impl Specialization {
    /// Starts from a kernel of `shaders/`, by its module's path: `matmul::tiled`.
    pub fn new(kernel: &'static str) -> Self {
        let (slots, regions) = (BTreeMap::new(), BTreeSet::new());
        Specialization { kernel, slots, regions, trusted: false, backend: Backend::default() }
    }

    /// For a device of this backend, which says whether `enable subgroups;` stays. What uses subgroups has to call it.
    pub fn on(self, backend: Backend) -> Self {
        Specialization { backend, ..self }
    }

    /// The kernel with what it imports, as it stands: slots with their defaults, all regions there, unrolls written once. It
    /// is a complete, valid module.
    ///
    /// # Errors
    /// [`Error::Shader`] if there is no such module, or its imports don't hold together.
    pub fn defaults(kernel: &'static str) -> Result<String> {
        let mut text = Text::default();
        for line in &Linked::of(kernel)?.lines {
            text.push(line.text.to_string(), *line);
        }
        Ok(text.finish().0)
    }

    /// Sets a value slot: a `const` of type `u32`, `i32`, `f32` or `bool`, which keeps its type.
    pub fn value(mut self, slot: &str, value: impl std::fmt::Display) -> Self {
        self.slots.insert(slot.into(), value.to_string());
        self
    }

    /// Sets a type slot: the right side of an `alias`.
    pub fn ty(mut self, slot: &str, wgsl_type: &str) -> Self {
        self.slots.insert(slot.into(), wgsl_type.into());
        self
    }

    /// Sets a function slot: the complete one-line function that replaces the default.
    pub fn function(mut self, slot: &str, definition: impl Into<String>) -> Self {
        self.slots.insert(slot.into(), definition.into());
        self
    }

    /// Turns a region on; regions are off unless this is called.
    pub fn region(mut self, region: &str, on: bool) -> Self {
        if on {
            self.regions.insert(region.into());
        }
        self
    }

    /// Says that the shader's head proves every index in range and every loop finite.
    pub(crate) fn trusted(mut self) -> Self {
        self.trusted = true;
        self
    }

    /// The module with every slot filled. Bindings are renumbered from 1 in order of appearance, so that a region that
    /// is off leaves no gap. Slots that are not set keep the file's default.
    ///
    /// Sources are remembered: a graph that is lowered again, for other shapes, finds the texts that it had.
    ///
    /// # Errors
    /// [`Error::Shader`], with the file and the line, if a slot or region that was set is not there, or if a module is
    /// malformed.
    pub fn source(self) -> Result<Arc<Source>> {
        static KNOWN: Mutex<Option<HashMap<Specialization, Arc<Source>>>> = Mutex::new(None);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_default();
        if let Some(source) = known.get(&self) {
            return Ok(source.clone());
        }
        let source = Arc::new(self.expand()?);
        if known.len() >= KNOWN_SOURCES {
            known.clear();
        }
        known.insert(self, source.clone());
        Ok(source)
    }

    fn expand(&self) -> Result<Source> {
        self.fill(&Linked::of(self.kernel)?.lines)
    }

    fn fill(&self, lines: &[Line]) -> Result<Source> {
        let error =
            |line: &Line, message: String| Error::Shader { kernel: format!("{}:{}", line.file, line.number), message };
        let nowhere = |message: String| Error::Shader { kernel: self.kernel.into(), message };
        let mut used = BTreeSet::new();
        let mut regions = BTreeSet::new();
        let mut out = Text::default();
        let mut fields = Fields::default();
        let mut in_parameters = false;
        // Open regions and whether each is on; an unroll holds its lines until its end, and may hold another.
        let mut open: Vec<(Line, bool)> = Vec::new();
        let mut unrolls: Vec<Unroll> = Vec::new();

        let mut rest = lines.iter();
        while let Some(line) = rest.next() {
            let text = line.text.trim();
            let live = open.iter().all(|&(_, on)| on);
            let opened =
                open.first().map(|(line, _)| line).into_iter().chain(unrolls.first().map(|unroll| &unroll.line));
            if let Some(outer) = opened.into_iter().find(|outer| outer.file != line.file) {
                return Err(error(outer, "a region or unroll without its `// @end`".into()));
            }

            if let Some(name) = text.strip_prefix("// @region ") {
                let (name, wanted) = name.strip_prefix('!').map_or((name, true), |name| (name, false));
                let name = name_of(name);
                regions.insert(name.to_string());
                open.push((*line, self.regions.contains(name) == wanted));
                continue;
            }
            if let Some(rest) = text.strip_prefix("// @unroll ") {
                let mut words = rest.split_whitespace();
                let (Some(index), Some(count)) = (words.next(), words.next()) else {
                    return Err(error(line, "expected `// @unroll INDEX COUNT`".into()));
                };
                let count = self
                    .count(lines, count)
                    .ok_or_else(|| error(line, format!("`{count}` is no number and no value slot")))?;
                unrolls.push(Unroll { depth: open.len(), line: *line, index, count, body: Vec::new() });
                continue;
            }
            if text == "// @end" {
                // Whatever was opened last ends: an unroll if no region was opened in it.
                if let Some(unroll) = unrolls.pop_if(|unroll| unroll.depth == open.len()) {
                    let lines = if live { unroll.lines() } else { Vec::new() };
                    match unrolls.last_mut() {
                        Some(outer) => outer.body.extend(lines),
                        None => lines.into_iter().for_each(|(text, line)| out.push(text, line)),
                    }
                } else {
                    open.pop().ok_or_else(|| error(line, "`@end` without a region or unroll".into()))?;
                }
                continue;
            }

            in_parameters = (in_parameters && text != "}") || begins_parameters(line.text);
            let mut emitted = line.text.to_string();
            if let Some(slot) = text.strip_prefix("// @slot ") {
                let name = name_of(slot);
                if !used.insert(name.to_string()) {
                    return Err(error(line, format!("slot `{name}` is there twice")));
                }
                let default = rest.next().filter(|next| next.file == line.file);
                let default =
                    default.ok_or_else(|| error(line, format!("slot `{name}` has no function after it")))?.text;
                emitted = self.slots.get(name).cloned().unwrap_or_else(|| default.to_string());
                if !default.trim_start().starts_with("fn ") || !emitted.trim_start().starts_with("fn ") {
                    return Err(error(line, format!("slot `{name}` takes a one-line function")));
                }
            } else if let Some((code, slot)) = line.text.split_once("// @slot ") {
                let name = name_of(slot);
                if !used.insert(name.to_string()) {
                    return Err(error(line, format!("slot `{name}` is there twice")));
                }
                if let Some(value) = self.slots.get(name) {
                    emitted = fill(code, value)
                        .ok_or_else(|| error(line, format!("slot `{name}` is on no `const` or `alias`")))?;
                }
            }
            if !live {
                if in_parameters {
                    fields.note(&emitted, false);
                }
                continue;
            }
            if emitted.trim() == "enable subgroups;" && !self.backend.enables_subgroups() {
                continue;
            }
            match unrolls.last_mut() {
                Some(unroll) => unroll.body.push((emitted, *line)),
                None => out.push(emitted, *line),
            }
        }
        if let Some((start, _)) = open.last() {
            return Err(error(start, "a region without its `// @end`".into()));
        }
        if let Some(unroll) = unrolls.last() {
            return Err(error(&unroll.line, "an unroll without its `// @end`".into()));
        }
        if let Some(unknown) = self.slots.keys().find(|slot| !used.contains(*slot)) {
            return Err(nowhere(format!("there is no slot `{unknown}`")));
        }
        if let Some(unknown) = self.regions.iter().find(|region| !regions.contains(*region)) {
            return Err(nowhere(format!("there is no region `{unknown}`")));
        }
        let (wgsl, origins) = out.finish();
        let present = wgsl.lines().skip_while(|line| !begins_parameters(line)).skip(1);
        present.take_while(|line| *line != "}").for_each(|line| fields.note(line, true));
        Ok(Source { name: self.kernel, wgsl, trusted: self.trusted, fields, origins })
    }

    /// The count of an unroll: a number, or the value of a slot (set, or its default in the file).
    fn count(&self, lines: &[Line], count: &str) -> Option<usize> {
        if let Some(value) = self.slots.get(count) {
            return value.trim_end_matches('u').parse().ok();
        }
        if let Ok(number) = count.parse() {
            return Some(number);
        }
        lines.iter().find_map(|line| {
            let (code, slot) = line.text.split_once("// @slot ")?;
            (name_of(slot) == count)
                .then(|| code.split_once('=')?.1.trim().trim_end_matches([';', 'u']).parse().ok())?
        })
    }
}

/// Puts a value behind the `=` of `const NAME: TYPE = …;` (with the type's suffix) or `alias NAME = …;`.
fn fill(code: &str, value: &str) -> Option<String> {
    let (left, _) = code.split_once('=')?;
    let declared = left.trim();
    if declared.starts_with("alias ") {
        return Some(format!("{}= {value};", left));
    }
    let ty = declared.strip_prefix("const ")?.split_once(':')?.1.trim();
    let literal = match ty {
        "u32" if !value.ends_with('u') => format!("{value}u"),
        "i32" if !value.ends_with('i') => format!("{value}i"),
        "f32" if !value.contains(['.', 'e', 'f']) => format!("{value}.0"),
        _ => value.to_string(),
    };
    Some(format!("{left}= {literal};"))
}

/// An unroll that is open: its lines are repeated at its end.
struct Unroll {
    /// How many regions were open where it began.
    depth: usize,
    line: Line,
    index: &'static str,
    count: usize,
    body: Vec<(String, Line)>,
}

impl Unroll {
    /// The lines at each index `i`: `_k0` becomes `_ki`, and a constant marked `/*k*/0u` becomes `iu`.
    fn lines(&self) -> Vec<(String, Line)> {
        let (constant, name) = (format!("/*{}*/0", self.index), format!("_{}0", self.index));
        (0..self.count)
            .flat_map(|i| {
                let (i_constant, i_name) = (i.to_string(), format!("_{}{i}", self.index));
                let at_index = |(text, line): &(String, Line)| {
                    (text.replace(&constant, &i_constant).replace(&name, &i_name), *line)
                };
                self.body.iter().map(at_index).collect::<Vec<_>>()
            })
            .collect()
    }
}

/// A module as it is written: each `enable` once and before all else, and bindings numbered in order of appearance.
#[derive(Default)]
struct Text {
    enables: Vec<(String, Line)>,
    lines: Vec<(String, Line)>,
    bindings: u32,
}

impl Text {
    fn push(&mut self, text: String, line: Line) {
        let directive = text.trim();
        if directive.starts_with("enable ") {
            if self.enables.iter().all(|(enabled, _)| enabled != directive) {
                self.enables.push((directive.to_string(), line));
            }
        } else {
            let text = renumber(&text, &mut self.bindings).unwrap_or(text);
            self.lines.push((text, line));
        }
    }

    fn finish(self) -> (String, Vec<(&'static str, usize)>) {
        let lines = self.enables.into_iter().chain(self.lines);
        lines.map(|(text, line)| (text + "\n", (line.file, line.number))).unzip()
    }
}

/// Storage bindings are numbered in order of appearance; binding 0 is the uniform block.
fn renumber(line: &str, next: &mut u32) -> Option<String> {
    if !line.contains("var<storage") {
        return None;
    }
    let (before, rest) = line.split_once("@binding(")?;
    let (_, after) = rest.split_once(')')?;
    *next += 1;
    Some(format!("{before}@binding({next}){after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "\
enable subgroups;
const BR: u32 = 16u; // @slot BR: rows
alias elem = f32; // @slot elem: f32 | f16
struct Params {
  rows: u32,
  // @region BIAS
  bias_offset: u32,
  // @end
}
@group(0) @binding(1) var<storage, read> a: array<elem>;
// @region BIAS
@group(0) @binding(2) var<storage, read> bias: array<f32>;
// @end
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
enable f16;
// @slot activation: applied to each result
fn activation(x: f32) -> f32 { return x; }
// @unroll k BR
let b_k0 = a[/*k*/0u];
// @end
";

    fn filled(slots: &Specialization, text: &'static str) -> Result<Source> {
        let lines: Vec<Line> =
            text.lines().zip(1..).map(|(text, number)| Line { text, file: "t/t.wesl", number }).collect();
        slots.fill(&lines)
    }

    #[test]
    fn fills_values_types_functions_regions_and_unrolls() {
        let slots = Specialization::new("t::t")
            .value("BR", 2)
            .ty("elem", "f16")
            .function("activation", "fn activation(x: f32) -> f32 { return max(x, 0.0); }");
        let source = filled(&slots, TEMPLATE).expect("every slot exists");
        assert_eq!(
            source.wgsl,
            "enable f16;\nconst BR: u32 = 2u;\nalias elem = f16;\nstruct Params {\n  rows: u32,\n}\n\
             @group(0) @binding(1) var<storage, read> a: array<elem>;\n\
             @group(0) @binding(2) var<storage, read_write> out: array<f32>;\n\
             fn activation(x: f32) -> f32 { return max(x, 0.0); }\nlet b_k0 = a[0u];\nlet b_k1 = a[1u];\n"
        );
        let in_browser =
            filled(&Specialization::new("t::t").on(Backend::Browser), TEMPLATE).expect("every slot exists");
        assert!(in_browser.wgsl.starts_with("enable subgroups;\nenable f16;\n"));
        let with_bias = filled(&Specialization::new("t::t").region("BIAS", true), TEMPLATE).expect("the region exists");
        assert!(with_bias.wgsl.contains("@binding(3) var<storage, read_write> out"));
        assert_eq!(with_bias.wgsl.matches("let b_k").count(), 16);
    }

    #[test]
    fn parameters_fall_away_with_their_region() {
        let given = Parameters::new().set("rows", 7usize).set("bias_offset", 3usize);
        let words = |slots: Specialization| filled(&slots, TEMPLATE).and_then(|source| source.words(&given));
        assert_eq!(words(Specialization::new("t::t")).expect("it may be set"), [7]);
        assert_eq!(words(Specialization::new("t::t").region("BIAS", true)).expect("it is set"), [7, 3]);
    }

    #[test]
    fn lines_know_where_they_come_from() {
        let source = filled(&Specialization::new("t::t").value("BR", 2), TEMPLATE).expect("every slot exists");
        let line = 1 + source.wgsl.lines().position(|line| line.starts_with("let b_k1")).expect("it is there");
        assert_eq!(source.origin(line), Some(("t/t.wesl", 19)));
        assert_eq!(source.origin(1), Some(("t/t.wesl", 15)));
        assert_eq!(source.origin(0), None);
        let message = format!("error: no `x`\n  ┌─ wgsl:{line}:5\n see wgsl:9999:1");
        assert_eq!(source.located(&message), "error: no `x`\n  ┌─ t/t.wesl:19:5\n see wgsl:9999:1");
    }

    #[test]
    fn unrolls_and_regions_nest() {
        let template = "\
// @unroll m 2
let a_m0 = /*m*/0u;
// @region B
// @unroll n 2
acc_m0_n0 += a_m0 * b_n0;
// @end
// @end
// @region C
c_m0;
// @end
// @end
// @region C
// @unroll m 9
c_m0;
// @end
// @end
";
        let source = filled(&Specialization::new("t::t").region("B", true), template).expect("all ends match");
        assert_eq!(
            source.wgsl,
            "let a_m0 = 0u;\nacc_m0_n0 += a_m0 * b_n0;\nacc_m0_n1 += a_m0 * b_n1;\n\
             let a_m1 = 1u;\nacc_m1_n0 += a_m1 * b_n0;\nacc_m1_n1 += a_m1 * b_n1;\n"
        );
    }

    #[test]
    fn unknown_repeated_and_unclosed_are_errors() {
        let message = |slots: Specialization, text| filled(&slots, text).expect_err("must be refused").to_string();
        let none = || Specialization::new("t::t");
        assert_eq!(message(none().value("BC", 1), TEMPLATE), "shader t::t: there is no slot `BC`");
        assert_eq!(message(none().region("MASK", true), TEMPLATE), "shader t::t: there is no region `MASK`");
        let twice = "const A: u32 = 1u; // @slot A: x\nconst B: u32 = 1u; // @slot A: x\n";
        assert_eq!(message(none(), twice), "shader t/t.wesl:2: slot `A` is there twice");
        assert!(message(none(), "// @region X\n").contains("without its `// @end`"));
        assert!(message(none(), "// @end\n").contains("without a region"));
        let no_function = "// @slot f: a function\nlet x = 1;\n";
        assert!(message(none(), no_function).contains("takes a one-line function"));
    }
}
