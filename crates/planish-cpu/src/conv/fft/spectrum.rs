//! Which frequencies of a real tile are kept, and in which order.
//!
//! The spectrum of a real n×n tile is conjugate symmetric, `X[-v][-u] = conj X[v][u]`, so the columns `u = 0 ..= n/2`
//! hold everything; and in the columns 0 and n/2, which are their own mirror images, so do the lines `v = 0 ..= n/2`.
//! That leaves `n²/2 + 2` complex numbers, four of them real.
//!
//! They are kept in the order of the transforms: column 0, column n/2, then the columns between them whole.

/// How many frequencies are kept of a tile of `size`×`size` numbers.
pub(super) fn frequencies(size: usize) -> usize {
    size * size / 2 + 2
}

/// The place of the first line of the column n/2.
pub(super) fn middle_column(size: usize) -> usize {
    size / 2 + 1
}

/// The place of the first line of a column between 0 and n/2.
pub(super) fn column(size: usize, u: usize) -> usize {
    size + 2 + (u - 1) * size
}

/// Line, column and scale of every frequency that is kept, in order. What `forward` computes is the spectrum divided by
/// the scale: it leaves out the halves that separating two real transforms from a complex one asks for.
pub(super) fn table(size: usize) -> impl Iterator<Item = (usize, usize, f64)> {
    let edges = [0, size / 2].into_iter().flat_map(move |u| {
        (0..=size / 2).map(move |v| (v, u, if v == 0 || v == size / 2 { 1.0 } else { 0.5 }))
    });
    let rest = (1..size / 2).flat_map(move |u| (0..size).map(move |v| (v, u, 0.5)));
    edges.chain(rest)
}
