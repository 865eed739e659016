//! The convolutions that rates are fitted to: as different from each other as layers of networks are.
//!
//! They are points of a Halton sequence (Halton 1960), one axis for each property of a layer: the first few already
//! cover the whole range, and more make it denser, so that any time budget gets the best spread it can pay for.

use planish_cpu::conv::ConvProblem;

/// Kernels, as often as they should come.
const KERNELS: [[usize; 2]; 12] =
    [[1, 1], [3, 3], [1, 1], [5, 5], [3, 3], [1, 1], [3, 3], [7, 7], [1, 1], [3, 3], [1, 7], [3, 3]];
/// Multiply-accumulates at most: some 20 ms of a core.
const MOST_MACS: u64 = 1_900_000_000;
/// Multiply-accumulates beyond which only every eighth candidate is kept.
const MANY_MACS: u64 = 400_000_000;
/// Numbers of the weights at most.
const MOST_WEIGHTS: usize = 6 << 20;

/// `index` written in base `base`, mirrored at the point.
fn radical_inverse(mut index: usize, base: usize) -> f64 {
    let (mut result, mut digit) = (0.0, 1.0 / base as f64);
    while index > 0 {
        result += (index % base) as f64 * digit;
        index /= base;
        digit /= base as f64;
    }
    result
}

/// A whole number between `from` and `to`, evenly spread over their logarithms.
fn logarithmic(at: f64, from: f64, to: f64) -> usize {
    (from * (to / from).powf(at)).round() as usize
}

/// Point `index` of the sequence as a layer; `None` where it is too large.
fn layer(index: usize) -> Option<ConvProblem> {
    let at = |base| radical_inverse(index, base);
    let kernel = KERNELS[(at(2) * KERNELS.len() as f64) as usize];
    let map = logarithmic(at(3), 6.0, 230.0);
    // Networks like powers of two, whose rows collide in caches.
    let round = at(19) < 0.4;
    let channels = |at: f64| match logarithmic(at, 4.0, 1024.0) {
        count if round => count.next_power_of_two().min(1024),
        few @ ..12 => few,
        many => many.next_multiple_of(8),
    };
    let (inputs, outputs) = (channels(at(5)), channels(at(7)));
    let kind = at(11);
    let (inputs, outputs, groups) = match kind {
        // A picture's three channels.
        ..0.06 => (3, outputs.min(96), 1),
        ..0.75 => (inputs, outputs, 1),
        // Every channel by itself.
        ..0.92 => (inputs, inputs, inputs),
        // Groups of 4 to 32 channels.
        _ => {
            let group = 4 << (4.0 * at(7)) as usize;
            (inputs.next_multiple_of(group), inputs.next_multiple_of(group), inputs.div_ceil(group))
        }
    };
    let stride = if at(13) < 0.25 { 2 } else { 1 };
    let mut layer = ConvProblem::new_2d(1, inputs, outputs, [map, map], kernel);
    layer.groups = groups;
    layer.stride = [1, stride, stride];
    layer.pads_begin = [0, kernel[0] / 2, kernel[1] / 2];
    layer.pads_end = layer.pads_begin;
    let rare = layer.macs() > MANY_MACS && at(17) > 0.125;
    let fits = layer.macs() <= MOST_MACS && layer.weights_len() <= MOST_WEIGHTS && !rare;
    (fits && layer.validate().is_ok()).then_some(layer)
}

/// Layers without end.
pub fn layers() -> impl Iterator<Item = ConvProblem> {
    (1..).filter_map(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_layers_are_of_every_kind() {
        let layers: Vec<ConvProblem> = layers().take(150).collect();
        let count = |is: &dyn Fn(&ConvProblem) -> bool| layers.iter().filter(|l| is(l)).count();
        assert!(count(&|l| l.kernel == [1, 3, 3] && l.groups == 1) > 25);
        assert!(count(&|l| l.kernel == [1, 1, 1] && l.groups == 1) > 20);
        assert!(count(&|l| l.groups == l.in_channels) > 15);
        assert!(count(&|l| l.groups > 1 && l.groups < l.in_channels) > 5);
        assert!(count(&|l| l.in_channels == 3) > 3 && count(&|l| l.stride[1] == 2) > 15);
        assert!(count(&|l| l.in_size[1] < 10) > 10 && count(&|l| l.in_size[1] > 100) > 10);
    }
}
