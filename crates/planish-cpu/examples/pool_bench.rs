//! The thread pool against rayon on what a network looks like: 100 regions of about 20 microseconds of work.
//!
//! `cargo run --release -p planish-cpu --example pool_bench [threads]`

use planish_cpu::threads::ThreadPool;
use rayon::prelude::*;
use std::hint::black_box;
use std::time::{Duration, Instant};

const REGIONS: usize = 100;
const TASKS: usize = 8;
const SAMPLES: usize = 201;

/// About 20 microseconds / TASKS of dependent arithmetic.
fn task(index: usize) {
    let mut x = index as f32;
    for _ in 0..600 {
        x = black_box(x) * 0.999 + 1.0;
    }
    black_box(x);
}

fn time(f: impl FnOnce()) -> Duration {
    let start = Instant::now();
    f();
    start.elapsed()
}

fn main() {
    let threads = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(2);
    let ours = ThreadPool::new(threads);
    let rayon =
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("rayon starts its threads");
    let serial = || (0..REGIONS).for_each(|_| (0..TASKS).for_each(task));
    let planish = || {
        let _scope = ours.activate();
        (0..REGIONS).for_each(|_| ours.run(TASKS, &task));
    };
    // Inside `install` the caller is a worker of rayon's, its fastest way.
    let theirs = || rayon.install(|| (0..REGIONS).for_each(|_| (0..TASKS).into_par_iter().for_each(task)));
    let candidates: [(&str, &dyn Fn()); 3] =
        [("one thread", &serial), ("planish", &planish), ("rayon", &theirs)];
    let mut times = vec![Vec::new(); candidates.len()];
    for _ in 0..SAMPLES {
        // Interleaved, and apart, as requests are: a run starts with the workers asleep.
        for ((_, run), times) in candidates.iter().zip(&mut times) {
            std::thread::sleep(Duration::from_millis(2));
            times.push(time(run));
        }
    }
    println!("{threads} threads, {REGIONS} regions of {TASKS} tasks, {SAMPLES} runs each");
    for ((name, _), times) in candidates.iter().zip(&mut times) {
        times.sort();
        let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e6 / REGIONS as f64;
        println!(
            "{name:>12}: {:6.1} us a region at best, {:6.1} median, {:6.1} at 90 %",
            at(0),
            at(50),
            at(90)
        );
    }
}
