//! The `openfang` program. Everything it does is in its library.

use std::process::ExitCode;

fn main() -> ExitCode {
    openfang_cli::main_from(std::env::args_os())
}
