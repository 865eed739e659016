//! Sliding windows: what convolutions and pools share.
//!
//! A window of `kernel` taps, `dilations` apart, is laid over the input every `strides` elements, after `pads` elements
//! of nothing were put around it. Frameworks spell the padding in three ways (explicit, "same", "valid") and the last,
//! incomplete window in two (dropped, or kept under `ceil_mode`); [`WindowRule::resolve`] turns all of them into one
//! [`Window`] of plain numbers. The arithmetic of strides, padding and dilation is laid out in Dumoulin and Visin, "A
//! guide to convolution arithmetic for deep learning" (2016).

use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::invalid;
use std::ops::Range;

/// Larger attribute values are refused, so that sums and products of a few of them stay in range.
const LARGEST_ATTRIBUTE: usize = i32::MAX as usize;

/// Who decides the padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoPad {
    /// The `pads` attribute.
    #[default]
    NotSet,
    /// As many outputs as strides fit the input; an odd element of padding goes to the end.
    SameUpper,
    /// The same with the odd element at the beginning.
    SameLower,
    /// No padding.
    Valid,
}

impl AutoPad {
    /// ONNX's name.
    pub fn name(self) -> &'static str {
        match self {
            AutoPad::NotSet => "NOTSET",
            AutoPad::SameUpper => "SAME_UPPER",
            AutoPad::SameLower => "SAME_LOWER",
            AutoPad::Valid => "VALID",
        }
    }
    /// Reads the attribute `auto_pad`.
    pub fn read(attributes: &Attributes) -> Result<AutoPad> {
        let name = attributes.string("auto_pad", "NOTSET")?;
        [AutoPad::NotSet, AutoPad::SameUpper, AutoPad::SameLower, AutoPad::Valid]
            .into_iter()
            .find(|p| p.name() == name)
            .ok_or_else(|| Error::invalid(format!("attribute \"auto_pad\" is unknown: \"{name}\"")))
    }
}

/// The attributes from which a window follows; empty lists stand for the defaults (stride 1, dilation 1, no padding).
#[derive(Clone, Copy, Debug)]
pub struct WindowRule<'a> {
    /// The distance of windows along each spatial axis.
    pub strides: &'a [usize],
    /// Elements of padding at the beginning of each spatial axis, then at the end of each.
    pub pads: &'a [usize],
    /// The distance of taps along each spatial axis.
    pub dilations: &'a [usize],
    /// Whether `pads` counts.
    pub auto_pad: AutoPad,
    /// Whether a last window that the input does not fill is kept.
    pub ceil_mode: bool,
}

/// A window over a given input; all lists have one entry for each spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The input's extents.
    pub input: Vec<usize>,
    /// Taps.
    pub kernel: Vec<usize>,
    /// The distance of windows.
    pub strides: Vec<usize>,
    /// The distance of taps.
    pub dilations: Vec<usize>,
    /// Padding before the input.
    pub pads_begin: Vec<usize>,
    /// Padding behind the input.
    pub pads_end: Vec<usize>,
    /// Windows: the output's extents.
    pub output: Vec<usize>,
}

