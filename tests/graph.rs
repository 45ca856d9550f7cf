//! The graph: what each operation infers, what each error says, names, JSON and printers.

#[path = "graph/json.rs"]
mod json;
#[path = "graph/print.rs"]
mod print;
