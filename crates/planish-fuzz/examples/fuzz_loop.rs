//! Fuzzes without libFuzzer: `cargo run --release -p planish-fuzz --example fuzz_loop -- TARGET SECONDS CORPUS [OUT] [SEED]`.
//!
//! Mutates the corpus blindly, catches panics and counts runs longer than a second. The first input for each place of a
//! panic is kept in `OUT`. For machines without a C++ compiler, and for a stable toolchain.

use planish_fuzz::mutate::{Random, mutated};
use planish_fuzz::{TARGETS, reference_cases};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Where the last panic happened and what it said.
static LAST: Mutex<String> = Mutex::new(String::new());

/// Runs take longer than this only where something is wrong.
const SLOW: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let target = arguments.first().and_then(|name| TARGETS.iter().find(|t| t.0 == name));
    let seconds = arguments.get(1).and_then(|s| s.parse().ok());
    let (Some((name, body)), Some(seconds), Some(folder)) = (target, seconds, arguments.get(2)) else {
        eprintln!("usage: fuzz_loop read_onnx|run_graph SECONDS CORPUS [OUT] [SEED]");
        return ExitCode::from(2);
    };
    let out = arguments.get(3).map(PathBuf::from);
    let seed = arguments.get(4).and_then(|s| s.parse().ok()).unwrap_or(1);
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
        *lock() = format!("{place}: {}", info.payload_as_str().unwrap_or(""));
    }));
    let corpus = files(Path::new(folder));
    println!("{name}: {} inputs, {seconds} s", corpus.len());
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    let (mut random, start, mut count) = (Random::new(seed), Instant::now(), 0u64);
    while start.elapsed() < Duration::from_secs(seconds) {
        let input = match corpus.get(count as usize) {
            Some(first) => first.clone(),
            None => mutated(&corpus, &mut random),
        };
        count += 1;
        if let Some(out) = &out {
            // There if the process dies or never comes back.
            let _ = std::fs::write(out.join(format!("{name}-current-{seed}")), &input);
        }
        let begun = Instant::now();
        let result = std::panic::catch_unwind(|| body(&input));
        let message = match result {
            Err(_) => lock().clone(),
            Ok(()) if begun.elapsed() > SLOW => format!("slow: {} s", begun.elapsed().as_secs()),
            Ok(()) => continue,
        };
        let key = key(&message);
        let times = found.entry(key).or_default();
        *times += 1;
        if *times <= 2 {
            let file = format!("{name}-{seed}-{count}");
            println!("FOUND {file} ({} bytes): {message}\n", input.len());
            if let Some(out) = &out {
                let kept = if *times == 1 && begun.elapsed() < SLOW {
                    minimised(input, *body, &message)
                } else {
                    input
                };
                let _ = std::fs::write(out.join(file), &kept);
                println!("minimised to {} bytes: {}\n", kept.len(), lock());
            }
        }
    }
    println!("{name}: {count} runs, {} compared with the reference", reference_cases());
    found.iter().for_each(|(message, times)| println!("{times} times: {message}"));
    ExitCode::from(u8::from(!found.is_empty()))
}

fn lock() -> MutexGuard<'static, String> {
    LAST.lock().unwrap_or_else(|e| e.into_inner())
}

/// What makes two panics the same: the first line without its numbers.
fn key(message: &str) -> String {
    message
        .lines()
        .next()
        .unwrap_or("")
        .chars()
        .filter(|c| !c.is_ascii_digit() && !"-.".contains(*c))
        .collect()
}

/// A shorter input with the same panic: pieces are taken out, larger ones first, then bytes are made 0.
fn minimised(mut input: Vec<u8>, body: fn(&[u8]), message: &str) -> Vec<u8> {
    let same =
        |input: &[u8]| std::panic::catch_unwind(|| body(input)).is_err() && key(&lock()) == key(message);
    let mut piece = input.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at + piece <= input.len() {
            let shorter = [&input[..at], &input[at + piece..]].concat();
            if same(&shorter) {
                input = shorter;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    for at in 0..input.len() {
        let byte = std::mem::replace(&mut input[at], 0);
        if !same(&input) {
            input[at] = byte;
        }
    }
    let _ = same(&input);
    input
}

fn files(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    paths.iter().filter_map(|p| std::fs::read(p).ok()).collect()
}
