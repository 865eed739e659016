//! The points that polynomials are interpolated at, and what follows from them.
//!
//! A short convolution is a product of two polynomials, and a product of degree `n - 1` is known from its
//! values at `n` points (Toom and Cook; Winograd, *Arithmetic Complexity of Computations*, 1980). The points
//! here are 0, pairs ±a and "infinity" (the leading coefficient), in this order: index 0 is 0, then each pair
//! with its positive point first, and the last is infinity.
//!
//! Which pairs decides how much rounding errors grow (Barabasz, Anderson, Soodhalter and Gregg, *Error
//! Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks*, ACM TOMS 2020).
//! These were found by trying all pairs of eighths from ¼ to 3 whose products are exact in `f32`, for 3 taps
//! and 64 channels: ±⅝ and ±1½ err by 0.75e-6 where the customary ±1 and ±2 err by 1.7e-6; for 8 points
//! nothing was better than the customary ±1, ±2, ±½.
//!
//! `n` points serve every pair of `m` outputs and `r` taps with `m + r - 1 = n`: the transform of the input
//! depends on `n` alone, that of the weights on `n` and `r`, that of the output on `n` and `m`.

/// The most pairs of points.
const PAIRS: usize = 3;

/// The most points, infinity included.
pub(super) const MOST: usize = 2 * PAIRS + 2;

/// `POINTS[pairs]` are the positive points of that many pairs.
pub(super) const POINTS: [[f32; PAIRS]; PAIRS + 1] =
    [[0.0; PAIRS], [1.0, 0.0, 0.0], [0.625, 1.5, 0.0], [1.0, 2.0, 0.5]];

/// `PRODUCTS[pairs][skip][j]` is the coefficient of `x^(2j)` in the product of `x² - a²` over `pairs` pairs
/// of points except that of index `skip`; with `skip == pairs` over all of them.
pub(super) const PRODUCTS: [[[f32; PAIRS + 1]; PAIRS + 1]; PAIRS + 1] = {
    let mut table = [[[0.0; PAIRS + 1]; PAIRS + 1]; PAIRS + 1];
    let mut pairs = 0;
    while pairs <= PAIRS {
        let mut skip = 0;
        while skip <= pairs {
            table[pairs][skip] = product(pairs, skip);
            skip += 1;
        }
        pairs += 1;
    }
    table
};

const fn product(pairs: usize, skip: usize) -> [f32; PAIRS + 1] {
    let mut coefficients = [1.0, 0.0, 0.0, 0.0];
    let mut pair = 0;
    while pair < pairs {
        if pair != skip {
            let square = POINTS[pairs][pair] * POINTS[pairs][pair];
            let mut j = PAIRS;
            while j > 0 {
                coefficients[j] = coefficients[j - 1] - square * coefficients[j];
                j -= 1;
            }
            coefficients[0] *= -square;
        }
        pair += 1;
    }
    coefficients
}

/// `POWERS[pairs][pair][i]` is the point of a pair to the power `i`.
pub(super) const POWERS: [[[f32; MOST]; PAIRS]; PAIRS + 1] = {
    let mut table = [[[1.0; MOST]; PAIRS]; PAIRS + 1];
    let mut pairs = 0;
    while pairs <= PAIRS {
        let mut pair = 0;
        while pair < pairs {
            let mut i = 1;
            while i < MOST {
                table[pairs][pair][i] = table[pairs][pair][i - 1] * POINTS[pairs][pair];
                i += 1;
            }
            pair += 1;
        }
        pairs += 1;
    }
    table
};

/// A point by its index; `None` is infinity.
fn point(index: usize, points: usize) -> Option<f64> {
    match index {
        0 => Some(0.0),
        _ if index + 1 == points => None,
        _ => {
            let a = f64::from(POINTS[points / 2 - 1][(index - 1) / 2]);
            Some(if index % 2 == 1 { a } else { -a })
        }
    }
}

/// The transform of the weights: `matrix[i][k]` is what tap `k` of `taps` counts at point `i` of `points`.
/// One point is no transform, for an axis along which the kernel is one wide.
pub(super) fn weight_matrix(points: usize, taps: usize) -> [[f64; MOST]; MOST] {
    let mut matrix = [[0.0; MOST]; MOST];
    if points == 1 {
        matrix[0][0] = 1.0;
        return matrix;
    }
    for (i, row) in matrix.iter_mut().enumerate().take(points) {
        let Some(at) = point(i, points) else {
            row[taps - 1] = 1.0;
            continue;
        };
        let others = (0..points).filter(|&k| k != i).filter_map(|k| point(k, points));
        let divisor: f64 = others.map(|other| at - other).product();
        for (k, slot) in row.iter_mut().enumerate().take(taps) {
            *slot = at.powi(k as i32) / divisor;
        }
    }
    matrix
}
