//! The program as a user runs it, in processes of its own.

mod commands;
mod common;
mod diff;
mod embed;
mod files;
#[path = "../../../tests/common/diff/mod.rs"]
#[allow(dead_code, reason = "shared with the library's tests")]
mod layer;
mod options;
#[cfg(unix)]
mod records;
mod shaders;
