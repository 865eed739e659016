//! What a convolution is computed on: numbers, bytes, or fewer bits.

use super::rounds::noise;
use planish_cpu::conv::{ConvProblem, FewBits, InputBits, MOST_BITS, SumLevels, WeightBits, Weights};
use planish_cpu::element::ElementType;
use planish_graph::{DType, Result, Tensor};
use std::fmt;

/// The level of the output that stands for zero, where there are levels.
pub const OUTPUT_ZERO: f32 = 128.0;

/// How many levels of the output lie in a standard deviation of its sums.
const LEVELS_OF_DEVIATION: f64 = 40.0;

/// What tensors are kept as, and how few bits their levels have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    pub element: ElementType,
    pub bits: Option<FewBits>,
}

impl Precision {
    /// Plain numbers.
    pub const F32: Precision = Precision { element: ElementType::F32, bits: None };

    /// Reads a name.
    pub fn parse(text: &str) -> std::result::Result<Precision, String> {
        let elements = [ElementType::F32, ElementType::Bf16, ElementType::F16, ElementType::U8];
        if let Some(element) = elements.into_iter().find(|element| element.name() == text) {
            return Ok(Precision { element, bits: None });
        }
        let few = |input, weights| {
            let bits = Some(FewBits { input, weights });
            Ok(Precision { element: ElementType::U8, bits })
        };
        match text {
            "binary" => return few(InputBits::Signs, WeightBits::Signs),
            "ternary" => return few(InputBits::Signs, WeightBits::Magnitude(1)),
            _ => {}
        }
        let counts = text.strip_prefix('w').and_then(|rest| rest.split_once('a'));
        let counts = counts.and_then(|(w, a)| Some((w.parse::<u8>().ok()?, a.parse::<u8>().ok()?)));
        match counts {
            Some((1, a @ 1..=MOST_BITS)) => few(InputBits::Unsigned(a), WeightBits::Signs),
            Some((w @ 2.., a @ 1..=MOST_BITS)) if w <= MOST_BITS + 1 => {
                few(InputBits::Unsigned(a), WeightBits::Magnitude(w - 1))
            }
            _ => Err(format!(
                "there is no precision \"{text}\"; there are f32, bf16, f16, u8, binary, ternary, and weights and activations of \
                 few bits: w1a1 to w{}a{MOST_BITS}",
                MOST_BITS + 1
            )),
        }
    }

    /// The problem in this precision.
    pub fn of(self, problem: ConvProblem) -> ConvProblem {
        ConvProblem { element: self.element, bits: self.bits, ..problem }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(FewBits { input, weights }) = self.bits else { return self.element.fmt(f) };
        let of_weights = match weights {
            WeightBits::Signs => 1,
            WeightBits::Magnitude(bits) => bits + 1,
        };
        match (input, weights) {
            (InputBits::Signs, WeightBits::Signs) => f.write_str("binary"),
            (InputBits::Signs, _) => f.write_str("ternary"),
            (InputBits::Unsigned(bits), _) => write!(f, "w{of_weights}a{bits}"),
        }
    }
}

/// What a convolution is timed with: noise, rounded first, so that the reference knows the very numbers.
pub struct Operands {
    /// The input as the reference takes it.
    pub numbers: Tensor,
    /// As it is kept.
    pub kept: Tensor,
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    /// The zero point of the input, and what a unit of the sums is, where there are levels.
    levels: Option<(u8, Vec<f32>)>,
}

impl Operands {
    /// Those of a problem, whose output needs most of its levels where it has levels.
    pub fn new(problem: &ConvProblem) -> Result<Operands> {
        let (shape, count) = ([problem.in_rows(), problem.in_channels], [problem.weights_len()]);
        let (input, weights) = (noise(&shape, 1)?, noise(&count, 2)?);
        match problem.element {
            ElementType::F32 => {
                let bias = noise(&[problem.out_channels], 3)?.to_f32s();
                let weights = weights.to_f32s();
                Ok(Operands { numbers: input.clone(), kept: input, weights, bias: Some(bias), levels: None })
            }
            ElementType::Bf16 | ElementType::F16 => {
                let dtype = if problem.element == ElementType::F16 { DType::F16 } else { DType::BF16 };
                let short = |t: &Tensor| Tensor::from_f64s(dtype, t.shape(), &t.to_f64s());
                let (kept, weights) = (short(&input)?, short(&weights)?);
                let bias = noise(&[problem.out_channels], 3)?.to_f32s();
                let numbers = Tensor::new(&shape, &kept.to_f32s())?;
                Ok(Operands { numbers, kept, weights: weights.to_f32s(), bias: Some(bias), levels: None })
            }
            ElementType::U8 => levels(problem, &input.to_f32s(), &weights.to_f32s()),
        }
    }

