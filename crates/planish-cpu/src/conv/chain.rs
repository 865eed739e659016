//! Convolutions one behind the other, computed band by band.
//!
//! A block of MobileNet (Sandler et al., *MobileNetV2*, arXiv 1801.04381) widens its input six times, filters each
//! channel by itself and narrows again. The wide tensors in between are larger than a core's second-level cache, so a
//! layer at a time writes them to the last cache or to memory and reads them back, and the depthwise layer does nothing
//! but wait. Here some lines of the last output are computed from their lines of the one before, and so on: the tensors
//! in between exist as bands of a few lines, which stay in the second-level cache (Alwani et al., *Fused-layer CNN
//! accelerators*, MICRO 2016, do it for hardware). Lines that the next band needs again are kept, so nothing is computed
//! twice but at the borders between tasks.
//!
//! Measured on a core of a Zen 4, quiet, after other data passed through the caches: 112² × 16 → 96, 3×3 depthwise with
//! stride 2, 96 → 24 takes 0.92 ms as a chain and 1.67 ms a layer at a time; in MobileNetV2, whose wide tensors stay in
//! the last cache of 32 MiB from run to run, 0.78 and 0.98 ms.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::problem::{check_shape, check_workspace};
use super::{ConvCall, ConvProblem, PreparedConv};
use crate::epilogue::{Activation, Epilogue};
use crate::matmul::SharedScratch;
use crate::rates::SECOND_LEVEL;
use crate::threads::ThreadPool;
use crate::view::{Rows, RowsMut};

/// A convolution of a [`Chain`].
#[derive(Clone)]
pub struct ChainStage {
    /// Its shape; the input of all but the first is the output of the one before.
    pub problem: ConvProblem,
    /// Its packed weights.
    pub prepared: Arc<dyn PreparedConv>,
    /// What follows its sum and bias.
    pub activation: Activation,
}

/// Convolutions that are computed band by band.
pub struct Chain {
    stages: Vec<ChainStage>,
    /// Lines of the last output that are computed at a time.
    band: usize,
    /// For each stage but the last, the lines of its output that are kept at most.
    kept: Vec<usize>,
    /// The stages run on the thread of their task.
    alone: ThreadPool,
}

/// The input lines that some output lines see, and the lines of padding in front of and behind them.
fn seen(problem: &ConvProblem, lines: &Range<usize>) -> (Range<usize>, [usize; 2]) {
    let begin = problem.pads_begin[1];
    let start = lines.start * problem.stride[1];
    let end = (lines.end - 1) * problem.stride[1] + span(problem);
    let inside = start.max(begin) - begin..end.min(problem.in_size[1] + begin) - begin;
    let pads = [begin.saturating_sub(start), end.saturating_sub(problem.in_size[1] + begin)];
    (inside, pads)
}

/// The input lines that a line of output sees.
fn span(problem: &ConvProblem) -> usize {
    (problem.kernel[1] - 1) * problem.dilation[1] + 1
}

/// The numbers in a line of a stage's output.
fn line_len(problem: &ConvProblem, out_size: [usize; 3]) -> usize {
    out_size[2] * problem.out_channels
}

