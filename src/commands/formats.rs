//! `planish formats`: every number format, what it can express, and what it makes of given numbers.

use clap::Args;
use planish::report::table::{Align, Table};
use planish_graph::formats::{self, NumberFormat, Overflow};
use planish_graph::{Error, Result};
use serde_json::{Value, json};
use std::process::ExitCode;

/// The example where no numbers are given: in none of the formats exact.
const EXAMPLE: f64 = 0.1;

/// What to show.
#[derive(Args)]
#[command(allow_negative_numbers = true)]
pub struct Arguments {
    /// Numbers to encode in every format; also inf and nan
    #[arg(value_name = "NUMBER")]
    numbers: Vec<f64>,
    /// Only this format; may be given several times
    #[arg(long, value_name = "NAME")]
    format: Vec<String>,
    /// Numbers that are too large become the largest finite one instead of what the format specifies
    #[arg(long)]
    saturate: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Lists the formats, or encodes numbers in them.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let chosen = chosen(&arguments.format)?;
    let overflow = if arguments.saturate { Overflow::Saturate } else { Overflow::AsSpecified };
    if arguments.json {
        let numbers = if arguments.numbers.is_empty() { &[EXAMPLE][..] } else { &arguments.numbers };
        let list: Vec<Value> = chosen.iter().map(|f| described(*f, numbers, overflow)).collect();
        super::print_json(&json!({ "formats": list }))?;
    } else if arguments.numbers.is_empty() {
        print!("{}", facts(&chosen, overflow));
    } else {
        print!("{}", encodings(&chosen, &arguments.numbers, overflow));
    }
    Ok(ExitCode::SUCCESS)
}

fn chosen(names: &[String]) -> Result<Vec<&'static dyn NumberFormat>> {
    if names.is_empty() {
        return Ok(formats::all().to_vec());
    }
    let find = |name: &String| {
        formats::named(name).ok_or_else(|| {
            let known: Vec<&str> = formats::all().iter().map(|f| f.name()).collect();
            Error::invalid(format!("there is no number format \"{name}\"; there are {}", known.join(", ")))
        })
    };
    names.iter().map(find).collect()
}

/// A number as the format holds it: its code, and what that code stands for.
fn encode(format: &dyn NumberFormat, number: f64, overflow: Overflow) -> (String, f64) {
    let code = format.encode(number, &mut format.own_rounding(), overflow);
    // As many digits as are stored, or as the format has where it has less than a byte.
    let digits = if format.code_bytes() == 1 {
        format.facts().bits.div_ceil(4) as usize
    } else {
        2 * format.code_bytes()
    };
    (format!("0x{code:0digits$x}"), format.decode(code))
}

/// Widths of sign, exponent and fraction.
fn widths(format: &dyn NumberFormat) -> String {
    let facts = format.facts();
    match facts.float {
        Some(float) => {
            format!("{}-{}-{}", u8::from(facts.signed), float.exponent_bits, float.fraction_bits)
        }
        None => String::new(),
    }
}

fn facts(chosen: &[&dyn NumberFormat], overflow: Overflow) -> Table {
    let mut table = Table::new(&[
        ("format", Align::Left),
        ("bits", Align::Right),
        ("s-e-f", Align::Left),
        ("bias", Align::Right),
        ("lowest", Align::Right),
        ("largest", Align::Right),
        ("min normal", Align::Right),
        ("min subnormal", Align::Right),
        ("epsilon", Align::Right),
        ("specials", Align::Left),
        ("0.1 is", Align::Left),
        ("", Align::Right),
        ("origin", Align::Left),
    ]);
    for format in chosen {
        let facts = format.facts();
        let float = |of: fn(formats::FloatFacts) -> Option<f64>| {
            facts.float.and_then(of).map(shown).unwrap_or_default()
        };
        let (code, value) = encode(*format, EXAMPLE, overflow);
        table.row([
            format.name().to_string(),
            facts.bits.to_string(),
            widths(*format),
            facts.float.map(|f| f.bias.to_string()).unwrap_or_default(),
            shown(facts.lowest),
            shown(facts.largest),
            float(|f| Some(f.smallest_normal)),
            float(|f| f.smallest_subnormal),
            float(|f| Some(f.epsilon)),
            facts.specials.to_string(),
            code,
            shown(value),
            format.origin().to_string(),
        ]);
    }
    table
}

fn encodings(chosen: &[&dyn NumberFormat], numbers: &[f64], overflow: Overflow) -> Table {
    let mut table = Table::new(&[
        ("format", Align::Left),
        ("number", Align::Right),
        ("code", Align::Left),
        ("value", Align::Right),
        ("relative error", Align::Right),
    ]);
    for &number in numbers {
        for format in chosen {
            let (code, value) = encode(*format, number, overflow);
            let error = if value == number { 0.0 } else { (value - number).abs() / number.abs() };
            let error = if error.is_finite() { shown_in(error, 2) } else { String::new() };
            table.row([format.name().to_string(), shown(number), code, shown(value), error]);
        }
    }
    table
}

fn described(format: &dyn NumberFormat, numbers: &[f64], overflow: Overflow) -> Value {
    let facts = format.facts();
    let encoded: Vec<Value> = numbers
        .iter()
        .map(|&number| {
            let (code, value) = encode(format, number, overflow);
            json!({"number": jsonable(number), "code": code, "value": jsonable(value)})
        })
        .collect();
    json!({
        "name": format.name(), "origin": format.origin(), "bits": facts.bits, "signed": facts.signed,
        "exponent_bits": facts.float.map(|f| f.exponent_bits),
        "fraction_bits": facts.float.map(|f| f.fraction_bits),
        "bias": facts.float.map(|f| f.bias),
        "lowest": facts.lowest, "largest": facts.largest,
        "smallest_normal": facts.float.map(|f| f.smallest_normal),
        "smallest_subnormal": facts.float.and_then(|f| f.smallest_subnormal),
        "epsilon": facts.float.map(|f| f.epsilon),
        "specials": facts.specials, "encoded": encoded,
    })
}

/// JSON has no number that is not finite: those become texts.
fn jsonable(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { json!(shown(value)) }
}

/// Seven significant digits, without those that say nothing.
fn shown(value: f64) -> String {
    shown_in(value, 7)
}

fn shown_in(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return value.to_string().to_lowercase();
    }
    let scientific = format!("{value:.*e}", digits - 1);
    let short: f64 = scientific.parse().unwrap_or(value);
    let small = short == 0.0 || (1e-4..1e7).contains(&short.abs());
    if small { short.to_string() } else { format!("{short:e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.1, "0.1"),
            (-0.0, "-0"),
            (0.0999755859375, "0.09997559"),
            (65504.0, "65504"),
            (8573157376.0, "8.573157e9"),
            (f64::INFINITY, "inf"),
            (f64::NAN, "nan"),
            (f64::MAX, "1.797693e308"),
            (5e-324, "5e-324"),
        ];
        for (value, text) in cases {
            assert_eq!(shown(value), text);
        }
    }
}
