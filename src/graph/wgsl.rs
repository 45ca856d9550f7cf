//! WGSL text of users: checked before it becomes part of a shader, with errors that point into their lines.

use std::{collections::BTreeSet, error, sync::Arc};

use naga::{
    Block, Expression, Handle, Module, Span, Statement,
    valid::{CallError, Capabilities, FunctionError, ValidationFlags, Validator},
};

use crate::{Error, Result};

/// The body of a function: an expression, or statements with a `return`.
#[derive(Clone, Debug)]
pub(super) struct Text {
    given: Arc<str>,
    /// As long as `given`: comments are blank, and `table[…]` is the call `table(…)`.
    clean: Arc<str>,
    /// Statements, not an expression.
    statements: bool,
}

impl Text {
    /// Checks a text as the body of a function with these parameters and this result; `kind` names it in errors.
    pub(super) fn new(given: &str, kind: &str, parameters: &str, result: &str) -> Result<Self> {
        let source = Source { kind, given };
        let (clean, end) = source.clean()?;
        if clean.trim().is_empty() {
            return Err(Error::op(kind, "the text is empty"));
        }
        let statements = words(&clean).any(|(_, word)| word == "return");
        if let (false, Some(at)) = (statements, end) {
            let message = "statements need a `return`; an expression has no `;`";
            return Err(source.fault(message, "", at..at + 1));
        }
        let text = Text { given: given.into(), clean: clean.into(), statements };
        text.compile(&source, parameters, result)?;
        Ok(text)
    }

    pub(super) fn given(&self) -> &str {
        &self.given
    }

    /// Whether a name occurs in it.
    pub(super) fn uses(&self, name: &str) -> bool {
        words(&self.clean).any(|(_, word)| word == name)
    }

    /// The body on one line; `table` is the function that gives an element of the table.
    pub(super) fn body(&self, table: &str) -> String {
        let mut text = String::new();
        let mut done = 0;
        for (at, _) in words(&self.clean).filter(|(_, word)| *word == "table") {
            text = text + &self.clean[done..at] + table;
            done = at + "table".len();
        }
        text += &self.clean[done..];
        let text = with_values(&text.split_whitespace().collect::<Vec<_>>().join(" "));
        if self.statements { text } else { format!("return ({text});") }
    }

    /// Asks naga, in a module that has nothing else to offer.
    fn compile(&self, source: &Source<'_>, parameters: &str, result: &str) -> Result<()> {
        let (open, close) = if self.statements { ("", "") } else { ("return (", ");") };
        let head = format!(
            "fn table(index: i32) -> f32 {{ return f32(index); }}\nfn user({parameters}) -> {result} {{ {open}"
        );
        let shader = format!("{head}{}\n{close} }}\n", self.clean);
        let at = |span: Span| {
            let range = span.to_range().unwrap_or(0..0);
            range.start.saturating_sub(head.len())..range.end.saturating_sub(head.len())
        };
        let module = naga::front::wgsl::parse_str(&shader).map_err(|e| {
            let (span, label) = e.labels().next().unwrap_or((Span::UNDEFINED, ""));
            let label = if label == "see msg" { "" } else { label };
            source.fault(e.message(), label, at(span))
        })?;
        // Brackets match, so that nothing can have been declared beside the two.
        let user = match module.functions.iter().find(|(_, function)| function.name.as_deref() == Some("user")) {
            Some((user, _)) if module.functions.len() == 2 && module.global_variables.is_empty() => user,
            _ => return Err(Error::op(source.kind, "the text declares something beside the function")),
        };
        let scan = Scan { module: &module, user };
        scan.block(&module.functions[user].body)
            .and_then(|()| scan.expressions())
            .map_err(|(message, span)| source.fault(&message, "", at(span)))?;
        let checked = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module);
        checked.map(|_| ()).map_err(|e| {
            let mut cause: &dyn error::Error = e.as_inner();
            while let Some(next) = cause.source() {
                cause = next;
            }
            let message = if matches!(cause.downcast_ref(), Some(FunctionError::InvalidReturnType { .. })) {
                format!("the result is no {result}, or there is a way through without one")
            } else if matches!(cause.downcast_ref(), Some(CallError::ArgumentType { .. })) {
                "the index of `table` is no i32".into()
            } else {
                readable(&cause.to_string())
            };
            let spans: Vec<_> = e.spans().map(|(span, _)| at(*span)).collect();
            let innermost = spans.into_iter().min_by_key(ExactSizeIterator::len).unwrap_or(0..0);
            source.fault(&message, "", innermost)
        })
    }
}