impl Chain {
    /// A chain of at least two stages; an error where they do not fit each other, are not two-dimensional, or where a
    /// stage's result would depend on how the lines are cut into bands.
    pub fn new(stages: Vec<ChainStage>) -> Result<Chain, String> {
        if stages.len() < 2 {
            return Err("a chain needs two convolutions".to_owned());
        }
        for (index, stage) in stages.iter().enumerate() {
            let ChainStage { problem, prepared, .. } = stage;
            problem.check_f32("a chain")?;
            prepared.algorithm().accepts(problem, prepared.key().isa)?;
            if !prepared.algorithm().adds_plainly() {
                let name = prepared.algorithm().name();
                return Err(format!("the results of {name} would depend on how lines are cut into bands"));
            }
            let flat = problem.in_size[0] == 1 && problem.kernel[0] == 1 && problem.out_size()?[0] == 1;
            let span = span(problem);
            if !flat || problem.pads_begin[1] >= span || problem.pads_end[1] >= span {
                return Err(format!("convolution {index} of the chain has depth, or lines of padding alone"));
            }
            if let Some(before) = index.checked_sub(1).map(|before| &stages[before].problem) {
                let made = (before.batch, before.out_channels, before.out_size()?);
                if made != (problem.batch, problem.in_channels, problem.in_size) {
                    return Err(format!(
                        "convolution {index} of the chain does not read what the one before makes"
                    ));
                }
            }
        }
        if kept_bytes(&stages, 1)? > SECOND_LEVEL {
            return Err("a line of what is between the convolutions does not fit the cache".to_owned());
        }
        let lines = stages[stages.len() - 1].problem.out_size()?[1];
        // As many lines as take part of the second-level cache, with room for weights, input and output. Measured: bands
        // of 100 to 300 KiB differ by 2 %, larger ones are slower.
        let mut band = 1;
        while band < lines && kept_bytes(&stages, band + 1)? <= SECOND_LEVEL * 0.4 {
            band += 1;
        }
        Ok(Self::banded(stages, band))
    }

    /// A chain of stages that fit each other, in bands of so many lines.
    fn banded(stages: Vec<ChainStage>, band: usize) -> Chain {
        let kept = kept_lines(&stages, band);
        Chain { stages, band, kept, alone: ThreadPool::new(1) }
    }

    fn first(&self) -> &ConvProblem {
        &self.stages[0].problem
    }

    fn last(&self) -> &ConvProblem {
        &self.stages[self.stages.len() - 1].problem
    }