impl WindowRule<'_> {
    /// The window over an `input` of these spatial extents; an error that names the attribute where there is none.
    pub fn resolve(&self, input: &[usize], kernel: &[usize]) -> Result<Window> {
        let axes = input.len();
        if axes == 0 || axes > 3 {
            invalid!("has {axes} spatial axes, where 1 to 3 are expected");
        }
        if kernel.len() != axes {
            invalid!("attribute \"kernel_shape\" has {} entries for {axes} spatial axes", kernel.len());
        }
        check_positive("kernel_shape", kernel)?;
        let strides = per_axis("strides", self.strides, axes)?;
        let dilations = per_axis("dilations", self.dilations, axes)?;
        let (mut pads_begin, mut pads_end) = split_pads(self.pads, axes)?;
        let mut output = Vec::with_capacity(axes);
        for axis in 0..axes {
            let (extent, stride) = (input[axis], strides[axis]);
            if extent == 0 {
                invalid!("spatial axis {axis} of the input has no elements");
            }
            let span = (kernel[axis] - 1) * dilations[axis] + 1;
            let (begin, end) = (&mut pads_begin[axis], &mut pads_end[axis]);
            match self.auto_pad {
                AutoPad::NotSet => {}
                AutoPad::Valid => (*begin, *end) = (0, 0),
                same => {
                    let covered = ((extent - 1) / stride * stride).checked_add(span);
                    let total = covered.ok_or_else(too_large)?.saturating_sub(extent);
                    let (less, more) = (total / 2, total - total / 2);
                    (*begin, *end) = if same == AutoPad::SameUpper { (less, more) } else { (more, less) };
                }
            }
            let padded = extent.checked_add(*begin + *end).ok_or_else(too_large)?;
            let Some(room) = padded.checked_sub(span) else {
                invalid!(
                    "attribute \"kernel_shape\": {} taps (dilation {}) span {span} elements of axis {axis}, where the padded input has {padded}",
                    kernel[axis],
                    dilations[axis]
                );
            };
            let mut windows = room / stride + 1;
            if self.ceil_mode && self.auto_pad == AutoPad::NotSet {
                // The last, partial window stays, unless it would start in the padding at the end.
                let last = room.div_ceil(stride);
                let start = last.checked_mul(stride).ok_or_else(too_large)?;
                windows = last + usize::from(start < extent + *begin);
            }
            output.push(windows);
        }
        Ok(Window {
            input: input.to_vec(),
            kernel: kernel.to_vec(),
            strides,
            dilations,
            pads_begin,
            pads_end,
            output,
        })
    }
}

impl Window {
    /// The taps of window `output` along `axis` that lie inside the input.
    pub fn taps(&self, axis: usize, output: usize) -> Range<usize> {
        let before = output * self.strides[axis];
        let index =
            |edge: usize| edge.saturating_sub(before).div_ceil(self.dilations[axis]).min(self.kernel[axis]);
        index(self.pads_begin[axis])..index(self.pads_begin[axis] + self.input[axis])
    }
    /// The taps of window `output` along `axis` that lie inside the padded input.
    pub fn padded_taps(&self, axis: usize, output: usize) -> Range<usize> {
        let padded = self.pads_begin[axis] + self.input[axis] + self.pads_end[axis];
        let room = padded.saturating_sub(output * self.strides[axis]);
        0..room.div_ceil(self.dilations[axis]).min(self.kernel[axis])
    }
    /// The windows along `axis` whose `tap` lies inside the input.
    pub fn outputs(&self, axis: usize, tap: usize) -> Range<usize> {
        let before = tap * self.dilations[axis];
        let index =
            |edge: usize| edge.saturating_sub(before).div_ceil(self.strides[axis]).min(self.output[axis]);
        index(self.pads_begin[axis])..index(self.pads_begin[axis] + self.input[axis])
    }
    /// The input index under `tap` of window `output`, which must lie inside ([`Self::taps`]).
    pub fn position(&self, axis: usize, output: usize, tap: usize) -> usize {
        output * self.strides[axis] + tap * self.dilations[axis] - self.pads_begin[axis]
    }
    /// The same window over three spatial axes, the first of which may be of extent 1, so that one loop serves all.
    #[must_use]
    pub fn volumetric(&self) -> Window {
        let widened = |list: &[usize], neutral: usize| {
            let mut wide = vec![neutral; 3usize.saturating_sub(list.len())];
            wide.extend_from_slice(list);
            wide
        };
        Window {
            input: widened(&self.input, 1),
            kernel: widened(&self.kernel, 1),
            strides: widened(&self.strides, 1),
            dilations: widened(&self.dilations, 1),
            pads_begin: widened(&self.pads_begin, 0),
            pads_end: widened(&self.pads_end, 0),
            output: widened(&self.output, 1),
        }
    }
    /// Calls `visit(output, inputs)` for each window of a [volumetric](Self::volumetric) one, with the flat index of the
    /// output and those of the input elements under it, both in row-major order.
    pub(super) fn for_each(&self, mut visit: impl FnMut(usize, [usize; 3], &[usize])) {
        let mut inside = Vec::new();
        let mut flat = 0;
        for z in 0..self.output[0] {
            for y in 0..self.output[1] {
                for x in 0..self.output[2] {
                    inside.clear();
                    for i in self.taps(0, z).map(|t| self.position(0, z, t)) {
                        for j in self.taps(1, y).map(|t| self.position(1, y, t)) {
                            let row = (i * self.input[1] + j) * self.input[2];
                            inside.extend(self.taps(2, x).map(|t| row + self.position(2, x, t)));
                        }
                    }
                    visit(flat, [z, y, x], &inside);
                    flat += 1;
                }
            }
        }
    }
}

