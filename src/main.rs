//! The command line: one command a file under `commands/`.

mod commands;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = commands::CommandLine::parse();
    match commands::run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("planish: {error}");
            ExitCode::FAILURE
        }
    }
}
