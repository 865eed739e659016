//! The commands as users meet them: the binary, on the trained network in `models/` and on files made to go wrong.

mod common;

use common::{Folder, assert_keys, failure, number, texts};
use planish::files::{npy, npz};
use planish_graph::ops::math::binary::{Binary, BinaryFunction};
use planish_graph::ops::movement::expand::Expand;
use planish_graph::{DType, Dim, Graph, Tensor};
use serde_json::Value;
use std::path::Path;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/resnet20-cifar10.onnx");
const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/cifar10-test-100.bin");

#[test]
fn inspect_counts() {
    let folder = Folder::new("inspect");
    let keys = [
        "model",
        "inputs",
        "outputs",
        "input_shapes",
        "nodes",
        "macs",
        "parameters",
        "constant_bytes",
        "operators",
        "metadata",
        "layers",
        "conversions",
    ];
    let read = folder.json(&["inspect", MODEL, "--json"], &keys);
    // ResNet-20 with projections: 40.55 million in the 3×3 convolutions, 0.26 in the two 1×1, 640 in the classifier.
    assert_eq!(read["macs"], 40_813_184);
    assert_eq!(read["operators"]["Conv"], 21);
    assert_eq!(read["input_shapes"], serde_json::json!([[1, 3, 32, 32]]));
    assert_eq!(read["layers"].as_array().unwrap().len(), read["nodes"].as_u64().unwrap() as usize);
    assert_keys(
        &read["layers"][0],
        &["name", "operator", "shape", "macs", "parameters", "bytes", "intensity"],
    );
    let batch = folder.json(&["inspect", MODEL, "--batch", "3", "--json"], &keys);
    assert_eq!(batch["macs"], 3 * 40_813_184);
    let optimised = folder.json(&["inspect", MODEL, "--optimized", "--json"], &keys);
    assert!(optimised["nodes"].as_u64() < read["nodes"].as_u64());
    assert_eq!(optimised["macs"], read["macs"]);
    let text = folder.run(&["inspect", MODEL, "--text"]);
    assert!(text.status.success() && texts(&text).0.contains("/stem/Conv"));
}

#[test]
fn kernels_name_every_instruction_set() {
    let folder = Folder::new("kernels");
    let report = folder.json(&["kernels", "--json"], &["isa", "emulated", "kernels"]);
    assert_eq!(report["emulated"], false);
    let list = report["kernels"].as_array().unwrap();
    for kernel in list {
        assert_keys(kernel, &["family", "name", "element", "isa", "available"]);
    }
    for isa in ["portable", "avx2", "avx512"] {
        let of = |element: &str| {
            list.iter().any(|k| k["isa"] == isa && k["name"] == "indirect" && k["element"] == element)
        };
        assert!(of("f32") && of("bf16") && of("f16"));
    }
    assert!(list.iter().any(|k| k["isa"] == "amx" && k["name"] == "indirect" && k["element"] == "bf16"));
    // The tile unit multiplies `bf16` only.
    let vectors = if report["isa"] == "amx" { &Value::from("avx512") } else { &report["isa"] };
    let in_use = list.iter().filter(|k| k["isa"] == *vectors && k["element"] == "f32");
    assert!(in_use.clone().count() > 20 && in_use.clone().all(|k| k["available"] == true));
}

