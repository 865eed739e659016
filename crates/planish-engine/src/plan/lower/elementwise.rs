//! Functions of single elements, alone or of two tensors that broadcast, in whatever layout their input is in.

use super::follow::Behind;
use super::{Abilities, Facts, Family, Keeps, Layout, Lowering, Operand, Wish, no_levels};
use crate::run::environment::{Environment, Stored};
use planish_cpu::element::ElementType;
use planish_cpu::elementwise::{Binary as BinaryKernel, Unary as UnaryKernel, binary, unary};
use planish_cpu::epilogue::Activation as Epilogue;
use planish_cpu::for_float;
use planish_cpu::strided::MAX_RANK;
use planish_graph::ops::math::activation::{Activation, ActivationFunction};
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::clip::Clip;
use planish_graph::ops::math::power::Pow;
use planish_graph::ops::math::prelu::PRelu;
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::ops::math::variadic::{Variadic, VariadicFunction};
use planish_graph::{Error, Node, OperatorExt, Result, ValueId};

/// Unary functions, activations, arithmetic.
pub(super) struct Elementwise;

/// The kernel of a function of one element.
fn unary_kernel(node: &Node, facts: &Facts<'_>) -> Option<UnaryKernel> {
    use UnaryKernel as K;
    if let Some(op) = node.op.as_op::<Unary>() {
        return Some(match op.function {
            UnaryFunction::Abs => K::Abs,
            UnaryFunction::Neg => K::Neg,
            UnaryFunction::Sign => K::Sign,
            UnaryFunction::Floor => K::Floor,
            UnaryFunction::Ceil => K::Ceil,
            UnaryFunction::Round => K::Round,
            UnaryFunction::Exp => K::Exp,
            UnaryFunction::Log => K::Log,
            UnaryFunction::Sqrt => K::Sqrt,
            UnaryFunction::Reciprocal => K::Reciprocal,
            UnaryFunction::Erf => K::Erf,
            UnaryFunction::Tanh => K::Activation(Epilogue::Tanh),
            UnaryFunction::Relu => K::Activation(Epilogue::Relu),
            UnaryFunction::Sigmoid => K::Activation(Epilogue::Sigmoid),
            UnaryFunction::HardSwish => K::Activation(Epilogue::HardSwish),
            UnaryFunction::Mish => K::Activation(Epilogue::Mish),
            UnaryFunction::Softplus => K::Activation(Epilogue::Softplus),
            UnaryFunction::Softsign => K::Activation(Epilogue::Softsign),
            _ => return None,
        });
    }
    if let Some(op) = node.op.as_op::<Activation>() {
        return Some(match op.function {
            ActivationFunction::LeakyRelu { alpha } => K::Activation(Epilogue::LeakyRelu { alpha }),
            ActivationFunction::Elu { alpha } => K::Activation(Epilogue::Elu { alpha }),
            ActivationFunction::Selu { alpha, gamma } => K::Activation(Epilogue::Selu { alpha, gamma }),
            // The kernel divides by alpha; at 0 nothing is left below 0.
            ActivationFunction::Celu { alpha: 0.0 } => K::Activation(Epilogue::Relu),
            ActivationFunction::Celu { alpha } => K::Activation(Epilogue::Celu { alpha }),
            ActivationFunction::HardSigmoid { alpha, beta } => {
                K::Activation(Epilogue::HardSigmoid { alpha, beta })
            }
            ActivationFunction::ThresholdedRelu { alpha } => {
                K::Activation(Epilogue::ThresholdedRelu { alpha })
            }
            ActivationFunction::Shrink { bias, lambd } => {
                K::Activation(Epilogue::Shrink { bias, lambda: lambd })
            }
            ActivationFunction::Swish { alpha: 1.0 } => K::Activation(Epilogue::Silu),
            ActivationFunction::Swish { alpha } => K::Activation(Epilogue::Swish { alpha }),
            ActivationFunction::Gelu { tanh: false } => K::Activation(Epilogue::Gelu),
            ActivationFunction::Gelu { tanh: true } => K::Activation(Epilogue::GeluTanh),
        });
    }
    node.op.as_op::<Clip>()?;
    let bound = |index: usize, otherwise: f32| match node.input(index) {
        Some(_) => facts.constant(node, index).and_then(|t| t.to_f32s().first().copied()),
        None => Some(otherwise),
    };
    let (min, max) = (bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?);
    Some(K::Activation(Epilogue::Clip { min, max }))
}

/// The activation that a node computes of its first input, where kernels can do it to their results.
pub(super) fn activation(node: &Node, facts: &Facts<'_>) -> Option<Epilogue> {
    facts.input(node, 0)?;
    match unary_kernel(node, facts)? {
        UnaryKernel::Activation(activation) => Some(activation),
        _ => None,
    }
}

