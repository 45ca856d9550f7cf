//! Answers that come from a callback or from another thread.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use super::scope::lock;

/// An answer to come; `None` if nobody will give one.
pub(super) struct Pending<T>(Arc<Mutex<Answer<T>>>);

struct Answer<T> {
    value: Option<T>,
    closed: bool,
    waker: Option<Waker>,
}

/// The callback's half of a [`Pending`]. Dropped without a call, it answers `None`.
pub(super) struct Callback<T>(Arc<Mutex<Answer<T>>>);

impl<T> Pending<T> {
    pub(super) fn new() -> (Self, Callback<T>) {
        let answer = Arc::new(Mutex::new(Answer { value: None, closed: false, waker: None }));
        (Pending(Arc::clone(&answer)), Callback(answer))
    }
}

impl<T> Callback<T> {
    pub(super) fn answer(self, value: T) {
        lock(&self.0).value = Some(value);
    }
}

impl<T> Drop for Callback<T> {
    fn drop(&mut self) {
        let mut answer = lock(&self.0);
        answer.closed = true;
        if let Some(waker) = answer.waker.take() {
            waker.wake();
        }
    }
}

impl<T> Future for Pending<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut answer = lock(&self.0);
        if answer.closed {
            return Poll::Ready(answer.value.take());
        }
        answer.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