#[test]
fn formats_encode_numbers() {
    let folder = Folder::new("formats");
    let arguments = ["formats", "0.1", "-500", "--format", "fp8-e4m3fn", "--format", "int4", "--json"];
    let report = folder.json(&arguments, &["formats"]);
    let list = report["formats"].as_array().unwrap();
    assert_eq!(list.len(), 2);
    let keys = [
        "name",
        "origin",
        "bits",
        "signed",
        "exponent_bits",
        "fraction_bits",
        "bias",
        "lowest",
        "largest",
        "smallest_normal",
        "smallest_subnormal",
        "epsilon",
        "specials",
        "encoded",
    ];
    list.iter().for_each(|format| assert_keys(format, &keys));
    assert_eq!((number(&list[0]["largest"]), number(&list[0]["smallest_subnormal"])), (448.0, 0.001953125));
    assert_eq!(list[0]["encoded"][0], serde_json::json!({"number": 0.1, "code": "0x1d", "value": 0.1015625}));
    assert_eq!(list[0]["encoded"][1]["value"], "nan");
    assert_eq!(list[1]["encoded"][1], serde_json::json!({"number": -500.0, "code": "0x8", "value": -8.0}));
    let saturated = folder.json(&[&arguments[..], &["--saturate"]].concat(), &["formats"]);
    assert_eq!(number(&saturated["formats"][0]["encoded"][1]["value"]), -448.0);
    let (table, _) = texts(&folder.run(&["formats"]));
    assert!(table.lines().count() > 20 && table.contains("dlfloat16"), "{table}");
    assert!(folder.error(&["formats", "--format", "fp9"]).contains("fp8-e4m3fn"));
}

#[test]
fn bench_measures() {
    let folder = Folder::new("bench");
    let trace = folder.path("trace.json");
    let keys = [
        "model",
        "version",
        "cpu",
        "isa",
        "threads",
        "precision",
        "layout",
        "input_shapes",
        "load_ms",
        "plan_ms",
        "first_ms",
        "latency_ms",
        "runs",
        "throughput",
        "peak_rss_bytes",
        "arena_bytes",
        "tuned_layers",
    ];
    let plain = folder
        .json(&["bench", MODEL, "--duration", "0.1", "--threads", "1", "--json", "--trace", &trace], &keys);
    assert_eq!(plain["threads"], 1);
    assert_keys(&plain["latency_ms"], &["min", "p50", "p90", "p99", "mean"]);
    assert!(number(&plain["runs"]) >= 3.0 && number(&plain["latency_ms"]["min"]) > 0.0);
    let events: Value = serde_json::from_slice(&std::fs::read(&trace).unwrap()).unwrap();
    assert_keys(&events, &["traceEvents", "displayTimeUnit"]);
    assert_keys(&events["traceEvents"][0], &["name", "cat", "ph", "pid", "tid", "ts", "dur", "args"]);

    let with_layers: Vec<&str> = keys.iter().copied().chain(["layers"]).collect();
    let profiled = folder.json(&["bench", MODEL, "--duration", "0.1", "--profile", "--json"], &with_layers);
    assert_keys(
        &profiled["layers"][0],
        &["node", "operator", "algorithm", "reason", "candidates", "shape", "macs", "ms", "gflops"],
    );
    let macs: f64 = profiled["layers"].as_array().unwrap().iter().map(|l| number(&l["macs"])).sum();
    assert_eq!(macs, 40_813_184.0);
    for wrong in ["0", "nan", "-1", "1e9"] {
        let argument = format!("--duration={wrong}");
        assert!(folder.error(&["bench", MODEL, &argument]).contains("--duration"));
    }
}

#[test]
fn precision_is_what_was_asked_for_or_said_to_be_another() {
    let folder = Folder::new("precision");
    for asked in ["bf16", "f16"] {
        let bench = ["bench", MODEL, "--duration", "0.05", "--threads", "1", "--json", "--precision", asked];
        let here = folder.run(&bench);
        let (out, err) = texts(&here);
        let report: Value = serde_json::from_str(&out).unwrap();
        match report["precision"].as_str() {
            Some(used) if used == asked => assert!(err.is_empty(), "{err}"),
            _ => assert!(err.contains(&format!("no instructions for {asked}")), "{err}"),
        }
        let plain = folder.command(&bench).env("PLANISH_ISA", "portable").output().unwrap();
        let (out, err) = texts(&plain);
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["precision"], "f32");
        assert!(err.contains("portable") && err.contains(asked), "{err}");
        // Each layer keeps to what rounding to 8 or 11 bits explains, and so do the pictures.
        let verified = folder.run(&["verify", MODEL, "--precision", asked, "--json"]);
        assert!(verified.status.success(), "{:?}", texts(&verified));
        let found =
            folder.json(&["eval", MODEL, "--cifar10", PICTURES, "--precision", asked, "--json"], &EVAL_KEYS);
        assert!(number(&found["top1"]) >= 84.0, "{found}");
    }
    assert_eq!(folder.run(&["bench", MODEL, "--precision", "f8"]).status.code(), Some(2));
}

