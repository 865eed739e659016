//! Every saved input through every target, and a few seconds of changes to them: the findings of fuzzing stay fixed on
//! machines that cannot fuzz.

use planish_fuzz::mutate::{Random, mutated};
use planish_fuzz::{TARGETS, reference_cases};
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut paths: Vec<PathBuf> = TARGETS
        .iter()
        .flat_map(|(name, _)| std::fs::read_dir(folder.join(name)).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Names the input of a panic, which says nothing of it itself.
struct Named<'a>(&'a str, String);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} fails on {}", self.0, self.1);
        }
    }
}

#[test]
fn saved_inputs_are_survived() {
    let corpus = corpus();
    assert!(corpus.len() > 40, "the corpus is gone");
    let total: usize = corpus.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(total < 1 << 20, "{total} bytes are too much for a repository");
    for (path, bytes) in &corpus {
        for (name, body) in TARGETS {
            let _named = Named(name, path.display().to_string());
            let begun = Instant::now();
            body(bytes);
            assert!(begun.elapsed() < Duration::from_secs(20), "took {:?}", begun.elapsed());
        }
    }
}

#[test]
fn changed_inputs_are_survived() {
    let corpus: Vec<Vec<u8>> = corpus().into_iter().map(|(_, bytes)| bytes).collect();
    for (name, body) in TARGETS {
        let mut random = Random::new(7);
        for n in 0..6000 {
            let bytes = mutated(&corpus, &mut random);
            let _named = Named(name, format!("change {n}: {bytes:?}"));
            body(&bytes);
        }
    }
    assert!(reference_cases() > 100, "only {} graphs ran", reference_cases());
}
