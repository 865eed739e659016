//! Operators on levels: see [`Quantised`].

use super::conv::{activation, problem};
use super::elementwise::BroadcastOperand;
use super::follow::Behind;
use super::pool::{self, parts};
use super::{Abilities, BufferView, Facts, Family, Layout, Lowering, Operand, Wish};
use super::{level_numbers, resize, rows_of};
use crate::plan::choose::Request;
use crate::plan::few_bits::few_bits;
use crate::plan::integer_sums::{self, IntegerSums};
use planish_cpu::conv::{ConvCall, ConvProblem};
use planish_cpu::element::ElementType;
use planish_cpu::epilogue::Activation;
use planish_cpu::integer::{self, LevelBinary, LevelTable, level_binary, look_up, signs};
use planish_cpu::pooling::{Pooling, pool};
use planish_cpu::resize::{AxisTaps, MOST_LINES};
use planish_cpu::strided::MAX_RANK;
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::gemm::Gemm;
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::fused::{ConvAdd, FusedActivation};
use planish_graph::ops::nn::quantized::fused::{Grid, Quantised};
use planish_graph::ops::nn::quantized::qonnx::BipolarQuant;
use planish_graph::ops::nn::resize::Resize;
use planish_graph::{DType, Error, Node, Operator, OperatorExt, Result, Tensor, ValueId};

/// Operators between levels, with constant scales.
pub(super) struct Levels;

/// What computes a node.
enum Kernel {
    /// A convolution, or a matrix product as a pointwise one of rows.
    Product,
    /// A convolution or matrix product whose result is numbers.
    Numbers,
    /// A sum or product of two tensors.
    Binary(LevelBinary),
    /// A pooling of these images.
    Mean(Pooling, planish_cpu::pooling::PoolProblem),
    /// Weighted sums of pixels.
    Resize(Box<(AxisTaps, AxisTaps)>),
    /// A function of single levels.
    Table(Box<LevelTable>),
    /// The levels of the signs of numbers.
    Signs,
}

pub(super) fn lost() -> Error {
    Error::invalid("an operator on levels lost an input or output")
}

/// The grid of a tensor of levels with one scale, as kernels take it.
fn single(grid: Option<&Grid>) -> Option<integer::Grid> {
    let (scale, zero) = grid.filter(|grid| grid.dtype == DType::U8)?.single()?;
    Some(integer::Grid { scale, zero: zero as f32 })
}

/// The problem of a product; the shapes are of the levels.
fn product(quantised: &Quantised, node: &Node, facts: &Facts<'_>) -> Option<ConvProblem> {
    let (input, weights) = (facts.levels(node.input(0)?)?, facts.constant(node, 1)?);
    let fused = quantised.op.as_op::<ConvAdd>().map(|op| &op.conv);
    if let Some(conv) = fused.or_else(|| quantised.op.as_op::<Conv>()) {
        let posed = problem(conv, input, weights.shape()).ok().filter(|_| (3..=5).contains(&input.len()))?;
        return Some(ConvProblem { element: ElementType::U8, ..posed });
    }
    let transposed = quantised.op.as_op::<Gemm>().map(|gemm| gemm.trans_b);
    let transposed = transposed.or_else(|| quantised.op.is_op::<MatMul>().then_some(false))?;
    let &[first, second] = weights.shape() else { return None };
    let (rows, depth) = rows_of(Layout::Plain, input);
    let (of, columns) = if transposed { (second, first) } else { (first, second) };
    let plain = ConvProblem::new_2d(1, depth, columns, [1, rows], [1, 1]);
    (of == depth).then_some(ConvProblem { element: ElementType::U8, ..plain })
}

