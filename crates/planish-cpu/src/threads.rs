//! The thread pool that every kernel runs on, because a network is a hundred small parallel regions in a few
//! milliseconds: what counts is the time from "here are the tasks" to "all are done", not fairness or work stealing
//! between unrelated jobs.
//!
//! How it works. [`ThreadPool::run`] publishes a region (a function and a number of tasks) in one atomic word; workers
//! that notice it enter, the caller takes part from the first moment. Every participant first takes the tasks of its own
//! range (the same range in every region, so that data stays in that core's cache from one layer to the next) and then
//! helps the others. When no task is left the caller closes the region and waits only for those workers that
//! entered: one that the operating system has not scheduled yet costs nothing.
//!
//! Idle workers sleep. Only while a scope from [`ThreadPool::activate`] is open (a session that runs) do they spin
//! between regions, first with pause instructions, then giving way to other threads, and never for longer than
//! half a millisecond. With more threads than cores this degrades to yielding.
//!
//! A second caller (another session on the same pool, or a task that calls `run` itself) does not wait for the workers: it
//! runs its tasks on its own thread.
//!
//! Against rayon 1.12 on 2 threads of a Zen 4 (`examples/pool_bench.rs`: 100 regions of 8 tasks, 19.3 µs of work each, 2
//! ms of sleep between runs): 10.3 µs a region at best here, 11.8 µs with rayon, so 0.6 and 2.1 µs over half the work.
//! With other programs on one of the two cores most runs cost no more than on one thread, because a worker that is not
//! scheduled is not waited for; with rayon they cost two to three times that.

use std::any::Any;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::denormals::FlushDenormals;

/// How long an idle worker spins with pause instructions only, while a session runs.
const SPIN: Duration = Duration::from_micros(30);
/// How long it keeps looking at all, yielding its core between looks, before it sleeps.
const LINGER: Duration = Duration::from_micros(500);
/// Pause instructions between two looks at the clock.
const PAUSES: usize = 32;

/// The region word: the epoch in the high half, then one bit "open", then the number of workers inside.
const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const EPOCH_SHIFT: u32 = 32;

/// One region of work. Lives on the caller's stack for as long as any worker is inside.
struct Job<'a> {
    /// Called with the participant and the task.
    task: &'a (dyn Fn(usize, usize) + Sync),
    tasks: usize,
    ranges: usize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The next task of one participant's range, alone on its cache lines.
#[repr(align(128))]
#[derive(Default)]
struct Next(AtomicUsize);

/// What a worker needs to be woken.
#[repr(align(128))]
#[derive(Default)]
struct Sleeper {
    asleep: AtomicBool,
    thread: Mutex<Option<Thread>>,
}

struct Shared {
    region: AtomicU64,
    job: AtomicPtr<Job<'static>>,
    /// Held by the caller whose region the workers serve.
    busy: AtomicBool,
    /// Open activation scopes.
    active: AtomicUsize,
    shutdown: AtomicBool,
    caller_sleeps: AtomicBool,
    caller: Mutex<Option<Thread>>,
    next: Vec<Next>,
    sleepers: Vec<Sleeper>,
}

/// A fixed set of threads that share the tasks of one region at a time.
///
/// Dropping the pool ends its threads.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// An open scope in which the pool's workers stay awake between regions, and the calling thread flushes denormals to
/// zero. Ends when dropped. Bound to the thread that opened it.
pub struct Active<'a> {
    shared: &'a Shared,
    _denormals: FlushDenormals,
    _this_thread: PhantomData<*const ()>,
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.shared.active.fetch_sub(1, Ordering::Release);
    }
}

impl std::fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThreadPool").field("threads", &self.threads()).finish()
    }
}