/// The kernel of a function of two tensors.
fn binary_kernel(node: &Node) -> Option<BinaryKernel> {
    if node.op.is_op::<PRelu>() {
        return Some(BinaryKernel::PRelu);
    }
    if node.inputs.len() != 2 {
        return None;
    }
    if node.op.is_op::<Pow>() {
        return Some(BinaryKernel::Power);
    }
    if let Some(op) = node.op.as_op::<Variadic>() {
        return Some(match op.function {
            VariadicFunction::Min => BinaryKernel::Min,
            VariadicFunction::Max => BinaryKernel::Max,
            VariadicFunction::Sum => BinaryKernel::Add,
            VariadicFunction::Mean => return None,
        });
    }
    Some(match node.op.as_op::<Binary>()?.function {
        BinaryFunction::Add => BinaryKernel::Add,
        BinaryFunction::Sub => BinaryKernel::Sub,
        BinaryFunction::Mul => BinaryKernel::Mul,
        BinaryFunction::Div => BinaryKernel::Div,
        _ => return None,
    })
}

impl Family for Elementwise {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        facts.input(node, 0)?;
        if facts.output(node)?.len() > MAX_RANK {
            return None;
        }
        if unary_kernel(node, facts).is_some() {
            return Some(Wish::Follow);
        }
        facts.input(node, 1)?;
        binary_kernel(node).map(|_| Wish::Follow)
    }

    fn keeps(&self, node: &Node, _: &Facts<'_>, layouts: &[Layout]) -> Keeps {
        let spatial = node.output().is_some_and(|y| layouts[y.0 as usize] == Layout::ChannelsLast);
        if spatial { Keeps::Follow } else { Keeps::Long }
    }

    fn follows(&self, node: &Node, _: &Facts<'_>) -> Abilities {
        if binary_kernel(node).is_some() { Abilities::ACTIVATION } else { Abilities::default() }
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let lost = || Error::invalid("an elementwise node lost an input or output");
        let x = node.input(0).ok_or_else(lost)?;
        let (y, Behind { activation, .. }) = l.result(node)?;
        let (layout, element) = (l.layout(y), l.element(y));
        if let Some(function) = unary_kernel(node, &l.facts()) {
            let operand = l.operand_as(x, layout, element)?;
            let target = l.output_over(y, x)?;
            let info = l.info(node, "elementwise", "follows its input's layout");
            let from = operand.clone();
            l.push(info, &[&operand], &[&target], move |env| {
                for_float!(element, T => {
                    let (input, output) = (env.rows::<T>(&from)?, env.rows_mut(&target));
                    unary(env.isa, env.pool, function, input, output);
                }, else return Err(no_levels()));
                Ok(())
            });
            return Ok(());
        }
        let function = binary_kernel(node).ok_or_else(lost)?;
        let other = node.input(1).ok_or_else(lost)?;
        let shape = l.shape(y)?;
        let a = BroadcastOperand::find(l, x, shape, layout, element)?;
        let b = BroadcastOperand::find(l, other, shape, layout, element)?;
        let over = if l.shape(x)? == shape { x } else { other };
        let target = if l.shape(over)? == shape { l.output_over(y, over)? } else { l.output(y)? };
        let physical = layout.physical(shape);
        let info = l.info(node, "elementwise", "follows its input's layout");
        let reads = [a.operand.clone(), b.operand.clone()];
        l.push(info, &reads.iter().collect::<Vec<_>>(), &[&target], move |env| {
            for_float!(element, T => {
                let (a, b) = (a.view::<T>(env)?, b.view(env)?);
                let output = env.strided_mut(&target, &physical);
                binary(env.isa, env.pool, function, activation, a, b, output);
            }, else return Err(no_levels()));
            Ok(())
        });
        Ok(())
    }
}

/// An operand that stretches to an output's shape, whose axes are put in the order of the output's memory.
pub(super) struct BroadcastOperand {
    pub(super) operand: Operand,
    shape: Vec<usize>,
    order: Option<Vec<usize>>,
}

impl BroadcastOperand {
    /// Finds `v` for an output of shape `shape` in `layout`. A value as large as the output is converted to that layout
    /// (once, for all its readers); a smaller one is read through strides.
    pub(super) fn find(
        l: &mut Lowering<'_>,
        v: ValueId,
        shape: &[usize],
        layout: Layout,
        element: ElementType,
    ) -> Result<BroadcastOperand> {
        let own = l.shape(v)?;
        if layout == Layout::Plain || own.len() == shape.len() && (own == shape || l.layout(v) == layout) {
            return Ok(BroadcastOperand {
                operand: l.operand_as(v, layout, element)?,
                shape: layout.physical(own),
                order: None,
            });
        }
        let rank = shape.len();
        let mut stretched = vec![1; rank - own.len()];
        stretched.extend_from_slice(own);
        let mut order = vec![0; rank];
        for axis in 0..rank {
            order[layout.axis(axis, rank)] = axis;
        }
        Ok(BroadcastOperand {
            operand: l.operand_as(v, Layout::Plain, element)?,
            shape: stretched,
            order: Some(order),
        })
    }

    /// The operand in the output's axis order.
    pub(super) fn view<T: Stored>(
        &self,
        env: &mut Environment<'_>,
    ) -> Result<planish_cpu::strided::Strided<'static, T>> {
        let view = env.strided(&self.operand, &self.shape)?;
        Ok(match &self.order {
            Some(order) => view.permute(order),
            None => view,
        })
    }
}