    /// The algorithms of the stages, in order.
    pub fn algorithms(&self) -> impl Iterator<Item = &'static str> {
        self.stages.iter().map(|stage| stage.prepared.algorithm().name())
    }

    /// The numbers of workspace of a task: the lines between the stages, and what the stages themselves need.
    fn task_len(&self) -> usize {
        let between: usize = self.kept.iter().enumerate().map(|(i, &lines)| self.line(i) * lines).sum();
        between + self.stage_workspace()
    }

    /// The numbers of workspace that a stage needs at most.
    fn stage_workspace(&self) -> usize {
        let lines = self.kept.iter().copied().chain([self.band]);
        let needs = self.stages.iter().zip(lines).map(|(stage, lines)| {
            let mut problem = stage.problem.clone();
            problem.batch = 1;
            problem.in_size[1] = (lines.max(1) - 1) * problem.stride[1] + span(&problem);
            stage.prepared.workspace_len(&problem, 1)
        });
        needs.max().unwrap_or(0)
    }

    /// The numbers in a line of the output of stage `i`.
    fn line(&self, i: usize) -> usize {
        let problem = &self.stages[i].problem;
        line_len(problem, problem.out_size().unwrap_or_default())
    }

    /// The `f32` of workspace a run needs.
    pub fn workspace_len(&self, threads: usize) -> usize {
        threads.max(1) * self.task_len()
    }

    /// Computes the chain; `residual` is added before the activation of the last stage.
    ///
    /// An error, with nothing written, where the shapes do not match. The result does not depend on the number of
    /// threads, and is that of the stages one by one, to the last bit.
    pub fn run(
        &self,
        pool: &ThreadPool,
        input: Rows<'_>,
        residual: Option<Rows<'_>>,
        output: RowsMut<'_>,
        workspace: &mut [f32],
    ) -> Result<(), String> {
        let (first, last) = (self.first(), self.last());
        check_shape("input", input.rows(), input.channels(), first.in_rows(), first.in_channels)?;
        let (rows, channels) = (last.out_rows(), last.out_channels);
        check_shape("output", output.rows(), output.channels(), rows, channels)?;
        if let Some(residual) = &residual {
            check_shape("residual", residual.rows(), residual.channels(), rows, channels)?;
        }
        check_workspace(workspace.len(), self.workspace_len(pool.threads()))?;
        let lines = last.out_size()?[1];
        // Every task computes the first lines between its stages anew, so there are no more than keep all threads busy.
        let wanted = if pool.threads() == 1 { 1 } else { (2 * pool.threads()).div_ceil(last.batch.max(1)) };
        let parts = wanted.min(lines.div_ceil(self.band)).max(1);
        let (slots, task_len) = (SharedScratch::new(workspace), self.task_len());
        let failed = OnceLock::new();
        pool.run_with_slots(last.batch * parts, &|slot, task| {
            let (image, part) = (task / parts, task % parts);
            // SAFETY: slots are disjoint pieces of the workspace, and nobody else uses this one meanwhile.
            let workspace = unsafe { slots.piece(slot * task_len, task_len) };
            let lines = part * lines / parts..(part + 1) * lines / parts;
            if let Err(error) = self.task(image, lines, input, residual, &output, workspace) {
                let _ = failed.set(error);
            }
        });
        failed.into_inner().map_or(Ok(()), Err)
    }

    /// Some lines of the last output of an image.
    fn task(
        &self,
        image: usize,
        lines: Range<usize>,
        input: Rows<'_>,
        residual: Option<Rows<'_>>,
        output: &RowsMut<'_>,
        workspace: &mut [f32],
    ) -> Result<(), String> {
        let count = self.stages.len();
        let (between, workspace) = workspace.split_at_mut(workspace.len() - self.stage_workspace());
        // The lines that each stage but the last has in its part of `between`.
        let mut made: Vec<Range<usize>> = vec![0..0; count - 1];
        let starts: Vec<usize> = (0..count)
            .scan(0, |at, i| {
                let start = *at;
                *at += if i + 1 < count { self.line(i) * self.kept[i] } else { 0 };
                Some(start)
            })
            .collect();
        let mut from = lines.start;
        while from < lines.end {
            let band = from..lines.end.min(from + self.band);
            from = band.end;
            // What each stage must have made for this band, from the last to the first.
            let mut wanted = vec![band; count];
            for i in (1..count).rev() {
                wanted[i - 1] = seen(&self.stages[i].problem, &wanted[i]).0;
            }
            for (i, stage) in self.stages.iter().enumerate() {
                let mut todo = wanted[i].clone();
                if i + 1 < count {
                    // Lines that are there already move to the front.
                    let line = self.line(i);
                    let old = made[i].clone();
                    let kept = todo.start.max(old.start)..old.end.max(todo.start);
                    if !kept.is_empty() && kept.start > old.start {
                        let shift = (kept.start - old.start) * line;
                        let part = &mut between[starts[i]..][..old.len() * line];
                        part.copy_within(shift.., 0);
                    }
                    made[i] = todo.clone();
                    todo.start = todo.start.max(kept.end.min(todo.end));
                }
                if todo.is_empty() {
                    continue;
                }
                let (seen, pads) = seen(&stage.problem, &todo);
                let mut problem = stage.problem.clone();
                problem.batch = 1;
                (problem.pads_begin[1], problem.pads_end[1]) = (pads[0], pads[1]);
                problem.in_size[1] = seen.len();
                let width = problem.in_size[2];
                let (done, rest) = between.split_at_mut(starts[i]);
                let input = match i.checked_sub(1) {
                    None => input
                        .slice((image * stage.problem.in_size[1] + seen.start) * width, seen.len() * width),
                    Some(before) => {
                        let skipped = (seen.start - made[before].start) * self.line(before);
                        let rows = seen.len() * width;
                        let part = &done[starts[before] + skipped..][..rows * problem.in_channels];
                        Rows::dense(part, rows, problem.in_channels).map_err(|e| e.to_string())?
                    }
                };
                let out_width = stage.problem.out_size()?[2];
                let (rows, channels) = (todo.len() * out_width, problem.out_channels);
                let (output, residual) = if i + 1 < count {
                    let part = &mut rest[(todo.start - made[i].start) * self.line(i)..][..rows * channels];
                    (RowsMut::dense(part, rows, channels).map_err(|e| e.to_string())?, None)
                } else {
                    let first = (image * stage.problem.out_size()?[1] + todo.start) * out_width;
                    let start = output.ptr().wrapping_add(first * output.row_stride());
                    // SAFETY: these rows of the output are inside it, and no other task's.
                    let part = unsafe { RowsMut::from_raw(start, rows, channels, output.row_stride()) };
                    (part, residual.map(|residual| residual.slice(first, rows)))
                };
                let epilogue = Epilogue { residual, activation: stage.activation, ..Epilogue::default() };
                let call = ConvCall { input, epilogue, output, workspace };
                stage.prepared.run(&problem, &self.alone, call)?;
            }
        }
        Ok(())
    }
}

