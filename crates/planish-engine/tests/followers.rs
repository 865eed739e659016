//! That what follows a kernel is done by it: residual additions, PReLUs, activations, and factors and offsets for each
//! channel, and that nothing is which must not be.

use planish_cpu::element::ElementType;
use planish_engine::run::session::random_input;
use planish_engine::{CancelToken, Profile, Session, SessionOptions};
use planish_graph::ops::math::activation::{Activation, ActivationFunction};
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::matmul::MatMul;
use planish_graph::ops::math::prelu::PRelu;
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::ops::nn::batch_normalization::BatchNormalization;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::ops::nn::conv_transpose::ConvTranspose;
use planish_graph::{DType, Dim, Graph, Operator, Tensor, ValueId, reference};

/// A graph with an input of this shape.
fn start(shape: &[usize]) -> (Graph, ValueId) {
    let mut graph = Graph::new("test");
    let dims: Vec<Dim> = shape.iter().map(|&d| Dim::Fixed(d)).collect();
    let x = graph.add_input("x", DType::F32, &dims);
    (graph, x)
}

/// Adds an operator on `x` and constants of these shapes, around one where `positive`.
fn add(
    graph: &mut Graph,
    op: impl Operator,
    x: &[ValueId],
    constants: &[&[usize]],
    positive: bool,
) -> ValueId {
    let mut inputs = x.to_vec();
    for shape in constants {
        let seed = graph.values.len();
        let noise = random_input(DType::F32, shape, seed as u64).unwrap().to_f32s();
        let values: Vec<f32> = noise.iter().map(|x| if positive { 0.5 + x * x } else { x * 0.5 }).collect();
        inputs.push(graph.add_constant(&format!("constant {seed}"), Tensor::new(shape, &values).unwrap()));
    }
    let name = format!("{} {}", op.name(), graph.values.len());
    graph.add_node(&name, op, &inputs)
}

fn conv(graph: &mut Graph, x: ValueId, inputs: usize, outputs: usize) -> ValueId {
    let op = Conv { pads: vec![1; 4], ..Conv::default() };
    add(graph, op, &[x], &[&[outputs, inputs, 3, 3], &[outputs]], false)
}

fn unary(graph: &mut Graph, function: UnaryFunction, x: ValueId) -> ValueId {
    add(graph, Unary { function }, &[x], &[], false)
}

const ADD: Binary = Binary { function: BinaryFunction::Add };
const MUL: Binary = Binary { function: BinaryFunction::Mul };

/// Runs the graph by sessions of either precision and by its reference, which must agree, and gives the operators of the
/// steps, which are the same in all of them, changes of layout and element and copies left out.
fn operators(mut graph: Graph, output: ValueId) -> Vec<String> {
    graph.outputs.push(output);
    let extent = |d: &Dim| if let Dim::Fixed(n) = d { *n } else { 1 };
    let shape: Vec<usize> = graph.value(graph.inputs[0]).shape.iter().flatten().map(extent).collect();
    let given = [random_input(DType::F32, &shape, 3).unwrap()];
    let want = reference::run(&graph, &given).unwrap().remove(0).to_f64s();
    let norm = want.iter().map(|x| x * x).sum::<f64>().sqrt();
    let mut operators: Option<Vec<String>> = None;
    // Some roundings to 8 bits, where the machine has `bf16`.
    let (f32, bf16) = ((ElementType::F32, 1e-5), (ElementType::Bf16, 2e-2));
    for (threads, (precision, tolerance)) in [(1, f32), (2, f32), (1, bf16), (2, bf16)] {
        let options = SessionOptions { threads, precision, ..SessionOptions::default() };
        let session = Session::new(graph.clone(), &options).unwrap();
        let mut profile = Profile::default();
        let got =
            session.run_with(&given, &CancelToken::new(), Some(&mut profile)).unwrap().remove(0).to_f64s();
        let error = want.iter().zip(&got).map(|(w, g)| (w - g) * (w - g)).sum::<f64>().sqrt();
        assert!(error <= tolerance * norm, "{precision}: off by {error:e} of {norm:e}\n{graph}");
        let moved = ["layout change", "conversion", "output"];
        let steps = profile.steps.into_iter().map(|s| s.operator);
        let steps: Vec<String> = steps.filter(|name| !moved.contains(&name.as_str())).collect();
        assert_eq!(operators.get_or_insert_with(|| steps.clone()), &steps, "{precision}");
    }
    operators.unwrap_or_default()
}

