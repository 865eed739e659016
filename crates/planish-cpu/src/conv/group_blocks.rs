//! Convolution in groups as matrix products of blocks of groups.
//!
//! A product with the few columns of a narrow group leaves most of a vector, or of a tile of the tile unit, empty. Groups
//! side by side are one product whose matrix is zero where an output channel belongs to one group and an input channel to
//! another. That multiplies mostly zeros: eight times the work for the groups of four channels that ResNeXt begins with
//! (Xie et al., arXiv 1611.05431). On the tile unit, where products are sixteen times as fast as those of vectors and a tile
//! takes as long whatever is in it, it is still three times faster than [`grouped`](super::grouped). Groups that fill
//! a panel are blocks of their own, with nothing wasted.
//!
//! All blocks read the same padded image, each its own channels.

use super::dense::{self, DenseCall, Lowering};
use super::padded::{self, Line, LineRows, image_len, padded_lines};
use super::{ALL_ELEMENTS, ConvAlgorithm, ConvProblem, PreparedConv, Weights};
use crate::element::{Element, ElementType};
use crate::isa::Isa;
use crate::matmul::{MAX_TAPS, SharedScratch, panel_width, scratch_len};
use crate::rates::{Rate, Work};
use crate::threads::ThreadPool;

/// The algorithm.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupBlocks;

/// The most groups of a block: as many times more is multiplied.
const MOST_GROUPS: usize = 8;

/// The problem with the groups of a block made one: as many as fill a panel.
fn blocked(problem: &ConvProblem, isa: Isa) -> Result<ConvProblem, String> {
    let (width, columns) = (panel_width(isa.serving(problem.element)), problem.group_out());
    let merged = if columns.is_multiple_of(width) { 1 } else { width / columns.max(1) };
    if problem.groups == 1 || merged * columns % width != 0 || !problem.groups.is_multiple_of(merged) {
        return Err(format!("group blocks need several groups that fill panels of {width} columns"));
    }
    if merged > MOST_GROUPS {
        return Err(format!("{merged} groups in a block, of which {MOST_GROUPS} are worth it at most"));
    }
    Ok(ConvProblem { groups: problem.groups / merged, ..problem.clone() })
}

/// The weights of blocks: zero between groups.
fn blocked_weights(problem: &ConvProblem, blocked: &ConvProblem, weights: &[f32]) -> Vec<f32> {
    let (taps, own) = (problem.taps(), problem.group_in() * problem.taps());
    let mut values = vec![0.0; blocked.weights_len()];
    let merged = problem.groups / blocked.groups;
    let rows =
        values.chunks_exact_mut((blocked.group_in() * taps).max(1)).zip(weights.chunks_exact(own.max(1)));
    for (output, (row, weights)) in rows.enumerate() {
        let group = output / problem.group_out() % merged;
        row[group * own..][..own].copy_from_slice(weights);
    }
    values
}

impl ConvAlgorithm for GroupBlocks {
    fn name(&self) -> &'static str {
        "group blocks"
    }

    fn elements(&self) -> &'static [ElementType] {
        ALL_ELEMENTS
    }

    fn accepts(&self, problem: &ConvProblem, isa: Isa) -> Result<(), String> {
        problem.validate()?;
        let blocked = blocked(problem, isa)?;
        if blocked.taps() > MAX_TAPS {
            return Err(format!("{} taps are more than the table holds ({MAX_TAPS})", blocked.taps()));
        }
        if !blocked.group_in().is_multiple_of(problem.element.factor().per_word()) {
            return Err(format!("{} channels of a block are no whole words of 32 bits", blocked.group_in()));
        }
        Ok(())
    }

    fn work(&self, problem: &ConvProblem, isa: Isa, threads: usize) -> Work {
        let blocked = blocked(problem, isa).unwrap_or_else(|_| problem.clone());
        let mut work = dense::product_work(&blocked, isa, threads);
        work += dense::collisions(problem, &work, isa);
        let addresses = (problem.out_rows() * problem.taps() * blocked.groups) as f64;
        let panels = blocked.group_out().div_ceil(panel_width(isa)) as f64;
        let line = Line::of_pixels(problem, blocked.group_in());
        let copied =
            if problem.is_padded() { padded_lines(problem) * line.len * problem.element.bytes() } else { 0 };
        work += Work::of(&[
            (Rate::Address, addresses),
            (Rate::AddressLoad, addresses * panels),
            (Rate::PaddedByte, copied as f64),
        ])
        .shared(threads as f64);
        work.called(blocked.groups.min(2 * threads) + usize::from(copied > 0), threads)
    }

    fn prepare(
        &self,
        problem: &ConvProblem,
        isa: Isa,
        weights: Weights<'_>,
    ) -> Result<Box<dyn PreparedConv>, String> {
        self.accepts(problem, isa)?;
        weights.check(problem)?;
        let blocked = blocked(problem, isa)?;
        let values = blocked_weights(problem, &blocked, weights.values);
        let key = self.weights_key(problem, isa);
        Ok(dense::packed(*self, key, &blocked, isa, Weights { values: &values, ..weights }))
    }
}

impl Lowering for GroupBlocks {
    fn piece_len(self, blocked: &ConvProblem) -> usize {
        blocked.group_in()
    }

    fn workspace_len<T: Element>(self, problem: &ConvProblem, threads: usize) -> usize {
        let line = Line::of_pixels(problem, problem.group_in());
        let source = LineRows::<T>::new(problem, line, std::ptr::null());
        image_len::<T>(problem, line) + scratch_len(&source, threads)
    }

    fn lower<T: Element, O: Element>(self, mut call: DenseCall<'_, T, O>) {
        let (problem, pool) = (call.problem, call.pool);
        let (blocks, channels, threads) = (problem.groups, problem.group_in(), pool.threads().max(1));
        let line = Line::of_pixels(problem, channels);
        let (image, scratch) = padded::image(&mut call, line);
        let all = LineRows::new(problem, line, image);
        if threads > 1 && blocks < 2 * threads {
            for block in 0..blocks {
                // SAFETY: the source names output row `r` for row `r`; `workspace_len` covers its scratch.
                unsafe { call.multiply(block, &all.beginning_at(block * channels), scratch) };
            }
            return;
        }
        // A block is short: each has a thread to itself.
        let each = scratch.len() / threads;
        let (slots, alone) = (SharedScratch::new(scratch), ThreadPool::new(1));
        let call = DenseCall { pool: &alone, ..call };
        pool.run_with_slots(blocks, &|slot, block| {
            // SAFETY: slots are disjoint pieces of the scratch memory, and nobody else uses this one meanwhile.
            let scratch = unsafe { slots.piece(slot * each, each) };
            // SAFETY: as above; `workspace_len` covers the scratch of each thread.
            unsafe { call.multiply(block, &all.beginning_at(block * channels), scratch) };
        });
    }
}
