//! How many threads to start, because the number of processors of the machine is the wrong answer in a container: there,
//! an affinity mask or a quota of processor time decides, and threads beyond it only take turns.

use std::path::{Path, PathBuf};

/// The environment variables that lower the number of threads, the first that is set to a number above zero wins.
pub const THREAD_VARIABLES: [&str; 2] = ["PLANISH_THREADS", "OMP_NUM_THREADS"];

/// The number of threads a pool should have where the user did not say: the smallest of
///
/// - the processors this process may run on (`sched_getaffinity`; elsewhere what the standard library knows),
/// - the quota of its control groups and of their parents, rounded up to whole processors (`cpu.max` of version 2,
///   `cpu.cfs_quota_us` and `cpu.cfs_period_us` of version 1),
/// - `PLANISH_THREADS`, or where that is not a number above zero, `OMP_NUM_THREADS`.
///
/// Never 0.
pub fn default_threads() -> usize {
    let asked = THREAD_VARIABLES.iter().find_map(|name| asked_threads(&std::env::var(name).ok()?));
    [Some(affinity()), quota(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")), asked]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(1)
        .max(1)
}

/// The number above zero that an environment variable asks for. OpenMP allows a list, one number for each nesting level:
/// the first counts.
fn asked_threads(value: &str) -> Option<usize> {
    value.split(',').next()?.trim().parse().ok().filter(|&threads| threads > 0)
}

#[cfg(target_os = "linux")]
fn affinity() -> usize {
    // SAFETY: `cpu_set_t` is an array of integers, for which all zeros is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is a live local of the size told; pid 0 is the calling thread.
    let answer = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if answer == 0 {
        // SAFETY: the set was filled in by the call above.
        let count = unsafe { libc::CPU_COUNT(&set) };
        if count > 0 {
            return count as usize;
        }
    }
    // More than 1024 processors do not fit the set.
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

#[cfg(not(target_os = "linux"))]
fn affinity() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// The smallest quota, in whole processors, of the control groups listed in `list` (`/proc/self/cgroup`) and their parents
/// under `root`. `None` where nothing limits.
fn quota(list: &Path, root: &Path) -> Option<usize> {
    let list = std::fs::read_to_string(list).ok()?;
    let mut smallest: Option<usize> = None;
    for line in list.lines() {
        // "id:controllers:/path"; version 2 has id 0 and no controllers.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (base, read): (PathBuf, fn(&Path) -> Option<usize>) = match controllers {
            "" => (root.to_path_buf(), quota_v2),
            _ if controllers.split(',').any(|name| name == "cpu") => {
                let joint = root.join(controllers);
                (if joint.is_dir() { joint } else { root.join("cpu") }, quota_v1)
            }
            _ => continue,
        };
        // In a container the path may be the host's, while the mount shows the container's own group as the root: what does
        // not exist is skipped on the way up.
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            if let Some(limit) = read(&base.join(group)) {
                smallest = Some(smallest.map_or(limit, |earlier| earlier.min(limit)));
            }
        }
    }
    smallest
}

/// `quota / period` rounded up.
fn whole_processors(quota: &str, period: &str) -> Option<usize> {
    let (quota, period): (usize, usize) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (period > 0).then(|| quota.div_ceil(period).max(1))
}

/// The quota in a version 2 group's `cpu.max`: "quota period" or "max period".
fn quota_v2(group: &Path) -> Option<usize> {
    let limit = std::fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = limit.split_once(' ')?;
    whole_processors(quota, period)
}

/// The quota of a version 1 group; -1 means none.
fn quota_v1(group: &Path) -> Option<usize> {
    let quota = std::fs::read_to_string(group.join("cpu.cfs_quota_us")).ok()?;
    let period = std::fs::read_to_string(group.join("cpu.cfs_period_us")).ok()?;
    whole_processors(&quota, &period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_default_is_at_least_one_and_at_most_the_affinity() {
        let threads = default_threads();
        assert!((1..=affinity()).contains(&threads));
    }

    #[test]
    fn variables_ask_for_numbers_above_zero() {
        let answers = ["4", " 2 ", "3,1", "0", "", "many", "-1"].map(asked_threads);
        assert_eq!(answers, [Some(4), Some(2), Some(3), None, None, None, None]);
    }

    #[test]
    fn quotas_of_both_versions_are_rounded_up_and_parents_count() {
        let folder = std::env::temp_dir().join(format!("planish-cgroup-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("v2/list", "0::/pod/app\n");
        write("v2/root/pod/app/cpu.max", "max 100000\n");
        write("v2/root/pod/cpu.max", "250000 100000\n");
        write("v1/list", "7:memory:/x\n3:cpu,cpuacct:/x\n");
        write("v1/root/cpu,cpuacct/x/cpu.cfs_quota_us", "50000\n");
        write("v1/root/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
        write("v1/root/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
        write("v1/root/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
        let quota_of = |name: &str| quota(&folder.join(name).join("list"), &folder.join(name).join("root"));
        assert_eq!(quota_of("v2"), Some(3));
        assert_eq!(quota_of("v1"), Some(1));
        assert_eq!(quota_of("none"), None);
        fs::remove_dir_all(&folder).unwrap();
    }
}
