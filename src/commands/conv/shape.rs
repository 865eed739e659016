//! From flags to a convolution, refusing what makes no sense before any memory is taken.

use crate::commands::model;
use clap::Args;
use planish_cpu::conv::ConvProblem;
use planish_cpu::element::ElementType;
use planish_graph::{Error, Result};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The convolution to time.
#[derive(Args, Clone, Debug)]
pub struct Shape {
    /// Images in the batch [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "sweep")]
    n: Option<usize>,
    /// Input channels
    #[arg(long, value_name = "C", required_unless_present = "sweep", conflicts_with = "sweep")]
    c: Option<usize>,
    /// Size of the input
    #[arg(long, value_name = "H[xW]", value_parser = pair, required_unless_present = "sweep", conflicts_with = "sweep")]
    hw: Option<[usize; 2]>,
    /// Output channels [default: as many as input channels]
    #[arg(long, value_name = "K", conflicts_with = "sweep")]
    k: Option<usize>,
    /// Size of the kernel [default: 3]
    #[arg(long, value_name = "K[xK]", value_parser = pair, conflicts_with = "sweep")]
    kernel: Option<[usize; 2]>,
    /// Stride [default: 1]
    #[arg(long, value_name = "S[xS]", value_parser = pair, conflicts_with = "sweep")]
    stride: Option<[usize; 2]>,
    /// Zeros on each side [default: half of the kernel, which keeps the size where the stride is 1]
    #[arg(long, value_name = "P[xP]", value_parser = pair, conflicts_with = "sweep")]
    pad: Option<[usize; 2]>,
    /// Dilation of the kernel [default: 1]
    #[arg(long, value_name = "D[xD]", value_parser = pair, conflicts_with = "sweep")]
    dilation: Option<[usize; 2]>,
    /// Groups of channels; as many as channels for a depthwise convolution [default: 1]
    #[arg(long, value_name = "G", conflicts_with = "sweep")]
    groups: Option<usize>,
}

impl Shape {
    /// The convolution, or what is wrong with it.
    pub fn problem(&self) -> Result<ConvProblem> {
        let missing = |flag| Error::invalid(format!("{flag} is missing"));
        let channels = self.c.ok_or_else(|| missing("--c"))?;
        let size = self.hw.ok_or_else(|| missing("--hw"))?;
        let kernel = self.kernel.unwrap_or([3, 3]);
        let mut problem =
            ConvProblem::new_2d(self.n.unwrap_or(1), channels, self.k.unwrap_or(channels), size, kernel);
        problem.groups = self.groups.unwrap_or(1);
        let plane = |[h, w]: [usize; 2]| [1, h, w];
        problem.stride = plane(self.stride.unwrap_or([1, 1]));
        problem.dilation = plane(self.dilation.unwrap_or([1, 1]));
        let [_, h, w] = match self.pad {
            Some(pad) => plane(pad),
            None => same_padding(&problem),
        };
        (problem.pads_begin, problem.pads_end) = ([0, h, w], [0, h, w]);
        check(&problem)?;
        Ok(problem)
    }
}

/// The padding that keeps the size of the input where the stride is 1 and the kernel odd.
pub fn same_padding(problem: &ConvProblem) -> [usize; 3] {
    [0, 1, 2].map(|axis| problem.dilation[axis].saturating_mul(problem.kernel[axis].saturating_sub(1)) / 2)
}

/// Refuses a convolution that is none, or that leaves nothing to time.
fn check(problem: &ConvProblem) -> Result<()> {
    if problem.batch == 0 {
        return Err(Error::invalid("--n 0: an empty batch leaves nothing to time"));
    }
    if problem.in_size.contains(&0) {
        let [_, h, w] = problem.in_size;
        return Err(Error::invalid(format!("--hw {h}x{w}: an empty input leaves nothing to time")));
    }
    problem.validate().map_err(Error::invalid)?;
    if problem.macs() == u64::MAX {
        return Err(Error::limit("the convolution has more multiply-accumulates than can be counted"));
    }
    Ok(())
}

/// Bytes of input, weights as given, bias and output; an input that is not kept as `f32` is there as `f32` as well, for
/// the reference.
pub fn tensor_bytes(problem: &ConvProblem) -> usize {
    let (f32s, kept) = (size_of::<f32>(), problem.element.bytes());
    let both = if problem.element == ElementType::F32 { f32s } else { f32s + kept };
    let tensors = [
        problem.in_rows().saturating_mul(problem.in_channels).saturating_mul(both),
        problem.out_rows().saturating_mul(problem.out_channels).saturating_mul(kept),
        problem.weights_len().saturating_mul(f32s),
        problem.out_channels.saturating_mul(f32s),
    ];
    tensors.into_iter().fold(0usize, usize::saturating_add)
}

