//! Answers that send a listener away for a while. Not all clients wait for as long as `retry` demands, and some come
//! back at once, for ever: so the answer itself takes a moment.

use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::Semaphore;
use tokio::time::sleep;

/// Most answers that are held at once; more go out at once, as clients that wait take room.
const MOST: usize = 1024;

/// The answers that are being held.
pub struct Refusals(Semaphore);

impl Default for Refusals {
    fn default() -> Self {
        Refusals(Semaphore::new(MOST))
    }
}

impl Refusals {
    /// Waits before such an answer, unless too many do.
    pub async fn hold(&self) {
        if let Ok(_held) = self.0.try_acquire() {
            pause().await;
        }
    }
}

/// About a second, which is another for each client.
pub async fn pause() {
    let ms = rand::rng().random_range(500..1500);
    sleep(Duration::from_millis(ms)).await;
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn answers_are_held_for_about_a_second_and_no_more_than_so_many() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let answers = (0..MOST + 10).map(async |_| {
            refusals.hold().await;
            start.elapsed().as_millis()
        });
        let mut times = join_all(answers).await;
        times.sort_unstable();
        assert!(times[9] < times[10] && times[10] >= 500 && times[10] + 500 < times[MOST + 9], "{times:?}");
    }
}
