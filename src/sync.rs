//! What threads share: locks, condition variables, atomic words, threads.
//!
//! Contract: std's own. `log` and the files in memory of `vfs` take theirs from here, so that under `cfg(loom)`, and
//! there in tests only, loom runs the same code through the orders in which threads can take their steps
//! (`cargo xtask loom`). Under loom no time passes: a wait with a time-out ends when somebody notifies and never else,
//! so a wake-up that is lost is a deadlock, which loom reports; to sleep is to let others go first.

#[cfg(not(all(test, loom)))]
mod native {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, RwLock, RwLockReadGuard};
    pub(crate) use std::thread;
}
#[cfg(not(all(test, loom)))]
pub(crate) use native::*;

#[cfg(all(test, loom))]
mod modelled {
    use std::sync::atomic::Ordering;
    use std::sync::{Arc, LockResult};
    use std::time::{Duration, Instant};

    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, fence};
    pub(crate) use loom::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

    /// Runs `model` in every order of its threads' steps in which at most `preemptions` times a thread that could go on
    /// has to let another one go first, and prints how many orders that were.
    pub(crate) fn explore(name: &str, preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
        let orders = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let begun = Instant::now();
        let mut builder = loom::model::Builder::new();
        // The environment may ask for more (`LOOM_MAX_PREEMPTIONS`).
        let preemptions = builder.preemption_bound.unwrap_or(preemptions);
        builder.preemption_bound = Some(preemptions);
        builder.max_branches = 50_000;
        let (count, model) = (Arc::clone(&orders), Arc::new(model));
        builder.check(move || {
            count.fetch_add(1, Ordering::Relaxed);
            let model = Arc::clone(&model);
            thread::spawn(move || model()).join().unwrap();
        });
        let (orders, seconds) = (orders.load(Ordering::Relaxed), begun.elapsed().as_secs_f64());
        println!("loom: {name}: {orders} orders, at most {preemptions} preemptions, {seconds:.1} s");
    }

    /// Threads that loom schedules.
    pub(crate) mod thread {
        pub(crate) use loom::thread::JoinHandle;

        /// In words: eight times what loom gives a thread that nobody asked for more.
        const STACK_WORDS: usize = 1 << 15;

        pub(crate) struct Builder(loom::thread::Builder);

        impl Builder {
            pub(crate) fn new() -> Self {
                Self(loom::thread::Builder::new().stack_size(STACK_WORDS))
            }

            pub(crate) fn name(self, name: String) -> Self {
                Self(self.0.name(name))
            }

            pub(crate) fn spawn<T: Send + 'static>(
                self,
                run: impl FnOnce() -> T + Send + 'static,
            ) -> std::io::Result<JoinHandle<T>> {
                self.0.spawn(run)
            }
        }

        pub(crate) fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
            Builder::new().spawn(run).unwrap()
        }

        pub(crate) fn sleep(_: std::time::Duration) {
            loom::thread::yield_now();
        }
    }

    /// loom's, and the wait that it lacks.
    #[derive(Debug, Default)]
    pub(crate) struct Condvar(loom::sync::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
            self.0.wait(guard)
        }

        pub(crate) fn wait_timeout<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            _: Duration,
        ) -> LockResult<(MutexGuard<'a, T>, ())> {
            Ok((self.0.wait(guard).unwrap(), ()))
        }

        pub(crate) fn wait_timeout_while<'a, T>(
            &self,
            mut guard: MutexGuard<'a, T>,
            _: Duration,
            mut condition: impl FnMut(&mut T) -> bool,
        ) -> LockResult<(MutexGuard<'a, T>, ())> {
            while condition(&mut guard) {
                guard = self.0.wait(guard).unwrap();
            }
            Ok((guard, ()))
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    /// A value that is set once, seen by whoever sees that it is.
    #[derive(Debug)]
    pub(crate) struct OnceLock<T> {
        is_set: AtomicBool,
        value: std::sync::OnceLock<T>,
    }

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            Self { is_set: AtomicBool::new(false), value: std::sync::OnceLock::new() }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            if self.is_set.load(Ordering::Acquire) { self.value.get() } else { None }
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            self.value.set(value)?;
            self.is_set.store(true, Ordering::Release);
            Ok(())
        }
    }
}
#[cfg(all(test, loom))]
pub(crate) use modelled::*;
