//! What must hold for every format, over all codes of those with at most 16 bits, in exact arithmetic.

use super::*;

/// Formats whose codes can all be looked at.
fn narrow() -> impl Iterator<Item = &'static dyn NumberFormat> {
    all().iter().copied().filter(|f| f.facts().bits <= 16)
}

fn codes(format: &dyn NumberFormat) -> std::ops::Range<u64> {
    0..1 << format.facts().bits
}

/// The finite numbers of a format in order, each once, 0 as +0.
fn numbers(format: &dyn NumberFormat) -> Vec<f64> {
    let lowest = format.facts().lowest; // the ternary code without a meaning is below
    let decoded = codes(format).map(|c| format.decode(c) + 0.0);
    let mut numbers: Vec<f64> = decoded.filter(|v| v.is_finite() && *v >= lowest).collect();
    numbers.sort_by(f64::total_cmp);
    numbers.dedup();
    numbers
}

fn saturated(format: &dyn NumberFormat, mut rounding: Rounding<'_>, value: f64) -> f64 {
    format.round(value, &mut rounding, Overflow::Saturate)
}

#[test]
fn names_are_unique_and_found() {
    for format in all() {
        assert_eq!(all().iter().filter(|f| f.name() == format.name()).count(), 1);
        assert_eq!(named(format.name()).map(|f| f.name()), Some(format.name()));
    }
    assert!(named("fp9").is_none());
}