/// For each stage but the last, the lines of its output that a band of so many lines of the last needs at most.
fn kept_lines(stages: &[ChainStage], band: usize) -> Vec<usize> {
    let mut kept = vec![0; stages.len() - 1];
    let mut lines = band;
    for i in (1..stages.len()).rev() {
        let problem = &stages[i].problem;
        lines = ((lines - 1) * problem.stride[1] + span(problem)).min(problem.in_size[1]);
        kept[i - 1] = lines;
    }
    kept
}

/// The bytes of those lines.
fn kept_bytes(stages: &[ChainStage], band: usize) -> Result<f64, String> {
    let mut bytes = 0.0;
    for (stage, lines) in stages.iter().zip(kept_lines(stages, band)) {
        bytes += (line_len(&stage.problem, stage.problem.out_size()?) * lines * size_of::<f32>()) as f64;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::numbers;
    use super::super::{ConvAlgorithm, depthwise, indirect, pointwise};
    use super::*;
    use crate::conv::Weights;
    use crate::element::ElementType;
    use crate::isa::Isa;

    /// A convolution of a drawn chain: its kernel, stride, dilation, padding and output channels; depthwise without the
    /// last.
    type Drawn = (usize, usize, usize, usize, usize, Option<usize>);

    fn drawn() -> impl Strategy<Value = Drawn> {
        let channels = prop_oneof![Just(None), (1usize..40).prop_map(Some)];
        (1usize..5, 1usize..4, 1usize..3, 0usize..4, 0usize..4, channels)
    }

    fn stages(
        isa: Isa,
        batch: usize,
        mut channels: usize,
        mut size: [usize; 2],
        drawn: &[Drawn],
    ) -> Option<Vec<ChainStage>> {
        let mut stages = Vec::new();
        for (i, &(kernel, stride, dilation, begin, end, outputs)) in drawn.iter().enumerate() {
            let mut problem =
                ConvProblem::new_2d(batch, channels, outputs.unwrap_or(channels), size, [kernel; 2]);
            problem.groups = if outputs.is_none() { channels } else { 1 };
            (problem.stride, problem.dilation) = ([1, stride, stride], [1, dilation, dilation]);
            (problem.pads_begin, problem.pads_end) = ([0, begin, end], [0, end, begin]);
            if problem.validate().is_err() || begin.max(end) >= span(&problem) {
                return None;
            }
            let of_kind: &dyn ConvAlgorithm = match outputs {
                None => &depthwise::Depthwise,
                Some(_) if pointwise::Pointwise.accepts(&problem, isa).is_ok() => &pointwise::Pointwise,
                Some(_) => &indirect::Indirect,
            };
            let weights = numbers(problem.weights_len(), i as u64 + 3);
            let bias = numbers(problem.out_channels, i as u64 + 9);
            let out = problem.out_size().ok()?;
            (channels, size) = (problem.out_channels, [out[1], out[2]]);
            let prepared = of_kind.prepare(&problem, isa, Weights::new(&weights, Some(&bias))).ok()?.into();
            let activation = if i % 2 == 0 { Activation::Relu } else { Activation::HardSwish };
            stages.push(ChainStage { problem, prepared, activation });
        }
        Some(stages)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn bands_make_no_difference(
            batch in 0usize..3,
            channels in 1usize..40,
            size in [1usize..20, 1usize..12],
            drawn in prop::collection::vec(drawn(), 2..5),
            band in 1usize..5,
            gap in 0usize..3,
        ) {
            for isa in Isa::available() {
                let Some(stages) = stages(isa, batch, channels, size, &drawn) else { continue };
                let (first, last) = (stages[0].problem.clone(), stages[stages.len() - 1].problem.clone());
                let input = numbers(first.in_rows() * channels, 1);
                let residual = numbers(last.out_rows() * last.out_channels, 2);
                let rows = last.out_rows();
                let residual = Rows::dense(&residual, rows, last.out_channels).unwrap();
                // A stage after the other.
                let mut values = input.clone();
                for (i, stage) in stages.iter().enumerate() {
                    let problem = &stage.problem;
                    let mut out = vec![f32::NAN; problem.out_rows() * problem.out_channels];
                    let pool = ThreadPool::new(1);
                    let mut workspace = vec![f32::NAN; stage.prepared.workspace_len(problem, 1)];
                    let residual = (i + 1 == stages.len()).then_some(residual);
                    let call = ConvCall {
                        input: Rows::dense(&values, problem.in_rows(), problem.in_channels).unwrap(),
                        epilogue: Epilogue { residual, activation: stage.activation, ..Epilogue::default() },
                        output: RowsMut::dense(&mut out, problem.out_rows(), problem.out_channels).unwrap(),
                        workspace: &mut workspace,
                    };
                    stage.prepared.run(problem, &pool, call).unwrap();
                    values = out;
                }
                for (chain, threads) in [
                    (Chain::banded(stages.clone(), band), 1),
                    (Chain::banded(stages.clone(), band), 3),
                    (Chain::new(stages.clone()).unwrap(), 2),
                ] {
                    let stride = last.out_channels + gap;
                    let mut out = vec![7.5; rows * stride];
                    let mut workspace = vec![f32::NAN; chain.workspace_len(threads)];
                    let to = RowsMut::new(&mut out, rows, last.out_channels, stride).unwrap();
                    let from = Rows::dense(&input, first.in_rows(), channels).unwrap();
                    chain.run(&ThreadPool::new(threads), from, Some(residual), to, &mut workspace).unwrap();
                    for (i, got) in out.iter().enumerate() {
                        let (row, channel) = (i / stride, i % stride);
                        let want = values.get(row * last.out_channels + channel).filter(|_| channel < last.out_channels);
                        prop_assert_eq!(got.to_bits(), want.unwrap_or(&7.5).to_bits(), "{} {}: {} {:?}", isa, i, got, want);
                    }
                }
            }
        }
    }

    #[test]
    fn stages_that_do_not_fit_each_other_are_refused() {
        let isa = Isa::current();
        let good = stages(isa, 1, 8, [9, 9], &[(1, 1, 1, 0, 0, Some(16)), (3, 1, 1, 1, 1, None)]).unwrap();
        assert!(Chain::new(good.clone()).is_ok());
        assert!(Chain::new(good[..1].to_vec()).is_err());
        let twice = [good[0].clone(), good[0].clone()];
        assert!(Chain::new(twice.to_vec()).is_err());
        let mut padding = good.clone();
        padding[1].problem.pads_end[1] = 3;
        assert!(Chain::new(padding).is_err());
        let mut short = good;
        for stage in &mut short {
            stage.problem.element = ElementType::Bf16;
            let ChainStage { problem, prepared, .. } = stage;
            let weights = numbers(problem.weights_len(), 1);
            *prepared =
                prepared.algorithm().prepare(problem, isa, Weights::new(&weights, None)).unwrap().into();
        }
        assert!(Chain::new(short).is_err_and(|error| error.contains("bf16")));
    }

    #[test]
    fn wrong_shapes_are_errors() {
        let stages =
            stages(Isa::current(), 1, 8, [9, 9], &[(1, 1, 1, 0, 0, Some(16)), (3, 1, 1, 1, 1, None)])
                .unwrap();
        let chain = Chain::new(stages).unwrap();
        let (input, mut out) = (vec![0.0; 81 * 8], vec![0.0; 81 * 16]);
        let pool = ThreadPool::new(1);
        let mut run = |rows: usize, workspace: usize| {
            let from = Rows::dense(&input, rows, 8).unwrap();
            let to = RowsMut::dense(&mut out, 81, 16).unwrap();
            chain.run(&pool, from, None, to, &mut vec![0.0; workspace])
        };
        assert!(run(81, chain.workspace_len(1)).is_ok());
        assert!(run(80, chain.workspace_len(1)).is_err());
        assert!(run(81, chain.workspace_len(1) - 1).is_err());
    }
}
