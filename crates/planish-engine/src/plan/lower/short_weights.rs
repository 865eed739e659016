//! Matrix products with weights of four bits: kept so where reading them is what takes time, as numbers otherwise.

use super::matmul::{self, Constant};
use super::{Abilities, Facts, Family, Layout, Lowering, Operand, Wish, rows_of};
use planish_cpu::conv::{ConvProblem, algorithms};
use planish_cpu::matmul::{BlockMatrix, BlockScale};
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::nn::quantized::scales::ScaleLayout;
use planish_graph::ops::nn::quantized::short_weights::ShortWeights;
use planish_graph::{DType, Error, Node, Operator, OperatorExt, Result};

/// Products of rows with weights of four bits.
pub(super) struct ShortProducts;

fn lost() -> Error {
    Error::invalid("a product with short weights lost an input or output")
}

/// The shape of a product.
struct Shape {
    rows: usize,
    depth: usize,
    columns: usize,
    /// Whether the weights are columns times depth.
    transposed: bool,
    /// Weights along the depth that share a scale, a multiple of 8.
    block: usize,
}

fn shape(node: &Node, facts: &Facts<'_>) -> Option<Shape> {
    let op = node.op.as_op::<ShortWeights>()?;
    let transposed = op.product.as_op::<Gemm>().is_some_and(|gemm| gemm.trans_b);
    let &[first, second] = facts.constant(node, 1)?.shape() else { return None };
    let (depth, columns) = if transposed { (second, first) } else { (first, second) };
    let (rows, of) = rows_of(Layout::Plain, facts.input(node, 0)?);
    facts.output(node)?;
    let block = match op.dequantize.granularity.block_size {
        // One block: as long as it takes.
        0 => depth.next_multiple_of(8),
        block => block,
    };
    (of == depth && depth > 0).then_some(Shape { rows, depth, columns, transposed, block })
}

/// The bias of each column.
fn bias(node: &Node, facts: &Facts<'_>, columns: usize) -> Option<Option<Vec<f32>>> {
    if node.input(4).is_none() {
        return Some(None);
    }
    let beta = node.op.as_op::<ShortWeights>()?.product.as_op::<Gemm>()?.beta;
    let bias = facts.constant(node, 4).filter(|b| b.dtype() == DType::F32)?;
    matmul::per_column(bias, columns).then_some(())?;
    let values = bias.to_f32s();
    Some(Some((0..columns).map(|c| beta * values[if values.len() == 1 { 0 } else { c }]).collect()))
}

impl Family for ShortProducts {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        let shape = shape(node, facts)?;
        bias(node, facts, shape.columns).map(|_| Wish::Plain)
    }

    fn follows(&self, _: &Node, _: &Facts<'_>) -> Abilities {
        Abilities::ALL
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let facts = l.facts();
        let Shape { rows, depth, columns, transposed, block } = shape(node, &facts).ok_or_else(lost)?;
        let bias = bias(node, &facts, columns).ok_or_else(lost)?;
        let op = node.op.as_op::<ShortWeights>().ok_or_else(lost)?;
        let inputs: Vec<_> = (1..4).map(|index| facts.constant(node, index)).collect();
        let (isa, threads, rates) = (l.target.isa, l.target.pool.threads(), l.target.chooser.rates());
        let short = rates.milliseconds(&BlockMatrix::work(isa, rows, [depth, columns], block, threads));
        let plain = ConvProblem::new_2d(1, depth, columns, [1, rows], [1, 1]);
        let works = algorithms().iter().filter(|a| a.accepts(&plain, isa).is_ok());
        let works = works.map(|a| rates.milliseconds(&a.work(&plain, isa, threads)));
        let input = l.operand(node.input(0).ok_or_else(lost)?, Layout::Plain)?;
        let (y, behind) = l.result(node)?;
        let target = l.output(y)?;
        if short > works.fold(f64::INFINITY, f64::min) {
            let info = l.info(node, "packed product", "so many rows are faster with weights as numbers");
            let weights = op.dequantize.eval(&inputs, 1)?.pop().ok_or_else(lost)?;
            let constant = Constant { matrix: &weights, transposed, scale: 1.0, bias };
            return matmul::multiply(l, info, input, constant, behind, target);
        }
        let (integers, scales) = (inputs[0].ok_or_else(lost)?, inputs[1].ok_or_else(lost)?);
        let granularity = op.dequantize.granularity;
        let layout =
            ScaleLayout::resolve(integers.shape(), scales.shape(), granularity.axis, granularity.block_size)?;
        // Unsigned levels are signed ones with a zero point 8 lower.
        let unsigned = integers.dtype() == DType::U4;
        let (flip, lower) = if unsigned { (8, 8.0) } else { (0, 0.0) };
        let (levels, scales) = (integers.bytes(), scales.to_f32s());
        let zeros = inputs[2].map(|zeros| zeros.to_f32s());
        let at = |k: usize, n: usize| if transposed { n * depth + k } else { k * columns + n };
        let level = |k: usize, n: usize| (levels[at(k, n)] as i8).wrapping_sub(flip);
        let scale = |b: usize, n: usize| {
            let own = layout.index(at(b * block, n));
            let zero = zeros.as_ref().map_or(0.0, |zeros| zeros[own]) - lower;
            BlockScale { scale: scales[own], zero }
        };
        let matrix = BlockMatrix::new(isa, [depth, columns], block, level, scale).map_err(Error::invalid)?;
        let info = l.info(node, "packed blocks of four bits", "reading the weights is what takes time");
        let reads: Vec<&Operand> = [Some(&input), behind.residual.as_ref()].into_iter().flatten().collect();
        let (from, epilogue) = (input.clone(), behind.clone());
        l.push(info, &reads, &[&target], move |env| {
            let (input, output) = (env.rows::<f32>(&from)?, env.rows_mut::<f32>(&target));
            let done = matrix.multiply(env.pool, input, bias.as_deref(), epilogue.epilogue(env)?, output);
            done.map_err(Error::invalid)
        });
        Ok(())
    }
}
