//! Whether outputs agree, by the rule of ONNX's test runner: the same number, shapes and types, and elements within
//! `atol + rtol * |expected|`, where NaN equals NaN.

use planish_graph::{DType, Tensor};
use std::path::Path;

/// Two units in the last place of bf16: ONNX's runner allows no less.
const BF16_RTOL: f64 = 1.0 / 64.0;

/// How far outputs may be off.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    rtol: f64,
    atol: f64,
}

impl Tolerance {
    /// What a case's `case.txt` states.
    pub fn read(path: &Path) -> Result<Tolerance, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let number = |key: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(key)).map(str::trim);
            line.and_then(|v| v.parse().ok()).ok_or(format!("{}: no {key}", path.display()))
        };
        Ok(Tolerance { rtol: number("rtol")?, atol: number("atol")? })
    }
}

/// The first disagreement between what was made and what was expected, if any.
pub fn compare(made: &[Tensor], expected: &[Tensor], tolerance: &Tolerance) -> Result<(), String> {
    if made.len() != expected.len() {
        return Err(format!("{} outputs, expected {}", made.len(), expected.len()));
    }
    for (index, (made, expected)) in made.iter().zip(expected).enumerate() {
        compare_one(made, expected, tolerance).map_err(|e| format!("output {index}: {e}"))?;
    }
    Ok(())
}

fn compare_one(made: &Tensor, expected: &Tensor, tolerance: &Tolerance) -> Result<(), String> {
    if made.dtype() != expected.dtype() || made.shape() != expected.shape() {
        return Err(format!(
            "{}{:?}, expected {}{:?}",
            made.dtype(),
            made.shape(),
            expected.dtype(),
            expected.shape()
        ));
    }
    let rtol = if made.dtype() == DType::BF16 { tolerance.rtol.max(BF16_RTOL) } else { tolerance.rtol };
    let close = |a: f64, b: f64| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance.atol + rtol * b.abs()
    };
    let (a, b) = (made.to_f64s(), expected.to_f64s());
    let wrong: Vec<usize> = (0..a.len()).filter(|&i| !close(a[i], b[i])).collect();
    match wrong.first() {
        None => Ok(()),
        Some(&i) => Err(format!(
            "{} of {} elements differ, first at {i}: {}, expected {}",
            wrong.len(),
            a.len(),
            a[i],
            b[i]
        )),
    }
}