fn too_large() -> Error {
    Error::limit("the window does not fit in this machine's integers")
}

fn check_positive(name: &str, values: &[usize]) -> Result<()> {
    if values.contains(&0) {
        invalid!("attribute \"{name}\" holds 0, where positive numbers are expected");
    }
    check_size(name, values)
}

fn check_size(name: &str, values: &[usize]) -> Result<()> {
    match values.iter().find(|&&v| v > LARGEST_ATTRIBUTE) {
        Some(v) => {
            Err(Error::limit(format!("attribute \"{name}\" holds {v}, more than {LARGEST_ATTRIBUTE}")))
        }
        None => Ok(()),
    }
}

/// A list of one positive number for each axis: all 1 where left out.
pub(super) fn per_axis(name: &str, given: &[usize], axes: usize) -> Result<Vec<usize>> {
    if given.is_empty() {
        return Ok(vec![1; axes]);
    }
    if given.len() != axes {
        invalid!("attribute \"{name}\" has {} entries for {axes} spatial axes", given.len());
    }
    check_positive(name, given)?;
    Ok(given.to_vec())
}

/// The two halves of `pads`: all 0 where left out.
pub(super) fn split_pads(pads: &[usize], axes: usize) -> Result<(Vec<usize>, Vec<usize>)> {
    if pads.is_empty() {
        return Ok((vec![0; axes], vec![0; axes]));
    }
    if pads.len() != 2 * axes {
        invalid!("attribute \"pads\" has {} entries, where {} are expected", pads.len(), 2 * axes);
    }
    check_size("pads", pads)?;
    Ok((pads[..axes].to_vec(), pads[axes..].to_vec()))
}

/// A list of numbers that must not be negative; `None` where left out.
pub(super) fn read_extents(attributes: &Attributes, name: &str) -> Result<Option<Vec<usize>>> {
    let Some(values) = attributes.opt_ints(name)? else { return Ok(None) };
    let extent = |&v: &i64| {
        usize::try_from(v).map_err(|_| {
            Error::invalid(format!("attribute \"{name}\" holds {v}, which must not be negative"))
        })
    };
    values.iter().map(extent).collect::<Result<_>>().map(Some)
}

/// The attribute `pads`, which says nothing where the padding is automatic.
pub(super) fn read_pads(attributes: &Attributes, auto_pad: AutoPad) -> Result<Vec<usize>> {
    match auto_pad {
        AutoPad::NotSet => Ok(read_extents(attributes, "pads")?.unwrap_or_default()),
        _ => Ok(Vec::new()),
    }
}

/// The written form of [`read_extents`].
pub(super) fn write_extents(values: &[usize]) -> Vec<i64> {
    values.iter().map(|&v| i64::try_from(v).unwrap_or(i64::MAX)).collect()
}

