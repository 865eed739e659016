//! What a convolution computes, apart from its numbers.

use super::{ConvAlgorithm, FewBits};
use crate::element::ElementType;
use crate::epilogue::Epilogue;
use crate::view::{Rows, RowsMut};

/// The most products of a `u8` and an `i8` whose sum is sure to fit an `i32`.
const MOST_LEVEL_PRODUCTS: usize = (i32::MAX / (255 * 128)) as usize;

/// The shape of a convolution. All triples are depth, height, width; a two-dimensional problem has a depth of
/// one everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConvProblem {
    /// Images; zero is allowed.
    pub batch: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Groups of channels that do not see each other.
    pub groups: usize,
    /// The size of the input.
    pub in_size: [usize; 3],
    /// The size of the kernel.
    pub kernel: [usize; 3],
    /// Input pixels from one output pixel to the next.
    pub stride: [usize; 3],
    /// Input pixels from one tap of the kernel to the next.
    pub dilation: [usize; 3],
    /// Zeros in front of the input.
    pub pads_begin: [usize; 3],
    /// Zeros behind the input.
    pub pads_end: [usize; 3],
    /// What input, residual and output are kept as.
    pub element: ElementType,
    /// How few bits the levels of input and weights have, where that is known.
    pub bits: Option<FewBits>,
}

impl ConvProblem {
    /// A two-dimensional problem of one group, stride and dilation one and no padding, as a start.
    pub fn new_2d(
        batch: usize,
        in_channels: usize,
        out_channels: usize,
        in_size: [usize; 2],
        kernel: [usize; 2],
    ) -> Self {
        Self {
            batch,
            in_channels,
            out_channels,
            groups: 1,
            in_size: [1, in_size[0], in_size[1]],
            kernel: [1, kernel[0], kernel[1]],
            stride: [1; 3],
            dilation: [1; 3],
            pads_begin: [0; 3],
            pads_end: [0; 3],
            element: ElementType::F32,
            bits: None,
        }
    }

    /// The size of the output: `(in + pads - dilation (kernel - 1) - 1) / stride + 1`, rounded down, on each
    /// axis. An error where the kernel does not fit the padded input, or a stride, dilation or kernel size is
    /// zero.
    pub fn out_size(&self) -> Result<[usize; 3], String> {
        let mut out = [0; 3];
        for (axis, size) in out.iter_mut().enumerate() {
            let (kernel, stride, dilation) = (self.kernel[axis], self.stride[axis], self.dilation[axis]);
            if kernel == 0 || stride == 0 || dilation == 0 {
                return Err(format!(
                    "kernel {kernel}, stride {stride} and dilation {dilation} must not be zero"
                ));
            }
            let padded = self.padded_size(axis).ok_or("the padded input is too large")?;
            let span = dilation
                .checked_mul(kernel - 1)
                .and_then(|s| s.checked_add(1))
                .ok_or("the dilated kernel is too large")?;
            if span > padded {
                return Err(format!("a kernel that spans {span} does not fit a padded input of {padded}"));
            }
            *size = (padded - span) / stride + 1;
        }
        Ok(out)
    }

    fn padded_size(&self, axis: usize) -> Option<usize> {
        self.in_size[axis].checked_add(self.pads_begin[axis])?.checked_add(self.pads_end[axis])
    }

    /// Whether the problem makes sense and all of its tensors can be addressed.
    pub fn validate(&self) -> Result<(), String> {
        let Self { batch, in_channels, out_channels, groups, .. } = *self;
        if in_channels == 0 || out_channels == 0 || groups == 0 {
            return Err(format!(
                "{in_channels} → {out_channels} channels in {groups} groups: none may be zero"
            ));
        }
        if !in_channels.is_multiple_of(groups) || !out_channels.is_multiple_of(groups) {
            return Err(format!("{groups} groups do not divide {in_channels} → {out_channels} channels"));
        }
        let out = self.out_size()?;
        let products = self.taps().saturating_mul(self.group_in());
        if self.element == ElementType::U8 && products > MOST_LEVEL_PRODUCTS {
            return Err(format!("{products} products of levels may overflow a sum of 32 bits"));
        }
        let mut padded = [0; 3];
        for (axis, size) in padded.iter_mut().enumerate() {
            *size = self.padded_size(axis).ok_or("the padded input is too large")?;
        }
        let product = |parts: &[usize]| parts.iter().try_fold(1usize, |p, &x| p.checked_mul(x));
        let limit = isize::MAX as usize / 64;
        let tensors = [
            product(&[batch.max(1), in_channels, padded[0], padded[1], padded[2]]),
            product(&[batch.max(1), out_channels, out[0], out[1], out[2]]),
            product(&[self.kernel[0], self.kernel[1], self.kernel[2], in_channels, out_channels]),
        ];
        if tensors.iter().any(|numbers| numbers.is_none_or(|n| n > limit)) {
            return Err("a tensor of the convolution is too large to address".to_owned());
        }
        Ok(())
    }

    /// Pixels of the input, over the batch.
    pub fn in_rows(&self) -> usize {
        self.batch * self.in_size.iter().product::<usize>()
    }

    /// Pixels of the output, over the batch; zero for a problem that is not valid.
    pub fn out_rows(&self) -> usize {
        self.out_size().map_or(0, |size| self.batch * size.iter().product::<usize>())
    }

    /// Input channels of a group.
    pub fn group_in(&self) -> usize {
        self.in_channels / self.groups.max(1)
    }

