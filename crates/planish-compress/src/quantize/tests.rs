//! Whole networks: what goes in, what comes out, and what is refused.

use super::testing::{batches, classifier, conv, open_graph, relu};
use super::*;
use planish_engine::{Session, SessionOptions};
use planish_graph::ops::math::activation::{Activation, ActivationFunction};
use planish_graph::ops::nn::quantized::quantize::{DequantizeLinear, QuantizeLinear};
use planish_graph::{OperatorExt, reference};

fn quantised(graph: &Graph, options: &Options) -> Result<(Quantised, Distance)> {
    let given = batches(6, 4, 1);
    quantised_with(graph, options, &given)
}

fn quantised_with(graph: &Graph, options: &Options, given: &[Tensor]) -> Result<(Quantised, Distance)> {
    let session = SessionOptions { threads: 2, ..SessionOptions::default() };
    let pictures = Pictures { batches: given, options: &session };
    let mut go_on = |_: Event<'_>| true;
    let mut watch = Watch::new(&mut go_on);
    let made = quantize(graph, &pictures, options, &mut watch)?;
    let distance = made.distance(&pictures, &mut watch)?;
    Ok((made, distance))
}

fn count(graph: &Graph, name: &str) -> usize {
    graph.nodes.iter().filter(|n| n.op.name() == name).count()
}

#[test]
fn answers_stay_near_and_both_forms_agree() {
    let graph = classifier();
    let (made, distance) = quantised(&graph, &Options::default()).unwrap();
    assert!(distance.noise < 1e-3, "{distance:?} by {}", made.observer);
    let (qdq, simulated) = (made.graph(Form::Qdq).unwrap(), made.graph(Form::Simulated).unwrap());
    let picture = &batches(1, 2, 77);
    let exact = reference::run(&qdq, picture).unwrap().remove(0).to_f64s();
    let fast = Session::new(simulated, &SessionOptions::default()).unwrap().run(picture).unwrap();
    let noise: f64 = exact.iter().zip(fast[0].to_f64s()).map(|(a, b)| (a - b).powi(2)).sum();
    let power: f64 = exact.iter().map(|a| a * a).sum();
    // A sum that lies on a tie may go either way.
    assert!(noise < 1e-4 * power, "{noise} {power}");
}

#[test]
fn every_value_has_one_pair_and_scales_are_shared() {
    let (made, _) = quantised(&classifier(), &Options::default()).unwrap();
    let graph = made.graph(Form::Qdq).unwrap();
    let mut seen = BTreeSet::new();
    for node in graph.nodes.iter().filter(|n| n.op.is_op::<QuantizeLinear>()) {
        assert!(
            seen.insert(node.input(0)),
            "{} is quantised twice",
            graph.value(node.input(0).unwrap()).name
        );
    }
    // x, stem, expand, depth, project, sum, left, right, joined, pooled, flat; not the answer.
    assert_eq!(seen.len(), 11);
    let scale =
        |name: &str| graph.constant(graph.find_value(&format!("{name}.scale")).unwrap()).unwrap().to_f32s();
    assert_eq!(scale("left.relu"), scale("right.relu"));
    assert_eq!(scale("left.relu"), scale("joined"));
    assert_eq!(scale("pooled"), scale("flat"));
    assert_ne!(scale("pooled"), scale("joined"));
    // Weights and biases of seven layers, and the eleven values.
    assert_eq!(count(&graph, "DequantizeLinear"), 11 + 14);
    for node in graph.nodes.iter().filter(|n| n.op.is_op::<DequantizeLinear>()) {
        let scale = graph.constant(node.input(1).unwrap()).unwrap().to_f32s();
        assert!(scale.iter().all(|s| s.is_finite() && *s > 0.0));
    }
}

#[test]
fn every_way_works() {
    let graph = classifier();
    for observer in observers() {
        let options =
            Options { observer: Some(observer.name().into()), correct_bias: false, ..Options::default() };
        let (_, distance) = quantised(&graph, &options).unwrap();
        assert!(distance.noise < 2e-2, "{}: {distance:?}", observer.name());
    }
    let affine = WeightScheme { symmetric: false, ..WeightScheme::default() };
    let per_tensor = WeightScheme { per_channel: false, ..WeightScheme::default() };
    let ways = [
        Options { weights: affine, ..Options::default() },
        Options { weights: per_tensor, ..Options::default() },
        Options { activations: Levels::I8, ..Options::default() },
        Options { equalise: true, ..Options::default() },
        Options { keep_float: vec!["stem".into(), "fc".into()], ..Options::default() },
    ];
    for options in ways {
        let (made, distance) = quantised(&graph, &options).unwrap();
        assert!(distance.noise < 2e-3, "{options:?}: {distance:?}");
        let qdq = made.graph(Form::Qdq).unwrap();
        reference::run(&qdq, &batches(1, 1, 3)).unwrap();
        assert_eq!(
            count(&qdq, "DequantizeLinear") - count(&qdq, "QuantizeLinear"),
            2 * (7 - options.keep_float.len())
        );
    }
}

