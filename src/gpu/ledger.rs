//! Which bytes of device memory executables have, and how many they may have.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{Error, Result};

/// The bytes that all executables of a device have together.
#[derive(Debug)]
pub(super) struct Ledger {
    most: u64,
    held: AtomicU64,
}

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    ledger: Arc<Ledger>,
    bytes: u64,
}

impl Ledger {
    pub(super) fn new(most: Option<u64>) -> Arc<Self> {
        Arc::new(Ledger { most: most.unwrap_or(u64::MAX), held: AtomicU64::new(0) })
    }

    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Takes so many bytes for `what`, or says how many are lacking.
    pub(super) fn take(self: &Arc<Self>, what: &str, bytes: u64) -> Result<Lease> {
        let more = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= self.most);
        match self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Lease { ledger: Arc::clone(self), bytes }),
            Err(held) => Err(Error::Limit {
                what: format!("bytes of device memory, {bytes} for {what} beside the {held} that executables have"),
                value: held.saturating_add(bytes),
                limit: self.most,
                hint: "trim executables that wait (Executable::trim), drop those that are done with, or allow more (Bounds::memory)"
                    .into(),
            }),
        }
    }
}

impl Lease {
    /// Makes a lease of its own of a part of the bytes.
    pub(super) fn split(&mut self, bytes: u64) -> Lease {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Lease { ledger: Arc::clone(&self.ledger), bytes }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.ledger.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_what_is_lacking_is_said() {
        let ledger = Ledger::new(Some(100));
        let first = ledger.take("one", 60).expect("there are 100");
        let text = ledger.take("another", 41).expect_err("there are 40").to_string();
        assert!(text.starts_with("bytes of device memory, 41 for another beside the 60 that executables have: 101 is over the limit of 100; trim"), "{text}");
        let mut second = ledger.take("another", 40).expect("there are 40");
        let third = second.split(30);
        assert_eq!((ledger.held(), second.bytes(), third.bytes()), (100, 10, 30));
        drop(third);
        let second = [second, ledger.take("another", 30).expect("there are 30")];
        assert_eq!((ledger.held(), first.bytes()), (100, 60));
        drop(first);
        assert_eq!(ledger.held(), 40);
        drop(second);
        assert_eq!(ledger.held(), 0);
        assert!(ledger.take("all", u64::MAX).is_err());
        assert!(Ledger::new(None).take("all", u64::MAX).is_ok());
    }
}
