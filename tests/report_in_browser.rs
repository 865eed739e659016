//! The page that `planish optimize` writes, opened in a browser: its plots are seen, and say what the numbers say.
//!
//! Needs Chromium (`chromium`, `chromium-browser`, `google-chrome`, or what `PLANISH_CHROMIUM` names). Where there is none,
//! nothing is looked at; with `PLANISH_NEEDS_BROWSER` set, as `.ci/run` sets it, that is a failure.

mod common;

use common::{Folder, number};
use image::RgbImage;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The browser, if there is one.
fn browser() -> Option<String> {
    let named = std::env::var("PLANISH_CHROMIUM").ok();
    let usual = ["chromium", "chromium-browser", "google-chrome"].map(String::from);
    let found = named.into_iter().chain(usual).find(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        assert!(
            std::env::var_os("PLANISH_NEEDS_BROWSER").is_none(),
            "there is no Chromium to look at the page with: apt-get install chromium, or set PLANISH_CHROMIUM"
        );
        eprintln!("skipped: no Chromium to look at the page with");
    }
    found
}

/// What the browser shows of `html`, 1280 pixels wide.
fn screenshot(browser: &str, folder: &Folder, name: &str, html: &str, height: u32) -> RgbImage {
    let page = folder.file(&format!("{name}.html"), html.as_bytes());
    let (picture, profile) = (folder.path(&format!("{name}.png")), folder.path(&format!("{name}.profile")));
    std::fs::create_dir(&profile).unwrap();
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.args([format!("--user-data-dir={profile}"), format!("--window-size=1280,{height}")]);
    command.args([format!("--screenshot={picture}"), format!("file://{page}")]);
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(Path::new(&picture).exists(), "no screenshot: {error}");
    image::open(&picture).unwrap().to_rgb8()
}

/// The page with no section but the one under `heading`.
fn only(html: &str, heading: &str) -> String {
    let (head, rest) = html.split_once("<section>").unwrap();
    let wanted = format!("\n<h2>{heading}</h2>");
    let section = rest.split("<section>").find(|s| s.starts_with(&wanted)).unwrap();
    let section = section.split("</section>").next().unwrap();
    format!("{head}<section>{section}</section></body></html>")
}

/// The colour of marks of the hue that many degrees along, on a light page: hsl(hue 78% 36%).
fn strong(hue: f64) -> [u8; 3] {
    let (s, l) = (0.78, 0.36);
    let a = s * f64::min(l, 1.0 - l);
    [0.0, 8.0, 4.0].map(|n: f64| {
        let k = (n + hue / 30.0) % 12.0;
        (255.0 * (l - a * f64::min(k - 3.0, 9.0 - k).clamp(-1.0, 1.0))).round() as u8
    })
}

/// The hues of what was before, of `f32`, of `bf16` and of integers.
const BEFORE: f64 = 186.0;
const F32: f64 = 28.0;
const BF16: f64 = 148.0;
const INT8: f64 = 212.0;

/// Horizontal runs of a colour, from top to bottom: row, first pixel, and length of the longest run in each row that has one
/// of at least `least` pixels.
fn runs(picture: &RgbImage, colour: [u8; 3], least: u32) -> Vec<(u32, u32, u32)> {
    let is = |x: u32, y: u32| picture.get_pixel(x, y).0.iter().zip(colour).all(|(&p, c)| p.abs_diff(c) <= 6);
    let mut found = Vec::new();
    for y in 0..picture.height() {
        let (mut best, mut start) = ((0, 0), None);
        for x in 0..=picture.width() {
            match (x < picture.width() && is(x, y), start) {
                (true, None) => start = Some(x),
                (false, Some(from)) => {
                    if x - from > best.1 {
                        best = (from, x - from);
                    }
                    start = None;
                }
                _ => {}
            }
        }
        if best.1 >= least {
            found.push((y, best.0, best.1));
        }
    }
    found
}