#[test]
fn a_network_runs_on_the_emulated_tile_unit() {
    let folder = Folder::new("tiles");
    let emulated = |arguments: &[&str]| {
        let output = folder.command(arguments).env("PLANISH_ISA", "amx-emulated").output().unwrap();
        let (out, err) = texts(&output);
        (output.status.success(), out, err)
    };
    let (able, out, err) = emulated(&["kernels", "--json"]);
    if !able {
        assert!(err.contains("amx-emulated"), "{err}");
        eprintln!("skipped: {err}");
        return;
    }
    let kernels: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(kernels["isa"], "amx");
    // Where the machine has the unit, nothing is emulated.
    let said = if kernels["emulated"] == true { "(amx, emulated)" } else { "(amx)" };
    // Each layer keeps to what rounding to 8 bits explains.
    let (good, out, err) = emulated(&["verify", MODEL, "--precision", "bf16", "--json"]);
    assert!(good, "{out}{err}");
    let answers = ["1", "2"].map(|threads| {
        let outputs = folder.path(threads);
        let one_algorithm = ["--precision", "bf16", "--algorithm", "im2col", "--threads", threads];
        let (good, _, err) = emulated(&[&["run", MODEL, "--output", &outputs], &one_algorithm[..]].concat());
        assert!(good && err.contains(said), "{err}");
        let mut files = std::fs::read_dir(outputs).unwrap();
        std::fs::read(files.next().unwrap().unwrap().path()).unwrap()
    });
    assert!(answers[0] == answers[1], "other answers on two threads");
}

const EVAL_KEYS: [&str; 11] = [
    "model",
    "top1",
    "top5",
    "images",
    "skipped",
    "images_per_s",
    "network_images_per_s",
    "preprocessing",
    "threads",
    "isa",
    "precision",
];

#[test]
fn eval_knows_the_pictures() {
    let folder = Folder::new("eval");
    let found = folder.json(&["eval", MODEL, "--cifar10", PICTURES, "--json"], &EVAL_KEYS);
    // 87 on the machine where this was written; another order of additions may move a picture or two.
    assert!(number(&found["top1"]) >= 85.0 && number(&found["top5"]) >= 98.0, "{found}");
    assert_eq!((&found["images"], &found["skipped"]), (&100.into(), &0.into()));
    let missing = folder.error(&["eval", MODEL, "--cifar10", MODEL]);
    assert!(missing.contains("resnet20-cifar10.onnx") && missing.contains("records"), "{missing}");
    let beyond = folder.error(&["eval", MODEL, "--cifar10", PICTURES, "--class-offset", "9"]);
    assert!(beyond.contains("10 classes"), "{beyond}");
}

