//! The machine and the process: what a measurement must be read with, and what a tuning result is valid for.

use serde::Serialize;
use std::fs;

/// The version of planish.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is known of the machine. What cannot be found out is said to be "unknown".
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Threads that can run at once, as the operating system allows this process.
    pub threads: usize,
    /// Operating system.
    pub os: &'static str,
    /// Instruction set architecture.
    pub arch: &'static str,
    /// Changes whenever a measurement made here may no longer hold: another processor, other instructions.
    pub fingerprint: String,
}

impl Machine {
    /// This machine.
    pub fn this() -> Machine {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Machine::from_cpuinfo(&info, threads)
    }

    fn from_cpuinfo(info: &str, threads: usize) -> Machine {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        let first = |keys: &[&str]| keys.iter().find_map(|key| field(info, key));
        let cpu =
            first(&["model name", "Processor", "cpu model", "CPU part"]).unwrap_or("unknown").to_string();
        let mut hash = Fnv::new();
        for part in [os, arch, cpu.as_str(), first(&["stepping", "CPU revision"]).unwrap_or("")] {
            hash.add(part);
        }
        // The order of flags means nothing and some kernels change it.
        let mut flags: Vec<&str> = first(&["flags", "Features"]).unwrap_or("").split_whitespace().collect();
        flags.sort_unstable();
        flags.iter().for_each(|flag| hash.add(flag));
        let words: Vec<&str> =
            cpu.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
        let slug: String = words.join("-").to_lowercase().chars().take(48).collect();
        let fingerprint = format!("{arch}-{os}-{slug}-{threads}t-{:016x}", hash.0);
        Machine { cpu, threads, os, arch, fingerprint }
    }
}

/// The first value of `key` in text of `key : value` lines.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key && !value.trim().is_empty()).then(|| value.trim())
    })
}

/// FNV-1a: the same in every version of planish and of Rust, unlike the standard hasher.
struct Fnv(u64);

impl Fnv {
    fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
    fn add(&mut self, text: &str) {
        for byte in text.bytes().chain([0]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// The most memory that this process has held at once, in bytes, where the operating system tells (Linux).
pub fn peak_resident_bytes() -> Option<u64> {
    resident(&fs::read_to_string("/proc/self/status").ok()?)
}

fn resident(status: &str) -> Option<u64> {
    field(status, "VmHWM")?.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nstepping\t: 3\nflags\t\t: fpu avx2 fma\n\n\
                        processor\t: 1\nmodel name\t: Other\n";

    #[test]
    fn the_fingerprint_follows_the_processor() {
        let machine = Machine::from_cpuinfo(INFO, 2);
        assert_eq!(machine.cpu, "Some CPU @ 2.0GHz");
        assert!(machine.fingerprint.contains("-some-cpu-2-0ghz-2t-"), "{}", machine.fingerprint);
        let same = Machine::from_cpuinfo(&INFO.replace("fpu avx2 fma", "fma fpu avx2"), 2);
        assert_eq!(same.fingerprint, machine.fingerprint);
        for (from, to) in [("avx2", "avx512f"), ("stepping\t: 3", "stepping\t: 4"), ("Some", "Any")] {
            assert_ne!(Machine::from_cpuinfo(&INFO.replace(from, to), 2).fingerprint, machine.fingerprint);
        }
        assert_eq!(Machine::from_cpuinfo("", 1).cpu, "unknown");
        assert_eq!(Machine::this(), Machine::this());
    }

    #[test]
    fn peak_memory_is_read_where_there_is_any() {
        assert_eq!(resident("Name:\tx\nVmHWM:\t  1234 kB\n"), Some(1234 * 1024));
        assert_eq!(resident("VmHWM:\tmuch\n"), None);
        if cfg!(target_os = "linux") {
            assert!(peak_resident_bytes().unwrap() > 1 << 20);
        }
    }
}