/// The bars of a colour: rows of runs that follow each other, each as its longest run.
fn bars(picture: &RgbImage, hue: f64) -> Vec<(u32, u32, u32)> {
    let mut bars: Vec<(u32, u32, u32)> = Vec::new();
    let mut last = None;
    for run in runs(picture, strong(hue), 3) {
        match bars.last_mut() {
            Some(bar) if last == Some(run.0 - 1) => {
                if run.2 > bar.2 {
                    *bar = run;
                }
            }
            _ => bars.push(run),
        }
        last = Some(run.0);
    }
    bars
}

fn hue(variant: &str) -> f64 {
    match variant {
        "unoptimised" => BEFORE,
        "f32" => F32,
        "bf16" => BF16,
        _ => INT8,
    }
}

#[test]
fn plots_show_the_numbers() {
    let Some(browser) = browser() else { return };
    let folder = Folder::new("report-in-browser");
    let (page, out) = (folder.path("report.html"), folder.path("out.onnx"));
    let arguments = ["optimize", "--max-drop", "100", "-o", &out, "--report", &page];
    assert!(folder.run(&arguments).status.success());
    let html = std::fs::read_to_string(&page).unwrap();
    let json = std::fs::read(folder.path("report.json")).unwrap();
    let report: Value = serde_json::from_slice(&json).unwrap();
    let variants = report["variants"].as_array().unwrap();
    let layers = report["layers"].as_array().unwrap();
    let show = |name: &str, heading: &str, height| {
        screenshot(&browser, &folder, name, &only(&html, heading), height)
    };

    // Latency: one bar for each variant, all from the same line, as long as the times are.
    let picture = show("latency", "Latency", 900);
    let value = |v: &Value| number(&v["latency_ms"]["p50"]);
    check_bars(&picture, variants, &value, "latency");
    // A bar that lies is noticed.
    let bar = format!("<rect class=\"bar hue{}", if variants[1]["name"] == "f32" { 1 } else { 2 });
    let (before, behind) = html.split_once(&bar).unwrap();
    let tampered = format!("{before}{bar} tampered\" style=\"width: 30px{behind}");
    let lying = screenshot(&browser, &folder, "lying", &only(&tampered, "Latency"), 900);
    let told = std::panic::catch_unwind(|| check_bars(&lying, variants, &value, "on purpose"));
    assert!(told.is_err(), "a bar of 30 pixels passed");

    // Accuracy: dots from left to right as the values, and of equal values one below the other.
    let picture = show("accuracy", "Accuracy", 900);
    let mut dots: Vec<(f64, f64)> = Vec::new();
    for v in variants {
        // The dot is where a run is highest above its line: the middle of the rows.
        let rows = runs(&picture, strong(hue(v["name"].as_str().unwrap())), 4);
        let dot: Vec<_> = rows.iter().filter(|r| r.2 <= 24).collect();
        assert!(dot.len() >= 4, "the dot of {} is seen", v["name"]);
        let middle =
            dot.iter().map(|r| f64::from(r.1) + f64::from(r.2) / 2.0).sum::<f64>() / dot.len() as f64;
        dots.push((number(&v["accuracy"]), middle));
    }
    for (a, b) in dots.iter().zip(&dots[1..]) {
        match a.0 == b.0 {
            true => assert!((a.1 - b.1).abs() < 2.5, "{dots:?}"),
            false => assert_eq!(a.0 < b.0, a.1 < b.1, "{dots:?}"),
        }
    }

    // The file is the first of two plots of one section.
    let picture = show("memory", "File and memory", 1200);
    let size = |v: &Value| number(&v["file_bytes"]);
    let half = image::imageops::crop_imm(&picture, 0, 0, 1280, first_gap(&picture, variants)).to_image();
    check_bars(&half, variants, &size, "file");

    // Layers: a bar before and a bar after for each, as long as their times.
    let picture = show("layers", "Time of each layer", 2400);
    let before = bars(&picture, BEFORE);
    let wanted: Vec<f64> = layers.iter().map(|l| number(&l["f32_ms"])).collect();
    let scale = check_lengths(&swatchless(before), &wanted, "layers before");
    let chosen = layers[0]["format"].as_str().unwrap();
    if layers.iter().all(|l| l["format"] == chosen) {
        // Of the same scale, so that they are short where a layer gained much, or was disturbed before.
        let wanted: Vec<f64> = layers.iter().map(|l| number(&l["ms"])).collect();
        if wanted.iter().all(|ms| ms * scale >= 5.0) {
            check_scaled(&swatchless(bars(&picture, hue(chosen))), &wanted, scale, "layers after");
        }
    }

    // The whole page has something in every colour, and text: most of it is neither blank nor full.
    let whole = screenshot(&browser, &folder, "whole", &html, 3000);
    let ink = whole.pixels().filter(|p| p.0.iter().all(|&c| c < 120)).count();
    assert!(ink > 5_000 && ink < 2_000_000, "{ink} dark pixels");
    if let Some(to) = std::env::var_os("PLANISH_KEEP_SCREENSHOT") {
        whole.save(to).unwrap();
    }
}

