//! The number formats against ml_dtypes and NumPy: `conformance/number_formats.py` wrote what they say, and tells how
//! the inputs are made and what the digest is.

use planish_graph::formats::{self, NumberFormat, Overflow, Rounding};

const ORACLE: &str = include_str!("data/number_formats.txt");

fn digest(content: impl IntoIterator<Item = u8>) -> String {
    let state = content.into_iter().fold(0xcbf2_9ce4_8422_2325u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{state:016x}")
}

/// The number of every code.
fn decoded(format: &dyn NumberFormat) -> Vec<f32> {
    let numbers = (0..1u64 << format.facts().bits).map(|code| format.decode(code) as f32);
    numbers.map(|v| if v.is_nan() { f32::from_bits(0x7fc0_0000) } else { v }).collect()
}

/// The middle of two numbers, between its neighbours.
fn between(low: f32, high: f32) -> [f32; 3] {
    let middle = ((f64::from(low) + f64::from(high)) / 2.0) as f32;
    [middle.next_down(), middle, middle.next_up()]
}

fn inputs(format: &dyn NumberFormat, numbers: &[f32]) -> Vec<f32> {
    let mut finite: Vec<f32> = numbers.iter().filter(|v| v.is_finite()).map(|v| v + 0.0).collect();
    finite.sort_by(f32::total_cmp);
    finite.dedup();
    let mut made = Vec::new();
    for extreme in [f32::INFINITY, 0.0, f32::from_bits(1), f32::MAX] {
        made.extend([extreme, -extreme]);
    }
    if numbers.iter().any(|v| v.is_nan()) {
        made.push(f32::NAN);
    }
    made.extend(&finite);
    made.extend(finite.windows(2).flat_map(|pair| between(pair[0], pair[1])));
    let last = finite.len() - 1;
    for (outer, inside) in [(finite[last], finite[last - 1]), (finite[0], finite[1])] {
        let following = (2.0 * f64::from(outer) - f64::from(inside)) as f32;
        if following.is_finite() {
            made.push(following);
            made.extend(between(outer, following));
        }
    }
    if format.name() == "fp8-e8m0" {
        made.retain(|v| v.is_nan() || f64::from(*v) >= 2f64.powi(-126));
    }
    made
}

#[test]
fn formats_are_those_of_ml_dtypes_and_numpy() {
    let mut compared = 0;
    for line in ORACLE.lines().filter(|l| !l.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let ["decode", decode, "encode", count, encode] = words[1..6] else { panic!("{line}") };
        let name = words[0];
        let format = formats::named(name).unwrap_or_else(|| panic!("{name}"));
        let numbers = decoded(format);
        for (code, wanted) in words[6..].iter().skip(1).enumerate() {
            let wanted: f32 = wanted.parse().unwrap();
            assert_eq!(numbers[code].to_bits(), wanted.to_bits(), "{name} {code:#x}");
        }
        assert_eq!(digest(numbers.iter().flat_map(|v| v.to_le_bytes())), decode, "{name}: numbers");
        let values = inputs(format, &numbers);
        assert_eq!(values.len().to_string(), count, "{name}: inputs");
        let mut codes = vec![0; values.len() * format.code_bytes()];
        format.encode_slice(&values, &mut codes, &mut Rounding::TiesEven, Overflow::AsSpecified);
        assert_eq!(digest(codes), encode, "{name}: codes");
        compared += 1;
    }
    assert_eq!(compared, 12);
}
