//! Matrix products: Gemm and MatMul, with the right operand packed when the plan is made where it is constant.

use super::follow::Behind;
use super::{
    Abilities, BufferView, Facts, Family, Keeps, Layout, Lowering, Operand, StepInfo, Wish, no_levels,
    rows_of,
};
use planish_cpu::element::{Element, ElementType, f16};
use planish_cpu::for_float;
use planish_cpu::matmul::{HalfMatrix, matmul, matmul_dynamic};
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::matmul::{MatMul, MatMulShape};
use planish_graph::{DType, Error, Node, OperatorExt, Result, Tensor};

/// Gemm with constant weights; MatMul.
pub(super) struct MatrixProducts;

fn lost() -> Error {
    Error::invalid("a matrix product lost an input or output")
}

/// Whether `gemm` is a plain product of rows with constant weights and a bias per column.
fn plain_gemm(node: &Node, facts: &Facts<'_>) -> Option<()> {
    let gemm = node.op.as_op::<Gemm>()?;
    let weights = facts.constant(node, 1).filter(|t| t.dtype() == DType::F32)?;
    let columns = weights.shape()[usize::from(!gemm.trans_b)];
    let bias = match node.input(2) {
        None => true,
        Some(_) => facts.constant(node, 2).is_some_and(|b| b.dtype() == DType::F32 && per_column(b, columns)),
    };
    (!gemm.trans_a && bias).then_some(())
}

/// Whether a bias is one number, or one for each column and the same for all rows.
fn per_column(bias: &Tensor, columns: usize) -> bool {
    bias.len() == 1 || bias.len() == columns && bias.shape().last() == Some(&columns)
}

/// Whether a MatMul multiplies all its rows by one constant matrix.
fn one_matrix(node: &Node, facts: &Facts<'_>) -> bool {
    facts.constant(node, 1).is_some_and(|weights| weights.rank() <= 2)
}

/// Whether the right operand is packed when the plan is made.
fn is_packed(node: &Node, facts: &Facts<'_>) -> bool {
    node.op.is_op::<Gemm>() || one_matrix(node, facts)
}

impl Family for MatrixProducts {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        facts.input(node, 0)?;
        facts.output(node)?;
        if node.op.is_op::<MatMul>() {
            facts.input(node, 1)?;
            return Some(Wish::Plain);
        }
        plain_gemm(node, facts).map(|()| Wish::Plain)
    }

    fn keeps(&self, node: &Node, facts: &Facts<'_>, _: &[Layout]) -> Keeps {
        if is_packed(node, facts) { Keeps::Either } else { Keeps::Long }
    }

    fn follows(&self, node: &Node, facts: &Facts<'_>) -> Abilities {
        if is_packed(node, facts) { Abilities::ALL } else { Abilities::default() }
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        match node.op.as_op::<Gemm>() {
            Some(gemm) => lower_gemm(l, node, gemm),
            None => lower_matmul(l, node),
        }
    }
}

fn lower_gemm(l: &mut Lowering<'_>, node: &Node, gemm: &Gemm) -> Result<()> {
    let x = node.input(0).ok_or_else(lost)?;
    let (y, behind) = l.result(node)?;
    let weights = node.input(1).and_then(|w| l.constant(w)).ok_or_else(lost)?;
    let (rows, columns) = match gemm.trans_b {
        true => (weights.shape()[1], weights.shape()[0]),
        false => (weights.shape()[0], weights.shape()[1]),
    };
    let bias: Option<Vec<f32>> = match node.input(2).and_then(|b| l.constant(b)) {
        None => None,
        Some(bias) => {
            let values = bias.as_slice::<f32>()?;
            Some((0..columns).map(|c| gemm.beta * values[if values.len() == 1 { 0 } else { c }]).collect())
        }
    };
    let operand = l.operand_as(x, Layout::Plain, l.target.element)?;
    debug_assert_eq!(rows, l.shape(x)?[1]);
    let target = l.output(y)?;
    let info = l.info(node, "packed product", "the weights are constant");
    let weights = Constant { matrix: weights, transposed: gemm.trans_b, scale: gemm.alpha, bias };
    multiply(l, info, operand, weights, behind, target)
}

/// A constant right operand with a bias for each column.
struct Constant<'a> {
    matrix: &'a Tensor,
    transposed: bool,
    /// What the matrix is multiplied by.
    scale: f32,
    bias: Option<Vec<f32>>,
}

