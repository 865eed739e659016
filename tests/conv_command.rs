//! `planish conv` through the binary: what it reports, what it refuses, and the page of a sweep.

mod common;

use common::{Folder, assert_keys, number};
use serde_json::Value;
use std::collections::BTreeSet;

/// Keys of every report.
const CONFIGURATION: [&str; 7] = ["version", "cpu", "isa", "threads", "precision", "layout", "peak_gflops"];
/// Keys of a convolution that was measured.
const TRIAL: [&str; 7] =
    ["problem", "fastest", "picked", "picked_over_fastest", "samples", "algorithms", "refused"];

fn names<'a>(list: &'a Value, key: &str) -> BTreeSet<&'a str> {
    list.as_array().unwrap().iter().map(|entry| entry[key].as_str().unwrap()).collect()
}

/// What must hold for every convolution that was measured.
fn check_trial(trial: &Value) {
    let algorithms = trial["algorithms"].as_array().unwrap();
    assert!(!algorithms.is_empty());
    let fastest = algorithms.iter().map(|a| number(&a["min_ms"])).fold(f64::INFINITY, f64::min);
    for algorithm in algorithms {
        assert_keys(
            algorithm,
            &[
                "name",
                "min_ms",
                "p50_ms",
                "runs",
                "gflops",
                "percent_of_peak",
                "estimated_ms",
                "workspace_bytes",
                "packed_bytes",
                "relative_l2",
                "largest_error",
            ],
        );
        assert!(number(&algorithm["min_ms"]) > 0.0 && algorithm["runs"].as_u64() > Some(0));
        assert!(number(&algorithm["p50_ms"]) >= number(&algorithm["min_ms"]));
        assert!(number(&algorithm["estimated_ms"]) > 0.0);
        // Far above rounding, far below a wrong result.
        assert!(number(&algorithm["relative_l2"]) < 1e-2, "{algorithm}");
        if algorithm["name"] == trial["fastest"] {
            assert_eq!(number(&algorithm["min_ms"]), fastest);
        }
    }
    let (measured, refused) = (names(&trial["algorithms"], "name"), names(&trial["refused"], "name"));
    let all: BTreeSet<&str> = planish_cpu::conv::algorithms().iter().map(|a| a.name()).collect();
    assert!(measured.is_disjoint(&refused));
    assert_eq!(measured.union(&refused).copied().collect::<BTreeSet<_>>(), all);
    assert!(measured.contains(trial["picked"].as_str().unwrap()));
    assert!(number(&trial["picked_over_fastest"]) >= 1.0);
}

#[test]
fn one_convolution_is_measured_by_every_algorithm() {
    let folder = Folder::new("conv");
    let arguments =
        ["conv", "--n", "2", "--c", "6", "--hw", "9x7", "--k", "4", "--kernel", "3x5", "--stride", "2"];
    let more = ["--pad", "1x2", "--groups", "2", "--duration", "0.01", "--threads", "2", "--json"];
    let report = folder.json(&[&arguments[..], &more].concat(), &[&CONFIGURATION[..], &TRIAL].concat());
    let problem = serde_json::json!({
        "n": 2, "c": 6, "hw": [9, 7], "k": 4, "kernel": [3, 5], "stride": [2, 2], "pad": [1, 2], "dilation": [1, 1],
        "groups": 2, "element": "f32", "out_hw": [5, 4], "macs": 2 * 5 * 4 * 4 * 3 * 15,
    });
    assert_eq!(report["problem"], problem);
    assert_eq!(report["samples"], 2 * 5 * 4 * 4);
    assert_eq!((&report["threads"], &report["precision"]), (&2.into(), &"f32".into()));
    assert!(number(&report["peak_gflops"]) > 0.0);
    check_trial(&report);
}