/// The kernel of a node; `None` where there is none.
fn kernel(node: &Node, facts: &Facts<'_>) -> Option<Kernel> {
    let quantised = node.op.as_op::<Quantised>()?;
    if quantised.output.is_none() {
        facts.shape(node.output()?)?;
        product(quantised, node, facts)?.validate().ok()?;
        let absent_or_constant = node.input(2).is_none() || facts.constant(node, 2).is_some();
        let residual = node.input(3).is_none_or(|r| facts.shape(r) == facts.output(node));
        return (absent_or_constant && residual).then_some(Kernel::Numbers);
    }
    let output = single(quantised.output.as_ref())?;
    let shape = facts.levels(node.output()?)?;
    if quantised.op.is_op::<BipolarQuant>() && quantised.input(0).is_none() {
        let scale = facts.constant(node, 1).filter(|t| t.len() == 1)?.to_f32s()[0];
        let signs = output == integer::Grid { scale, zero: 1.0 };
        return (signs && facts.input(node, 0) == Some(shape)).then_some(Kernel::Signs);
    }
    if let Some(problem) = product(quantised, node, facts) {
        let isa = planish_cpu::isa::Isa::Portable;
        let accepted = planish_cpu::conv::algorithms().iter().any(|a| a.accepts(&problem, isa).is_ok());
        let absent_or_constant = node.input(2).is_none() || facts.constant(node, 2).is_some();
        let residual = node.input(3).is_none_or(|r| facts.levels(r) == Some(shape));
        return (accepted && absent_or_constant && residual).then_some(Kernel::Product);
    }
    let from = single(quantised.input(0))?;
    let input = facts.levels(node.input(0)?)?;
    if let Some(op) = quantised.op.as_op::<Binary>() {
        let (other, _) = (single(quantised.input(1))?, facts.levels(node.input(1)?)?);
        let product = match op.function {
            BinaryFunction::Add => false,
            BinaryFunction::Mul => true,
            _ => return None,
        };
        let limits = [f32::NEG_INFINITY, f32::INFINITY];
        let function = LevelBinary::new(product, [from, other], output, limits);
        return (shape.len() <= MAX_RANK).then_some(Kernel::Binary(function));
    }
    let node_of_numbers = Node { op: quantised.op.clone(), ..node.clone() };
    if let Some((Pooling::Average { count_include_pad }, window)) = parts(&node_of_numbers, input) {
        let ratio = (f64::from(from.scale) / f64::from(output.scale)) as f32;
        let kind = Pooling::LevelMean { count_include_pad, ratio, from: from.zero, to: output.zero };
        let cells: usize = window.kernel.iter().product();
        // Sums of more levels would not be exact in `f32`.
        let exact = cells <= (1 << 24) / 255;
        return exact.then(|| Kernel::Mean(kind, pool::problem(input[0], &window)));
    }
    if let Some(op) = quantised.op.as_op::<Resize>() {
        let taps = resize::taps(op, node, facts).filter(|(height, _)| height.taps() <= MOST_LINES)?;
        return (from == output).then(|| Kernel::Resize(Box::new(taps)));
    }
    (input == shape && node.inputs.len() >= quantised.inputs.len())
        .then(|| table(quantised, node, facts))?
        .map(|table| Kernel::Table(Box::new(table)))
}

pub(super) fn convolves(op: &dyn Operator) -> bool {
    op.is_op::<Conv>() || op.is_op::<ConvAdd>()
}

/// What becomes of every level.
fn table(quantised: &Quantised, node: &Node, facts: &Facts<'_>) -> Option<LevelTable> {
    let levels: Vec<u8> = (0..=255).collect();
    of_each_level(quantised, node, facts, &levels)?.try_into().ok()
}

/// What an operator that makes each level of one level makes of some, by the reference.
pub(crate) fn of_each_level(
    quantised: &Quantised,
    node: &Node,
    facts: &Facts<'_>,
    levels: &[u8],
) -> Option<Vec<u8>> {
    let levels = Tensor::new(&[levels.len()], levels).ok()?;
    let mut inputs = vec![Some(&levels)];
    for index in 1..node.inputs.len() {
        inputs.push(match node.input(index) {
            Some(_) => Some(facts.constant(node, index).filter(|t| t.len() == 1)?),
            None => None,
        });
    }
    let made = quantised.eval(&inputs, 1).ok()?.pop()?;
    Some(made.as_slice::<u8>().ok()?.to_vec())
}

/// What a convolution or matrix product on levels asks of the chooser.
pub(super) fn request<'a>(node: &'a Node, facts: &Facts<'a>) -> Option<Request<'a>> {
    let quantised = node.op.as_op::<Quantised>()?;
    let problem = product(quantised, node, facts)?;
    let (weights, bias) = (facts.constant(node, 1)?, facts.constant(node, 2));
    let sums = IntegerSums::of(quantised, weights, bias)?;
    let problem = ConvProblem { bits: few_bits(node, facts, &sums), ..problem };
    Some(Request { problem, weights, bias, sums: Some(sums) })
}

impl Family for Levels {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        Some(match kernel(node, facts)? {
            Kernel::Product | Kernel::Numbers
                if node.op.as_op::<Quantised>().is_some_and(|q| convolves(&*q.op)) =>
            {
                Wish::ChannelsLast
            }
            Kernel::Product | Kernel::Numbers => Wish::Plain,
            Kernel::Mean(..) | Kernel::Resize(_) => Wish::ChannelsLast,
            Kernel::Binary(_) | Kernel::Table(_) | Kernel::Signs => Wish::Follow,
        })
    }

    fn follows(&self, node: &Node, facts: &Facts<'_>) -> Abilities {
        match kernel(node, facts) {
            Some(Kernel::Numbers) if integer_sums::activation_of(node) == FusedActivation::None => {
                Abilities::ACTIVATION
            }
            _ => Abilities::default(),
        }
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let (x, y) = (node.input(0).ok_or_else(lost)?, node.output().ok_or_else(lost)?);
        let layout = l.layout(y);
        match kernel(node, &l.facts()).ok_or_else(lost)? {
            Kernel::Product => lower_product(l, node, x, y),
            Kernel::Numbers => level_numbers::lower(l, node, x),
            Kernel::Binary(function) => {
                lower_binary(l, node, function, [x, node.input(1).ok_or_else(lost)?], y)
            }
            Kernel::Mean(kind, problem) => {
                let operand = l.operand(x, Layout::ChannelsLast)?;
                let target = l.output(y)?;
                let info = describe(l, node, "average", "vectorised over channels");
                let from = operand.clone();
                l.push(info, &[&operand], &[&target], move |env| {
                    let (input, output) = (env.rows::<u8>(&from)?, env.rows_mut(&target));
                    pool(env.isa, env.pool, kind, &problem, input, output);
                    Ok(())
                });
                Ok(())
            }
            Kernel::Resize(taps) => {
                let info = describe(l, node, "taps", "separable, vectorised over channels");
                resize::step(l, node, info, *taps)
            }
            Kernel::Signs => {
                let operand = l.operand(x, layout)?;
                let target = l.output(y)?;
                let info = describe(l, node, "signs", "from numbers to two levels at once");
                let from = operand.clone();
                l.push(info, &[&operand], &[&target], move |env| {
                    signs(env.isa, env.pool, env.rows(&from)?, env.rows_mut(&target));
                    Ok(())
                });
                Ok(())
            }
            Kernel::Table(table) => {
                let operand = l.operand(x, layout)?;
                let target = l.output_over(y, x)?;
                let info = describe(l, node, "table", "one entry for each level");
                let from = operand.clone();
                l.push(info, &[&operand], &[&target], move |env| {
                    let (input, output) = (env.rows(&from)?, env.rows_mut(&target));
                    look_up(env.isa, env.pool, &table, input, output);
                    Ok(())
                });
                Ok(())
            }
        }
    }
}

