//! A value that every process has for itself.
//!
//! Contract: in the process that made it, it is the value; in a forked child the first use makes another one, without
//! taking, dropping or unlocking anything that was inherited: a thread of the parent that does not exist in the child
//! may hold any of its locks. What was inherited is leaked there.

#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::fork::ForkGuard;

/// A value of this process. Reading costs two loads.
pub struct PerProcess<T> {
    current: AtomicPtr<Owned<T>>,
    /// Owns values like a `Box`, and is `Send` and `Sync` only if they are.
    owns: PhantomData<T>,
}

struct Owned<T> {
    guard: ForkGuard,
    value: T,
}

impl<T> PerProcess<T> {
    /// The value of the process that calls this.
    pub fn new(value: T) -> Self {
        Self { current: AtomicPtr::new(Owned::leak(value)), owns: PhantomData }
    }

    /// The value of this process. In a child that has none yet, `make` makes it from the inherited one, of which it may
    /// only read what never changes. If two threads come at once, one of the values they make is dropped.
    #[inline]
    pub fn get(&self, make: impl FnOnce(&T) -> T) -> &T {
        let known = self.current.load(Ordering::Acquire);
        // SAFETY: `current` always points to a leaked box. It is freed by `drop`, which needs the only reference, or
        // replaced by a child below, which leaks it.
        let known_owned = unsafe { &*known };
        if !known_owned.guard.forked() {
            return &known_owned.value;
        }
        self.replace(known, make(&known_owned.value))
    }

    #[cold]
    fn replace(&self, known: *mut Owned<T>, value: T) -> &T {
        let fresh = Owned::leak(value);
        let now = match self.current.compare_exchange(known, fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => fresh,
            Err(now) => {
                // SAFETY: `fresh` was leaked above and nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                now
            }
        };
        // SAFETY: as in `get`.
        unsafe { &(*now).value }
    }
}

impl<T> Owned<T> {
    fn leak(value: T) -> *mut Self {
        Box::into_raw(Box::new(Self { guard: ForkGuard::new(), value }))
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let current = *self.current.get_mut();
        // SAFETY: `current` points to a leaked box, and this is the only reference to it.
        let owned = unsafe { Box::from_raw(current) };
        if owned.guard.forked() {
            std::mem::forget(owned);
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for PerProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerProcess").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::super::fork::tests::in_forked_child;
    use super::*;

    #[test]
    fn a_child_makes_its_own_even_if_the_parents_is_locked() {
        let value = PerProcess::new(Mutex::new(1));
        let parent = value.get(|_| unreachable!());
        let _locked = parent.lock().unwrap();
        let code = in_forked_child(|| {
            let mine = value.get(|_| Mutex::new(2));
            let first = *mine.lock().unwrap();
            *mine.lock().unwrap() = 3;
            let grandchild = in_forked_child(|| *value.get(|_| Mutex::new(4)).lock().unwrap());
            first * 100 + *value.get(|_| Mutex::new(9)).lock().unwrap() * 10 + grandchild
        });
        assert_eq!(code, 234);
    }

    #[test]
    fn what_was_inherited_is_not_dropped() {
        struct Counted<'a>(&'a AtomicU8);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let drops = AtomicU8::new(0);
        let mut unused = Some(PerProcess::new(Counted(&drops)));
        let mut used = Some(PerProcess::new(Counted(&drops)));
        let code = in_forked_child(|| {
            drop(unused.take());
            let of_parents = drops.load(Ordering::SeqCst);
            if let Some(used) = &used {
                used.get(|_| Counted(&drops));
            }
            drop(used.take());
            of_parents * 10 + drops.load(Ordering::SeqCst)
        });
        assert_eq!(code, 1);
        drop((unused, used));
        assert_eq!(drops.load(Ordering::SeqCst), 2);
    }
}
