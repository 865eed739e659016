//! Normalisation by the activations' own statistics (instance, group, layer, local response), which cannot be folded into a
//! convolution, and the scale and shift per channel that remain of a batch normalisation where there is no convolution to fold it
//! into.
//!
//! Variances are taken around the mean, in a second pass: `E[x^2] - E[x]^2` loses all digits where the mean is large.

use std::ops::Range;

use crate::element::Element;
use crate::epilogue::{Activation, Map, Visit};
use crate::fold::{SquareSum, Sum, fold_row};
use crate::isa::Isa;
use crate::reduce::{Reduction, reduce, squared_deviations};
use crate::simd::{Simd, SimdOp, dispatch, math};
use crate::strided::{GRAIN, Shared, Strided};
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// `activation((x - center) * scale + shift)`, each of the three a number per channel.
#[derive(Clone, Copy)]
struct Affine<'a> {
    center: Option<&'a [f32]>,
    scale: &'a [f32],
    shift: &'a [f32],
    /// Rows that share a set of numbers per channel; the sets follow each other.
    rows_per_set: usize,
    activation: Activation,
}

/// `output = activation(input * scale + shift)` with a scale and a shift per channel. `output` may be made of the very rows of
/// `input` (by `from_raw`).
///
/// # Panics
/// Where the views differ in rows or channels, or `scale` or `shift` have not one number per channel.
pub fn scale_shift<T: Element>(
    isa: Isa,
    pool: &ThreadPool,
    scale: &[f32],
    shift: &[f32],
    activation: Activation,
    input: Rows<'_, T>,
    output: RowsMut<'_, T>,
) {
    let rows_per_set = input.rows().max(1);
    affine(isa, pool, Affine { center: None, scale, shift, rows_per_set, activation }, input, output);
}

fn affine<T: Element>(
    isa: Isa,
    pool: &ThreadPool,
    affine: Affine<'_>,
    input: Rows<'_, T>,
    output: RowsMut<'_, T>,
) {
    let (rows, channels) = (input.rows(), input.channels());
    assert_eq!((rows, channels), (output.rows(), output.channels()), "as many outputs as inputs");
    let numbers = rows.div_ceil(affine.rows_per_set).max(1) * channels;
    assert!(
        affine.scale.len() >= numbers && affine.shift.len() >= numbers,
        "a scale and a shift per channel"
    );
    assert!(affine.center.is_none_or(|center| center.len() >= numbers), "a center per channel");
    let output = (Shared(output.ptr()), output.row_stride());
    pool.run_ranges(rows, GRAIN.div_ceil(channels.max(1)), |rows| {
        T::dispatch(isa, AffineTask { affine, rows, input, output: (output.0.get(), output.1) });
    });
}

struct AffineTask<'a, T> {
    affine: Affine<'a>,
    rows: Range<usize>,
    input: Rows<'a, T>,
    output: (*mut T, usize),
}

/// The first `n` lanes, or all where there are more numbers.
///
/// # Safety
/// `min(n, LANES)` numbers must be readable at `p`.
#[inline(always)]
unsafe fn read<S: Simd, T: Element>(s: S, p: *const T, n: usize) -> S::F32 {
    // SAFETY: promised by the caller.
    unsafe { if n >= S::LANES { T::load(s, p) } else { T::load_partial(s, p, n) } }
}

impl<T: Element> SimdOp for AffineTask<'_, T> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        self.affine.activation.visit(s, self);
    }
}

impl<T: Element> Visit for AffineTask<'_, T> {
    #[inline(always)]
    fn visit<S: Simd>(self, s: S, map: impl Map) {
        s.call(AffineLoop { task: self, map });
    }
}

/// The task with its activation.
struct AffineLoop<'a, T, M> {
    task: AffineTask<'a, T>,
    map: M,
}

