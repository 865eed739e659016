//! What is written is read back the same, and old files outlive failures.

use super::build::{graph, model, node, value};
use super::folder::TestFolder;
use crate::tensor;
use crate::{ReadOptions, WriteOptions, load, read, save, write};
use planish_graph::ops::movement::identity::Identity;
use planish_graph::{DType, Dim, Graph, Tensor, Value};

/// A graph with a constant of 4 KB, a symbol, an output without a declared type, and text.
fn example() -> Graph {
    let mut graph = Graph::new("example");
    graph.doc = "a test".to_string();
    graph.metadata.insert("key".to_string(), "text".to_string());
    let x =
        graph.add_input("x", DType::F32, &[Dim::Symbol("batch".to_string()), Dim::Fixed(2), Dim::Unknown]);
    let large = graph.add_constant("large", Tensor::zeros(DType::F32, &[1024]).unwrap());
    let empty = graph.add_constant("empty", Tensor::zeros(DType::I64, &[0]).unwrap());
    for (name, from) in [("y", x), ("z", large), ("e", empty)] {
        let output = graph.add_node(name, Identity, &[from]);
        graph.outputs.push(output);
    }
    graph
}

fn assert_same(a: &Graph, b: &Graph) {
    // The outputs' types are added by writing.
    let named = |g: &Graph| {
        let declared = g.values.iter().filter(|v| !["y", "z", "e"].contains(&v.name.as_str()));
        let mut values: Vec<String> = declared.map(|v: &Value| format!("{v:?}")).collect();
        values.sort();
        values
    };
    assert_eq!(named(a), named(b));
    assert_eq!((&a.name, &a.doc, &a.metadata), (&b.name, &b.doc, &b.metadata));
    let nodes = |g: &Graph| g.nodes.iter().map(|n| (n.name.clone(), n.op.name())).collect::<Vec<_>>();
    assert_eq!(nodes(a), nodes(b));
}

#[test]
fn short_elements_round_trip_and_ask_for_the_versions_that_have_them() {
    for (dtype, opset, ir_version) in [(DType::I4, 21, 10), (DType::F8E5M2, 21, 10), (DType::U2, 25, 13)] {
        let mut graph = Graph::new("short");
        let given = Tensor::from_bytes(dtype, &[5], &[0, 1, 2, 3, 1]).unwrap();
        let constant = graph.add_constant("c", given.clone());
        let output = graph.add_node("y", Identity, &[constant]);
        graph.outputs.push(output);
        let bytes = write(&graph, &WriteOptions::default()).unwrap();
        let options = ReadOptions::default();
        let survey = crate::survey(&bytes, &options).unwrap();
        assert_eq!((survey.opsets[""], survey.ir_version), (opset, ir_version), "{dtype}");
        let back = read(&bytes, None, &options).unwrap();
        assert!(back.values.iter().any(|v| v.constant.as_ref() == Some(&given)), "{dtype}");
        let folder = TestFolder::new();
        let path = folder.path().join("m.onnx");
        save(
            &graph,
            &path,
            &WriteOptions { external_data: Some(true), smallest_external: 1, ..WriteOptions::default() },
        )
        .unwrap();
        let back = load(&path, &options).unwrap();
        assert!(back.values.iter().any(|v| v.constant.as_ref() == Some(&given)), "{dtype}");
    }
}

#[test]
fn quantisers_of_other_domains_are_read_and_kept() {
    let nodes = vec![
        node("onnx.brevitas::Quant", &["w", "s", "z", "b"], &["q"]),
        node("qonnx.custom_op.general::BipolarQuant", &["q", "s"], &["p"]),
        node("qonnx.custom_op.general::Trunc", &["p", "s", "z", "b", "s", "b"], &["y"]),
    ];
    let mut message = graph(nodes, Vec::new(), vec![value("y", &[])]);
    for (name, value) in [("w", 0.7f32), ("s", 0.5), ("z", 0.0), ("b", 4.0)] {
        message.message(5, tensor::message(name, &Tensor::scalar(value)));
    }
    let options = ReadOptions::default();
    let mut graph = read(&model(message, Vec::new()), None, &options).unwrap();
    for portable in [false, true] {
        let written = write(&graph, &WriteOptions { portable, ..WriteOptions::default() }).unwrap();
        let survey = crate::survey(&written, &options).unwrap();
        assert_eq!(survey.opsets.get("qonnx.custom_op.general"), Some(&2));
        assert_eq!(survey.opsets.get("onnx.brevitas"), None);
        graph = read(&written, None, &options).unwrap();
    }
    let names: Vec<&str> = graph.nodes.iter().map(|n| n.op.name()).collect();
    assert_eq!(names, ["Quant", "BipolarQuant", "Trunc"]);
    assert_eq!(planish_graph::reference::run(&graph, &[]).unwrap()[0].to_f32s(), [0.5]);
}

#[test]
fn models_round_trip() {
    let graph = example();
    let bytes = write(&graph, &WriteOptions::default()).unwrap();
    let back = read(&bytes, None, &ReadOptions::default()).unwrap();
    assert_same(&graph, &back);
    assert_eq!(back.value(back.outputs[0]).dtype, Some(DType::F32), "types of outputs are inferred");
}

#[test]
fn weights_may_lie_beside_the_model() {
    let folder = TestFolder::new();
    let path = folder.path().join("m.onnx");
    let options = WriteOptions { external_data: Some(true), ..WriteOptions::default() };
    save(&example(), &path, &options).unwrap();
    assert_eq!(std::fs::metadata(folder.path().join("m.onnx.data")).unwrap().len(), 4096);
    assert_same(&example(), &load(&path, &ReadOptions::default()).unwrap());
    std::fs::write(folder.path().join("m.onnx.data"), [0; 100]).unwrap();
    let error = load(&path, &ReadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("m.onnx.data") && error.contains("\"large\""), "{error}");
    assert!(write(&example(), &options).is_err(), "bytes have no file beside them");
}

#[test]
fn a_failed_save_leaves_the_old_file() {
    let folder = TestFolder::new();
    let path = folder.path().join("m.onnx");
    std::fs::write(&path, "old").unwrap();
    let mut broken = example();
    broken.outputs.push(planish_graph::ValueId(99));
    assert!(save(&broken, &path, &WriteOptions::default()).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert!(save(&example(), &folder.path().join("none/m.onnx"), &WriteOptions::default()).is_err());
    save(&example(), &path, &WriteOptions::default()).unwrap();
    assert_same(&example(), &load(&path, &ReadOptions::default()).unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[cfg(unix)]
#[test]
fn saving_replaces_links_and_does_not_follow_them() {
    let folder = TestFolder::new();
    let other = folder.path().join("other");
    std::fs::write(&other, "precious").unwrap();
    for name in ["m.onnx", "m.onnx.data"] {
        std::os::unix::fs::symlink(&other, folder.path().join(name)).unwrap();
    }
    let options = WriteOptions { external_data: Some(true), ..WriteOptions::default() };
    save(&example(), &folder.path().join("m.onnx"), &options).unwrap();
    assert_eq!(std::fs::read(&other).unwrap(), b"precious");
    assert!(load(&folder.path().join("m.onnx"), &ReadOptions::default()).is_ok());
}
