//! `planish quantize` through the binary: what it writes and reports, and what it does with bad pictures.

mod common;

use common::{Folder, PICTURES, assert_keys, number, pictures, texts};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/resnet20-cifar10.onnx");
const KEYS: [&str; 21] = [
    "model",
    "output",
    "pictures",
    "asked",
    "skipped",
    "observer",
    "tried",
    "scales",
    "equalized_pairs",
    "absorbed_channels",
    "rounding_gains",
    "bias_corrected",
    "bit_operations",
    "sqnr_db",
    "changed",
    "constant_bytes_before",
    "constant_bytes",
    "accuracy",
    "layers",
    "seconds",
    "interrupted",
];

#[test]
fn quantises_with_labels_and_reports() {
    let folder = Folder::new("quantize");
    let (out, page) = (folder.path("out.onnx"), folder.path("report.html"));
    let arguments = ["quantize", MODEL, "--cifar10", PICTURES, "-o", &out, "--report", &page, "--json"];
    let found = folder.json(&[&arguments[..], &["--calibration", "mse"]].concat(), &KEYS);
    assert_eq!(
        (&found["pictures"], &found["asked"], &found["observer"]),
        (&50.into(), &300.into(), &"mse".into())
    );
    let accuracy = &found["accuracy"];
    assert_eq!(accuracy["pictures"], 50);
    assert!((number(&accuracy["float_top1"]) - number(&accuracy["top1"])).abs() <= 6.0, "{accuracy}");
    assert!(number(&found["sqnr_db"]) > 20.0, "{found}");
    assert!(number(&found["constant_bytes"]) < 0.4 * number(&found["constant_bytes_before"]), "{found}");
    let layers = found["layers"].as_array().unwrap();
    assert!(layers.iter().all(|l| l["float"] == false && number(&l["alone_sqnr_db"]) > 10.0));
    assert!(std::fs::read_to_string(&page).unwrap().contains("<h2>Layers</h2>"));
    // What is written is a model like any other, and is not quantised twice.
    let inspected = folder.run(&["inspect", &out, "--json"]);
    assert!(texts(&inspected).0.contains("QuantizeLinear"));
    let again = folder.error(&["quantize", &out, "--cifar10", PICTURES]);
    assert!(again.contains("out.onnx") && again.contains("quantised already"), "{again}");
}

#[test]
fn equal_input_gives_an_equal_file() {
    let folder = Folder::new("quantize-twice");
    let files = ["a.onnx", "b.onnx"].map(|name| {
        let out = folder.path(name);
        let arguments = ["quantize", MODEL, "--images", &pictures(&folder, 12), "--count", "8", "-o", &out];
        assert!(folder.run(&arguments).status.success());
        std::fs::read(out).unwrap()
    });
    assert!(files[0] == files[1]);
}

#[test]
fn the_bound_puts_layers_back() {
    let folder = Folder::new("quantize-bound");
    let arguments = ["quantize", MODEL, "--cifar10", PICTURES, "--max-drop", "0", "--per-tensor", "--json"];
    let found = folder.json(&arguments, &KEYS);
    let accuracy = &found["accuracy"];
    assert_eq!(accuracy["within_bound"], true, "{accuracy}");
    assert!(number(&accuracy["top1"]) >= number(&accuracy["float_top1"]));
    let without = folder.error(&["quantize", MODEL, "--images", &pictures(&folder, 2), "--max-drop", "1"]);
    assert!(without.contains("--labels"), "{without}");
}

#[test]
fn bad_pictures_are_skipped_and_counted() {
    let folder = Folder::new("quantize-bad");
    let images = pictures(&folder, 6);
    std::fs::write(folder.0.join("p/002.bmp"), b"no picture at all").unwrap();
    std::fs::write(folder.0.join("p/notes.txt"), b"not looked at").unwrap();
    let arguments = ["quantize", MODEL, "--images", &images, "--calibration", "min-max", "--json"];
    let output = folder.run(&arguments);
    let (out, err) = texts(&output);
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_keys(&found, &KEYS);
    assert_eq!(
        (&found["pictures"], &found["skipped"], &found["accuracy"]),
        (&5.into(), &1.into(), &serde_json::Value::Null)
    );
    assert!(
        err.contains("002.bmp") && err.contains("300 pictures were asked for; calibrating with 5 of 6"),
        "{err}"
    );
}

#[test]
fn folders_without_pictures_are_errors() {
    let folder = Folder::new("quantize-empty");
    let missing = folder.error(&["quantize", MODEL, "--images", &folder.path("nowhere")]);
    assert!(missing.contains("nowhere"), "{missing}");
    std::fs::create_dir(folder.0.join("empty")).unwrap();
    let empty = folder.error(&["quantize", MODEL, "--images", &folder.path("empty")]);
    assert!(empty.contains("no picture in the folder"), "{empty}");
    folder.file("empty/a.png", b"damaged");
    let damaged = folder.run(&["quantize", MODEL, "--images", &folder.path("empty")]);
    let (_, err) = texts(&damaged);
    assert!(!damaged.status.success() && err.contains("none of 1 pictures could be read"), "{err}");
    let layer = folder.error(&["quantize", MODEL, "--cifar10", PICTURES, "--keep-float", "nowhere"]);
    assert!(layer.contains("no layer is named"), "{layer}");
}