impl<T: Element, M: Map> SimdOp for AffineLoop<'_, T, M> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let AffineTask { affine, rows, input, output } = self.task;
        let Affine { center, scale, shift, rows_per_set, .. } = affine;
        let channels = input.channels();
        for row in rows {
            let set = row / rows_per_set * channels;
            // SAFETY: the row lies inside both views and belongs to this task, the set inside the three vectors of numbers; what
            // may be the same memory is read before it is written.
            unsafe {
                let from = input.ptr().add(row * input.row_stride());
                let to = output.0.add(row * output.1);
                let mut i = 0;
                while i < channels {
                    let n = channels - i;
                    let mut x = read(s, from.add(i), n);
                    if let Some(center) = center {
                        x = s.sub(x, read(s, center.as_ptr().add(set + i), n));
                    }
                    let scale = read(s, scale.as_ptr().add(set + i), n);
                    let y = s.mul_add(x, scale, read(s, shift.as_ptr().add(set + i), n));
                    let y = self.map.map(s, y);
                    if n >= S::LANES {
                        T::store(s, to.add(i), y)
                    } else {
                        T::store_partial(s, to.add(i), n, y)
                    }
                    i += S::LANES;
                }
            }
        }
    }
}

/// Group normalisation (Wu and He, arXiv 1803.08494): each image's channels are normalised in `groups` groups of consecutive ones,
/// over all pixels of the image, then scaled and shifted per channel. Instance normalisation is one channel per group. `output` may
/// be made of the very rows of `input` (by `from_raw`).
///
/// # Panics
/// Where the views differ in rows or channels, the rows are no whole number of images, the channels no whole number of groups, or
/// `scale` or `shift` have not one number per channel.
pub fn group_normalize(
    isa: Isa,
    pool: &ThreadPool,
    (images, groups): (usize, usize),
    epsilon: f32,
    (scale, shift): (&[f32], &[f32]),
    activation: Activation,
    input: Rows<'_>,
    output: RowsMut<'_>,
) {
    let (rows, channels) = (input.rows(), input.channels());
    assert!(scale.len() == channels && shift.len() == channels, "a scale and a shift per channel");
    if rows * channels == 0 {
        return;
    }
    assert!(images > 0 && rows % images == 0, "{rows} rows are no {images} images");
    assert!(groups > 0 && channels % groups == 0, "{channels} channels are no {groups} groups");
    let (pixels, members) = (rows / images, channels / groups);
    let stride = input.row_stride() as isize;
    // SAFETY: the elements are those of `input`.
    let image = unsafe {
        Strided::from_raw(input.ptr(), &[images, pixels, channels], &[stride * pixels as isize, stride, 1])
    };
    let count = (pixels * members) as f64;
    let mut center = vec![0.0; images * channels];
    let mut spread = vec![0.0; images * channels];
    let group_mean = |numbers: &[f32]| numbers.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    fn rows_of(data: &mut [f32], channels: usize) -> RowsMut<'_> {
        let rows = data.len() / channels;
        RowsMut::dense(data, rows, channels).expect("made to measure")
    }
    reduce(isa, pool, Reduction::Sum, image, rows_of(&mut center, channels));
    for group in center.chunks_exact_mut(members) {
        let mean = group_mean(group) as f32;
        group.fill(mean);
    }
    squared_deviations(isa, pool, image, &center, rows_of(&mut spread, channels));
    for group in spread.chunks_exact_mut(members) {
        let variance = group_mean(group);
        group.fill((1.0 / (variance + f64::from(epsilon)).sqrt()) as f32);
    }
    for image in spread.chunks_exact_mut(channels) {
        image.iter_mut().zip(scale).for_each(|(x, scale)| *x *= scale);
    }
    let shifts = shift.repeat(images);
    let numbers =
        Affine { center: Some(&center), scale: &spread, shift: &shifts, rows_per_set: pixels, activation };
    affine(isa, pool, numbers, input, output);
}