#[test]
fn numbers_for_each_channel_behind_an_activation() {
    let (mut g, x) = start(&[2, 5, 9, 7]);
    let y = conv(&mut g, x, 5, 19);
    let y = add(&mut g, PRelu, &[y], &[&[19, 1, 1]], false);
    let y = add(&mut g, BatchNormalization::default(), &[y], &[&[19], &[19], &[19], &[19]], true);
    let y = add(&mut g, MUL, &[y], &[&[1, 19, 1, 1]], true);
    let y = add(&mut g, ADD, &[y], &[&[1]], true);
    assert_eq!(operators(g, y), ["Conv"]);

    let (mut g, x) = start(&[1, 8, 6, 6]);
    let op = Conv { group: 8, pads: vec![1; 4], ..Conv::default() };
    let y = add(&mut g, op, &[x], &[&[8, 1, 3, 3]], false);
    let y = unary(&mut g, UnaryFunction::Relu, y);
    let y = add(&mut g, BatchNormalization::default(), &[y], &[&[8], &[8], &[8], &[8]], true);
    assert_eq!(operators(g, y), ["ConvAdd"]);
}

#[test]
fn residuals_come_before_slopes() {
    let (mut g, x) = start(&[2, 6, 8, 8]);
    let y = conv(&mut g, x, 6, 6);
    let y = add(&mut g, ADD, &[x, y], &[], false);
    let y = add(&mut g, PRelu, &[y], &[&[6, 1, 1]], false);
    assert_eq!(operators(g, y), ["ConvAdd"]);

    let (mut g, x) = start(&[2, 6, 8, 8]);
    let y = add(&mut g, ConvTranspose::default(), &[x], &[&[6, 6, 1, 1]], false);
    let y = add(&mut g, ADD, &[y, x], &[], false);
    let y = add(&mut g, PRelu, &[y], &[&[1]], false);
    assert_eq!(operators(g, y), ["ConvTranspose"]);
}

#[test]
fn matrix_products_do_all_of_it() {
    let (mut g, x) = start(&[2, 5, 12]);
    let y = add(&mut g, MatMul, &[x], &[&[12, 12]], false);
    let y = add(&mut g, ADD, &[y, x], &[], false);
    let y = add(&mut g, Activation { function: ActivationFunction::Gelu { tanh: true } }, &[y], &[], false);
    let y = add(&mut g, MUL, &[y], &[&[12]], true);
    assert_eq!(operators(g, y), ["MatMul"]);
}

#[test]
fn activations_that_no_pass_knows() {
    use ActivationFunction::*;
    for function in [
        Selu { alpha: 1.67, gamma: 1.05 },
        Celu { alpha: 0.7 },
        Shrink { bias: 0.4, lambd: 0.4 },
        Swish { alpha: 1.7 },
        Gelu { tanh: true },
    ] {
        let (mut g, x) = start(&[1, 3, 9, 7]);
        let y = conv(&mut g, x, 3, 17);
        let y = add(&mut g, Activation { function }, &[y], &[], false);
        assert_eq!(operators(g, y), ["Conv"], "{function:?}");
    }
    for function in [UnaryFunction::Softplus, UnaryFunction::Softsign] {
        let (mut g, x) = start(&[1, 3, 9, 7]);
        let y = conv(&mut g, x, 3, 17);
        let y = unary(&mut g, function, y);
        assert_eq!(operators(g, y), ["Conv"], "{function:?}");
    }
}

#[test]
fn what_comes_too_late_or_is_not_for_channels_stays() {
    // An activation behind a scale, and a second activation.
    let (mut g, x) = start(&[1, 4, 6, 6]);
    let y = conv(&mut g, x, 4, 8);
    let y = unary(&mut g, UnaryFunction::Relu, y);
    let y = add(&mut g, MUL, &[y], &[&[8, 1, 1]], false);
    let y = unary(&mut g, UnaryFunction::Sigmoid, y);
    assert_eq!(operators(g, y), ["ConvAdd", "Sigmoid"]);
    // Slopes along another axis.
    let (mut g, x) = start(&[1, 4, 6, 6]);
    let y = conv(&mut g, x, 4, 6);
    let y = add(&mut g, PRelu, &[y], &[&[6]], false);
    assert_eq!(operators(g, y), ["Conv", "PRelu"]);
    // A residual that is made behind the product.
    let (mut g, x) = start(&[3, 6]);
    let product = add(&mut g, MatMul, &[x], &[&[6, 6]], false);
    let later = unary(&mut g, UnaryFunction::Tanh, x);
    let y = add(&mut g, ADD, &[product, later], &[], false);
    assert_eq!(operators(g, y), ["MatMul", "Tanh", "Add"]);
}
