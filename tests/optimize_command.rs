//! `planish optimize` with pictures, through the binary: what it chooses, writes and reports, and what bad input gets.

mod common;

use common::{Folder, PICTURES, assert_keys, labels, number, pictures, texts};
use planish_graph::DType;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/resnet20-cifar10.onnx");
const KEYS: [&str; 27] = [
    "model",
    "output",
    "report",
    "version",
    "cpu",
    "isa",
    "threads",
    "precision",
    "input_shapes",
    "standard",
    "max_drop",
    "seed",
    "calibrating",
    "asked",
    "held_out",
    "skipped",
    "chosen",
    "speedup",
    "speedup_over_f32",
    "loss",
    "variants",
    "all_integers_accuracy",
    "layers",
    "seconds",
    "interrupted",
    "within_bound",
    "back",
];
const VARIANT_KEYS: [&str; 10] = [
    "name",
    "precision",
    "within_bound",
    "accuracy",
    "interval",
    "loss",
    "latency_ms",
    "file_bytes",
    "constant_bytes",
    "arena_bytes",
];
const LAYER_KEYS: [&str; 10] = [
    "name",
    "operator",
    "format",
    "algorithm",
    "why",
    "f32_ms",
    "ms",
    "gained_ms",
    "predicted_gain_ms",
    "alone_sqnr_db",
];

/// The embedded network with one more output, the map that is pooled last.
fn two_outputs(folder: &Folder) -> String {
    let mut graph = planish_onnx::load(Path::new(MODEL), &planish_onnx::ReadOptions::default()).unwrap();
    let pool = graph.nodes.iter().rev().find(|n| n.op.name().contains("Pool") || n.op.name() == "ReduceMean");
    let value = pool.unwrap().input(0).unwrap();
    graph.value_mut(value).dtype = Some(DType::F32);
    graph.outputs.push(value);
    let path = folder.path("two.onnx");
    planish_onnx::save(&graph, Path::new(&path), &planish_onnx::WriteOptions::default()).unwrap();
    path
}

fn variant<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["variants"].as_array().unwrap().iter().find(|v| v["name"] == name).unwrap()
}

#[test]
fn chooses_within_the_bound_and_reports() {
    let folder = Folder::new("optimize-embedded");
    let out = folder.path("out.onnx");
    let report = folder.json(&["optimize", "--max-drop", "4", "-o", &out, "--json"], &KEYS);
    report["variants"].as_array().unwrap().iter().for_each(|v| assert_keys(v, &VARIANT_KEYS));
    report["layers"].as_array().unwrap().iter().for_each(|l| assert_keys(l, &LAYER_KEYS));
    assert_eq!(
        (&report["calibrating"], &report["held_out"], &report["standard"]),
        (&50.into(), &50.into(), &"top-1".into())
    );
    assert_eq!(report["layers"].as_array().unwrap().len(), 22);
    assert_eq!((&report["interrupted"], &report["within_bound"]), (&false.into(), &true.into()));
    // What was chosen is the fastest of those that hold.
    let chosen = variant(&report, report["chosen"].as_str().unwrap());
    assert_eq!(chosen["within_bound"], true);
    assert!(number(&report["loss"]["points"]) <= 4.0);
    let median = |v: &Value| number(&v["latency_ms"]["p50"]);
    let holding = report["variants"].as_array().unwrap().iter().filter(|v| v["within_bound"] == true);
    assert!(holding.into_iter().all(|v| median(v) >= median(chosen)));
    let unoptimised = variant(&report, "unoptimised");
    assert!((number(&report["speedup"]) - median(unoptimised) / median(chosen)).abs() < 1e-9);
    // The page and its JSON lie beside the network, and say the same.
    let page = std::fs::read_to_string(folder.path("out.html")).unwrap();
    assert!(page.contains("<h2>Latency</h2>") && page.matches("<svg").count() >= 6);
    assert!(!page.contains("<script") && !page.contains("http"), "nothing from elsewhere");
    let saved: Value = serde_json::from_slice(&std::fs::read(folder.path("out.json")).unwrap()).unwrap();
    assert_eq!(saved, report);
    // What was written is what was judged.
    let arguments =
        ["eval", &out, "--cifar10", PICTURES, "--precision", report["precision"].as_str().unwrap()];
    let (told, error) = texts(&folder.run(&arguments));
    assert!(told.contains("of 100 pictures"), "{told}{error}");
}

#[test]
fn no_drop_at_all_may_put_layers_back() {
    let folder = Folder::new("optimize-none");
    let report = folder.json(&["optimize", MODEL, "--cifar10", PICTURES, "--max-drop", "0", "--json"], &KEYS);
    assert!(number(&report["loss"]["points"]) <= 0.0, "{report}");
    assert_eq!((&report["output"], &report["report"]), (&Value::Null, &Value::Null));
}

#[test]
fn equal_seeds_give_equal_pictures() {
    let folder = Folder::new("optimize-seed");
    let accuracy = |seed: &str| {
        let arguments = ["optimize", "--max-drop", "100", "--seed", seed, "--precision", "f32", "--json"];
        let report = folder.json(&arguments, &KEYS);
        variant(&report, "unoptimised")["accuracy"].clone()
    };
    assert_eq!(accuracy("3"), accuracy("3"));
}