    /// The weights and bias as the reference takes them.
    pub fn reference(&self) -> (&[f32], Option<&[f32]>) {
        (&self.weights, self.bias.as_deref())
    }

    /// The weights as kernels take them.
    pub fn weights(&self) -> Weights<'_> {
        let Some((input_zero, scales)) = &self.levels else {
            return Weights::new(&self.weights, self.bias.as_deref());
        };
        let levels = SumLevels { input_zero: *input_zero, bias: None, scales, shift: None };
        Weights { values: &self.weights, bias: None, levels: Some(levels) }
    }

    /// What a kernel makes of a sum of channel `channel`.
    pub fn result(&self, sum: f64, channel: usize) -> f64 {
        let Some((_, scales)) = &self.levels else { return sum };
        let level = (sum as f32 * scales[channel]).round_ties_even() + OUTPUT_ZERO;
        level.clamp(0.0, 255.0).into()
    }
}

/// Levels and weights of noise from -1 to 1.
fn levels(problem: &ConvProblem, input: &[f32], weights: &[f32]) -> Result<Operands> {
    // Noise as one of so many levels.
    let pick = |x: f32, levels: f32| ((x + 1.0) * 0.5 * levels).floor().clamp(0.0, levels - 1.0);
    let sign = |w: f32| if w < 0.0 { -1.0 } else { 1.0 };
    let (zero, kept): (u8, Vec<u8>) = match problem.bits.map(|few| few.input) {
        None => (128, input.iter().map(|&x| pick(x, 256.0) as u8).collect()),
        Some(InputBits::Signs) => (1, input.iter().map(|&x| 2 * pick(x, 2.0) as u8).collect()),
        Some(InputBits::Unsigned(bits)) => {
            (0, input.iter().map(|&x| pick(x, f32::from(1u8 << bits)) as u8).collect())
        }
    };
    let weights: Vec<f32> = match problem.bits.map(|few| few.weights) {
        None => weights.iter().map(|&w| pick(w, 255.0) - 127.0).collect(),
        Some(WeightBits::Signs) => weights.iter().map(|&w| sign(w)).collect(),
        Some(WeightBits::Magnitude(bits)) => {
            let most = f32::from((1u8 << bits) - 1);
            weights.iter().map(|&w| pick(w, 2.0 * most + 1.0) - most).collect()
        }
    };
    let numbers: Vec<f32> = kept.iter().map(|&x| f32::from(x) - f32::from(zero)).collect();
    let power = |numbers: &[f32]| {
        numbers.iter().map(|&x| f64::from(x * x)).sum::<f64>() / numbers.len().max(1) as f64
    };
    let products = (problem.taps() * problem.group_in()) as f64;
    let deviation = (power(&numbers) * power(&weights) * products).sqrt().max(1.0);
    let shape = [problem.in_rows(), problem.in_channels];
    Ok(Operands {
        numbers: Tensor::new(&shape, &numbers)?,
        kept: Tensor::new(&shape, &kept)?,
        weights,
        bias: None,
        levels: Some((zero, vec![(LEVELS_OF_DEVIATION / deviation) as f32; problem.out_channels])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["f32", "bf16", "f16", "u8", "binary", "ternary", "w1a1", "w1a2", "w2a2", "w5a4"] {
            assert_eq!(Precision::parse(name).unwrap().to_string(), name);
        }
        for name in ["", "f8", "w0a1", "w6a1", "w1a5", "w1", "a1", "w1a0", "w1a-1"] {
            assert!(Precision::parse(name).unwrap_err().contains("binary"), "{name}");
        }
    }

    #[test]
    fn operands_fit_their_problem() {
        for name in ["u8", "binary", "ternary", "w1a2", "w3a4"] {
            let plain = ConvProblem::new_2d(1, 16, 3, [4, 4], [3, 3]);
            let problem = Precision::parse(name).unwrap().of(plain);
            let operands = Operands::new(&problem).unwrap();
            for algorithm in planish_cpu::conv::algorithms() {
                let isa = planish_cpu::isa::Isa::Portable;
                if algorithm.accepts(&problem, isa).is_ok() {
                    assert!(algorithm.prepare(&problem, isa, operands.weights()).is_ok(), "{name}");
                }
            }
        }
    }
}
