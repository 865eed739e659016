//! A pool of threads (placeholder with the final interface until the `cpu-ops` branch lands).

/// A pool that runs a function over task indices.
#[derive(Debug)]
pub struct ThreadPool {
    threads: usize,
}

impl ThreadPool {
    /// A pool of this many threads, the caller included.
    pub fn new(threads: usize) -> Self {
        Self { threads: threads.max(1) }
    }

    /// How many threads take part, the caller included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `body` once for every index below `tasks`; returns when all are done.
    pub fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || {
            loop {
                let task = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if task >= tasks {
                    break;
                }
                body(task);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads.min(tasks) {
                scope.spawn(work);
            }
            work();
        });
    }
}