#[test]
fn without_labels_answers_are_kept_and_bad_pictures_left_out() {
    let folder = Folder::new("optimize-agreement");
    let images = pictures(&folder, 12);
    std::fs::write(folder.0.join("p/002.bmp"), b"no picture at all").unwrap();
    let page = folder.path("page.html");
    let output = folder.run(&[
        "optimize",
        MODEL,
        "--images",
        &images,
        "--max-drop",
        "100",
        "--report",
        &page,
        "--json",
    ]);
    let (out, err) = texts(&output);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    assert_eq!(report["skipped"], 1);
    assert_eq!(number(&report["calibrating"]) + number(&report["held_out"]), 11.0);
    assert!(report["standard"].as_str().unwrap().contains("agreement"), "{report}");
    assert_eq!(variant(&report, "unoptimised")["accuracy"], 100.0);
    assert!(err.contains("002.bmp") && err.contains("300 pictures were asked for"), "{err}");
    assert!(std::fs::read_to_string(&page).unwrap().contains("There are no labels"));
}

#[test]
fn labels_of_pictures_that_are_not_there_are_left_out() {
    let folder = Folder::new("optimize-missing");
    let (images, table) = (pictures(&folder, 8), labels(&folder, 20));
    let arguments =
        ["optimize", MODEL, "--images", &images, "--labels", &table, "--max-drop", "100", "--json"];
    let output = folder.run(&arguments);
    let (out, err) = texts(&output);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    assert_eq!(
        number(&report["calibrating"]) + number(&report["held_out"]) + number(&report["skipped"]),
        20.0
    );
    assert_eq!(report["skipped"], 12);
    // A long list of names would hide what matters.
    assert!(
        err.matches("left out: ").count() <= 12 && err.contains("more pictures that could not be read"),
        "{err}"
    );
    std::fs::remove_dir_all(folder.0.join("p")).unwrap();
    std::fs::create_dir(folder.0.join("p")).unwrap();
    let none = texts(&folder.run(&arguments)).1;
    assert!(none.contains("none of 10 pictures could be read"), "{none}");
}

#[test]
fn networks_that_are_no_classifiers_keep_their_outputs() {
    let folder = Folder::new("optimize-outputs");
    let (model, images) = (two_outputs(&folder), pictures(&folder, 8));
    let report = folder.json(&["optimize", &model, "--images", &images, "--max-drop", "50", "--json"], &KEYS);
    assert!(report["standard"].as_str().unwrap().contains("closeness"), "{report}");
    assert_eq!(variant(&report, "unoptimised")["accuracy"], 100.0);
    assert!(number(&variant(&report, "f32")["accuracy"]) > 99.9);
    assert!(report["loss"]["lost"].is_null());
    // Its first output is rows of scores all the same, so that labels can judge it.
    let table = labels(&folder, 8);
    let arguments =
        ["optimize", &model, "--images", &images, "--labels", &table, "--max-drop", "100", "--json"];
    assert_eq!(folder.json(&arguments, &KEYS)["standard"], "top-1");
}

#[test]
fn time_may_be_up_at_once() {
    let folder = Folder::new("optimize-budget");
    let out = folder.path("out.onnx");
    let report = folder
        .json(&["optimize", MODEL, "--cifar10", PICTURES, "--budget", "0", "-o", &out, "--json"], &KEYS);
    assert_eq!(report["interrupted"], true);
    assert!(["unoptimised", "f32"].contains(&report["chosen"].as_str().unwrap()), "{report}");
    assert!(folder.run(&["inspect", &out]).status.success());
}

#[test]
#[cfg(unix)]
fn ctrl_c_keeps_the_best_so_far() {
    let folder = Folder::new("optimize-interrupt");
    let out = folder.path("out.onnx");
    let mut command = folder.command(&["optimize", MODEL, "--cifar10", PICTURES, "-o", &out]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // The pictures are read: everything that takes long is still to come.
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("pictures were asked for"), "{first}");
    let status = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success(), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("ended early; the best network so far")), "{rest:?}");
    assert!(folder.run(&["inspect", &out]).status.success());
}

#[test]
fn bad_input_is_told() {
    let folder = Folder::new("optimize-bad");
    let images = pictures(&folder, 4);
    let error = |arguments: &[&str]| folder.error(&[&["optimize"], arguments].concat());
    assert!(error(&[MODEL, "--max-drop", "1"]).contains("--images"));
    assert!(error(&[MODEL, "--images", &folder.path("nowhere")]).contains("nowhere"));
    std::fs::create_dir(folder.0.join("empty")).unwrap();
    assert!(error(&[MODEL, "--images", &folder.path("empty")]).contains("no picture in the folder"));
    std::fs::copy(folder.0.join("p/000.bmp"), folder.0.join("empty/a.bmp")).unwrap();
    assert!(error(&[MODEL, "--images", &folder.path("empty")]).contains("two or more"));
    // The model would be lost.
    let copy = folder.path("copy.onnx");
    std::fs::copy(MODEL, &copy).unwrap();
    for command in ["optimize", "quantize"] {
        let told = folder.error(&[command, &copy, "--images", &images, "-o", &copy]);
        assert!(told.contains("copy.onnx") && told.contains("replace the model itself"), "{told}");
    }
    assert_eq!(std::fs::read(&copy).unwrap(), std::fs::read(MODEL).unwrap());
    // Integers already.
    let out = folder.path("int8.onnx");
    let arguments = ["quantize", MODEL, "--images", &images, "--calibration", "min-max", "-o", &out];
    assert!(folder.run(&arguments).status.success());
    let again = error(&[&out, "--images", &images]);
    assert!(again.contains("int8.onnx") && again.contains("quantised already"), "{again}");
    // Labels of no class of the network.
    let table = folder.file("far.tsv", b"000.bmp\t3\n001.bmp\t77\n002.bmp\t77\n003.bmp\t77\n");
    let far = error(&[MODEL, "--images", &images, "--labels", &table]);
    assert!(far.contains("label 77") && far.contains("10 classes"), "{far}");
}