/// The step of a product with a constant, on the element of the left operand; the result is of that or `f32`.
fn multiply(
    l: &mut Lowering<'_>,
    info: StepInfo,
    from: Operand,
    weights: Constant<'_>,
    behind: Behind,
    target: BufferView,
) -> Result<()> {
    let Constant { matrix, transposed, scale, bias } = weights;
    let given: Vec<Operand> =
        [Some(&from), behind.residual.as_ref()].into_iter().flatten().cloned().collect();
    let reads: Vec<&Operand> = given.iter().collect();
    if from.element() == ElementType::F16 && target.rows <= HalfMatrix::MOST_ROWS {
        let packed = l.target.chooser.half_matrix(matrix, transposed, scale)?;
        if packed.is_some() {
            l.push(info, &reads, &[&target], move |env| {
                let Some(packed) = &*packed else { return Ok(()) };
                let (input, bias) = (env.rows::<f16>(&from)?, bias.as_deref());
                let done = if target.element == ElementType::F16 {
                    let (epilogue, output) = (behind.epilogue::<f16>(env)?, env.rows_mut(&target));
                    packed.multiply(env.pool, input, bias, epilogue, output)
                } else {
                    let (epilogue, output) = (behind.epilogue::<f32>(env)?, env.rows_mut(&target));
                    packed.multiply(env.pool, input, bias, epilogue, output)
                };
                done.map_err(Error::invalid)
            });
            return Ok(());
        }
    }
    for_float!(from.element(), T => {
        let packed = l.target.chooser.packed_matrix::<<T as Element>::Factor>(matrix, transposed, scale)?;
        l.push(info, &reads, &[&target], move |env| {
            let (input, bias) = (env.rows::<T>(&from)?, bias.as_deref());
            let done = if target.element == <T as Element>::TYPE {
                let (epilogue, output) = (behind.epilogue::<T>(env)?, env.rows_mut(&target));
                matmul(env.pool, input, &packed, bias, epilogue, output)
            } else {
                let (epilogue, output) = (behind.epilogue::<f32>(env)?, env.rows_mut(&target));
                matmul(env.pool, input, &packed, bias, epilogue, output)
            };
            done.map_err(Error::invalid)
        });
    }, else return Err(no_levels()));
    Ok(())
}

fn lower_matmul(l: &mut Lowering<'_>, node: &Node) -> Result<()> {
    let (a, b) = (node.input(0).ok_or_else(lost)?, node.input(1).ok_or_else(lost)?);
    let (y, behind) = l.result(node)?;
    let (left, right) = (l.shape(a)?, l.shape(b)?);
    let shape = MatMulShape::new(left, right)?;
    let one_matrix = one_matrix(node, &l.facts());
    let element = if one_matrix { l.target.element } else { ElementType::F32 };
    let (left_operand, target) = (l.operand_as(a, Layout::Plain, element)?, l.output(y)?);
    let (m, k, n) = (shape.m, shape.k, shape.n);
    let batches: usize = shape.batch.iter().product();
    if let Some(weights) = l.constant(b).filter(|_| one_matrix) {
        let matrix = weights.reshaped(&[k, n])?;
        let info = l.info(node, "packed product", "the right operand is constant");
        let weights = Constant { matrix: &matrix, transposed: false, scale: 1.0, bias: None };
        let (from, to) = (left_operand.reshaped(batches * m, k), target.reshaped(batches * m, n));
        return multiply(l, info, from, weights, behind, to);
    }
    let right_operand = l.operand(b, Layout::Plain)?;
    // Which matrix of each operand every product of the batch takes.
    let picks = |own: &[usize]| -> Vec<usize> {
        let batch = &own[..own.len().saturating_sub(2)];
        let strides = planish_graph::tensor::index::broadcast_strides(batch, &shape.batch);
        let mut picks = Vec::with_capacity(batches);
        planish_graph::tensor::index::for_each(&shape.batch, [&strides], |_, [at]| picks.push(at));
        picks
    };
    let (left_picks, right_picks) = (picks(left), picks(right));
    let (left_rows, right_rows) = (rows_of(Layout::Plain, left), rows_of(Layout::Plain, right));
    let left_all = left_operand.reshaped(left_rows.0 * left_rows.1 / k.max(1), k);
    let right_all = right_operand.reshaped(1, right_rows.0 * right_rows.1);
    let target_all = target.reshaped(batches * m, n);
    let info = l.info(node, "product", "both operands are made at run time");
    l.push(info, &[&left_operand, &right_operand], &[&target], move |env| {
        let (lefts, rights) = (env.rows(&left_all)?, env.rows(&right_all)?);
        for (i, (&p, &q)) in left_picks.iter().zip(&right_picks).enumerate() {
            let part = super::BufferView { start: target_all.start + i * m * n, rows: m, ..target_all };
            let matrix = &rights.row(0)[q * k * n..(q + 1) * k * n];
            matmul_dynamic(env.isa, env.pool, lefts.slice(p * m, m), matrix, n, n, 1, env.rows_mut(&part))
                .map_err(Error::invalid)?;
        }
        Ok(())
    });
    Ok(())
}