/// Layer normalisation (Ba et al., arXiv 1607.06450) over the channels of each row, then scaled and, where `shift` is given, shifted
/// per channel. `output` may be made of the very rows of `input` (by `from_raw`).
///
/// # Panics
/// Where the views differ in rows or channels, or `scale` or `shift` have not one number per channel.
pub fn layer_normalize(
    isa: Isa,
    pool: &ThreadPool,
    epsilon: f32,
    (scale, shift): (&[f32], Option<&[f32]>),
    input: Rows<'_>,
    output: RowsMut<'_>,
) {
    let channels = input.channels();
    assert_eq!(scale.len(), channels, "a scale per channel");
    assert!(shift.is_none_or(|shift| shift.len() == channels), "a shift per channel");
    per_row(isa, pool, input, output, LayerRow { epsilon, scale, shift });
}

/// Local response normalisation across `size` neighbouring channels: `x / (bias + alpha / size * sum(x_i^2))^beta`. `output` may be
/// made of the very rows of `input` (by `from_raw`).
///
/// # Panics
/// Where the views differ in rows or channels, or `size` is 0.
pub fn local_response_normalize(
    isa: Isa,
    pool: &ThreadPool,
    size: usize,
    (alpha, beta, bias): (f32, f32, f32),
    input: Rows<'_>,
    output: RowsMut<'_>,
) {
    assert!(size > 0, "a window of at least one channel");
    per_row(isa, pool, input, output, LocalRow { size, alpha, beta, bias });
}

/// A normalisation of one row by itself.
trait RowKernel: Copy + Sync {
    /// Numbers of scratch memory for rows of `channels`.
    fn scratch(&self, channels: usize) -> usize;

    /// # Safety
    /// `channels` numbers must be readable at `from` and writable at `to`; the two are the same or do not overlap. `scratch` is as
    /// long as asked, and zero before the first row.
    unsafe fn row<S: Simd>(&self, s: S, from: *const f32, to: *mut f32, channels: usize, scratch: &mut [f32]);
}

struct RowsTask<'a, K> {
    kernel: K,
    rows: Range<usize>,
    input: Rows<'a>,
    output: (*mut f32, usize),
}

fn per_row<K: RowKernel>(isa: Isa, pool: &ThreadPool, input: Rows<'_>, output: RowsMut<'_>, kernel: K) {
    let (rows, channels) = (input.rows(), input.channels());
    assert_eq!((rows, channels), (output.rows(), output.channels()), "as many outputs as inputs");
    let output = (Shared(output.ptr()), output.row_stride());
    pool.run_ranges(rows, (GRAIN / 2).div_ceil(channels.max(1)), |rows| {
        dispatch(isa, RowsTask { kernel, rows, input, output: (output.0.get(), output.1) });
    });
}

impl<K: RowKernel> SimdOp for RowsTask<'_, K> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let channels = self.input.channels();
        let mut scratch = vec![0.0; self.kernel.scratch(channels)];
        for row in self.rows {
            // SAFETY: the row lies inside both views and belongs to this task.
            unsafe {
                let from = self.input.ptr().add(row * self.input.row_stride());
                self.kernel.row(s, from, self.output.0.add(row * self.output.1), channels, &mut scratch);
            }
        }
    }
}

#[derive(Clone, Copy)]
struct LayerRow<'a> {
    epsilon: f32,
    scale: &'a [f32],
    shift: Option<&'a [f32]>,
}

impl RowKernel for LayerRow<'_> {
    fn scratch(&self, _: usize) -> usize {
        0
    }

    #[inline(always)]
    unsafe fn row<S: Simd>(&self, s: S, from: *const f32, to: *mut f32, channels: usize, _: &mut [f32]) {
        // SAFETY: promised by the caller; scale and shift have a number per channel.
        unsafe {
            let count = channels as f32;
            let mean = fold_row::<S, Sum>(s, from, channels, 0.0) / count;
            let variance = fold_row::<S, SquareSum>(s, from, channels, mean) / count;
            let factor = s.splat(1.0 / (variance + self.epsilon).sqrt());
            let mut i = 0;
            while i < channels {
                let n = channels - i;
                let scale = s.load_partial(self.scale.as_ptr().add(i), n);
                let shift = self.shift.map_or(s.zero(), |shift| s.load_partial(shift.as_ptr().add(i), n));
                let x = s.mul(s.sub(s.load_partial(from.add(i), n), s.splat(mean)), factor);
                s.store_partial(to.add(i), n, s.mul_add(x, scale, shift));
                i += S::LANES;
            }
        }
    }
}

