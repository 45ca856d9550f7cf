//! Gradients against finite differences of the f64 reference.

mod attention;
mod difference;
mod operations;
mod refusals;