/// Asserts that each variant has one bar, and that lengths are as `value` says.
fn check_bars(picture: &RgbImage, variants: &[Value], value: &dyn Fn(&Value) -> f64, what: &str) {
    let mut lengths = Vec::new();
    let mut starts = Vec::new();
    for v in variants {
        let longest = bars(picture, hue(v["name"].as_str().unwrap())).into_iter().max_by_key(|b| b.2);
        let (_, from, long) = longest.unwrap_or_else(|| panic!("{what}: no bar of {}", v["name"]));
        starts.push(from);
        lengths.push((0, from, long));
    }
    let near = starts.iter().all(|s| s.abs_diff(starts[0]) <= 2);
    assert!(near, "{what}: bars start at {starts:?}");
    check_lengths(&lengths, &variants.iter().map(value).collect::<Vec<_>>(), what);
}

/// Asserts that the lengths of bars are proportional to what they stand for, within the grain of pixels, and returns the
/// pixels of a unit.
fn check_lengths(bars: &[(u32, u32, u32)], wanted: &[f64], what: &str) -> f64 {
    let (length, value) =
        (bars.iter().map(|b| b.2).max().unwrap_or(0), wanted.iter().copied().fold(0.0, f64::max));
    assert!(length > 200, "{what}: the longest bar is {length} pixels");
    let scale = f64::from(length) / value;
    check_scaled(bars, wanted, scale, what);
    scale
}

/// Asserts that bars are so many pixels a unit, within their grain.
fn check_scaled(bars: &[(u32, u32, u32)], wanted: &[f64], scale: f64, what: &str) {
    assert_eq!(bars.len(), wanted.len(), "{what}: {bars:?}");
    for (bar, wanted) in bars.iter().zip(wanted) {
        let expected = wanted * scale;
        assert!((f64::from(bar.2) - expected).abs() < 6.0, "{what}: {} pixels, not {expected:.1}", bar.2);
    }
}

/// Without the swatches of the legend, which stand to the left of where bars start.
fn swatchless(bars: Vec<(u32, u32, u32)>) -> Vec<(u32, u32, u32)> {
    // Most bars are bars.
    let mut starts: Vec<u32> = bars.iter().map(|b| b.1).collect();
    starts.sort_unstable();
    let usual = starts[starts.len() / 2];
    bars.into_iter().filter(|b| b.1.abs_diff(usual) <= 3).collect()
}

/// The row behind the first plot of two: where the last colour ends for the first time.
fn first_gap(picture: &RgbImage, variants: &[Value]) -> u32 {
    let last = hue(variants[variants.len() - 1]["name"].as_str().unwrap());
    bars(picture, last)[0].0 + 24
}