#[test]
fn tensors_can_be_kept_short() {
    let folder = Folder::new("conv-short");
    // The result is rounded to 8 or 11 bits, by whatever algorithm.
    for (precision, least) in [("bf16", 1e-4), ("f16", 1e-5)] {
        let arguments = ["conv", "--c", "5", "--hw", "9", "--k", "4", "--precision", precision];
        let more = ["--duration", "0.01", "--threads", "1", "--json"];
        let report = folder.json(&[&arguments[..], &more].concat(), &[&CONFIGURATION[..], &TRIAL].concat());
        assert_eq!(report["precision"], precision);
        check_trial(&report);
        for algorithm in report["algorithms"].as_array().unwrap() {
            assert!(number(&algorithm["relative_l2"]) > least, "{algorithm}");
        }
        assert!(names(&report["refused"], "name").contains("strassen"));
    }
}

#[test]
fn few_bits_are_exact_and_timed_beside_bytes_and_numbers() {
    let folder = Folder::new("conv-bits");
    for precision in ["u8", "binary", "ternary", "w2a2"] {
        let arguments = ["conv", "--c", "24", "--hw", "6", "--k", "10", "--precision", precision];
        let more = ["--duration", "0.01", "--threads", "1", "--json"];
        let few: &[&str] = if precision == "u8" { &[] } else { &["beside"] };
        let report =
            folder.json(&[&arguments[..], &more].concat(), &[&CONFIGURATION[..], &TRIAL, few].concat());
        assert_eq!(report["precision"], precision);
        check_trial(&report);
        for algorithm in report["algorithms"].as_array().unwrap() {
            assert_eq!(number(&algorithm["largest_error"]), 0.0, "{algorithm}");
        }
        if precision != "u8" {
            assert!(names(&report["algorithms"], "name").contains("bits"));
            assert_eq!(names(&report["beside"], "precision"), BTreeSet::from(["f32", "u8"]));
        }
    }
}