#[test]
fn adaptive_rounding_gains_at_few_bits() {
    let weights = WeightScheme { bits: 3, ..WeightScheme::default() };
    let options =
        Options { weights, observer: Some("min-max".into()), correct_bias: false, ..Options::default() };
    let (_, nearest) = quantised(&classifier(), &options).unwrap();
    let rounding = Some(AdaRound { iterations: 300, ..AdaRound::default() });
    let (made, adapted) = quantised(&classifier(), &Options { rounding, ..options }).unwrap();
    assert_eq!(made.gains.len(), 7);
    assert!(made.gains.iter().all(|g| g.adapted <= g.nearest));
    let share: f64 = made.gains.iter().map(|g| (g.adapted / g.nearest).ln()).sum::<f64>() / 7.0;
    assert!(share.exp() < 0.95, "{:?}", made.gains);
    assert!(adapted.noise < 0.8 * nearest.noise, "{adapted:?} {nearest:?}");
}

#[test]
fn more_bits_converge_to_float() {
    let noise = |bits| {
        let weights = WeightScheme { bits, ..WeightScheme::default() };
        let options = Options {
            weights,
            activations: Levels::unsigned(bits),
            observer: Some("min-max".into()),
            ..Options::default()
        };
        quantised(&classifier(), &options).unwrap().1.noise
    };
    let errors = [4, 8, 12, 16].map(noise);
    assert!(errors.is_sorted_by(|a, b| a > b) && errors[3] < 1e-8, "{errors:?}");
}

#[test]
fn equal_input_gives_equal_output() {
    let options =
        Options { rounding: Some(AdaRound { iterations: 20, ..AdaRound::default() }), ..Options::default() };
    let given = batches(2, 2, 9);
    let make = |threads| {
        let session = SessionOptions { threads, ..SessionOptions::default() };
        let pictures = Pictures { batches: &given, options: &session };
        let mut go_on = |_: Event<'_>| true;
        let made = quantize(&classifier(), &pictures, &options, &mut Watch::new(&mut go_on)).unwrap();
        planish_onnx::write(&made.graph(Form::Qdq).unwrap(), &planish_onnx::WriteOptions::default()).unwrap()
    };
    assert_eq!(make(2), make(2));
    assert_eq!(make(1).len(), make(2).len());
}

#[test]
fn sensitivity_orders_layers() {
    let options = Options { sensitivity: true, observer: Some("mse".into()), ..Options::default() };
    let (mut made, all) = quantised(&classifier(), &options).unwrap();
    let order = made.by_sensitivity(&[]);
    let noise: Vec<f64> = order.iter().map(|&l| made.layers()[l].alone.unwrap().noise).collect();
    assert!(noise.is_sorted_by(|a, b| a >= b) && noise[0] > 0.0, "{noise:?}");
    let given = batches(6, 4, 1);
    let session = SessionOptions::default();
    let mut go_on = |_: Event<'_>| true;
    let mut watch = Watch::new(&mut go_on);
    let pictures = Pictures { batches: &given, options: &session };
    made.keep_float(order[..3].iter().copied().collect(), BTreeSet::new(), &pictures, &mut watch).unwrap();
    let fewer = made.distance(&pictures, &mut watch).unwrap();
    assert!(fewer.noise < all.noise, "{fewer:?} {all:?}");
    assert_eq!(made.layers().iter().filter(|l| l.float).count(), 3);
}

#[test]
fn budgets_are_kept() {
    let all: usize =
        quantised(&classifier(), &Options::default()).unwrap().0.layers().iter().map(|l| l.weights).sum();
    let scales = 4 * (8 + 16 + 16 + 8 + 4 + 4 + 10);
    let mut noise = Vec::new();
    for bytes in [all, all / 2, all / 3] {
        let options = Options { weight_budget: Some(bytes + scales), ..Options::default() };
        let (made, distance) = quantised(&classifier(), &options).unwrap();
        let bits: usize = made.layers().iter().map(|l| l.weights * l.bits as usize).sum();
        assert!(bits <= 8 * bytes, "{bits} bits for {bytes} bytes");
        noise.push(distance.noise);
    }
    assert!(noise.is_sorted(), "{noise:?}");
    let options = Options { weight_budget: Some(100), ..Options::default() };
    let message = quantised(&classifier(), &options).err().unwrap().to_string();
    assert!(message.contains("do not fit 100 bytes"), "{message}");
}

