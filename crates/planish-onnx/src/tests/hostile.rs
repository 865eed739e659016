//! Damaged models: whatever happens to the bytes, reading answers with a graph or an error.

use super::build::*;
use crate::tensor;
use crate::{ReadOptions, WriteOptions, read, survey, write};
use planish_graph::Tensor;
use proptest::prelude::*;

/// Models that between them use most of what the reader knows.
fn seeds() -> Vec<Vec<u8>> {
    let weights = Tensor::new(&[2], &[0.5f32, -0.5]).unwrap();
    let mut plain = graph(
        vec![node("Add", &["x", "w"], &["a"]), node("Clip", &["a", "", "w"], &["y"])],
        vec![value("x", &[-1])],
        vec![value("y", &[2])],
    );
    plain.message(5, tensor::message("w", &weights));
    let scale = with_reference(node("Constant", &[], &["f"]), "value_float", "factor");
    let called = function("Scale", &["a"], &["b"], vec![scale, node("Mul", &["a", "f"], &["b"])]);
    let call = with_float(node("local::Scale", &["x"], &["y"]), "factor", 3.0);
    let calling = graph(vec![call], vec![value("x", &[2])], vec![value("y", &[2])]);
    let branch = |op| graph(vec![node(op, &["x"], &["r"])], vec![], vec![value("r", &[2])]);
    let choice = with_graph(node("If", &["c"], &["y"]), "then_branch", branch("Neg"));
    let choice = with_graph(choice, "else_branch", branch("Abs"));
    let branching = graph(vec![choice], vec![value("x", &[2]), typed("c", 9, &[])], vec![value("y", &[2])]);
    let mut models = vec![model(plain, vec![]), model(calling, vec![called]), model(branching, vec![])];
    let options = ReadOptions::default();
    for index in 0..2 {
        let graph = read(&models[index], None, &options).unwrap();
        models.push(write(&graph, &WriteOptions::default()).unwrap());
    }
    models
}

fn options() -> ReadOptions {
    ReadOptions { max_bytes: 1 << 16, max_items: 10_000 }
}

/// Reads, surveys, and where that works writes: none of it may panic.
fn try_all(bytes: &[u8]) {
    let _ = survey(bytes, &options());
    if let Ok(graph) = read(bytes, None, &options()) {
        let _ = write(&graph, &WriteOptions::default());
    }
}

#[test]
fn every_cut_is_survived() {
    for model in seeds() {
        for end in 0..model.len() {
            try_all(&model[..end]);
        }
    }
}

#[test]
fn every_single_changed_byte_is_survived() {
    for model in seeds() {
        for position in 0..model.len() {
            for change in [0x01, 0x04, 0x80, 0xff] {
                let mut damaged = model.clone();
                damaged[position] ^= change;
                try_all(&damaged);
            }
        }
    }
}

#[test]
fn deep_nesting_is_refused_before_the_stack_ends() {
    let mut body = graph(vec![node("Neg", &["x"], &["y"])], vec![], vec![value("y", &[2])]);
    for _ in 0..2000 {
        let choice = with_graph(node("If", &["c"], &["y"]), "then_branch", body);
        body = graph(vec![choice], vec![], vec![value("y", &[2])]);
    }
    let error = read(&model(body, vec![]), None, &ReadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("nested deeper"), "{error}");
}

#[test]
fn small_messages_cannot_ask_for_much_memory() {
    let mut body = graph(vec![], vec![], vec![]);
    (0..20_000).for_each(|_| body.bytes(1, &[]));
    let error = read(&model(body, vec![]), None, &options()).unwrap_err();
    assert_eq!(error.kind(), planish_graph::ErrorKind::Limit);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn many_changed_bytes_are_survived(
        seed in 0usize..5,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..12),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut damaged = seeds().swap_remove(seed);
        for (position, byte) in changes {
            let position = position.index(damaged.len());
            damaged[position] = byte;
        }
        if let Some(cut) = cut {
            damaged.truncate(cut.index(damaged.len()));
        }
        try_all(&damaged);
    }

    #[test]
    fn noise_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        try_all(&bytes);
    }
}
