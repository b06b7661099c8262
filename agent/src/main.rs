//! nodemedic finds the ways in which the kernel stalls a node.

#![cfg_attr(fuzzing, no_main)]

pub mod ailments;
pub mod cmd;
pub mod collector;
pub mod config;
pub mod control;
pub mod dispatch;
pub mod durable;
pub mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod http;
pub mod identity;
pub mod kernel;
pub mod keys;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod monitor;
pub mod node;
pub mod pages;
pub mod render;
pub mod state;
pub mod text;
pub mod time;
pub mod treatment;
pub mod wakeup;
pub mod webhook;

use std::process::ExitCode;

use crate::cmd::{Arguments, exit};

#[cfg_attr(
    fuzzing,
    expect(dead_code, reason = "libFuzzer has the program's beginning")
)]
fn main() -> ExitCode {
    kernel::keep_little_free_memory();
    match Arguments::read(std::env::args_os()) {
        Ok(arguments) => exit::code(arguments.run()),
        Err(error) => exit::usage(&error),
    }
}
