//! What reading makes of models that are well formed, and how it refuses those that are not.

use super::build::*;
use crate::tensor;
use crate::{ReadOptions, read};
use planish_graph::{Dim, Graph, Result, Tensor, reference};

fn load(bytes: &[u8]) -> Result<Graph> {
    read(bytes, None, &ReadOptions::default())
}

fn refusal(bytes: &[u8]) -> String {
    load(bytes).unwrap_err().to_string()
}

fn run(graph: &Graph, inputs: &[&[f32]]) -> Vec<f32> {
    let inputs: Vec<Tensor> = inputs.iter().map(|v| Tensor::new(&[v.len()], v).unwrap()).collect();
    reference::run(graph, &inputs).unwrap()[0].to_f32s()
}

/// `y = op(x)` for one input and output of two elements.
fn single(node: Message) -> Vec<u8> {
    model(graph(vec![node], vec![value("x", &[2])], vec![value("y", &[2])]), vec![])
}

use crate::wire::Message;

#[test]
fn names_shapes_and_text_are_kept() {
    let mut body =
        graph(vec![node("Neg", &["x"], &["y"])], vec![value("x", &[-1, 2])], vec![value("y", &[])]);
    body.text(10, "of the graph");
    let mut bytes = model(body, vec![]);
    let mut extra = Message::new();
    let mut entry = Message::new();
    entry.text(1, "author");
    entry.text(2, "nobody");
    extra.message(14, entry);
    extra.bytes(999, b"from the future");
    bytes.extend(extra.to_bytes());
    let found = load(&bytes).unwrap();
    assert_eq!((found.name.as_str(), found.doc.as_str()), ("main", "of the graph"));
    assert_eq!(found.metadata["author"], "nobody");
    let x = found.value(found.inputs[0]);
    assert_eq!(x.name, "x");
    assert_eq!(x.shape, Some(vec![Dim::Symbol("batch".to_string()), Dim::Fixed(2)]));
    assert_eq!(found.nodes[0].name, "Neg_0");
}

#[test]
fn initializers_are_constants_even_when_listed_as_inputs() {
    let two = Tensor::new(&[1], &[2f32]).unwrap();
    let mut body = graph(
        vec![node("Mul", &["x", "two"], &["y"])],
        vec![value("x", &[2]), value("two", &[1])],
        vec![value("y", &[2])],
    );
    body.message(5, tensor::message("two", &two));
    let found = load(&model(body, vec![])).unwrap();
    assert_eq!(found.inputs.len(), 1);
    assert_eq!(run(&found, &[&[1.0, 3.0]]), [2.0, 6.0]);
}

#[test]
fn order_of_nodes_does_not_matter_and_constants_are_nodes_no_more() {
    let constant = with_float(node("Constant", &[], &["c"]), "value_float", 10.0);
    let body = graph(
        vec![node("Add", &["n", "c"], &["y"]), node("Neg", &["x"], &["n"]), constant],
        vec![value("x", &[2])],
        vec![value("y", &[2])],
    );
    let found = load(&model(body, vec![])).unwrap();
    assert_eq!(found.nodes.len(), 2);
    assert_eq!(run(&found, &[&[1.0, 3.0]]), [9.0, 7.0]);
}

#[test]
fn old_attributes_become_inputs() {
    let clip = with_float(with_float(node("Clip", &["x"], &["y"]), "min", 0.0), "max", 1.0);
    let body = graph(vec![clip], vec![value("x", &[2])], vec![value("y", &[2])]);
    let found = load(&model_of_opset(7, body, vec![])).unwrap();
    assert_eq!(found.nodes[0].inputs.len(), 3);
    assert_eq!(run(&found, &[&[-3.0, 3.0]]), [0.0, 1.0]);
    let channels = |name| value(name, &[2]);
    let mut add = node("Add", &["x", "b"], &["y"]);
    for (name, content) in [("broadcast", 1), ("axis", 0)] {
        let mut attribute = Message::new();
        attribute.text(1, name);
        attribute.int(3, content);
        add.message(5, attribute);
    }
    let body = graph(vec![add], vec![value("x", &[2, 2]), channels("b")], vec![value("y", &[2, 2])]);
    let found = load(&model_of_opset(6, body, vec![])).unwrap();
    let inputs = [Tensor::zeros(planish_graph::DType::F32, &[2, 2]), Tensor::new(&[2], &[1f32, 2.0])];
    let made = reference::run(&found, &inputs.map(Result::unwrap)).unwrap();
    assert_eq!(made[0].to_f32s(), [1.0, 1.0, 2.0, 2.0]);
}

#[test]
fn functions_are_expanded_with_their_attributes() {
    let scale = with_reference(node("Constant", &[], &["f"]), "value_float", "factor");
    let inner = function("Scale", &["a", "unused"], &["b"], vec![scale, node("Mul", &["a", "f"], &["b"])]);
    let outer_body = vec![
        with_float(node("local::Scale", &["a"], &["t"]), "factor", 3.0),
        node("Add", &["t", "a"], &["b"]),
    ];
    let outer = function("Outer", &["a"], &["b", "a"], outer_body);
    let body = graph(
        vec![node("local::Outer", &["x"], &["y", "same"])],
        vec![value("x", &[2])],
        vec![value("y", &[2]), value("same", &[2])],
    );
    let found = load(&model(body, vec![inner, outer])).unwrap();
    assert_eq!(run(&found, &[&[1.0, 2.0]]), [4.0, 8.0]);
    assert!(found.nodes.iter().any(|n| n.name == "Outer_0/Scale_0/Mul_1"), "{found}");
}

