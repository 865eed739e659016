//! Choices read off bytes, so that a fuzzer that changes bytes changes choices.

use planish_graph::{DType, Tensor};

/// Hands out choices; when the bytes have run out every choice is the first.
#[derive(Debug)]
pub struct Source<'a> {
    rest: &'a [u8],
}

impl<'a> Source<'a> {
    /// Choices from `bytes`.
    pub fn new(bytes: &'a [u8]) -> Source<'a> {
        Source { rest: bytes }
    }
    /// Whether no bytes are left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
    /// The next byte, or 0.
    pub fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((&first, rest)) => {
                self.rest = rest;
                first
            }
            None => 0,
        }
    }
    /// A number below `count` (which is at most 256).
    pub fn below(&mut self, count: usize) -> usize {
        self.byte() as usize % count.max(1)
    }
    /// Seldom true: for the last of `count` cases.
    pub fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }
    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
    /// `length` of `choices`; now and then another length, or a value that nobody expects.
    pub fn list(&mut self, length: usize, choices: &[i64]) -> Vec<i64> {
        let hostile = [-1, 0, i64::MAX, i64::MIN, 1 << 31, 1 << 40, 5];
        let length = if self.once_in(64) { self.below(7) } else { length };
        (0..length).map(|_| if self.once_in(64) { self.pick(&hostile) } else { self.pick(choices) }).collect()
    }
}

/// A tensor of small numbers that look random and are the same for the same `seed`; `None` where it would be large.
pub(crate) fn noise(dtype: DType, shape: &[usize], seed: u64) -> Option<Tensor> {
    let count = planish_graph::limits::element_count(shape).ok().filter(|&n| n <= 1 << 17)?;
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x2545_F491_4F6C_DD1D;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    if dtype.is_float() {
        let values: Vec<f64> = (0..count).map(|_| next() * 4.0 - 2.0).collect();
        return Tensor::from_f64s(dtype, shape, &values).ok();
    }
    let top = if dtype == DType::Bool { 2.0 } else { 5.0 };
    let values: Vec<i128> = (0..count).map(|_| (next() * top) as i128).collect();
    Tensor::from_ints(dtype, shape, &values).ok()
}