/// The text and what it is called.
struct Source<'a> {
    kind: &'a str,
    given: &'a str,
}

impl Source<'_> {
    /// The text with blank comments and calls of `table`, and where its first `;` is.
    fn clean(&self) -> Result<(String, Option<usize>)> {
        let mut bytes = self.given.as_bytes().to_vec();
        // Open brackets, and whether each belongs to the table.
        let mut open: Vec<(usize, u8, bool)> = Vec::new();
        let (mut at, mut end, mut after_table) = (0, None, false);
        let tables: BTreeSet<usize> =
            words(self.given).filter(|(_, word)| *word == "table").map(|(at, word)| at + word.len()).collect();
        while at < bytes.len() {
            let rest = &self.given.as_bytes()[at..];
            if let Some(length) = comment(rest) {
                let unclosed = rest.starts_with(b"/*") && !rest[..length].ends_with(b"*/");
                if unclosed {
                    return Err(self.fault("this comment has no end", "", at..at + 2));
                }
                bytes[at..at + length].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
                at += length;
                continue;
            }
            after_table |= tables.contains(&at);
            match rest[0] {
                bracket @ (b'(' | b'[' | b'{') => {
                    let table = after_table && bracket == b'[';
                    if table {
                        bytes[at] = b'(';
                    }
                    open.push((at, bracket, table));
                }
                bracket @ (b')' | b']' | b'}') => {
                    let opening = match bracket {
                        b')' => b'(',
                        b']' => b'[',
                        _ => b'{',
                    };
                    match open.pop() {
                        Some((_, kind, table)) if kind == opening => {
                            if table {
                                bytes[at] = b')';
                            }
                        }
                        Some((before, ..)) => {
                            let message =
                                format!("`{}` does not close `{}`", char::from(bracket), self.char_at(before));
                            return Err(self.fault(&message, "", at..at + 1));
                        }
                        None => {
                            let message = format!(
                                "`{}` closes nothing: the text is the body of a function, and can't end it",
                                char::from(bracket)
                            );
                            return Err(self.fault(&message, "", at..at + 1));
                        }
                    }
                }
                b';' if end.is_none() => end = Some(at),
                _ => {}
            }
            after_table &= rest[0].is_ascii_whitespace();
            at += 1;
        }
        if let Some(&(at, ..)) = open.last() {
            return Err(self.fault(&format!("`{}` is never closed", self.char_at(at)), "", at..at + 1));
        }
        String::from_utf8(bytes).map(|clean| (clean, end)).map_err(|_| Error::op(self.kind, "the text is no UTF-8"))
    }

    fn char_at(&self, at: usize) -> char {
        char::from(self.given.as_bytes()[at])
    }

    /// An error with the line that it is about, and a caret under the place.
    fn fault(&self, message: &str, label: &str, range: std::ops::Range<usize>) -> Error {
        let text = self.given;
        let end = text.trim_end().len();
        let (start, stop, message) = if range.start >= end {
            // Where naga ran into what comes after the text.
            let message = message.split(", found ").next().unwrap_or(message);
            let found = if label.is_empty() { "" } else { ", found the end of the text" };
            (end, end, format!("{message}{found}"))
        } else {
            (range.start, range.end.clamp(range.start, end), message.to_string())
        };
        let whole = |at: usize| (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let (start, stop) = (whole(start), whole(stop));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[line_start..line_end].trim_end();
        let indent: String = text[line_start..start].chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let carets = "^".repeat(text[start..stop.min(line_end)].chars().count().max(1));
        let number = match text.trim_end().contains('\n') {
            true => format!("{} | ", text[..line_start].matches('\n').count() + 1),
            false => String::new(),
        };
        let margin = " ".repeat(number.len());
        let label = if label.is_empty() || start == end { String::new() } else { format!(" {label}") };
        Error::op(self.kind, format!("{message}\n  {number}{line}\n  {margin}{indent}{carets}{label}"))
    }
}

/// The text with a value for each variable that is declared without one, its type's zero: Chromium gives it that once, before the
/// loop that the function is called in.
fn with_values(text: &str) -> String {
    let (mut whole, mut done) = (String::new(), 0);
    for (at, _) in words(text).filter(|(_, word)| *word == "var") {
        let statement = text[at..].split(';').next().unwrap_or_default();
        if let Some((_, ty)) = statement.split_once(':').filter(|_| !statement.contains('=')) {
            whole = whole + &text[done..at + statement.len()] + &format!(" = {}()", ty.trim());
            done = at + statement.len();
        }
    }
    whole + &text[done..]
}