#[test]
fn codes_survive_a_round_trip() {
    for format in narrow() {
        for code in codes(format) {
            let value = format.decode(code);
            for overflow in [Overflow::Saturate, Overflow::AsSpecified] {
                let mut random = Random::new(code);
                for mut rounding in [
                    Rounding::TiesEven,
                    Rounding::TiesAway,
                    Rounding::TowardZero,
                    Rounding::AwayFromZero,
                    Rounding::Stochastic(&mut random),
                ] {
                    let again = format.encode(value, &mut rounding, overflow);
                    let name = format.name();
                    if value.is_nan() {
                        assert!(format.decode(again).is_nan(), "{name} {code:#x}");
                    } else if value.is_finite() && !(name == "ternary" && code == 2) {
                        assert_eq!(again, code, "{name} {code:#x} = {value} by {rounding:?}");
                    } else if overflow == Overflow::AsSpecified && value.is_infinite() {
                        assert_eq!(again, code, "{name} {code:#x}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_middle_and_its_neighbours_round_as_they_should() {
    for format in narrow().filter(|f| f.name() != "binary") {
        let numbers = numbers(format);
        let even = |v: f64| format.encode(v, &mut Rounding::TiesEven, Overflow::Saturate) & 1 == 0;
        for pair in numbers.windows(2) {
            let (low, high) = (pair[0], pair[1]);
            // Down to a 53rd bit: a conversion by way of f32 would fall on the middle.
            let middle = (low + high) / 2.0;
            let by = |rounding: Rounding<'_>, v: f64| saturated(format, rounding, v);
            let (inner, outer) = if high > 0.0 { (low, high) } else { (high, low) };
            let name = format.name();
            for v in [low.next_up(), middle.next_down(), middle, middle.next_up(), high.next_down()] {
                assert_eq!(by(Rounding::TowardZero, v), inner, "{name}: {v} toward zero");
                assert_eq!(by(Rounding::AwayFromZero, v), outer, "{name}: {v} away from zero");
            }
            if name == "dlfloat16" && (low == 0.0 || high == 0.0) {
                continue; // flushes: tested on its own
            }
            for nearest in [|| Rounding::TiesEven, || Rounding::TiesAway] {
                assert_eq!(by(nearest(), middle.next_down()), low, "{name}: below {middle}");
                assert_eq!(by(nearest(), middle.next_up()), high, "{name}: above {middle}");
            }
            assert_eq!(by(Rounding::TiesAway, middle), outer, "{name}: {middle}");
            let tie = by(Rounding::TiesEven, middle);
            if name == "fp8-e8m0" {
                assert_eq!(tie, high); // no fraction: one and a half goes to the even two
                continue;
            }
            assert!(even(low) != even(high) || low == 0.0 || high == 0.0, "{name}: {low} {high}");
            assert!(even(tie) && (tie == low || tie == high), "{name}: {middle} to {tie}");
        }
    }
}

#[test]
fn encoding_keeps_the_order() {
    for format in all() {
        let facts = format.facts();
        let mut random = Random::new(5);
        let mut drawn: Vec<f64> = (0..20_000)
            .map(|_| {
                let exponent = (random.uniform() * 2.0 - 1.0) * facts.largest.log2().max(2.0) * 1.1;
                let sign = if facts.signed && random.next() & 1 == 1 { -1.0 } else { 1.0 };
                sign * exponent.exp2()
            })
            .collect();
        drawn.sort_by(f64::total_cmp);
        let rounded: Vec<f64> = drawn.iter().map(|&v| saturated(*format, format.own_rounding(), v)).collect();
        assert!(rounded.is_sorted(), "{}", format.name());
        assert_eq!(saturated(*format, format.own_rounding(), 1e300).min(1e300), facts.largest.min(1e300));
    }
}

#[test]
fn overflow_follows_the_flag() {
    use Overflow::{AsSpecified, Saturate};
    let inf = f64::INFINITY;
    let of = |name: &str, value: f64, overflow| {
        named(name).unwrap().round(value, &mut Rounding::TiesEven, overflow)
    };
    for (name, largest, first_beyond, becomes) in [
        ("fp16", 65504.0, 65520.0, inf),
        ("bf16", 255.0 * 2f64.powi(120), 511.0 * 2f64.powi(119), inf),
        ("fp32", f64::from(f32::MAX), f64::from(f32::MAX) + 2f64.powi(103), inf),
        ("tf32", 2047.0 * 2f64.powi(117), 4095.0 * 2f64.powi(116), inf),
        ("fp8-e4m3", 240.0, 248.0, inf),
        ("fp8-e4m3fnuz", 240.0, 248.0, f64::NAN),
        ("fp8-e4m3b11fnuz", 30.0, 31.0, f64::NAN),
        ("fp8-e5m2", 57344.0, 61440.0, inf),
        ("fp8-e5m2fnuz", 57344.0, 61440.0, f64::NAN),
        ("fp6-e2m3", 7.5, 7.75, 7.5),
        ("fp6-e3m2", 28.0, 30.0, 28.0),
        ("fp4-e2m1", 6.0, 7.0, 6.0),
        ("int4", 7.0, 7.6, 7.0),
        ("uint2", 3.0, 3.6, 3.0),
    ] {
        for value in [first_beyond, first_beyond * 2.0, inf] {
            assert_eq!(of(name, value, Saturate), largest, "{name} {value}");
            let got = of(name, value, AsSpecified);
            assert!(got == becomes || (got.is_nan() && becomes.is_nan()), "{name} {value}: {got}");
        }
        assert_eq!(of(name, first_beyond.next_down(), AsSpecified), largest, "{name}");
    }
    let own = |value| float::DLFLOAT16.round(value, &mut Rounding::TiesAway, AsSpecified);
    assert!(
        own(2045.0 * 2f64.powi(22)).is_nan() && own(inf).is_nan() && own(8.577e9) == 1022.0 * 2f64.powi(23)
    );
    // The tie above 448 goes to its even code, so that NaN begins beyond 464.
    assert_eq!(of("fp8-e4m3fn", 464.0, AsSpecified), 448.0);
    assert!(of("fp8-e4m3fn", 464f64.next_up(), AsSpecified).is_nan());
    assert_eq!(of("fp8-e4m3fn", -inf, Saturate), -448.0);
    assert!(of("fp8-e8m0", 0.0, AsSpecified).is_nan() && of("fp8-e8m0", -1.0, Saturate).is_nan());
    assert_eq!(of("fp8-e8m0", 0.0, Saturate), 2f64.powi(-127));
}

#[test]
fn zeros_and_nan_keep_what_the_format_has_of_them() {
    for format in all().iter().filter(|f| f.facts().float.is_some() && f.name() != "fp8-e8m0") {
        let (name, facts) = (format.name(), format.facts());
        for tiny in [-0.0, -1e-320] {
            if name == "fp64" && tiny != 0.0 {
                continue;
            }
            let negative = saturated(*format, Rounding::TiesEven, tiny);
            let kept = !facts.specials.contains("no -0");
            assert!(negative == 0.0 && negative.is_sign_negative() == kept, "{name}: {tiny}");
        }
        let nan = saturated(*format, Rounding::TiesEven, f64::NAN);
        assert!(if facts.specials == "none" { nan == 0.0 } else { nan.is_nan() }, "{name}");
    }
    assert_eq!(
        [0.0, -0.0, f64::NAN, -1e-9].map(|v| saturated(&integer::BINARY, Rounding::TiesEven, v)),
        [1.0, 1.0, 1.0, -1.0]
    );
}

#[test]
fn dlfloat_has_nothing_between_zero_and_its_smallest() {
    let format = &float::DLFLOAT16;
    let first = 513.0 * 2f64.powi(-40);
    let middle = 1025.0 * 2f64.powi(-41);
    assert_eq!(format.facts().float.unwrap().smallest_normal, first);
    let own = |v| saturated(format, format.own_rounding(), v);
    for (value, wanted) in [
        (first, first),
        (middle, first),
        (middle.next_down(), 0.0),
        (2f64.powi(-31), 0.0),
        (2f64.powi(-31).next_down(), 0.0),
        (1e-12, 0.0),
        // Ties go up in magnitude, as in 1 + 1/1024.
        (1.0 + 2f64.powi(-10), 1.0 + 2f64.powi(-9)),
    ] {
        assert_eq!((own(value), own(-value)), (wanted, -wanted), "{value}");
    }
    assert_eq!(saturated(format, Rounding::TiesEven, middle), 0.0);
    // Codes 0x7fff and 0xffff are the symbol; those below are numbers.
    assert!(format.decode(0x7fff).is_nan() && format.decode(0xffff).is_nan());
    assert_eq!(format.decode(0x7ffe), 1022.0 * 2f64.powi(23));
    assert_eq!(format.decode(0x7e00), 2f64.powi(32));
}

/// The mean of many draws lies within four standard deviations of the number itself.
#[test]
fn stochastic_rounding_is_unbiased() {
    const DRAWS: usize = 100_000;
    let mut random = Random::new(2024);
    for format in all().iter().filter(|f| f.name() != "fp64" && f.name() != "fp8-e8m0") {
        let facts = format.facts();
        let tiny = facts.float.map_or(0.3, |f| f.smallest_subnormal.unwrap_or(f.smallest_normal) * 0.3);
        let values = [1.0 - 2f64.powi(-40), 0.1234567, -0.77, tiny, facts.largest * (1.0 - 2f64.powi(-33))];
        for value in values.into_iter().filter(|v| facts.signed || *v >= 0.0) {
            let (low, high) = if format.name() == "binary" {
                (-1.0, 1.0)
            } else {
                let (inner, outer) = (
                    saturated(*format, Rounding::TowardZero, value),
                    saturated(*format, Rounding::AwayFromZero, value),
                );
                (inner.min(outer), inner.max(outer))
            };
            let mut high_ones = 0;
            for _ in 0..DRAWS {
                let got = format.round(value, &mut Rounding::Stochastic(&mut random), Overflow::Saturate);
                assert!(got == low || got == high, "{}: {value} to {got}", format.name());
                high_ones += usize::from(got == high);
            }
            let chance = (value - low) / (high - low);
            let sigma = (chance * (1.0 - chance) / DRAWS as f64).sqrt();
            let share = high_ones as f64 / DRAWS as f64;
            let name = format.name();
            assert!((share - chance).abs() <= 4.0 * sigma + 1e-12, "{name}: {value}: {share} for {chance}");
        }
    }
}

#[test]
fn the_wide_formats_are_those_of_the_machine() {
    let mut random = Random::new(7);
    for _ in 0..200_000 {
        let bits = random.next();
        let (double, single) = (f64::from_bits(bits), f32::from_bits(bits as u32));
        if !double.is_nan() {
            assert_eq!(float::FP64.decode(bits).to_bits(), bits);
            let got = float::FP64.encode(double, &mut Rounding::TiesEven, Overflow::AsSpecified);
            assert_eq!(got, bits);
        }
        if !single.is_nan() {
            assert_eq!(float::FP32.decode(bits & 0xffff_ffff), f64::from(single));
            // TF32 by the integer trick on f32: add half, and one where the kept part is odd.
            let wide = single.to_bits() + 0xfff + (single.to_bits() >> 13 & 1);
            let got = float::TF32.encode(single.into(), &mut Rounding::TiesEven, Overflow::AsSpecified);
            assert_eq!(got, u64::from(wide & !0x1fff), "{single:e}");
            let shifted = f64::from(single) * (1.0 + (bits >> 40) as f64 * 2f64.powi(-50));
            let got = float::FP32.encode(shifted, &mut Rounding::TiesEven, Overflow::AsSpecified);
            assert_eq!(got, u64::from((shifted as f32).to_bits()), "{shifted:e}");
        }
    }
    for tiny in [5e-324, 1e-310, f64::MIN_POSITIVE, 2.2e-308] {
        assert_eq!(saturated(&float::FP64, Rounding::TiesEven, tiny), tiny);
        assert_eq!(saturated(&float::FP32, Rounding::TiesEven, tiny), 0.0);
    }
}

#[test]
fn slices_agree_with_single_numbers() {
    let mut random = Random::new(3);
    let values: Vec<f32> = (0..999).map(|_| (random.uniform() * 8.0 - 4.0) as f32).collect();
    for format in all() {
        let mut stored = vec![0; values.len() * format.code_bytes()];
        format.encode_slice(&values, &mut stored, &mut format.own_rounding(), Overflow::Saturate);
        let mut back = vec![0.0; values.len()];
        format.decode_slice(&stored, &mut back);
        let mut rounded = values.clone();
        format.round_slice(&mut rounded, &mut format.own_rounding(), Overflow::Saturate);
        for ((&value, &a), &b) in values.iter().zip(&back).zip(&rounded) {
            let wanted = saturated(*format, format.own_rounding(), value.into()) as f32;
            let same = |x: f32| x == wanted || (x.is_nan() && wanted.is_nan());
            assert!(same(a) && same(b), "{}: {value}", format.name());
        }
    }
    assert_eq!(float::TF32.code_bytes(), 4);
    assert_eq!(float::FP6_E2M3.code_bytes(), 1);
}