/// A step's description, under the name of the operator that is computed on levels.
pub(super) fn describe(
    l: &Lowering<'_>,
    node: &Node,
    algorithm: &str,
    reason: &str,
) -> crate::plan::StepInfo {
    let mut info = l.info(node, algorithm, reason);
    if let Some(quantised) = node.op.as_op::<Quantised>() {
        info.operator = format!("{} u8", quantised.op.name());
    }
    info
}

fn lower_binary(
    l: &mut Lowering<'_>,
    node: &Node,
    function: LevelBinary,
    [x, other]: [ValueId; 2],
    y: ValueId,
) -> Result<()> {
    let (shape, layout) = (l.shape(y)?, l.layout(y));
    let a = BroadcastOperand::find(l, x, shape, layout, ElementType::U8)?;
    let b = BroadcastOperand::find(l, other, shape, layout, ElementType::U8)?;
    let over = if l.shape(x)? == shape { x } else { other };
    let target = if l.shape(over)? == shape { l.output_over(y, over)? } else { l.output(y)? };
    let physical = layout.physical(shape);
    let info = describe(l, node, "levels", "follows its input's layout");
    let reads = [a.operand.clone(), b.operand.clone()];
    l.push(info, &reads.iter().collect::<Vec<_>>(), &[&target], move |env| {
        let (a, b) = (a.view(env)?, b.view(env)?);
        let output = env.strided_mut(&target, &physical);
        level_binary(env.isa, env.pool, function, a, b, output);
        Ok(())
    });
    Ok(())
}

/// What follows the sums of a product on levels, but for the residual's place.
fn behind(quantised: &Quantised, channels: usize) -> Behind {
    let fused = integer_sums::activation(quantised);
    let step = quantised.output.as_ref().and_then(|grid| grid.single()).map_or(1.0, |(scale, _)| scale);
    let unit = integer_sums::unit(quantised);
    let activation = match fused {
        FusedActivation::None => Activation::None,
        FusedActivation::Clip { min, max } => Activation::Clip { min: min / unit, max: max / unit },
        other => activation(other),
    };
    let ratio = (f64::from(unit) / f64::from(step)) as f32;
    let scale = (ratio != 1.0).then(|| vec![ratio; channels]);
    Behind { activation, scale, levels: integer_sums::levels(quantised), ..Behind::default() }
}

fn lower_product(l: &mut Lowering<'_>, node: &Node, x: ValueId, y: ValueId) -> Result<()> {
    let quantised = node.op.as_op::<Quantised>().ok_or_else(lost)?;
    let request = request(node, &l.facts()).ok_or_else(lost)?;
    let layout = l.layout(y);
    let input = l.operand(x, layout)?;
    let mut behind = behind(quantised, request.problem.out_channels);
    if let Some(residual) = node.input(3) {
        behind.residual = Some(l.operand(residual, layout)?);
    }
    let choice = l.target.chooser.choose(&request)?;
    let problem = request.problem;
    let output: BufferView = l.output(y)?;
    let scratch = l.scratch(choice.prepared.workspace_len(&problem, l.target.pool.threads()));
    let reads: Vec<&Operand> = [Some(&input), behind.residual.as_ref()].into_iter().flatten().collect();
    let mut info = describe(l, node, choice.algorithm, choice.reason);
    info.candidates = choice.candidates;
    let (from, epilogue, prepared) = (input.clone(), behind.clone(), choice.prepared);
    l.push(info, &reads, &[&output, &scratch], move |env| {
        let (input, output) = (env.rows::<u8>(&from)?, env.rows_mut(&output));
        let epilogue = epilogue.epilogue(env)?;
        let call = ConvCall { input, epilogue, output, workspace: env.scratch(&scratch) };
        prepared.run(&problem, env.pool, call).map_err(Error::invalid)
    });
    Ok(())
}
