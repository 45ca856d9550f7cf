//! Turns for the other tasks of an executor, between pieces of work.

use std::{future::poll_fn, task::Poll};

/// Bytes that are moved without a pause: a millisecond or two.
pub(super) const PIECE: usize = 4 << 20;

/// Lets the executor turn to other tasks once, if it has any. It needs nothing of the executor but that it polls again what has
/// been woken.
pub(super) async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Pauses once for each [`PIECE`] that was moved.
#[derive(Default)]
pub(super) struct Pauses {
    moved: usize,
}

impl Pauses {
    pub(super) async fn moved(&mut self, bytes: usize) {
        self.moved += bytes;
        if self.moved >= PIECE {
            self.moved = 0;
            pause().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;

    /// How often a future is polled until it is ready, by an executor that has nothing else to do.
    fn polls<T>(future: impl Future<Output = T>) -> usize {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        (1..).find(|_| future.as_mut().poll(&mut context).is_ready()).expect("it ends")
    }

    #[test]
    fn a_pause_is_one_turn_for_others() {
        assert_eq!(polls(async {}), 1);
        assert_eq!(polls(pause()), 2);
        let moving = |pieces: usize, bytes: usize| async move {
            let mut pauses = Pauses::default();
            for _ in 0..pieces {
                pauses.moved(bytes).await;
            }
        };
        assert_eq!(polls(moving(3, PIECE)), 4);
        assert_eq!(polls(moving(7, PIECE / 2)), 4, "every other time");
        assert_eq!(polls(moving(1, PIECE - 1)), 1);
    }
}
