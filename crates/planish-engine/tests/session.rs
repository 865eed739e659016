//! What a session promises: the reference's answer, from several threads at once, for several shapes, within its cap,
//! and until it is cancelled.

use planish_cpu::isa::Isa;
use planish_engine::run::session::random_input;
use planish_engine::{CancelToken, Profile, Session, SessionOptions};
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::math::unary::{Unary, UnaryFunction};
use planish_graph::ops::movement::concat::Concat;
use planish_graph::ops::nn::conv::Conv;
use planish_graph::{DType, Dim, ErrorKind, Graph, Tensor, reference};

/// Two rounds of a dense block (each concatenates all before it), a residual addition and an activation.
fn network() -> Graph {
    let mut graph = Graph::new("test");
    let dims = [Dim::Symbol("batch".into()), Dim::Fixed(5), Dim::Symbol("height".into()), Dim::Fixed(9)];
    let x = graph.add_input("x", DType::F32, &dims);
    let conv = |graph: &mut Graph, name: &str, from, channels: (usize, usize), edge: usize| {
        let weights = random_input(DType::F32, &[channels.1, channels.0, edge, edge], 7).unwrap();
        let weights = graph.add_constant(&format!("{name}.weight"), weights);
        let pads = vec![edge / 2; 4];
        graph.add_node(name, Conv { pads, ..Conv::default() }, &[from, weights])
    };
    let relu = Unary { function: UnaryFunction::Relu };
    let a = conv(&mut graph, "a", x, (5, 7), 3);
    let a = graph.add_node("a.relu", relu, &[a]);
    let joined = graph.add_node("joined", Concat { axis: 1 }, &[x, a]);
    let b = conv(&mut graph, "b", joined, (12, 6), 1);
    let both = graph.add_node("both", Concat { axis: 1 }, &[x, a, b]);
    let c = conv(&mut graph, "c", both, (18, 7), 3);
    let sum = graph.add_node("sum", Binary { function: BinaryFunction::Add }, &[c, a]);
    let y = graph.add_node("y", Unary { function: UnaryFunction::Sigmoid }, &[sum]);
    graph.outputs = vec![y, joined];
    graph
}

fn input(batch: usize, height: usize) -> Tensor {
    random_input(DType::F32, &[batch, 5, height, 9], (batch * 100 + height) as u64).unwrap()
}

/// Sums of 162 products of numbers near one: 1e-4 is far above their rounding, that of Winograd's algorithm included,
/// and far below any mistake.
fn agree(want: &[Tensor], got: &[Tensor]) {
    assert_eq!(want.len(), got.len());
    for (w, g) in want.iter().zip(got) {
        assert_eq!(w.shape(), g.shape());
        for (a, b) in w.to_f64s().into_iter().zip(g.to_f64s()) {
            assert!((a - b).abs() <= 1e-4 * (1.0 + a.abs()), "{a} became {b}");
        }
    }
}

#[test]
fn answers_as_the_reference_on_every_instruction_set_and_shape() {
    let graph = network();
    for isa in Isa::available() {
        for (threads, optimise) in [(1, true), (3, true), (2, false)] {
            let options = SessionOptions { threads, isa: Some(isa), optimise, ..SessionOptions::default() };
            let session = Session::new(graph.clone(), &options).unwrap();
            for (batch, height) in [(1, 8), (3, 8), (1, 13), (0, 8), (1, 8)] {
                let x = input(batch, height);
                let want = reference::run(&graph, std::slice::from_ref(&x)).unwrap();
                agree(&want, &session.run(&[x]).unwrap());
            }
        }
    }
}

#[test]
fn runs_from_several_threads_at_once_give_the_same_bits() {
    let session =
        Session::new(network(), &SessionOptions { threads: 2, ..SessionOptions::default() }).unwrap();
    let inputs: Vec<Tensor> = (1..5).map(|h| input(2, 4 * h)).collect();
    let alone: Vec<_> = inputs.iter().map(|x| session.run(std::slice::from_ref(x)).unwrap()).collect();
    std::thread::scope(|scope| {
        for (x, alone) in inputs.iter().zip(&alone) {
            let session = &session;
            scope.spawn(move || {
                for _ in 0..20 {
                    assert_eq!(&session.run(std::slice::from_ref(x)).unwrap(), alone);
                }
            });
        }
    });
}

#[test]
fn a_cancelled_run_ends_and_the_session_lives_on() {
    let session =
        Session::new(network(), &SessionOptions { threads: 1, ..SessionOptions::default() }).unwrap();
    let cancel = CancelToken::new();
    cancel.cancel();
    let error = session.run_with(&[input(1, 8)], &cancel, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(session.run(&[input(1, 8)]).is_ok());
}

#[test]
fn a_shape_beyond_the_cap_is_refused_before_it_is_run() {
    let options = SessionOptions { threads: 1, max_memory: 1 << 20, ..SessionOptions::default() };
    let session = Session::new(network(), &options).unwrap();
    assert!(session.run(&[input(1, 8)]).is_ok());
    let error = session.with_plan(&[vec![64, 5, 4096, 9]], |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    assert!(session.run(&[input(1, 8)]).is_ok());
}

#[test]
fn concatenations_are_written_in_place() {
    let session =
        Session::new(network(), &SessionOptions { threads: 1, ..SessionOptions::default() }).unwrap();
    let mut profile = Profile::default();
    session.run_with(&[input(1, 8)], &CancelToken::new(), Some(&mut profile)).unwrap();
    let copies: Vec<&str> =
        profile.steps.iter().filter(|s| s.operator == "Concat").map(|s| s.node.as_str()).collect();
    // The graph's input is the only part that no kernel writes; it is copied into the outer concatenation once.
    assert!(copies.len() <= 2, "{copies:?}");
    assert!(profile.steps.iter().any(|s| s.macs > 0 && !s.algorithm.is_empty() && !s.reason.is_empty()));
}

#[test]
fn wrong_inputs_are_errors_that_name_the_input() {
    let session =
        Session::new(network(), &SessionOptions { threads: 1, ..SessionOptions::default() }).unwrap();
    let wrong = [
        vec![],
        vec![random_input(DType::F32, &[1, 4, 8, 9], 1).unwrap()],
        vec![random_input(DType::F64, &[1, 5, 8, 9], 1).unwrap()],
        vec![random_input(DType::F32, &[1, 5, 8], 1).unwrap()],
    ];
    for inputs in wrong {
        assert!(session.run(&inputs).is_err());
    }
    let error = session.run(&[random_input(DType::F32, &[1, 4, 8, 9], 1).unwrap()]).unwrap_err();
    assert!(error.to_string().contains("x: f32[batch, 5, height, 9]"), "{error}");
}