#[derive(Clone, Copy)]
struct LocalRow {
    size: usize,
    alpha: f32,
    beta: f32,
    bias: f32,
}

impl RowKernel for LocalRow {
    /// The squares with zeros before and behind them.
    fn scratch(&self, channels: usize) -> usize {
        channels + self.size - 1
    }

    #[inline(always)]
    unsafe fn row<S: Simd>(
        &self,
        s: S,
        from: *const f32,
        to: *mut f32,
        channels: usize,
        scratch: &mut [f32],
    ) {
        let squares = scratch.as_mut_ptr();
        // SAFETY: promised by the caller; the window of channel i is the `size` squares from `i` on in `scratch`.
        unsafe {
            let mut i = 0;
            while i < channels {
                let n = channels - i;
                let x = s.load_partial(from.add(i), n);
                s.store_partial(squares.add((self.size - 1) / 2 + i), n, s.mul(x, x));
                i += S::LANES;
            }
            i = 0;
            while i < channels {
                let n = channels - i;
                let mut sum = s.zero();
                for k in 0..self.size {
                    sum = s.add(sum, s.load_partial(squares.add(i + k), n));
                }
                let base = s.mul_add(sum, s.splat(self.alpha / self.size as f32), s.splat(self.bias));
                let factor = math::exp(s, s.mul(math::ln(s, base), s.splat(-self.beta)));
                s.store_partial(to.add(i), n, s.mul(s.load_partial(from.add(i), n), factor));
                i += S::LANES;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::{ElementType, bf16};
    use crate::testing::{Input, Tolerance, check, random};
    use proptest::prelude::*;

    /// Mean and variance.
    fn statistics(numbers: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
        let count = numbers.clone().count() as f64;
        let mean = numbers.clone().sum::<f64>() / count;
        (mean, numbers.map(|x| (x - mean) * (x - mean)).sum::<f64>() / count)
    }

    fn check_group((images, pixels, groups, members, gap): (usize, usize, usize, usize, usize), offset: f32) {
        let channels = groups * members;
        let input = Input::new(31, images * pixels, channels, gap, offset - 1.0, offset + 1.0);
        let (scale, shift) = (random(32, channels, 0.5, 2.0), random(33, channels, -1.0, 1.0));
        let wanted: Vec<f64> = (0..images * groups)
            .flat_map(|group| {
                let (image, first) = (group / groups, group % groups * members);
                let (input, scale, shift) = (&input, &scale, &shift);
                let cells = (0..pixels)
                    .flat_map(move |p| (first..first + members).map(move |c| (image * pixels + p, c)));
                let (mean, variance) = statistics(cells.clone().map(|(r, c)| input.at(r, c)));
                cells.map(move |(r, c)| {
                    let x = (input.at(r, c) - mean) / (variance + 1e-5).sqrt();
                    (x * f64::from(scale[c]) + f64::from(shift[c])).max(0.0)
                })
            })
            .collect();
        let expected = |r: usize, c: usize| {
            let group = r / pixels * groups + c / members;
            wanted[(group * pixels + r % pixels) * members + c % members]
        };
        check((images * pixels, channels, gap), Tolerance::both(2e-5), expected, |isa, pool, out| {
            let numbers = (&scale[..], &shift[..]);
            group_normalize(isa, pool, (images, groups), 1e-5, numbers, Activation::Relu, input.rows(), out);
        });
    }

    #[test]
    fn groups_of_networks_and_large_means() {
        check_group((2, 49, 32, 2, 0), 0.0);
        check_group((1, 12_544, 19, 1, 3), 0.0);
        check_group((1, 400, 1, 70, 0), 0.0);
        check_group((2, 400, 3, 3, 0), 10.0);
        check_group((0, 400, 3, 3, 0), 10.0);
    }

    #[test]
    fn scales_and_shifts_with_every_kind_of_activation() {
        for (rows, channels, gap) in [(300, 64, 0), (5, 100, 2), (0, 4, 0), (7, 3, 1)] {
            let input = Input::new(34, rows, channels, gap, -2.0, 2.0);
            let (scale, shift) = (random(35, channels, 0.5, 2.0), random(36, channels, -1.0, 1.0));
            for activation in [Activation::None, Activation::Relu, Activation::Sigmoid] {
                let expected = |r, c| {
                    let x: f64 = input.at(r, c) * f64::from(scale[c]) + f64::from(shift[c]);
                    match activation {
                        Activation::Relu => x.max(0.0),
                        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
                        _ => x,
                    }
                };
                check((rows, channels, gap), Tolerance::both(1e-6), expected, |isa, pool, out| {
                    scale_shift(isa, pool, &scale, &shift, activation, input.rows(), out);
                });
            }
        }
    }

    #[test]
    fn scales_and_shifts_of_bf16() {
        let (rows, channels) = (9, 37);
        let given = random(41, rows * channels, -2.0, 2.0);
        let given: Vec<bf16> = given.iter().map(|&x| bf16::from_f32(x)).collect();
        let (scale, shift) = (random(42, channels, 0.5, 2.0), random(43, channels, -1.0, 1.0));
        for isa in Isa::available() {
            let mut out = vec![bf16::ZERO; rows * channels];
            let input = Rows::dense(&given, rows, channels).unwrap();
            let output = RowsMut::dense(&mut out, rows, channels).unwrap();
            scale_shift(isa, &ThreadPool::new(2), &scale, &shift, Activation::Tanh, input, output);
            for (i, (x, got)) in given.iter().zip(&out).enumerate() {
                let (scale, shift) = (f64::from(scale[i % channels]), f64::from(shift[i % channels]));
                let want = (x.to_f64() * scale + shift).tanh();
                // The result is rounded once, behind the activation.
                let bound = want.abs() * f64::from(ElementType::Bf16.rounding()) + 1e-6;
                assert!((got.to_f64() - want).abs() <= bound, "{isa} {i}: {got} is not {want}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn any_groups(images in 0usize..3, pixels in 1usize..60, groups in 1usize..6, members in 1usize..20, gap in 0usize..2) {
            check_group((images, pixels, groups, members, gap), 0.0);
        }

        #[test]
        fn any_layer(rows in 0usize..9, channels in 1usize..300, gap in 0usize..3, shifted: bool) {
            let input = Input::new(37, rows, channels, gap, -2.0, 2.0);
            let (scale, shift) = (random(38, channels, 0.5, 2.0), random(39, channels, -1.0, 1.0));
            let expected = |r, c: usize| {
                let (mean, variance) = statistics((0..channels).map(|c| input.at(r, c)));
                let x = (input.at(r, c) - mean) / (variance + 1e-5).sqrt() * f64::from(scale[c]);
                x + if shifted { f64::from(shift[c]) } else { 0.0 }
            };
            check((rows, channels, gap), Tolerance::both(1e-5), expected, |isa, pool, out| {
                layer_normalize(isa, pool, 1e-5, (&scale, shifted.then_some(&shift)), input.rows(), out);
            });
        }

        #[test]
        fn any_local_response(rows in 0usize..9, channels in 1usize..100, gap in 0usize..3, size in 1usize..8) {
            let input = Input::new(40, rows, channels, gap, -3.0, 3.0);
            let expected = |r, c: usize| {
                let (low, high) = (c.saturating_sub((size - 1) / 2), (c + size / 2).min(channels - 1));
                let sum: f64 = (low..=high).map(|c| input.at(r, c).powi(2)).sum();
                input.at(r, c) / (2.0 + 0.3 / size as f64 * sum).powf(0.75)
            };
            check((rows, channels, gap), Tolerance::both(2e-6), expected, |isa, pool, out| {
                local_response_normalize(isa, pool, size, (0.3, 0.75, 2.0), input.rows(), out);
            });
        }
    }
}