#[test]
fn functions_may_not_call_themselves() {
    let a = function("A", &["x"], &["y"], vec![node("local::B", &["x"], &["y"])]);
    let b = function("B", &["x"], &["y"], vec![node("local::A", &["x"], &["y"])]);
    let body = graph(vec![node("local::A", &["x"], &["y"])], vec![value("x", &[2])], vec![value("y", &[2])]);
    assert!(refusal(&model(body, vec![a, b])).contains("calls itself"));
}

#[test]
fn functions_do_not_explode() {
    let functions = (0..30)
        .map(|i| {
            let callee = if i == 29 { "Neg".to_string() } else { format!("local::F{}", i + 1) };
            let nodes = vec![node(&callee, &["x"], &["t"]), node(&callee, &["t"], &["y"])];
            function(&format!("F{i}"), &["x"], &["y"], nodes)
        })
        .collect();
    let body = graph(vec![node("local::F0", &["x"], &["y"])], vec![value("x", &[2])], vec![value("y", &[2])]);
    let options = ReadOptions { max_items: 10_000, ..ReadOptions::default() };
    let error = read(&model(body, functions), None, &options).unwrap_err();
    assert!(error.to_string().contains("max_items"), "{error}");
}

#[test]
fn everything_unsupported_is_reported_at_once() {
    let body = graph(
        vec![
            node("Nonsense", &["x"], &["a"]),
            node("Nonsense", &["a"], &["b"]),
            node("com.example::Magic", &["b"], &["y"]),
        ],
        vec![value("x", &[2]), typed("s", 8, &[1])],
        vec![value("y", &[2])],
    );
    let error = refusal(&model(body, vec![]));
    for part in ["operator Nonsense (2 times", "com.example::Magic", "string", "\"Nonsense_0\""] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn errors_name_the_node() {
    assert!(refusal(&single(node("Neg", &["z"], &["y"]))).contains("node \"Neg_0\" (Neg): reads \"z\""));
    assert!(refusal(&single(node("Neg", &["x", "x"], &["y"]))).contains("node \"Neg_0\" (Neg)"));
    assert!(refusal(&single(node("", &["x"], &["y"]))).contains("no operator type"));
    assert!(refusal(&single(node("Neg", &["x"], &["x"]))).contains("two values are named \"x\""));
    assert!(refusal(&single(node("Neg", &["x"], &["q"]))).contains("reads \"y\""));
    assert!(refusal(&single(node("Neg", &["y"], &["y"]))).contains("cycle"));
    assert!(refusal(&single(with_reference(node("Elu", &["x"], &["y"]), "alpha", "a"))).contains("alpha"));
}

#[test]
fn opsets_outside_the_range_are_refused() {
    let body = || graph(vec![node("Neg", &["x"], &["y"])], vec![value("x", &[2])], vec![value("y", &[2])]);
    assert!(load(&model_of_opset(28, body(), vec![])).is_ok());
    assert!(refusal(&model_of_opset(29, body(), vec![])).contains("newer"));
    assert!(refusal(&model_of_opset(5, body(), vec![])).contains("opset 5"));
    assert!(load(&model_of_opset(0, body(), vec![])).is_err());
}

#[test]
fn what_is_no_model_is_refused() {
    for bytes in [&b""[..], b"hello, world", &[0x3a, 0x80], &[0xff; 40]] {
        assert!(load(bytes).is_err());
    }
    let two = [single(node("Neg", &["x"], &["y"])), single(node("Neg", &["x"], &["y"]))].concat();
    assert!(refusal(&two).contains("two graphs"));
}

/// `y = if c { op1(x) + w } else { if c { x } else { op2(x) } }`, `x` and `w` from outside, `w` a constant.
fn branching() -> Vec<u8> {
    let nested = |nodes, output| graph(nodes, vec![], vec![value(output, &[2])]);
    let then = nested(vec![node("Neg", &["m"], &["t"]), node("Add", &["t", "w"], &["r"])], "r");
    let inner = with_graph(
        with_graph(node("If", &["c"], &["r"]), "else_branch", nested(vec![node("Abs", &["m"], &["q"])], "q")),
        "then_branch",
        nested(vec![node("Identity", &["x"], &["q"])], "q"),
    );
    let choice = with_graph(node("If", &["c"], &["y"]), "else_branch", nested(vec![inner], "r"));
    let choice = with_graph(choice, "then_branch", then);
    let mut body = graph(
        vec![choice, node("Mul", &["x", "w"], &["m"])],
        vec![typed("c", 9, &[]), value("x", &[2])],
        vec![value("y", &[2])],
    );
    body.message(5, tensor::message("w", &Tensor::new(&[1], &[2f32]).unwrap()));
    model(body, vec![])
}

#[test]
fn nested_graphs_take_what_they_read_from_outside_as_inputs() {
    let found = load(&branching()).unwrap();
    let choice = found.nodes.iter().find(|n| n.op.name() == "If").unwrap();
    let outer: Vec<&str> = choice.inputs.iter().map(|i| found.value(i.unwrap()).name.as_str()).collect();
    assert_eq!(outer, ["c", "m", "x", "m", "c"], "the condition, then_branch, else_branch as it reads");
    let back = crate::write(&found, &crate::WriteOptions::default()).unwrap();
    for graph in [&found, &load(&back).unwrap()] {
        for (c, expected) in [(true, [0.0, 4.0]), (false, [2.0, 2.0])] {
            let x = Tensor::new(&[2], &[1f32, -1.0]).unwrap();
            let inputs = [Tensor::from_bools(&[], &[c]).unwrap(), x];
            assert_eq!(reference::run(graph, &inputs).unwrap()[0].to_f32s(), expected, "{c}");
        }
    }
}
