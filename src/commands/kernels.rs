//! `planish kernels`: every kernel, its instruction set, and whether this machine has it.

use clap::Args;
use planish::report::table::{Align, Table};
use planish_cpu::amx;
use planish_cpu::isa::Isa;
use planish_graph::{Error, Result};
use std::process::ExitCode;

/// What to list.
#[derive(Args)]
pub struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Lists the kernels.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let chosen = Isa::from_env().map_err(|e| Error::unsupported(e.to_string()))?;
    let kernels = planish_cpu::kernels::kernels();
    if arguments.json {
        let list: Vec<serde_json::Value> = kernels
            .iter()
            .map(|k| {
                serde_json::json!({
                    "family": k.family, "name": k.name, "element": k.element.name(), "isa": k.isa.name(),
                    "available": k.is_available(),
                })
            })
            .collect();
        let emulated = amx::is_emulated();
        super::print_json(&serde_json::json!({"isa": chosen.name(), "emulated": emulated, "kernels": list}))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&[
        ("family", Align::Left),
        ("kernel", Align::Left),
        ("element", Align::Left),
        ("instruction set", Align::Left),
        ("this machine", Align::Left),
    ]);
    for kernel in &kernels {
        let has = match kernel.is_available() {
            true if kernel.isa == Isa::Amx && amx::is_emulated() => "emulated",
            true => "yes",
            false => "no",
        };
        table.row([kernel.family, kernel.name, kernel.element.name(), kernel.isa.name(), has]);
    }
    print!("{table}");
    println!("in use: {chosen} (PLANISH_ISA chooses another)");
    Ok(ExitCode::SUCCESS)
}
