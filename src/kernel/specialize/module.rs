//! The files of `shaders/`, and how those that a kernel imports become one text.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{Error, Result, kernel::Family};

include!(concat!(env!("OUT_DIR"), "/shaders.rs"));

/// A file of `shaders/`: a kernel, if it has an entry point, or a part that kernels import.
#[derive(Debug)]
pub struct Module {
    /// Its name in imports, without `package::`, such as `attention::scores`.
    pub path: &'static str,
    /// The file, seen from `shaders/`.
    pub file: &'static str,
    /// Its text.
    pub text: &'static str,
}

impl Module {
    /// Every file of `shaders/`, in the order of their names.
    pub fn all() -> &'static [Module] {
        MODULES
    }

    /// The folder in which it lies.
    pub fn family(&self) -> &'static str {
        self.path.split("::").next().unwrap_or_default()
    }

    /// Whether it has an entry point.
    pub fn is_kernel(&self) -> bool {
        self.text.lines().any(|line| line.trim_start().starts_with("@compute"))
    }

    /// What it imports: the path of each module, and the names.
    ///
    /// # Errors
    /// [`Error::Shader`] for an import in a form that the specialiser doesn't read.
    pub fn imports(&self) -> Result<Vec<(&'static str, Vec<&'static str>)>> {
        Ok(self.statements()?.0.into_iter().map(|import| (import.path, import.names)).collect())
    }

    /// The names that it declares at its top level, in order, whatever region they stand in.
    pub fn declares(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        let mut depth = 0usize;
        for line in self.text.lines() {
            let code = line.split("//").next().unwrap_or_default();
            let mut tokens = tokens(code).peekable();
            while let Some(token) = tokens.next() {
                match token {
                    "{" => depth += 1,
                    "}" => depth = depth.saturating_sub(1),
                    "fn" | "struct" | "alias" | "const" | "override" if depth == 0 => names.extend(tokens.peek()),
                    "var" if depth == 0 => {
                        if tokens.peek() == Some(&"<") {
                            tokens.by_ref().find(|&token| token == ">");
                        }
                        names.extend(tokens.peek());
                    }
                    _ => {}
                }
            }
        }
        names
    }

    /// The names of its slots, in order.
    pub fn slots(&self) -> Vec<&'static str> {
        self.text.lines().filter_map(|line| line.split_once("// @slot ")).map(|(_, mark)| name_of(mark)).collect()
    }

    /// The names of its regions, in order, each once.
    pub fn regions(&self) -> Vec<&'static str> {
        let marks = self.text.lines().filter_map(|line| line.trim_start().strip_prefix("// @region "));
        let mut names = Vec::new();
        for name in marks.map(|mark| name_of(mark.trim_start_matches('!'))) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Its functions by name, in order: each on one line and without comments, as slots take them.
    pub(crate) fn functions(&self) -> Vec<(&'static str, String)> {
        let mut functions: Vec<(&str, String)> = Vec::new();
        let mut depth = 0;
        for line in self.text.lines() {
            let code = line.split("//").next().unwrap_or_default().trim();
            let begins = code.strip_prefix("fn ").filter(|_| depth == 0);
            if let Some(begins) = begins {
                functions.push((begins.split('(').next().unwrap_or_default(), code.to_string()));
            } else if depth > 0
                && !code.is_empty()
                && let Some((_, text)) = functions.last_mut()
            {
                *text = format!("{text} {code}");
            }
            if begins.is_some() || depth > 0 {
                depth += code.matches('{').count();
                depth -= code.matches('}').count();
            }
        }
        functions
    }

    fn error(&self, line: usize, message: impl Into<String>) -> Error {
        Error::Shader { kernel: format!("{}:{line}", self.file), message: message.into() }
    }

    /// The imports, and all other lines with their numbers.
    fn statements(&self) -> Result<(Vec<Import>, Vec<Numbered>)> {
        let (mut imports, mut others) = (Vec::new(), Vec::new());
        let mut lines = (1..).zip(self.text.lines());
        while let Some((number, line)) = lines.next() {
            if !line.starts_with("import ") {
                others.push((line, number));
                continue;
            }
            let start = line.as_ptr() as usize - self.text.as_ptr() as usize;
            let Some(length) = self.text[start..].find(';') else {
                return Err(self.error(number, "an import without its `;`"));
            };
            let statement = &self.text[start + "import ".len()..start + length];
            lines.by_ref().take(statement.matches('\n').count()).for_each(drop);
            let import = Import::of(statement, number).ok_or_else(|| {
                let message =
                    "expected `import package::family::module::{name, …};` or `import package::family::module::name;`";
                self.error(number, message)
            })?;
            imports.push(import);
        }
        Ok((imports, others))
    }
}

/// The fingerprint of the shaders of a kernel family: it changes with their code, and not with their comments.
/// Measurements are kept under it. Empty for a family that there isn't.
pub fn fingerprint(family: &str) -> &'static str {
    let folder = Family::named(family).map_or("", Family::shaders);
    FINGERPRINTS.iter().find(|(name, _)| *name == folder).map_or("", |&(_, fingerprint)| fingerprint)
}

