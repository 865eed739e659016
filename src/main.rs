//! The command line: one command a file under `commands/`.

mod commands;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    end_quietly_on_a_closed_pipe();
    let arguments = commands::CommandLine::parse();
    match commands::run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("planish: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `planish inspect MODEL | head` ends when `head` does, as other tools do, instead of failing to print.
fn end_quietly_on_a_closed_pipe() {
    #[cfg(unix)]
    // SAFETY: called before any other thread exists; the default action of SIGPIPE runs no code of ours.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}
