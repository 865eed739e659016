//! The machine and the process: what a measurement must be read with.

use std::fs;

/// The processor's name; "unknown" where the operating system does not tell.
pub fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = ["model name", "Processor", "cpu model", "CPU part"].iter().find_map(|key| field(&info, key));
    name.unwrap_or("unknown").to_string()
}

/// The most memory that this process has held at once, in bytes, where the operating system tells (Linux).
pub fn peak_resident_bytes() -> Option<u64> {
    resident(&fs::read_to_string("/proc/self/status").ok()?)
}

/// The first value of `key` in text of `key : value` lines.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key && !value.trim().is_empty()).then(|| value.trim())
    })
}

fn resident(status: &str) -> Option<u64> {
    field(status, "VmHWM")?.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_names() {
        let info = "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\n\nprocessor\t: 1\nmodel name\t: Other\n";
        assert_eq!(field(info, "model name"), Some("Some CPU @ 2.0GHz"));
        assert_eq!(field(info, "flags"), None);
        assert!(!processor().is_empty());
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