impl ThreadPool {
    /// A pool of `threads` threads, the caller of [`run`](Self::run) being one of them: `threads - 1` are started. 0
    /// counts as 1. Threads that the system refuses to start are left out.
    pub fn new(threads: usize) -> Self {
        let wanted = threads.max(1);
        let shared = Arc::new(Shared {
            region: AtomicU64::new(0),
            job: AtomicPtr::new(ptr::null_mut()),
            busy: AtomicBool::new(false),
            active: AtomicUsize::new(0),
            shutdown: AtomicBool::new(false),
            caller_sleeps: AtomicBool::new(false),
            caller: Mutex::new(None),
            next: (0..wanted).map(|_| Next::default()).collect(),
            sleepers: (0..wanted).map(|_| Sleeper::default()).collect(),
        });
        let mut workers = Vec::with_capacity(wanted - 1);
        for index in 1..wanted {
            let theirs = Arc::clone(&shared);
            let started =
                thread::Builder::new().name(format!("planish-{index}")).spawn(move || theirs.work(index));
            let Ok(handle) = started else { break };
            *lock(&shared.sleepers[index].thread) = Some(handle.thread().clone());
            workers.push(handle);
        }
        Self { shared, workers }
    }

    /// The number of threads, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Keeps the workers awake between regions until the returned scope is dropped. Open one around a network's run.
    pub fn activate(&self) -> Active<'_> {
        if self.shared.active.fetch_add(1, Ordering::SeqCst) == 0 {
            self.shared.wake(self.threads());
        }
        Active { shared: &self.shared, _denormals: FlushDenormals::new(), _this_thread: PhantomData }
    }

    /// Calls `task(i)` once for every `i` in `0..tasks`, on all threads of the pool, and returns when all are done.
    ///
    /// Tasks run with denormals flushed to zero, on the caller's thread too. Where another region is under way (another
    /// thread's, or the one this call is made from) all tasks run on the calling thread.
    ///
    /// # Panics
    /// When a task panics, no further tasks are started and the first panic is raised again here, after all
    /// threads have left the region.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.run_with_slots(tasks, &|_, i| task(i));
    }

    /// As [`run`](Self::run), with `task(slot, i)`: no two tasks of a call run with the same slot at a time, and slots are
    /// below [`threads`](Self::threads). Memory that a task needs for itself is shared out by them.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_with_slots(&self, tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        if tasks == 0 {
            return;
        }
        let _denormals = FlushDenormals::new();
        let shared = &*self.shared;
        if tasks == 1
            || self.workers.is_empty()
            || shared.busy.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            (0..tasks).for_each(|i| task(0, i));
            return;
        }
        let job = Job { task, tasks, ranges: self.threads().min(tasks), panic: Mutex::new(None) };
        shared.open(&job);
        shared.take_part(0, &job);
        shared.close();
        shared.busy.store(false, Ordering::Release);
        if let Some(payload) = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(payload);
        }
    }

    /// Cuts `0..count` into ranges of at least `grain` (but for the last) and calls `f` once for each, in parallel.
    ///
    /// The cut depends on the number of threads: `f` must give the same results however its range was cut.
    pub fn run_ranges(&self, count: usize, grain: usize, f: impl Fn(Range<usize>) + Sync) {
        // A few ranges for each thread, so that one delayed thread does not hold up the region.
        let most = self.threads() * if self.threads() > 1 { 4 } else { 1 };
        let step = count.div_ceil(most).max(grain.max(1));
        let tasks = count.div_ceil(step);
        self.run(tasks, &|i| f(i * step..((i + 1) * step).min(count)));
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.shutdown.store(true, Ordering::SeqCst);
        self.shared.wake(self.threads());
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks, so there is nothing to report here.
            let _ = worker.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Publishes `job` and wakes the workers it can use. The caller must hold `busy`, and call [`close`](Self::close)
    /// before `job` goes away.
    fn open(&self, job: &Job<'_>) {
        for (range, next) in self.next[..job.ranges].iter().enumerate() {
            next.0.store(range * job.tasks / job.ranges, Ordering::Relaxed);
        }
        self.job.store(ptr::from_ref(job).cast_mut().cast(), Ordering::Relaxed);
        let epoch = (self.region.load(Ordering::Relaxed) >> EPOCH_SHIFT) as u32;
        let epoch = u64::from(epoch.wrapping_add(1)) << EPOCH_SHIFT;
        // Sequentially consistent with `asleep` in `sleep`: either the worker sees this region or `wake` sees the worker.
        self.region.store(epoch | OPEN, Ordering::SeqCst);
        self.wake(job.tasks.min(self.next.len()));
    }

    /// Lets no further worker in and waits until those inside have left.
    fn close(&self) {
        let mut state = self.region.fetch_and(!OPEN, Ordering::AcqRel);
        if state & INSIDE == 0 {
            return;
        }
        let start = Instant::now();
        loop {
            let waited = start.elapsed();
            for _ in 0..PAUSES {
                state = self.region.load(Ordering::Acquire);
                if state & INSIDE == 0 {
                    return;
                }
                std::hint::spin_loop();
            }
            if waited > LINGER {
                break;
            } else if waited > SPIN {
                thread::yield_now();
            }
        }
        *lock(&self.caller) = Some(thread::current());
        self.caller_sleeps.store(true, Ordering::SeqCst);
        while self.region.load(Ordering::SeqCst) & INSIDE != 0 {
            thread::park();
        }
        self.caller_sleeps.store(false, Ordering::Relaxed);
    }

    /// Wakes those of the workers `1..count` that sleep.
    fn wake(&self, count: usize) {
        fence(Ordering::SeqCst);
        for sleeper in self.sleepers.iter().take(count).skip(1) {
            if sleeper.asleep.load(Ordering::Relaxed)
                && sleeper.asleep.swap(false, Ordering::AcqRel)
                && let Some(thread) = lock(&sleeper.thread).as_ref()
            {
                thread.unpark();
            }
        }
    }

    /// Runs tasks of `job` until none is left: first those of the participant's own range, then the others'.
    fn take_part(&self, participant: usize, job: &Job<'_>) {
        let done = catch_unwind(AssertUnwindSafe(|| {
            for offset in 0..job.ranges {
                let range = (participant + offset) % job.ranges;
                let (next, end) = (&self.next[range].0, (range + 1) * job.tasks / job.ranges);
                while next.load(Ordering::Relaxed) < end {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index < end {
                        (job.task)(participant, index);
                    }
                }
            }
        }));
        if let Err(payload) = done {
            for (range, next) in self.next[..job.ranges].iter().enumerate() {
                next.0.store((range + 1) * job.tasks / job.ranges, Ordering::Relaxed);
            }
            lock(&job.panic).get_or_insert(payload);
        }
    }

    /// A worker's life.
    fn work(&self, participant: usize) {
        let _denormals = FlushDenormals::new();
        let mut seen = 0;
        while let Some(state) = self.wait_for_region(participant, seen) {
            seen = state >> EPOCH_SHIFT;
            if !self.enter(seen) {
                continue;
            }
            // SAFETY: this worker is counted inside the open region, so the caller of `run`, on whose stack the job
            // lies, does not return from `close` before the `fetch_sub` below; the job was stored before the region
            // was opened, and `enter` acquired that store.
            let job = unsafe { &*self.job.load(Ordering::Relaxed) };
            self.take_part(participant, job);
            let state = self.region.fetch_sub(1, Ordering::SeqCst);
            if state & INSIDE == 1
                && self.caller_sleeps.load(Ordering::SeqCst)
                && let Some(caller) = lock(&self.caller).as_ref()
            {
                caller.unpark();
            }
        }
    }

    /// Counts a worker in, if the region of `epoch` is still open.
    fn enter(&self, epoch: u64) -> bool {
        self.region
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                (state >> EPOCH_SHIFT == epoch && state & OPEN != 0).then_some(state + 1)
            })
            .is_ok()
    }

    /// Waits for a region other than `seen` and returns its word, or `None` when the pool ends.
    fn wait_for_region(&self, participant: usize, seen: u64) -> Option<u64> {
        let fresh = |state: u64| state >> EPOCH_SHIFT != seen && state & OPEN != 0;
        let mut start = Instant::now();
        loop {
            if self.shutdown.load(Ordering::Relaxed) {
                return None;
            }
            let waited = start.elapsed();
            if waited > LINGER || self.active.load(Ordering::Relaxed) == 0 {
                self.sleep(participant, fresh);
                start = Instant::now();
            } else if waited > SPIN {
                thread::yield_now();
            }
            for _ in 0..PAUSES {
                let state = self.region.load(Ordering::Acquire);
                if fresh(state) {
                    return Some(state);
                }
                std::hint::spin_loop();
            }
        }
    }

    /// Sleeps until [`wake`](Self::wake), unless there is something to do already.
    fn sleep(&self, participant: usize, fresh: impl Fn(u64) -> bool) {
        let asleep = &self.sleepers[participant].asleep;
        asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        while asleep.load(Ordering::Acquire) {
            if fresh(self.region.load(Ordering::SeqCst)) || self.shutdown.load(Ordering::SeqCst) {
                asleep.store(false, Ordering::Relaxed);
                return;
            }
            thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    fn counts(pool: &ThreadPool, tasks: usize) -> Vec<u32> {
        let seen: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
        pool.run(tasks, &|i| {
            seen[i].fetch_add(1, Ordering::Relaxed);
        });
        seen.into_iter().map(AtomicU32::into_inner).collect()
    }

    #[test]
    fn every_index_exactly_once() {
        for threads in [0, 1, 2, 3, 7] {
            let pool = ThreadPool::new(threads);
            assert_eq!(pool.threads(), threads.max(1));
            for tasks in [0, 1, 2, 3, 5, 64, 1000] {
                let _scope = (tasks % 2 == 0).then(|| pool.activate());
                for _ in 0..50 {
                    assert!(counts(&pool, tasks).iter().all(|&n| n == 1), "{threads} threads, {tasks} tasks");
                }
            }
        }
    }

    #[test]
    fn a_slot_is_used_by_one_task_at_a_time() {
        for threads in [1, 2, 5] {
            let pool = ThreadPool::new(threads);
            let _scope = pool.activate();
            let busy: Vec<AtomicBool> = (0..threads).map(|_| AtomicBool::new(false)).collect();
            for tasks in [1, 2, 3, 100] {
                let done = AtomicU32::new(0);
                pool.run_with_slots(tasks, &|slot, _| {
                    assert!(!busy[slot].swap(true, Ordering::SeqCst), "slot {slot} of {threads}");
                    thread::yield_now();
                    busy[slot].store(false, Ordering::SeqCst);
                    done.fetch_add(1, Ordering::Relaxed);
                });
                assert_eq!(done.into_inner() as usize, tasks);
            }
        }
    }

    #[test]
    fn ranges_cover_everything_in_order() {
        let pool = ThreadPool::new(3);
        for (count, grain) in [(0, 1), (1, 0), (10, 3), (1000, 7), (5, 100)] {
            let seen = Mutex::new(Vec::new());
            pool.run_ranges(count, grain, |range| seen.lock().unwrap().push(range));
            let mut ranges = seen.into_inner().unwrap();
            ranges.sort_by_key(|range| range.start);
            let joined: Vec<usize> = ranges.into_iter().flatten().collect();
            assert_eq!(joined, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let pool = ThreadPool::new(4);
        for guilty in [0, 13, 63] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(64, &|i| assert!(i != guilty, "task {i} is guilty"));
            }));
            let message = *result.unwrap_err().downcast::<String>().unwrap();
            assert_eq!(message, format!("task {guilty} is guilty"));
            assert!(counts(&pool, 64).iter().all(|&n| n == 1));
        }
    }

    #[test]
    fn four_threads_share_a_pool() {
        let pool = ThreadPool::new(3);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let _scope = pool.activate();
                    for tasks in 0..300 {
                        assert!(counts(&pool, tasks).iter().all(|&n| n == 1));
                    }
                });
            }
        });
    }

    #[test]
    fn a_task_may_open_a_region() {
        let pool = ThreadPool::new(3);
        let total = AtomicU32::new(0);
        pool.run(8, &|_| {
            pool.run(8, &|_| {
                total.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(total.into_inner(), 64);
    }

    #[test]
    fn a_long_task_on_a_worker_is_waited_for() {
        let pool = ThreadPool::new(2);
        let done = AtomicU32::new(0);
        pool.run(2, &|i| {
            // The worker, woken from sleep, may come too late to take task 1; then the caller does.
            thread::sleep(Duration::from_millis(if i == 1 { 20 } else { 1 }));
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 2);
    }

    #[test]
    fn denormals_are_flushed_on_every_thread() {
        let pool = ThreadPool::new(3);
        let half = || std::hint::black_box(f32::MIN_POSITIVE) * std::hint::black_box(0.5);
        if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
            pool.run(64, &|_| assert_eq!(half(), 0.0));
        }
        assert!(half() > 0.0);
    }
}