/// The convolution in one line: `1×64×56×56 → 64, kernel 3×3, pad 1×1`.
pub fn describe(problem: &ConvProblem) -> String {
    let by = |[_, h, w]: [usize; 3]| format!("{h}×{w}");
    let mut text = format!(
        "{}×{}×{} → {}, kernel {}",
        problem.batch,
        problem.in_channels,
        by(problem.in_size),
        problem.out_channels,
        by(problem.kernel)
    );
    for (name, value, plain) in [
        ("stride", problem.stride, [1, 1, 1]),
        ("pad", problem.pads_begin, [0, 0, 0]),
        ("dilation", problem.dilation, [1, 1, 1]),
    ] {
        if value != plain {
            let _ = write!(text, ", {name} {}", by(value));
        }
    }
    if problem.groups != 1 {
        let _ = write!(text, ", {} groups", problem.groups);
    }
    text
}

/// The convolution for programs.
pub fn to_json(problem: &ConvProblem) -> Value {
    let plane = |triple: [usize; 3]| [triple[1], triple[2]];
    json!({
        "n": problem.batch, "c": problem.in_channels, "hw": plane(problem.in_size), "k": problem.out_channels,
        "kernel": plane(problem.kernel), "stride": plane(problem.stride), "pad": plane(problem.pads_begin),
        "dilation": plane(problem.dilation), "groups": problem.groups,
        "element": problem.element.name(),
        "out_hw": problem.out_size().map_or([0, 0], plane), "macs": problem.macs(),
    })
}

/// The convolution that [`to_json`] wrote, if it is one.
pub fn from_json(value: &Value) -> Option<ConvProblem> {
    let number = |value: &Value| usize::try_from(value.as_u64()?).ok();
    let pair = |key: &str| Some([number(&value[key][0])?, number(&value[key][1])?]);
    let mut problem = ConvProblem::new_2d(
        number(&value["n"])?,
        number(&value["c"])?,
        number(&value["k"])?,
        pair("hw")?,
        pair("kernel")?,
    );
    let plane = |[h, w]: [usize; 2], depth| [depth, h, w];
    problem.stride = plane(pair("stride")?, 1);
    problem.dilation = plane(pair("dilation")?, 1);
    problem.pads_begin = plane(pair("pad")?, 0);
    problem.pads_end = problem.pads_begin;
    problem.groups = number(&value["groups"])?;
    // Older reports have `f32` only, and do not say so.
    let element = value["element"].as_str().unwrap_or(ElementType::F32.name());
    problem.element = model::precision(element).ok()?;
    problem.validate().is_ok().then_some(problem)
}

/// Reads "56" or "56x48".
fn pair(text: &str) -> std::result::Result<[usize; 2], String> {
    let (h, w) = text.split_once('x').unwrap_or((text, text));
    match (h.parse(), w.parse()) {
        (Ok(h), Ok(w)) => Ok([h, w]),
        _ => Err(format!("\"{text}\" is no size: write 56 or 56x48")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_one_number_or_two() {
        assert_eq!(pair("56"), Ok([56, 56]));
        assert_eq!(pair("5x7"), Ok([5, 7]));
        assert!(pair("5x").is_err() && pair("-1").is_err() && pair("5x7x9").is_err());
    }

    #[test]
    fn a_line_says_what_is_not_plain() {
        let mut problem = ConvProblem::new_2d(1, 64, 32, [56, 48], [3, 5]);
        assert_eq!(describe(&problem), "1×64×56×48 → 32, kernel 3×5");
        problem.pads_begin = same_padding(&problem);
        problem.pads_end = problem.pads_begin;
        (problem.stride, problem.groups) = ([1, 2, 2], 4);
        assert_eq!(describe(&problem), "1×64×56×48 → 32, kernel 3×5, stride 2×2, pad 1×2, 4 groups");
        assert_eq!(from_json(&to_json(&problem)), Some(problem));
        assert_eq!(from_json(&json!({"n": 1, "c": -3})), None);
        assert_eq!(tensor_bytes(&ConvProblem::new_2d(1, 2, 3, [4, 4], [1, 1])), 4 * (32 + 48 + 6 + 3));
    }
}
