//! The documentation shows every public function that can fail at work. (Clippy's `missing_errors_doc` sees that it says when
//! it does.)

use std::{fs, path::Path};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The folders whose functions users call.
const FOLDERS: [&str; 5] = ["tensor", "graph", "reference", "gpu", "nn"];

/// The public functions in a source text that return a `Result` and have no example.
///
/// Tokens are read, not items, so that functions in macros count too. Nothing but `pub` is asked: `unreachable_pub` sees to it
/// that what users can't reach is not called so.
fn without_example(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk(&source.parse().expect("Rust"), false, &mut found);
    found
}

/// Goes through the items of a block. In a public trait all functions are public; the trait's example is theirs.
fn walk(tokens: &TokenStream, public_trait: bool, found: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.to_string() == word);
    // Where the attributes of the next item begin, and whether it is a trait whose functions need examples.
    let (mut first, mut in_trait) = (0, false);
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => {
                walk(&group.stream(), in_trait, found);
                if group.delimiter() == Delimiter::Brace {
                    (first, in_trait) = (at + 1, false);
                }
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => first = at + 1,
            TokenTree::Ident(word) if word == "trait" => {
                in_trait = at > 0 && is(at - 1, "pub") && !has_example(&tokens[first..at]);
            }
            TokenTree::Ident(word) if word == "fn" => {
                let public = public_trait || tokens[first..at].iter().any(|token| token.to_string() == "pub");
                let restricted = (first..at).any(|at| is(at, "pub") && tokens[at + 1].to_string().starts_with('('));
                let rest = &tokens[at + 1..];
                let end = rest.iter().position(|token| match token {
                    TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                    TokenTree::Punct(punct) => punct.as_char() == ';',
                    TokenTree::Ident(_) | TokenTree::Literal(_) => false,
                });
                let signature = TokenStream::from_iter(rest[..end.unwrap_or(rest.len())].iter().cloned()).to_string();
                let fallible = signature.rsplit_once("->").is_some_and(|(_, result)| result.contains("Result <"));
                if public && !restricted && fallible && !has_example(&tokens[first..at]) {
                    found.push(signature.split(['(', '<']).next().unwrap_or_default().trim().replace("$ ", "$"));
                }
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// Whether the attributes of an item show an example, which a block of text is not, or hide the item.
fn has_example(attributes: &[TokenTree]) -> bool {
    let docs = TokenStream::from_iter(attributes.iter().cloned()).to_string();
    docs.matches("```").count() > 2 * docs.matches("```text").count() || docs.contains("doc (hidden)")
}

#[test]
fn every_function_that_can_fail_has_an_example() {
    let (mut folders, mut found) = (FOLDERS.map(|folder| Path::new("src").join(folder)).to_vec(), Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("is there") {
            let path = entry.expect("is there").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let source = fs::read_to_string(&path).expect("is text");
                found.extend(without_example(&source).into_iter().map(|name| format!("{}: {name}", path.display())));
            }
        }
    }
    found.sort_unstable();
    assert!(found.is_empty(), "{} functions without an example:\n{}", found.len(), found.join("\n"));
}

#[test]
fn a_function_without_an_example_is_found_wherever_it_is() {
    let source = r#"
        /// ```text
        /// a drawing
        /// ```
        #[cfg(feature = "x")]
        pub async fn free(x: impl Fn() -> u8) -> crate::Result<()> { helper(|| Ok(1)) }
        pub(super) fn inner() -> Result<()> { Ok(()) }
        fn helper() -> Result<()> { Ok(()) }
        #[doc(hidden)]
        pub fn hidden() -> Result<()> { Ok(()) }
        pub fn infallible(x: Result<u8>) -> u8 { 1 }
        impl Graph {
            /// Says nothing.
            pub fn method<T>(&self) -> Result<T, E>
            where
                T: Copy
            {}
            /// ```no_run
            /// ```
            pub fn complete(&self) -> Result<()> {}
        }
        impl Display for Graph { fn fmt(&self) -> Result<()> {} }
        macro_rules! named { ($($name:ident)*) => { impl Graph { $(pub fn $name(&self) -> Result<()> {})* } }; }
        pub trait Open: Sized { fn required(&self) -> Result<()>; fn plain(&self); }
        /// ```
        /// ```
        pub trait Shown { fn required(&self) -> Result<()>; }
        trait Closed { fn required(&self) -> Result<()>; }
    "#;
    assert_eq!(without_example(source), ["free", "method", "$name", "required"]);
}