#[test]
fn gates_are_rounded_once() {
    let (mut g, x) = open_graph(3);
    let a = conv(&mut g, "a", x, [3, 4, 3], 1, 1);
    let a = g.add_node("swish", Activation { function: ActivationFunction::Swish { alpha: 1.0 } }, &[a]);
    let b = conv(&mut g, "b", a, [4, 4, 3], 1, 5);
    let b = relu(&mut g, "b.relu", b);
    let b = conv(&mut g, "c", b, [4, 2, 1], 1, 6);
    g.outputs.push(b);
    let (made, _) = quantised(&g, &Options::default()).unwrap();
    let graph = made.graph(Form::Qdq).unwrap();
    assert_eq!((count(&graph, "QuantizeLinear"), count(&graph, "Sigmoid"), count(&graph, "Mul")), (3, 1, 1));
}

#[test]
fn constants_and_zeros_are_no_trouble() {
    let (mut g, x) = open_graph(3);
    let a = conv(&mut g, "a", x, [3, 4, 3], 1, 1);
    let a = relu(&mut g, "a.relu", a);
    let b = conv(&mut g, "b", a, [4, 4, 1], 1, 5);
    g.outputs.push(b);
    // A layer of zeros with a bias: what it makes is constant, and one channel is nothing but zeros.
    let at = g.find_value("a.w").unwrap();
    g.value_mut(at).constant = Some(Tensor::new(&[4, 3, 3, 3], &[0f32; 108]).unwrap());
    let at = g.find_value("a.b").unwrap();
    g.value_mut(at).constant = Some(Tensor::new(&[4], &[1f32, 2.0, 0.0, -1.0]).unwrap());
    let (made, distance) = quantised(&g, &Options::default()).unwrap();
    assert!(distance.noise < 1e-4, "{distance:?}");
    reference::run(&made.graph(Form::Qdq).unwrap(), &batches(1, 1, 3)).unwrap();
    // Pictures of nothing.
    let black = [Tensor::new(&[1, 3, 8, 8], &[0f32; 192]).unwrap()];
    let (made, distance) = quantised_with(&classifier(), &Options::default(), &black).unwrap();
    assert!(distance.noise < 1e-2, "{distance:?}");
    reference::run(&made.graph(Form::Qdq).unwrap(), &batches(1, 1, 3)).unwrap();
}

#[test]
fn bad_input_is_refused() {
    let error = |graph: &Graph, options: &Options, given: &[Tensor]| {
        quantised_with(graph, options, given).err().expect("is refused").to_string()
    };
    let graph = classifier();
    let none = error(&graph, &Options::default(), &[]);
    assert!(none.contains("no picture"), "{none}");
    let mut values = vec![1f32; 192];
    values[5] = f32::NAN;
    let bad = [Tensor::new(&[1, 3, 8, 8], &values).unwrap()];
    let message = error(&graph, &Options::default(), &bad);
    assert!(message.contains("value \"x\"") && message.contains("NaN"), "{message}");
    let unknown = Options { observer: Some("best".into()), ..Options::default() };
    assert!(error(&graph, &unknown, &batches(1, 1, 1)).contains("min-max"));
    let unknown = Options { keep_float: vec!["nowhere".into()], ..Options::default() };
    assert!(error(&graph, &unknown, &batches(1, 1, 1)).contains("project"));
    let (empty, x) = open_graph(3);
    let empty = Graph { outputs: vec![x], ..empty };
    assert!(error(&empty, &Options::default(), &batches(1, 1, 1)).contains("nothing to quantise"));
}

#[test]
fn quantised_models_are_refused() {
    let (made, _) = quantised(&classifier(), &Options::default()).unwrap();
    let graph = made.graph(Form::Qdq).unwrap();
    let given = batches(1, 1, 1);
    let again = quantised_with(&graph, &Options::default(), &given).err().unwrap().to_string();
    assert!(again.contains("quantised already"), "{again}");
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let mut graph = graph.clone();
        let at = graph.find_value("x.scale").unwrap();
        graph.value_mut(at).constant = Some(Tensor::scalar(bad));
        let message = quantised_with(&graph, &Options::default(), &given).err().unwrap().to_string();
        assert!(message.contains("scale") && message.contains("QuantizeLinear"), "{message}");
    }
}

#[test]
fn whoever_stops_gets_what_there_is() {
    let given = batches(6, 4, 1);
    let session = SessionOptions::default();
    let pictures = Pictures { batches: &given, options: &session };
    for after in [0, 1, 7, 14, 17, 25] {
        let mut steps = 0;
        let mut stop = |event: Event<'_>| {
            steps += usize::from(matches!(event, Event::Step));
            steps < after
        };
        let options =
            Options { sensitivity: true, rounding: Some(AdaRound::default()), ..Options::default() };
        let made = quantize(&classifier(), &pictures, &options, &mut Watch::new(&mut stop)).unwrap();
        made.graph(Form::Qdq).unwrap();
    }
}
