//! The commands, and the arguments that several of them share.

mod bench;
mod conv;
mod eval;
mod formats;
mod inspect;
mod interrupt;
mod kernels;
mod model;
mod optimize;
mod pictures;
mod quantize;
mod run;
mod source;
mod timing;
mod tune;
mod verify;

use clap::{Parser, Subcommand};
use planish_graph::Result;
use std::process::ExitCode;

/// Makes convolutional networks small and fast, and runs them.
#[derive(Parser)]
#[command(version, about, max_term_width = 110)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show a model's layers, shapes, multiply-accumulates, parameters and bytes
    Inspect(inspect::Arguments),
    /// Run a model once, on tensors or pictures
    Run(run::Arguments),
    /// Measure latency, throughput and memory
    Bench(bench::Arguments),
    /// Measure a classifier's accuracy on labelled pictures
    Eval(eval::Arguments),
    /// Check results against expected ones, or the optimised network against the reference, layer by layer
    Verify(verify::Arguments),
    /// Simplify a model and choose its algorithms; show what it gained
    Optimize(optimize::Arguments),
    /// Turn a float model into one of 8-bit integers, with the accuracy kept
    Quantize(quantize::Arguments),
    /// Time one convolution by every algorithm, or sweep over many
    Conv(conv::Arguments),
    /// Fit the planner's cost model to this machine
    Tune(tune::Arguments),
    /// List every kernel, its instruction set, and whether this machine has it
    Kernels(kernels::Arguments),
    /// List every number format, or show what each makes of given numbers
    Formats(formats::Arguments),
}

/// Runs one command. A command that checks something fails by its exit status, after it has reported.
pub fn run(line: CommandLine) -> Result<ExitCode> {
    match line.command {
        Command::Inspect(a) => inspect::run(&a),
        Command::Run(a) => run::run(&a),
        Command::Bench(a) => bench::run(&a),
        Command::Eval(a) => eval::run(&a),
        Command::Verify(a) => verify::run(&a),
        Command::Optimize(a) => optimize::run(&a),
        Command::Quantize(a) => quantize::run(&a),
        Command::Conv(a) => conv::run(&a),
        Command::Tune(a) => tune::run(&a),
        Command::Kernels(a) => kernels::run(&a),
        Command::Formats(a) => formats::run(&a),
    }
}

/// Prints one JSON object on standard output.
fn print_json(value: &serde_json::Value) -> Result<()> {
    let text =
        serde_json::to_string_pretty(value).map_err(|e| planish_graph::Error::invalid(e.to_string()))?;
    println!("{text}");
    Ok(())
}
