//! An idle pool costs nothing. In a process of its own, because it measures the processor time of the process.
#![cfg(target_os = "linux")]

use planish_cpu::threads::ThreadPool;
use std::time::Duration;

fn processor_time() -> Duration {
    // SAFETY: `rusage` is made of integers, for which all zeros is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is a live local.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) }, 0);
    let duration = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    duration(usage.ru_utime) + duration(usage.ru_stime)
}

#[test]
fn an_idle_pool_uses_no_processor_time() {
    let pool = ThreadPool::new(4);
    let busy = || {
        for _ in 0..100 {
            pool.run(16, &|i| {
                std::hint::black_box(i);
            });
        }
    };
    busy();
    {
        let _scope = pool.activate();
        busy();
    }
    std::thread::sleep(Duration::from_millis(20));
    let before = processor_time();
    std::thread::sleep(Duration::from_millis(200));
    let closed = processor_time() - before;
    assert!(closed < Duration::from_millis(5), "{closed:?} while no scope was open");

    // Even a scope that stays open is not spun through for longer than the workers linger.
    let _scope = pool.activate();
    std::thread::sleep(Duration::from_millis(20));
    let before = processor_time();
    std::thread::sleep(Duration::from_millis(200));
    let open = processor_time() - before;
    assert!(open < Duration::from_millis(5), "{open:?} in an open scope without regions");
}
