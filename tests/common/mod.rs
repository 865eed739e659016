//! What the tests of the commands share: a folder, the binary, and the form of its answers.

#![allow(dead_code, reason = "each test file is a program of its own and uses its part")]

use planish::files::cifar10::Cifar10;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A hundred labelled pictures of CIFAR-10.
pub const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/cifar10-test-100.bin");

/// A folder for one test, removed when dropped. The commands' cache lies in it, too.
pub struct Folder(pub PathBuf);

impl Folder {
    /// A new folder; `test` tells it from those of other tests.
    pub fn new(test: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("planish-command-line-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
    /// Where a file of this name lies, or would.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }
    /// Writes a file; where it lies.
    pub fn file(&self, name: &str, content: &[u8]) -> String {
        std::fs::write(self.0.join(name), content).unwrap();
        self.path(name)
    }
    /// The binary with these arguments, ready to run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_planish"));
        command.args(arguments).env("PLANISH_CACHE_DIR", self.0.join("cache"));
        command
    }
    /// Runs the binary.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
    /// The JSON object that a command prints: one, and nothing else on standard output.
    pub fn json(&self, arguments: &[&str], keys: &[&str]) -> Value {
        let output = self.run(arguments);
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{arguments:?}: {err}");
        let value: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{arguments:?}: {e}\n{out}"));
        assert_keys(&value, keys);
        value
    }
    /// The message of a command that must fail without a panic and without a word on standard output.
    pub fn error(&self, arguments: &[&str]) -> String {
        failure(arguments, &self.run(arguments))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Standard output and standard error.
pub fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// The message of a command that failed as it should: without a panic, with status 1.
pub fn failure(arguments: &[&str], output: &Output) -> String {
    let (out, err) = texts(output);
    assert!(!err.contains("panicked"), "{arguments:?}: {err}");
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {err}");
    assert!(out.is_empty(), "{arguments:?}: {out}");
    assert!(err.starts_with("planish: "), "{arguments:?}: {err}");
    err
}

/// Asserts that an object has these keys and no others.
pub fn assert_keys(value: &Value, keys: &[&str]) {
    let mut wanted = keys.to_vec();
    wanted.sort_unstable();
    let found: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(found, wanted);
}

/// A number of a report.
pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Writes the first `count` embedded pictures as BMP files into the folder `p` of `folder`; where that lies.
pub fn pictures(folder: &Folder, count: usize) -> String {
    std::fs::create_dir_all(folder.0.join("p")).unwrap();
    let all = Cifar10::read(Path::new(PICTURES)).unwrap();
    for i in 0..count {
        let picture = all.picture(i).unwrap();
        let (w, h) = (picture.width() as u32, picture.height() as u32);
        let mut bmp = vec![b'B', b'M'];
        for field in [54 + 3 * w * h, 0, 54, 40, w, h.wrapping_neg(), 1 | 24 << 16, 0, 3 * w * h, 0, 0, 0, 0]
        {
            bmp.extend(field.to_le_bytes());
        }
        bmp.extend(picture.pixels().chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]]));
        std::fs::write(folder.0.join(format!("p/{i:03}.bmp")), bmp).unwrap();
    }
    folder.path("p")
}

/// The classes of the first `count` embedded pictures, as a table of the files that [`pictures`] writes.
pub fn labels(folder: &Folder, count: usize) -> String {
    let all = Cifar10::read(Path::new(PICTURES)).unwrap();
    let lines = (0..count).map(|i| format!("{i:03}.bmp\t{}\n", all.get(i).unwrap().0));
    folder.file("labels.tsv", lines.collect::<String>().as_bytes())
}