#[test]
fn eval_reads_folders_and_leaves_out_what_is_damaged() {
    let folder = Folder::new("eval-folder");
    let pictures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pictures");
    std::fs::create_dir(folder.0.join("p")).unwrap();
    std::fs::copy(format!("{pictures}/rgb.png"), folder.0.join("p/a.png")).unwrap();
    std::fs::write(folder.0.join("p/b.png"), b"no picture at all").unwrap();
    let labels = folder.file("labels.tsv", b"file\tclass\na.png\t3\nb.png\tfrog\n");
    let classes = folder.file("names.txt", b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\n");
    let (images, names) = (folder.path("p"), ["--classes", &classes]);
    let found = folder.json(
        &["eval", MODEL, "--images", &images, "--labels", &labels, names[0], names[1], "--json"],
        &EVAL_KEYS,
    );
    assert_eq!((&found["images"], &found["skipped"]), (&1.into(), &1.into()));
    let outside = folder.file("outside.tsv", b"../secret.png\t1\n");
    let error = folder.error(&["eval", MODEL, "--images", &images, "--labels", &outside]);
    assert!(error.contains("outside.tsv") && error.contains("line 1"), "{error}");
}

#[test]
fn run_takes_tensors_and_pictures() {
    let folder = Folder::new("run");
    let keys = ["model", "outputs", "top5", "first_ms", "load_ms", "threads", "isa"];
    let input = Tensor::zeros(DType::F32, &[2, 3, 32, 32]).unwrap();
    npy::write(&folder.0.join("x.npy"), &input).unwrap();
    let (given, out) = (format!("image={}", folder.path("x.npy")), folder.path("out"));
    let report = folder.json(&["run", MODEL, "--input", &given, "--output", &out, "--json"], &keys);
    assert_keys(&report["outputs"][0], &["name", "dtype", "shape", "file"]);
    let written = npy::read(&folder.0.join("out/logits.npy")).unwrap();
    assert_eq!(written.shape(), [2, 10]);
    let values = written.to_f32s();
    assert_eq!(values[..10], values[10..], "two equal pictures have equal scores");
    let top = &report["top5"][0][0];
    assert_keys(top, &["class", "name", "score"]);
    // Reading JSON rounds the last bit of a number.
    let (shown, score) = (number(&top["score"]), f64::from(values[top["class"].as_u64().unwrap() as usize]));
    assert!((shown - score).abs() <= 1e-12 * score.abs(), "{shown} is not {score}");

    let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pictures/rgb-444.jpg");
    let labels = folder.file("names.txt", b"plane\ncar\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n");
    let report =
        folder.json(&["run", MODEL, "--image", picture, picture, "--labels", &labels, "--json"], &keys);
    assert_keys(&report["outputs"][0], &["name", "dtype", "shape"]);
    assert_eq!(report["outputs"][0]["shape"], serde_json::json!([2, 10]));
    assert_eq!(report["top5"][0].as_array().unwrap().len(), 5);
    assert!(!report["top5"][0][0]["name"].as_str().unwrap().is_empty());
}

/// The embedded network stays within 1e-3 of exact arithmetic with every algorithm allowed, and within 1e-5 with those
/// that err by no more than that.
#[test]
fn errors_of_a_whole_network_stay_within_bounds() {
    let folder = Folder::new("end-to-end");
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/resnet20-cifar10.onnx");
    for (max_error, limit) in [("1", "1e-3"), ("1e-5", "1e-5")] {
        let report = folder.json(
            &["verify", model, "--max-error", max_error, "--end-to-end", limit, "--json"],
            &VERIFY_KEYS,
        );
        let last = report["values"].as_array().unwrap().last().unwrap();
        assert!(last["value"].as_str().unwrap().ends_with("end to end"), "{last}");
        println!("--max-error {max_error}: {}", last["relative_l2"]);
    }
}

const VERIFY_KEYS: [&str; 5] = ["model", "agree", "compared", "first_departure", "values"];

#[test]
fn verify_agrees_with_the_reference_and_with_files() {
    let folder = Folder::new("verify");
    // A small network: the reference of a whole ResNet takes too long where it is not optimised.
    let model = small_model(&folder, &[2, 3]);
    let layers = folder.json(&["verify", &model, "--json"], &VERIFY_KEYS);
    assert_eq!((&layers["agree"], &layers["first_departure"]), (&true.into(), &Value::Null));
    assert_keys(&layers["values"][0], &["value", "shape", "relative_l2", "largest_difference", "problem"]);

    let x = Tensor::new(&[3], &[1f32, -2.0, 3.0]).unwrap();
    let right = Tensor::new(&[2, 3], &[2f32, -4.0, 6.0, 2.0, -4.0, 6.0]).unwrap();
    let wrong = Tensor::new(&[2, 3], &[2f32, -4.0, 6.0, 2.0, -4.0, 6.5]).unwrap();
    let (good, bad) = (folder.path("good.npz"), folder.path("bad.npz"));
    npz::write(Path::new(&good), [("x", &x), ("y", &right)]).unwrap();
    npz::write(Path::new(&bad), [("x", &x), ("y", &wrong)]).unwrap();
    let same = folder.json(&["verify", &model, "--against", &good, "--json"], &VERIFY_KEYS);
    assert_eq!((&same["agree"], &same["compared"]), (&true.into(), &1.into()));

    // The outputs against a reference of their own, which is one tensor more.
    let whole = folder.json(&["verify", &model, "--end-to-end", "1e-6", "--json"], &VERIFY_KEYS);
    assert_eq!(number(&whole["compared"]), number(&layers["compared"]) + 1.0);
    let both = folder.run(&["verify", &model, "--against", &good, "--end-to-end", "1"]);
    assert_eq!(both.status.code(), Some(2));

    // What departs is reported, and the exit status says so.
    let output = folder.run(&["verify", &model, "--against", &bad, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_keys(&report, &VERIFY_KEYS);
    assert_eq!((&report["agree"], &report["first_departure"]), (&false.into(), &"y".into()));
    assert!(folder.run(&["verify", &model, "--against", &bad, "--atol", "1"]).status.success());

    npz::write(Path::new(&bad), [("x", &x), ("z", &wrong)]).unwrap();
    let error = folder.error(&["verify", &model, "--against", &bad]);
    assert!(error.contains("bad.npz") && error.contains("\"z\""), "{error}");
}

#[test]
fn optimize_writes_what_others_read() {
    let folder = Folder::new("optimize");
    let out = folder.path("small.onnx");
    let keys = [
        "model",
        "before",
        "after",
        "load_ms",
        "largest_difference",
        "relative_l2",
        "passes",
        "algorithms",
        "threads",
        "isa",
        "precision",
        "tuned_layers",
        "output",
    ];
    let mean = "--mean=120,121,122";
    let report = folder.json(&["optimize", MODEL, "-o", &out, mean, "--resize", "bicubic", "--json"], &keys);
    for side in ["before", "after"] {
        assert_keys(
            &report[side],
            &["nodes", "steps", "macs", "constant_bytes", "arena_bytes", "latency_ms", "top1"],
        );
    }
    assert!(number(&report["after"]["nodes"]) < number(&report["before"]["nodes"]));
    assert!(number(&report["relative_l2"]) < 1e-5, "{report}");
    assert_keys(&report["passes"][0], &["pass", "rewrites"]);
    assert_eq!(report["output"], out.as_str());

    // The flags are kept in the model: evaluating it uses them without being told.
    let found = folder.json(&["eval", &out, "--cifar10", PICTURES, "--limit", "20", "--json"], &EVAL_KEYS);
    let settings = &found["preprocessing"];
    assert_eq!(settings["mean"], serde_json::json!([120.0, 121.0, 122.0]));
    assert_eq!((&settings["resize"], &settings["std"][0]), (&"bicubic".into(), &63.0.into()));

    // And the written network computes what the original computes.
    let input = format!("image={}", folder.path("x.npy"));
    let values: Vec<f32> = (0..3 * 32 * 32).map(|i| (i % 23) as f32 * 0.1 - 1.0).collect();
    npy::write(&folder.0.join("x.npy"), &Tensor::new(&[1, 3, 32, 32], &values).unwrap()).unwrap();
    let outputs = [MODEL, &out].map(|model| {
        let run = folder.run(&["run", model, "--input", &input, "--output", &folder.path("out")]);
        assert!(run.status.success(), "{}", texts(&run).1);
        npy::read(&folder.0.join("out/logits.npy")).unwrap().to_f32s()
    });
    for (a, b) in outputs[0].iter().zip(&outputs[1]) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn tuning_is_remembered() {
    let folder = Folder::new("tune");
    let wisdom = folder.path("wisdom.json");
    let tune = folder.run(&["run", MODEL, "--tune", "--wisdom", &wisdom]);
    assert!(tune.status.success(), "{}", texts(&tune).1);
    let bench = ["bench", MODEL, "--duration", "0.1", "--json", "--profile", "--wisdom", &wisdom];
    let report: Value = serde_json::from_slice(&folder.run(&bench).stdout).unwrap();
    assert!(number(&report["tuned_layers"]) > 0.0);
    let reasons: Vec<&str> =
        report["layers"].as_array().unwrap().iter().filter_map(|l| l["reason"].as_str()).collect();
    assert!(reasons.contains(&"the fastest when tuned"), "{reasons:?}");
    // A damaged file counts as empty.
    std::fs::write(&wisdom, "{ damaged").unwrap();
    assert!(folder.run(&["run", MODEL, "--wisdom", &wisdom]).status.success());
}

/// x (three numbers) doubled, then broadcast to `shape`; written to the folder.
fn small_model(folder: &Folder, shape: &[i64]) -> String {
    let mut graph = Graph::new("small");
    let x = graph.add_input("x", DType::F32, &[Dim::Fixed(3)]);
    let target = graph.add_constant("shape", Tensor::from_i64s(shape).unwrap());
    let twice = graph.add_node("twice", Binary { function: BinaryFunction::Add }, &[x, x]);
    let y = graph.add_node("y", Expand, &[twice, target]);
    graph.outputs.push(y);
    let path = folder.path("small.onnx");
    planish_onnx::save(&graph, Path::new(&path), &planish_onnx::WriteOptions::default()).unwrap();
    path
}

#[test]
fn memory_is_capped() {
    let folder = Folder::new("memory");
    let error = folder.error(&["run", MODEL, "--max-memory", "2M"]);
    assert!(error.contains("resnet20-cifar10.onnx") && error.contains("--max-memory"), "{error}");
    assert!(error.contains("initializer \"blocks."), "{error}");
    for command in ["run", "bench"] {
        let error = folder.error(&[command, MODEL, "--batch", "1000", "--max-memory", "64M"]);
        assert!(error.contains("resnet20-cifar10.onnx") && error.contains("--max-memory"), "{error}");
    }
    // A model of a few hundred bytes that asks for terabytes.
    let model = small_model(&folder, &[1 << 30, 1 << 9, 3]);
    for command in ["run", "bench", "verify", "optimize"] {
        let error = folder.error(&[command, &model]);
        assert!(error.contains("small.onnx") && error.contains("memory"), "{error}");
    }
    // And one whose extents, multiplied, pass what can be addressed: written by hand, because planish refuses to.
    let mut content = std::fs::read(&model).unwrap();
    let written: Vec<u8> = [1i64 << 30, 1 << 9, 3].iter().flat_map(|d| d.to_le_bytes()).collect();
    let at = content.windows(written.len()).position(|w| w == written).unwrap();
    for extent in 0..2 {
        content[at + 8 * extent..][..8].copy_from_slice(&(1i64 << 40).to_le_bytes());
    }
    let model = folder.file("small.onnx", &content);
    for command in ["run", "inspect", "optimize"] {
        assert!(folder.error(&[command, &model]).contains("small.onnx"));
    }
}

#[test]
fn missing_and_damaged_models_are_refused() {
    let folder = Folder::new("damaged");
    let absent = folder.path("absent.onnx");
    for command in ["inspect", "run", "bench", "verify", "optimize"] {
        assert!(folder.error(&[command, &absent]).contains("absent.onnx"));
    }
    let whole = std::fs::read(MODEL).unwrap();
    for length in [0, 1, 7, 100, 5000, whole.len() / 2, whole.len() - 1] {
        let path = folder.file("cut.onnx", &whole[..length]);
        let error = folder.error(&["inspect", &path]);
        assert!(error.contains("cut.onnx"), "{length}: {error}");
    }
    let folder_as_model = folder.error(&["inspect", folder.0.to_str().unwrap()]);
    assert!(folder_as_model.contains("planish-command-line"), "{folder_as_model}");
}

/// Each byte of a small model, once with a bit flipped: a result or an error, never a crash.
#[test]
fn a_flipped_bit_never_crashes() {
    let folder = Folder::new("flipped");
    let whole = std::fs::read(small_model(&folder, &[2, 3])).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        let path = folder.file("flipped.onnx", &damaged);
        check_survives(&folder, &["run", &path, "--no-wisdom", "--max-memory", "64K"], at);
    }
    // The trained network: its bytes are weights for the most part, so the structure at its ends is sampled.
    let whole = std::fs::read(MODEL).unwrap();
    let places = (0..12).map(|i| i * 37).chain((1..12).map(|i| whole.len() - i * 331));
    for at in places {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        let path = folder.file("flipped.onnx", &damaged);
        check_survives(&folder, &["inspect", &path], at);
    }
}

fn check_survives(folder: &Folder, arguments: &[&str], at: usize) {
    let output = folder.run(arguments);
    let err = texts(&output).1;
    assert!(!err.contains("panicked"), "byte {at}: {err}");
    match output.status.code() {
        Some(0) => {}
        Some(1) => assert!(err.starts_with("planish: "), "byte {at}: {err}"),
        code => panic!("byte {at}: ended with {code:?}: {err}"),
    }
}

#[test]
fn wrong_inputs_are_named() {
    let folder = Folder::new("inputs");
    npy::write(&folder.0.join("x.npy"), &Tensor::zeros(DType::F32, &[1, 10]).unwrap()).unwrap();
    npy::write(&folder.0.join("i.npy"), &Tensor::zeros(DType::I64, &[1, 3, 32, 32]).unwrap()).unwrap();
    let given = |name: &str, file: &str| format!("{name}={}", folder.path(file));
    for (input, wanted) in [
        (given("nosuch", "x.npy"), "\"nosuch\""),
        (given("image", "x.npy"), "[1, 10]"),
        (given("image", "i.npy"), "i64"),
        (given("image", "absent.npy"), "absent.npy"),
        (format!("image={MODEL}"), "not a .npy file"),
    ] {
        let error = folder.error(&["run", MODEL, "--input", &input]);
        assert!(error.contains(wanted), "{input}: {error}");
    }
    for (shape, wanted) in [("image=1x3x8", "image"), ("image=1x3x64x64", "image"), ("nosuch=3", "\"image\"")]
    {
        let error = folder.error(&["run", MODEL, "--shape", shape]);
        assert!(error.contains(wanted), "{shape}: {error}");
    }
}

#[test]
fn pictures_that_are_none_are_refused() {
    let folder = Folder::new("pictures");
    // A bitmap of 54 bytes that claims 65280 × 65280 pixels.
    let mut bomb = b"BM".to_vec();
    for word in [54u32, 0, 54, 40, 65280, 65280, (24 << 16) | 1, 0, 0, 0, 0, 0, 0] {
        bomb.extend(word.to_le_bytes());
    }
    let bomb = folder.file("bomb.bmp", &bomb);
    let garbage = folder.file("garbage.png", b"\x89PNG\r\n\x1a\nand then nothing that a decoder knows");
    let absent = folder.path("absent.png");
    for (picture, name) in [(&bomb, "bomb.bmp"), (&garbage, "garbage.png"), (&absent, "absent.png")] {
        let error = folder.error(&["run", MODEL, "--image", picture]);
        assert!(error.contains(name), "{error}");
    }
    let error = folder.error(&["run", MODEL, "--image", &garbage, "--std", "0"]);
    assert!(error.contains("std"), "{error}");
}

#[test]
fn an_unknown_instruction_set_is_refused() {
    let folder = Folder::new("isa");
    for arguments in [&["kernels"][..], &["run", MODEL], &["bench", MODEL]] {
        let output = folder.command(arguments).env("PLANISH_ISA", "nonsense").output().unwrap();
        let error = failure(arguments, &output);
        assert!(error.contains("PLANISH_ISA") && error.contains("portable"), "{error}");
    }
    let output = folder.command(&["run", MODEL, "--json"]).env("PLANISH_ISA", "portable").output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["isa"], "portable");
}

#[test]
fn the_environment_lowers_the_number_of_threads() {
    let folder = Folder::new("threads");
    for (name, value) in [("PLANISH_THREADS", "1"), ("OMP_NUM_THREADS", "1,4")] {
        let mut command = folder.command(&["run", MODEL, "--json"]);
        command.env_remove("PLANISH_THREADS").env(name, value);
        let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        assert_eq!(report["threads"], 1, "{name}");
    }
}

#[test]
fn misuse_ends_with_status_2() {
    let folder = Folder::new("misuse");
    for arguments in [&[][..], &["nonsense"], &["run"], &["eval", MODEL], &["run", MODEL, "--batch", "x"]] {
        let output = folder.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
    }
}