/// The name that stands first in what comes after `// @slot ` or `// @region `.
pub(super) fn name_of(mark: &str) -> &str {
    mark.split([':', ' ']).next().unwrap_or_default()
}

/// A line, and its number in its file.
type Numbered = (&'static str, usize);

#[derive(Debug)]
struct Import {
    path: &'static str,
    names: Vec<&'static str>,
    line: usize,
}

impl Import {
    fn of(statement: &'static str, line: usize) -> Option<Import> {
        let path = statement.trim().strip_prefix("package::")?;
        let (path, names) = match path.split_once("::{") {
            Some((path, names)) => {
                let names = names.trim_end().strip_suffix('}')?.split(',').map(str::trim);
                (path, names.filter(|name| !name.is_empty()).collect())
            }
            None => path.rsplit_once("::").map(|(path, name)| (path, vec![name]))?,
        };
        let is_path = path.split("::").count() == 2 && path.split("::").all(is_name);
        (is_path && !names.is_empty() && names.iter().all(|name| is_name(name))).then_some(Import { path, names, line })
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(is_in_name)
}

fn is_in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Names and single signs.
fn tokens(code: &str) -> impl Iterator<Item = &str> {
    let mut rest = code.trim_start();
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let end = if is_in_name(first) {
            rest.find(|c: char| !is_in_name(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(end);
        rest = after.trim_start();
        Some(token)
    })
}

/// A line of a linked text: where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) text: &'static str,
    pub(super) file: &'static str,
    pub(super) number: usize,
}

/// A kernel behind all that it imports: the lines of every module once, depth first, without the imports.
#[derive(Debug)]
pub(super) struct Linked {
    pub(super) lines: Vec<Line>,
}

impl Linked {
    /// A kernel of `shaders/`, linked once.
    pub(super) fn of(kernel: &'static str) -> Result<Arc<Linked>> {
        static KNOWN: Mutex<BTreeMap<&str, Arc<Linked>>> = Mutex::new(BTreeMap::new());
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(linked) = known.get(kernel) {
            return Ok(linked.clone());
        }
        let linked = Arc::new(Linked::among(MODULES, kernel)?);
        known.insert(kernel, linked.clone());
        Ok(linked)
    }

    pub(super) fn among(modules: &'static [Module], kernel: &'static str) -> Result<Linked> {
        let Some(module) = modules.iter().find(|module| module.path == kernel) else {
            return Err(Error::Shader { kernel: kernel.into(), message: "there is no such module".into() });
        };
        let mut linker = Linker { modules, open: Vec::new(), done: BTreeSet::new(), declared: BTreeMap::new() };
        let mut lines = Vec::new();
        linker.add(module, &mut lines)?;
        Ok(Linked { lines })
    }
}

struct Linker {
    modules: &'static [Module],
    /// The modules on the way from the kernel to this one.
    open: Vec<&'static str>,
    done: BTreeSet<&'static str>,
    /// Where each name is declared.
    declared: BTreeMap<&'static str, &'static str>,
}

impl Linker {
    fn add(&mut self, module: &'static Module, lines: &mut Vec<Line>) -> Result<()> {
        let (imports, own) = module.statements()?;
        self.open.push(module.path);
        for Import { path, names, line } in imports {
            let Some(imported) = self.modules.iter().find(|module| module.path == path) else {
                return Err(module.error(line, format!("there is no module `{path}`")));
            };
            if let Some(start) = self.open.iter().position(|&open| open == path) {
                let circle: Vec<&str> = self.open[start..].iter().copied().chain([path]).collect();
                return Err(module.error(line, format!("imports in a circle: {}", circle.join(" → "))));
            }
            let declared = imported.declares();
            if let Some(unknown) = names.iter().find(|name| !declared.contains(name)) {
                return Err(module.error(line, format!("`{path}` declares no `{unknown}`")));
            }
            if !self.done.contains(path) {
                self.add(imported, lines)?;
            }
        }
        for name in module.declares() {
            if let Some(other) = self.declared.insert(name, module.file) {
                let line = own.iter().find(|(line, _)| tokens(line).any(|token| token == name)).map_or(0, |&(_, n)| n);
                return Err(module.error(line, format!("`{name}` is declared in {other} too")));
            }
        }
        lines.extend(own.into_iter().map(|(text, number)| Line { text, file: module.file, number }));
        self.open.pop();
        self.done.insert(module.path);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linked(modules: &'static [Module]) -> Result<String> {
        let lines = Linked::among(modules, "t::kernel")?.lines;
        Ok(lines.iter().map(|line| format!("{}:{} {}\n", line.file, line.number, line.text)).collect())
    }

    const fn module(path: &'static str, file: &'static str, text: &'static str) -> Module {
        Module { path, file, text }
    }

    #[test]
    fn modules_are_linked_once_depth_first_and_lines_know_their_file() {
        const MODULES: &[Module] = &[
            module(
                "t::kernel",
                "t/kernel.wesl",
                "// A kernel.\nimport package::t::a::{f,\n  g};\nimport package::t::b::h;\nfn main() {}",
            ),
            module("t::a", "t/a.wesl", "import package::t::b::h;\nfn f() { h(); }\n@must_use fn g() {}"),
            module("t::b", "t/b.wesl", "fn h() {}"),
        ];
        let text = linked(MODULES).expect("valid");
        assert_eq!(
            text,
            "t/b.wesl:1 fn h() {}\nt/a.wesl:2 fn f() { h(); }\nt/a.wesl:3 @must_use fn g() {}\n\
             t/kernel.wesl:1 // A kernel.\nt/kernel.wesl:5 fn main() {}\n"
        );
    }

    #[test]
    fn names_at_the_top_level_are_declared() {
        let text = "@group(0) @binding(1) var<storage, read> a: array<f32>; // const b: no\n\
                    struct S {\n  c: u32,\n}\nfn f(d: u32) { var e = 0u; const g = 1; }\nvar<private> h: bool;\n\
                    alias k = f32;\nconst L: u32 = 1u;\n@compute @workgroup_size(L)\nfn main() {}";
        assert_eq!(module("t::a", "t/a.wesl", text).declares(), ["a", "S", "f", "h", "k", "L", "main"]);
    }

    #[test]
    fn slots_and_regions_have_names() {
        let text = "const A: u32 = 1u; // @slot A: the first\n  // @region B: or not\n// @slot f: a function\nfn f() {}\n\
                    // @region !B\n// @end\n// @end\n// @region C\n// @end";
        let module = module("t::a", "t/a.wesl", text);
        assert_eq!(module.slots(), ["A", "f"]);
        assert_eq!(module.regions(), ["B", "C"]);
    }

    #[test]
    fn functions_are_single_lines() {
        let text = "// fn no() {}\nconst C: f32 = 1.0;\nfn f(x: f32) -> f32 {\n  // Twice.\n  if x > C {\n    return x; // so\n  }\n\
                    \n  return 2.0 * x;\n}\nfn g() { f(); }\n";
        let functions = module("t::a", "t/a.wesl", text).functions();
        let f = "fn f(x: f32) -> f32 { if x > C { return x; } return 2.0 * x; }";
        assert_eq!(functions, [("f", f.to_string()), ("g", "fn g() { f(); }".to_string())]);
    }

    #[test]
    fn what_cannot_be_linked_is_named_with_its_line() {
        let message = |modules| linked(modules).expect_err("must be refused").to_string();
        assert_eq!(
            message(&[const { module("t::kernel", "t/kernel.wesl", "\nimport package::t::a::f;") }]),
            "shader t/kernel.wesl:2: there is no module `t::a`"
        );
        assert_eq!(
            message(
                const {
                    &[
                        module("t::kernel", "t/kernel.wesl", "import package::t::a::{f, g};"),
                        module("t::a", "t/a.wesl", "fn f() {}"),
                    ]
                }
            ),
            "shader t/kernel.wesl:1: `t::a` declares no `g`"
        );
        assert_eq!(
            message(
                const {
                    &[
                        module("t::kernel", "t/kernel.wesl", "import package::t::a::f;\n\nfn f() {}"),
                        module("t::a", "t/a.wesl", "fn f() {}"),
                    ]
                }
            ),
            "shader t/kernel.wesl:3: `f` is declared in t/a.wesl too"
        );
        assert_eq!(
            message(
                const {
                    &[
                        module("t::kernel", "t/kernel.wesl", "import package::t::a::f;"),
                        module("t::a", "t/a.wesl", "import package::t::b::g;\nfn f() {}"),
                        module("t::b", "t/b.wesl", "import package::t::a::f;\nfn g() {}"),
                    ]
                }
            ),
            "shader t/b.wesl:1: imports in a circle: t::a → t::b → t::a"
        );
        for import in [
            "import t::a::f;",
            "import package::t::a::*;",
            "import package::t::a::{f as g};",
            "import package::t::a::f",
        ] {
            let text: &'static str = import.to_string().leak();
            let modules: &'static [Module] = vec![module("t::kernel", "t/kernel.wesl", text)].leak();
            assert!(message(modules).starts_with("shader t/kernel.wesl:1: "), "{import}");
        }
    }

    #[test]
    fn every_family_has_a_fingerprint() {
        for family in crate::kernel::FAMILIES {
            assert_eq!(fingerprint(family).len(), 16, "{family}");
        }
        assert_eq!(fingerprint("no family"), "");
    }

    #[test]
    fn every_kernel_links() {
        for module in MODULES.iter().filter(|module| module.is_kernel()) {
            Linked::of(module.path).unwrap_or_else(|error| panic!("{}: {error}", module.path));
        }
    }
}
