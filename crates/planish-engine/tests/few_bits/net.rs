//! A network with one input, built node by node, and the check that kernels give what the reference gives.

use planish_cpu::isa::Isa;
use planish_engine::plan::choose::ChooserOptions;
use planish_engine::run::session::random_input;
use planish_engine::{CancelToken, Profile, Session, SessionOptions};
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::{DType, Dim, Graph, Operator, Tensor, ValueId, reference};

/// A network with one input "x".
pub struct Net(pub Graph, pub ValueId);

impl Net {
    pub fn new(shape: &[usize]) -> Net {
        let mut graph = Graph::new("test");
        let dims: Vec<Dim> = shape.iter().map(|&d| Dim::Fixed(d)).collect();
        let x = graph.add_input("x", DType::F32, &dims);
        Net(graph, x)
    }
    pub fn add(&mut self, op: impl Operator, inputs: &[ValueId]) -> ValueId {
        let name = format!("value {}", self.0.values.len());
        self.0.add_node(&name, op, inputs)
    }
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        let name = format!("constant {}", self.0.values.len());
        self.0.add_constant(&name, tensor)
    }
    pub fn numbers(&mut self, shape: &[usize], seed: u64) -> ValueId {
        self.constant(random_input(DType::F32, shape, seed).unwrap())
    }
    pub fn integers(&mut self, dtype: DType, shape: &[usize], low: i128, count: i128) -> ValueId {
        let len: usize = shape.iter().product();
        let values: Vec<i128> = (0..len as i128).map(|i| low + i * 7919 % count).collect();
        self.constant(Tensor::from_ints(dtype, shape, &values).unwrap())
    }
    pub fn binary(&mut self, function: BinaryFunction, a: ValueId, b: ValueId) -> ValueId {
        self.add(Binary { function }, &[a, b])
    }
    /// Runs on every instruction set and compares with the reference; says what ran on each.
    pub fn check(
        self,
        y: ValueId,
        shape: &[usize],
        within: impl Fn(f64, f64) -> bool,
    ) -> Vec<(Isa, Vec<String>)> {
        self.check_by(y, shape, None, within)
    }
    /// [`Self::check`] with one algorithm wherever that may be.
    pub fn check_by(
        mut self,
        y: ValueId,
        shape: &[usize],
        only: Option<&str>,
        within: impl Fn(f64, f64) -> bool,
    ) -> Vec<(Isa, Vec<String>)> {
        self.0.outputs.push(y);
        let x = random_input(DType::F32, shape, 11).unwrap();
        let want = reference::run(&self.0, std::slice::from_ref(&x)).unwrap().remove(0);
        let mut all = Vec::new();
        for isa in Isa::available() {
            for threads in [1, 2] {
                let chooser = ChooserOptions { only: only.map(str::to_string), ..ChooserOptions::default() };
                let options =
                    SessionOptions { isa: Some(isa), threads, chooser, ..SessionOptions::default() };
                let session = Session::new(self.0.clone(), &options).unwrap();
                let mut profile = Profile::default();
                let made =
                    session.run_with(std::slice::from_ref(&x), &CancelToken::new(), Some(&mut profile));
                let made = made.unwrap().remove(0);
                let steps = profile.steps.iter();
                let ran: Vec<String> = steps.map(|s| format!("{} by {}", s.operator, s.algorithm)).collect();
                // Without an element there is nothing to be fast about.
                let empty = shape.contains(&0);
                assert!(empty || !ran.iter().any(|s| s.ends_with("by reference")), "{ran:?}");
                assert_eq!((made.dtype(), made.shape()), (want.dtype(), want.shape()));
                for (i, (w, g)) in want.to_f64s().into_iter().zip(made.to_f64s()).enumerate() {
                    assert!(within(w, g), "{isa}: {g} instead of {w} at {i}; {ran:?}");
                }
                all.push((isa, ran));
            }
        }
        all
    }
}