/// Identifiers, keywords and numbers outside comments, with where they begin.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < text.len() {
            if let Some(length) = comment(&text.as_bytes()[at..]) {
                at += length;
                continue;
            }
            let rest = &text[at..];
            let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            if length > 0 {
                at += length;
                return Some((at - length, &rest[..length]));
            }
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
        None
    })
}

/// The length of the comment that begins here, if one does; block comments nest.
fn comment(rest: &[u8]) -> Option<usize> {
    if rest.starts_with(b"//") {
        return Some(rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with(b"/*") {
        return None;
    }
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let step = match &rest[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    Some(at)
}

/// naga's message with WGSL's names of types, and without the numbers by which it names things: ` [3]`.
fn readable(message: &str) -> String {
    let mut parts = message.split(" [");
    let first = parts.next().unwrap_or_default().to_string();
    let text = parts.fold(first, |text, part| match part.split_once(']') {
        Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => text + rest,
        _ => text + " [" + part,
    });
    let types = [("Float", 4, "f32"), ("Sint", 4, "i32"), ("Uint", 4, "u32"), ("Bool", 1, "bool")];
    types.into_iter().fold(text, |text, (kind, width, name)| {
        text.replace(&format!("Scalar(Scalar {{ kind: {kind}, width: {width} }})"), name)
    })
}

type Found = Result<(), (String, Span)>;

/// Looks for what a function of scores must not do: the shaders around it run without checks of loops and indices, and not
/// all invocations call it.
struct Scan<'a> {
    module: &'a Module,
    user: Handle<naga::Function>,
}

impl Scan<'_> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "what naga learns is not taken either")]
    fn block(&self, block: &Block) -> Found {
        block.span_iter().try_for_each(|(statement, &span)| match statement {
            Statement::Block(inner) => self.block(inner),
            Statement::If { accept, reject, .. } => self.block(accept).and_then(|()| self.block(reject)),
            Statement::Switch { cases, .. } => cases.iter().try_for_each(|case| self.block(&case.body)),
            Statement::Emit(_)
            | Statement::Break
            | Statement::Continue
            | Statement::Return { .. }
            | Statement::Store { .. }
            | Statement::Call { .. } => Ok(()),
            Statement::Loop { .. } => Err(("loops are not taken: it runs once for each score".into(), span)),
            _ => Err(("this is not taken: an invocation computes its scores alone".into(), span)),
        })
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what naga learns is not taken either")]
    fn expressions(&self) -> Found {
        let expressions = &self.module.functions[self.user].expressions;
        expressions.iter().try_for_each(|(handle, expression)| match expression {
            Expression::Literal(_)
            | Expression::Constant(_)
            | Expression::ZeroValue(_)
            | Expression::Compose { .. }
            | Expression::AccessIndex { .. }
            | Expression::Splat { .. }
            | Expression::Swizzle { .. }
            | Expression::FunctionArgument(_)
            | Expression::LocalVariable(_)
            | Expression::Load { .. }
            | Expression::Unary { .. }
            | Expression::Binary { .. }
            | Expression::Select { .. }
            | Expression::Relational { .. }
            | Expression::Math { .. }
            | Expression::As { .. }
            | Expression::CallResult(_) => Ok(()),
            Expression::Access { .. } => {
                let message = "the index is not constant; only `table` takes such an index";
                Err((message.into(), expressions.get_span(handle)))
            }
            _ => Err(("this is not taken in a function of scores".into(), expressions.get_span(handle))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(given: &str) -> Result<Text> {
        Text::new(given, "score function", "score: f32, i: i32, j: i32", "f32")
    }

    #[test]
    fn variables_get_values() {
        let body = |given: &str| text(given).unwrap_or_else(|e| panic!("{e}")).body("values");
        assert_eq!(
            body("var a: f32; var b: array<f32, 2>;\nvar c = 2.0; a = score; return a + b[1] * c;"),
            "var a: f32 = f32(); var b: array<f32, 2> = array<f32, 2>(); var c = 2.0; a = score; return a + b[1] * c;"
        );
    }

    #[test]
    fn becomes_one_line() {
        let body = |given: &str| text(given).unwrap_or_else(|e| panic!("{e}")).body("values");
        assert_eq!(body("score * 0.5"), "return (score * 0.5);");
        assert_eq!(body("score // half\n  * 0.5 // of it }"), "return (score * 0.5);");
        assert_eq!(body("table [ i + i32(table[j]) ] /* /* */ } */"), "return (values ( i + i32(values(j)) ));");
        assert_eq!(body("let far = i - j;\nreturn select(score, 0.0, far > 3);"), {
            "let far = i - j; return select(score, 0.0, far > 3);"
        });
        assert_eq!(body("var a = vec2<f32>(score, 1.0); a[1] = 2.0; return a.y;"), {
            "var a = vec2<f32>(score, 1.0); a[1] = 2.0; return a.y;"
        });
        assert!(
            text("table[i]").expect("fits").uses("table") && !text("score /* table */").expect("fits").uses("table")
        );
    }

    /// Texts, and what must be said of them: message, line and carets.
    #[test]
    fn faults_point_into_the_text() {
        let cases = [
            ("", "the text is empty", ""),
            (" // nothing", "the text is empty", ""),
            ("scor * 0.5", "no definition in scope for identifier: `scor`", "  scor * 0.5\n  ^^^^ unknown identifier"),
            ("score * ", "expected expression, found the end of the text", "  score *\n         ^"),
            (
                "score * i",
                "Operation Multiply can't work with (of type f32) and (of type i32)",
                "  score * i\n  ^^^^^^^^^",
            ),
            ("i", "the result is no f32", "  i\n  ^"),
            ("return;", "the result is no f32", "  return;\n  ^^^^^^^"),
            ("if score > 0.0 { return score; }", "or there is a way through without one", "\n  ^^^^"),
            ("score; 1.0", "statements need a `return`", "  score; 1.0\n       ^"),
            ("(score", "`(` is never closed", "  (score\n  ^"),
            ("score * [2.0)", "`)` does not close `[`", "  score * [2.0)\n              ^"),
            ("exp(i)", "wrong type passed as argument #1 to `exp`", "  exp(i)\n  ^^^"),
            ("q[0] + score", "no definition in scope for identifier: `q`", "  q[0] + score\n  ^ unknown"),
            ("p.scale", "no definition in scope for identifier: `p`", "  p.scale\n  ^ unknown"),
            ("table[1u]", "the index of `table` is no i32", "  table[1u]\n        ^^"),
            ("score = 1.0; return score;", "invalid left-hand side of assignment", "\n  ^^^^^ cannot assign"),
            ("return score; /* ", "this comment has no end", "  return score; /*\n                ^^"),
            ("dpdx(score)", "this is not taken in a function of scores", "  dpdx(score)\n  ^^^^"),
            ("while true { } return score;", "loops are not taken", "\n  ^^^^^^^^^^^^^^"),
            ("workgroupBarrier(); return score;", "an invocation computes its scores alone", "\n  ^^^^"),
            ("subgroupAdd(score)", "an invocation computes its scores alone", "\n  ^^^^"),
            ("var a = array<f32, 2>(1.0, score); return a[i];", "only `table` takes such an index", "  ^^^^"),
            ("é * 2.0 + scoré", "no definition in scope for identifier: `é`", "  é * 2.0 + scoré\n  ^ unknown"),
            (
                "if score > 0.0 {\n\treturn scor;\n}\nreturn score;",
                "no definition in scope for identifier: `scor`",
                "  2 | \treturn scor;\n      \t       ^^^^ unknown identifier",
            ),
        ];
        for (given, message, lines) in cases {
            let error = text(given).expect_err(given).to_string();
            assert!(error.starts_with("score function: ") && error.contains(message), "{given:?}:\n{error}");
            assert!(error.contains(lines), "{given:?}:\n{error}");
        }
    }

    #[test]
    fn the_body_cannot_be_left() {
        for given in [
            "score } fn evil() {",
            "score); } fn evil() { _ = (1.0",
            "return score; } @compute @workgroup_size(1) fn main() {",
            "score) + (1.0",
            "/* { */ return score; }",
            "score ] [",
        ] {
            let error = text(given).expect_err(given).to_string();
            assert!(error.contains("closes nothing: the text is the body of a function, and can't end it"), "{error}");
        }
        for given in [
            "fn f() {} return score;",
            "@group(0) @binding(0) var<storage> x: f32; return x;",
            "enable f16; return 1.0;",
        ] {
            text(given).expect_err(given);
        }
    }
}