#[test]
fn people_are_told_why_an_algorithm_is_not_there() {
    let folder = Folder::new("conv-text");
    let output = folder.run(&["conv", "--c", "4", "--hw", "8", "--duration", "0.01"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    assert!(text.starts_with("1×4×8×8 → 4, kernel 3×3, pad 1×1\n"), "{text}");
    assert!(
        text.contains("not pointwise: ") && text.contains("fastest") && text.contains("of peak"),
        "{text}"
    );
}

#[test]
fn large_convolutions_are_compared_in_part() {
    let folder = Folder::new("conv-large");
    let arguments = ["conv", "--c", "128", "--hw", "40", "--kernel", "5", "--duration", "0.01", "--json"];
    let report = folder.json(&arguments, &[&CONFIGURATION[..], &TRIAL].concat());
    assert_eq!(report["samples"], 100_000_000 / (128 * 25));
    check_trial(&report);
}

#[test]
fn nonsense_is_refused() {
    let folder = Folder::new("conv-nonsense");
    let huge = usize::MAX.to_string();
    for (arguments, word) in [
        (&["--c", "4", "--hw", "8", "--n", "0"][..], "nothing to time"),
        (&["--c", "4", "--hw", "0x8"], "nothing to time"),
        (&["--c", "0", "--hw", "8"], "zero"),
        (&["--c", "4", "--hw", "8", "--k", "0"], "zero"),
        (&["--c", "4", "--hw", "8", "--kernel", "0"], "zero"),
        (&["--c", "4", "--hw", "8", "--stride", "0"], "zero"),
        (&["--c", "4", "--hw", "8", "--dilation", "0"], "zero"),
        (&["--c", "4", "--hw", "8", "--groups", "0"], "zero"),
        (&["--c", "4", "--hw", "8", "--groups", "3"], "groups"),
        (&["--c", "4", "--hw", "8", "--kernel", "9", "--pad", "0"], "does not fit"),
        (&["--c", "4", "--hw", &huge], "too large"),
        (&["--c", &huge, "--hw", "8"], "too large"),
        (&["--c", "4", "--hw", "8", "--pad", &huge], "too large"),
        (&["--c", "4", "--hw", "8", "--dilation", &huge], "too large"),
        (&["--c", "4", "--hw", "8", "--kernel", &huge], "too large"),
        (&["--c", "64", "--hw", "64", "--max-memory", "1M"], "--max-memory"),
        (&["--c", "4", "--hw", "8", "--duration", "0"], "--duration"),
        (&["--c", "4", "--hw", "8", "--threads", "100000"], "--threads"),
        (&["--sweep", "no/such/folder/out.html"], "no/such/folder"),
        (&["--sweep", "out.html", "--budget", "0"], "--budget"),
    ] {
        let arguments = [&["conv"], arguments].concat();
        // A sweep that is refused too late must not lie in the source tree.
        let output = folder.command(&arguments).current_dir(folder.path("")).output().unwrap();
        let error = common::failure(&arguments, &output);
        assert!(error.contains(word), "{arguments:?}: {error}");
    }
    for arguments in [
        &["conv"][..],
        &["conv", "--c", "4"],
        &["conv", "--c", "4", "--hw", "8x"],
        &["conv", "--c", "-4", "--hw", "8"],
        &["conv", "--c", "4", "--hw", "8", "--precision", "f8"],
        &["conv", "--c", "4", "--hw", "8", "--quick"],
        &["conv", "--c", "4", "--sweep", "out.html"],
    ] {
        assert_eq!(folder.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn memory_that_does_not_suffice_for_all_is_told_of_each() {
    let folder = Folder::new("conv-memory");
    // Input and output take 512 KiB, the weights 36; indirect needs no workspace, im2col and direct do.
    let arguments =
        ["conv", "--c", "32", "--hw", "45", "--duration", "0.01", "--max-memory", "610K", "--json"];
    let report = folder.json(&arguments, &[&CONFIGURATION[..], &TRIAL].concat());
    check_trial(&report);
    let refused = report["refused"].as_array().unwrap();
    let direct = refused.iter().find(|r| r["name"] == "direct").unwrap();
    assert!(direct["why"].as_str().unwrap().contains("memory cap"), "{direct}");
}

#[test]
fn a_sweep_is_one_page_that_needs_nothing_else() {
    let folder = Folder::new("conv-sweep");
    let out = folder.path("sweep.html");
    let keys = [
        "budget_s",
        "seconds",
        "layers",
        "measured",
        "winners",
        "picked_fastest",
        "picked_within_5_percent",
        "picked_over_fastest",
        "sweep",
        "output",
    ];
    let arguments = ["conv", "--sweep", &out, "--quick", "--budget", "4", "--threads", "1", "--json"];
    let report = folder.json(&arguments, &[&CONFIGURATION[..], &keys].concat());
    assert_eq!(report["output"], out.as_str());
    let trials = report["sweep"].as_array().unwrap();
    assert_eq!(report["measured"], trials.len());
    assert!(trials.len() <= report["layers"].as_u64().unwrap() as usize);
    let page = std::fs::read_to_string(&out).unwrap();
    let mut won = 0;
    for trial in trials {
        assert_keys(trial, &TRIAL);
        check_trial(trial);
    }
    for winner in report["winners"].as_array().unwrap() {
        assert_keys(winner, &["name", "fastest", "picked"]);
        won += winner["fastest"].as_u64().unwrap() as usize;
        if winner["fastest"].as_u64() > Some(0) {
            assert!(page.contains(&format!("</span> {}</li>", winner["name"].as_str().unwrap())));
        }
    }
    assert_eq!(won, trials.len());
    assert_eq!(page.matches("<g><title>1×").count(), trials.len());
    check_well_formed(&page);
    for outside in ["http:", "https:", "//", "src=", "href=", "url(", "@import", "<script", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf ") && page.contains("prefers-color-scheme: dark"));
    // Nothing is left beside the page.
    let left =
        std::fs::read_dir(folder.path("")).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    assert!(left.iter().all(|name| name == "sweep.html" || name == "cache"), "{left:?}");
}

/// Asserts that every element ends, in the right order, and that nothing stands open.
fn check_well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "{:?}", &rest[..start]);
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().unwrap());
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "{open:?}");
    assert_eq!(rest.trim(), "");
}