    /// Output channels of a group.
    pub fn group_out(&self) -> usize {
        self.out_channels / self.groups.max(1)
    }

    /// Taps of the kernel.
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Numbers in the weights.
    pub fn weights_len(&self) -> usize {
        self.out_channels * self.group_in() * self.taps()
    }

    /// Multiply-accumulates, those with padding included; saturates.
    pub fn macs(&self) -> u64 {
        [self.out_rows(), self.out_channels, self.group_in(), self.taps()]
            .into_iter()
            .fold(1u64, |product, factor| product.saturating_mul(factor as u64))
    }

    /// Whether any axis is padded.
    pub(super) fn is_padded(&self) -> bool {
        self.pads_begin != [0; 3] || self.pads_end != [0; 3]
    }

    /// The height and width of the kernel of a valid problem of two dimensions whose taps and outputs are
    /// neighbours, which is what tiles are transformed for; the refusal of any other names `what` was asked.
    pub(super) fn flat_and_dense(&self, what: &str) -> Result<[usize; 2], String> {
        self.validate()?;
        let Self { kernel, stride, dilation, in_size, .. } = *self;
        if kernel[0] != 1 || in_size[0] != 1 || self.out_size()?[0] != 1 {
            return Err(format!("{what} is for two dimensions"));
        }
        if stride[1..] != [1; 2] || (1..3).any(|axis| dilation[axis] != 1 && kernel[axis] != 1) {
            return Err(format!("{what} needs stride 1 and dilation 1"));
        }
        Ok([kernel[1], kernel[2]])
    }

    /// Refuses problems on elements that an algorithm does not take.
    pub(super) fn check_element(&self, algorithm: &dyn ConvAlgorithm) -> Result<(), String> {
        if algorithm.elements().contains(&self.element) {
            return Ok(());
        }
        Err(format!("{} does not compute on {}", algorithm.name(), self.element))
    }

    /// Refuses problems on anything but `f32`, for what is no algorithm of its own.
    pub(super) fn check_f32(&self, what: &str) -> Result<(), String> {
        match self.element {
            ElementType::F32 => Ok(()),
            other => Err(format!("{what} computes on f32, not {other}")),
        }
    }

    /// Refuses tensors of other shapes than the problem's.
    pub(super) fn check_views<T>(
        &self,
        input: &Rows<'_, T>,
        epilogue: &Epilogue<'_, T>,
        output: &RowsMut<'_, T>,
    ) -> Result<(), String> {
        self.check_input(input)?;
        self.check_output(epilogue, output)
    }

    /// Refuses inputs of other shapes.
    pub(super) fn check_input<T>(&self, input: &Rows<'_, T>) -> Result<(), String> {
        check_shape("input", input.rows(), input.channels(), self.in_rows(), self.in_channels)
    }

    /// Refuses outputs, and what follows the sums, of other shapes.
    pub(super) fn check_output<T>(
        &self,
        epilogue: &Epilogue<'_, T>,
        output: &RowsMut<'_, T>,
    ) -> Result<(), String> {
        let (rows, channels) = (self.out_rows(), self.out_channels);
        check_shape("output", output.rows(), output.channels(), rows, channels)?;
        epilogue.check(rows, channels)
    }
}

/// Refuses a tensor of another shape.
pub(super) fn check_shape(
    what: &str,
    rows: usize,
    channels: usize,
    want_rows: usize,
    want_channels: usize,
) -> Result<(), String> {
    if rows == want_rows && channels == want_channels {
        return Ok(());
    }
    Err(format!("{what} of {rows}×{channels} where the convolution has {want_rows}×{want_channels}"))
}

/// Refuses a workspace that is too short.
pub(super) fn check_workspace(len: usize, needed: usize) -> Result<(), String> {
    if len >= needed {
        Ok(())
    } else {
        Err(format!("a workspace of {len} numbers where {needed} are needed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_formula() {
        let mut problem = ConvProblem::new_2d(2, 3, 64, [224, 224], [7, 7]);
        problem.stride = [1, 2, 2];
        problem.pads_begin = [0, 3, 3];
        problem.pads_end = [0, 3, 3];
        assert_eq!(problem.out_size().unwrap(), [1, 112, 112]);
        assert_eq!(problem.macs(), 2 * 112 * 112 * 64 * 147);
    }

    #[test]
    fn nonsense_is_an_error() {
        let good = ConvProblem::new_2d(1, 4, 4, [8, 8], [3, 3]);
        assert!(good.validate().is_ok());
        assert!(ConvProblem { batch: 0, ..good.clone() }.validate().is_ok());
        let bad = [
            ConvProblem { groups: 3, ..good.clone() },
            ConvProblem { groups: 0, ..good.clone() },
            ConvProblem { in_channels: 0, ..good.clone() },
            ConvProblem { stride: [1, 0, 1], ..good.clone() },
            ConvProblem { dilation: [1, 4, 1], ..good.clone() },
            ConvProblem { dilation: [1, usize::MAX, 1], ..good.clone() },
            ConvProblem { kernel: [1, 9, 1], ..good.clone() },
            ConvProblem { kernel: [0, 1, 1], ..good.clone() },
            ConvProblem { pads_begin: [usize::MAX, 1, 1], ..good.clone() },
            ConvProblem { batch: usize::MAX, ..good.clone() },
            ConvProblem { in_size: [usize::MAX, usize::MAX, 8], ..good },
        ];
        for problem in bad {
            assert!(problem.validate().is_err(), "{problem:?}");
        }
    }
}