/// `attributes` with the window attributes that are not their defaults.
pub(super) fn write_window(mut attributes: Attributes, rule: &WindowRule<'_>) -> Attributes {
    for (name, values) in [("strides", rule.strides), ("pads", rule.pads), ("dilations", rule.dilations)] {
        if !values.is_empty() {
            attributes = attributes.with(name, write_extents(values));
        }
    }
    if rule.auto_pad != AutoPad::NotSet {
        attributes = attributes.with("auto_pad", rule.auto_pad.name());
        attributes.0.remove("pads");
    }
    if rule.ceil_mode {
        attributes = attributes.with("ceil_mode", 1);
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule<'a>(strides: &'a [usize], pads: &'a [usize], dilations: &'a [usize]) -> WindowRule<'a> {
        WindowRule { strides, pads, dilations, auto_pad: AutoPad::NotSet, ceil_mode: false }
    }

    #[test]
    fn counts_windows() {
        assert_eq!(rule(&[], &[], &[]).resolve(&[5], &[3]).unwrap().output, [3]);
        assert_eq!(rule(&[2, 2], &[1, 1, 1, 1], &[]).resolve(&[7, 5], &[3, 3]).unwrap().output, [4, 3]);
        assert_eq!(rule(&[], &[], &[2]).resolve(&[5], &[3]).unwrap().output, [1]);
        let ceil = |s, p, n: usize, k| {
            let base = rule(s, p, &[]);
            WindowRule { ceil_mode: true, ..base }.resolve(&[n], &[k]).unwrap().output[0]
        };
        assert_eq!(ceil(&[2], &[], 4, 3), 2);
        // The third window would start in the padding at the end.
        assert_eq!(ceil(&[3], &[1, 1], 2, 1), 1);
        assert_eq!(ceil(&[2], &[], 3, 1), 2);
    }

    #[test]
    fn same_padding_splits_the_odd_element() {
        let same = |auto_pad| {
            let w = WindowRule { auto_pad, ..rule(&[2], &[], &[]) }.resolve(&[4], &[3]).unwrap();
            (w.pads_begin[0], w.pads_end[0], w.output[0])
        };
        assert_eq!(same(AutoPad::SameUpper), (0, 1, 2));
        assert_eq!(same(AutoPad::SameLower), (1, 0, 2));
        assert_eq!(same(AutoPad::Valid), (0, 0, 1));
    }

    #[test]
    fn taps_and_outputs_agree() {
        let w = rule(&[2], &[3, 1], &[2]).resolve(&[6], &[4]).unwrap();
        for o in 0..w.output[0] {
            for t in 0..w.kernel[0] {
                let at = (o * 2 + t * 2) as i64 - 3;
                let inside = (0..6).contains(&at);
                assert_eq!(w.taps(0, o).contains(&t), inside);
                assert_eq!(w.outputs(0, t).contains(&o), inside);
            }
        }
    }

    #[test]
    fn refuses_what_has_no_window() {
        let says = |r: Result<Window>, text: &str| {
            let message = r.unwrap_err().to_string();
            assert!(message.contains(text), "{message}");
        };
        says(rule(&[0], &[], &[]).resolve(&[5], &[3]), "strides");
        says(rule(&[], &[], &[0]).resolve(&[5], &[3]), "dilations");
        says(rule(&[], &[1], &[]).resolve(&[5], &[3]), "pads");
        says(rule(&[1, 1], &[], &[]).resolve(&[5], &[3]), "strides");
        says(rule(&[], &[], &[]).resolve(&[2], &[3]), "kernel_shape");
        says(rule(&[], &[], &[]).resolve(&[2], &[0]), "kernel_shape");
        says(rule(&[usize::MAX], &[], &[]).resolve(&[5], &[3]), "strides");
        says(rule(&[], &[usize::MAX, 1], &[]).resolve(&[5], &[3]), "pads");
        says(rule(&[], &[], &[]).resolve(&[0], &[1]), "no elements");
        says(rule(&[], &[], &[]).resolve(&[], &[]), "spatial axes");
    }
}
