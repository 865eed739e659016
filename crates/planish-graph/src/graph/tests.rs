use super::*;
use crate::ops::movement::identity::Identity;
use crate::reference;

fn chain() -> Graph {
    let mut g = Graph::new("chain");
    let x = g.add_input("x", DType::F32, &[Dim::Symbol("batch".into()), Dim::Fixed(2)]);
    let a = g.add_node("a", Identity, &[x]);
    let b = g.add_node("b", Identity, &[a]);
    g.add_node("unused", Identity, &[a]);
    g.outputs.push(b);
    g
}

#[test]
fn runs_and_validates() {
    let g = chain();
    g.validate().unwrap();
    let x = Tensor::new(&[1, 2], &[1f32, 2.]).unwrap();
    assert_eq!(reference::run(&g, std::slice::from_ref(&x)).unwrap(), [x]);
    let wrong = Tensor::new(&[1, 3], &[1f32, 2., 3.]).unwrap();
    assert!(reference::run(&g, &[wrong]).is_err());
    assert!(g.to_string().contains("x: f32[batch, 2]"), "{g}");
}

#[test]
fn drops_what_nobody_reads() {
    let mut g = chain();
    assert!(g.drop_unused());
    assert_eq!((g.nodes.len(), g.values.len()), (2, 3));
    g.validate().unwrap();
    assert!(!g.drop_unused());
}

#[test]
fn sorts_and_finds_cycles() {
    let mut g = chain();
    g.nodes.reverse();
    assert!(g.validate().is_err());
    g.sort().unwrap();
    g.validate().unwrap();
    let b = g.find_value("b");
    g.nodes[0].inputs[0] = b;
    assert!(g.sort().unwrap_err().to_string().contains("cycle"));
}

#[test]
fn refuses_what_the_engine_cannot_rely_on() {
    let mut twice = chain();
    twice.values[1].name = "x".into();
    assert!(twice.validate().unwrap_err().to_string().contains("two values"));
    let mut missing = chain();
    missing.nodes[0].inputs.clear();
    assert!(missing.validate().unwrap_err().to_string().contains("node \"a\" (Identity)"));
    let mut outside = chain();
    outside.outputs.push(ValueId(99));
    assert!(outside.validate().is_err());
}
