//! Answers that are kept for a while, and questions under way: who asks the same meanwhile waits for that one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ring::digest::SHA256_OUTPUT_LEN;
use tokio::sync::OnceCell;

use super::decision::Decision;
use crate::access::Grant;
use crate::store::now_ms;

/// For how long an answer is kept that does not say.
const KEPT: Duration = Duration::from_secs(10);

/// Most answers that are kept. What is asked beyond is asked each time.
const MOST: usize = 10_000;

/// Time between two sweeps while there are as many.
const SWEEP: Duration = Duration::from_secs(1);

type Key = [u8; SHA256_OUTPUT_LEN];

/// An answer, and until when it is kept.
struct Kept {
    answer: Decision,
    until: Instant,
}

type Cell = Arc<OnceCell<Kept>>;

/// The answers of a node's backend.
#[derive(Default)]
pub struct Decisions(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    cells: HashMap<Key, Cell>,
    swept: Option<Instant>,
}

impl Inner {
    /// Where the answer is, or will be.
    fn cell(&mut self, key: Key, now: Instant, is_good: impl Fn(&Kept) -> bool) -> Cell {
        if let Some(cell) = self.cells.get(&key)
            && cell.get().is_none_or(&is_good)
        {
            return cell.clone();
        }
        if self.cells.len() >= MOST && self.swept.is_none_or(|swept| now - swept >= SWEEP) {
            self.swept = Some(now);
            self.cells.retain(|_, cell| cell.get().is_none_or(|kept| kept.until > now));
        }
        let cell = Cell::default();
        if self.cells.len() < MOST || self.cells.contains_key(&key) {
            self.cells.insert(key, cell.clone());
        }
        cell
    }
}

impl Decisions {
    /// The answer to a question, and whether it was there or under way already. Whoever gives up waiting stops nobody:
    /// the next one asks. `asking` is only begun where there is none.
    pub async fn of(
        &self,
        key: Key,
        now: Instant,
        is_revoked: impl Fn(&Grant) -> bool,
        asking: impl Future<Output = Decision>,
    ) -> (Decision, bool) {
        let is_good =
            |kept: &Kept| kept.until > now && !matches!(&kept.answer, Decision::Granted(grant) if is_revoked(grant));
        let cell = self.0.lock().cell(key, now, is_good);
        let is_new = AtomicBool::new(false);
        let asked = async {
            is_new.store(true, Ordering::Relaxed);
            let answer = asking.await;
            let until = now + kept_for(&answer);
            Kept { answer, until }
        };
        let kept = cell.get_or_init(|| asked).await;
        if !kept.answer.is_one() {
            let mut inner = self.0.lock();
            if inner.cells.get(&key).is_some_and(|known| Arc::ptr_eq(known, &cell)) {
                inner.cells.remove(&key);
            }
        }
        (kept.answer.clone(), !is_new.load(Ordering::Relaxed))
    }
}

fn kept_for(answer: &Decision) -> Duration {
    answer.expires_ms().map_or(KEPT, |expires_ms| Duration::from_millis(expires_ms.saturating_sub(now_ms())))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Waker};

    use futures_util::future::join_all;

    use super::*;
    use crate::access::{Holder, Refusal};

    fn granted(expires_ms: Option<u64>) -> Decision {
        Decision::Granted(Arc::new(Grant { expires_ms, ..Grant::nothing(Holder::Backend) }))
    }

    struct Asked {
        answers: Decisions,
        count: AtomicUsize,
        begun: Instant,
    }

    impl Asked {
        fn new() -> Self {
            Asked { answers: Decisions::default(), count: AtomicUsize::new(0), begun: Instant::now() }
        }

        async fn ask(&self, key: usize, seconds: u64, answer: Decision) -> Decision {
            let asking = async {
                self.count.fetch_add(1, Ordering::Relaxed);
                // Others come meanwhile.
                tokio::task::yield_now().await;
                answer
            };
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&key.to_be_bytes());
            let now = self.begun + Duration::from_secs(seconds);
            self.answers.of(bytes, now, |_| false, asking).await.0
        }

        fn count(&self) -> usize {
            self.count.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn equal_questions_are_one_and_their_answer_is_kept_for_ten_seconds() {
        let asked = Asked::new();
        let refused = || Decision::Refused(Refusal::Invalid("no".into()));
        join_all((0..20).map(|_| asked.ask(1, 0, granted(None)))).await;
        join_all((0..20).map(|_| asked.ask(2, 0, refused()))).await;
        assert_eq!(asked.count(), 2);
        assert!(matches!(asked.ask(1, 9, refused()).await, Decision::Granted(_)));
        assert!(matches!(asked.ask(2, 9, granted(None)).await, Decision::Refused(_)));
        assert_eq!(asked.count(), 2);
        asked.ask(1, 10, granted(None)).await;
        assert_eq!(asked.count(), 3);
    }

    #[tokio::test]
    async fn an_answer_is_kept_until_it_expires_if_it_says_when() {
        let asked = Asked::new();
        asked.ask(1, 0, granted(Some(now_ms() + 60_000))).await;
        asked.ask(1, 55, granted(None)).await;
        assert_eq!(asked.count(), 1);
        asked.ask(1, 61, granted(None)).await;
        assert_eq!(asked.count(), 2);
    }

    #[tokio::test]
    async fn no_answer_is_not_kept_but_is_that_of_all_who_waited_for_it() {
        let asked = Asked::new();
        let answers = join_all((0..20).map(|_| asked.ask(1, 0, Decision::unavailable()))).await;
        assert!(answers.iter().all(|answer| !answer.is_one()) && asked.count() == 1);
        assert!(asked.ask(1, 0, granted(None)).await.is_one());
    }

    #[tokio::test]
    async fn who_gives_up_stops_nobody_else() {
        let asked = Asked::new();
        let mut context = Context::from_waker(Waker::noop());
        let mut impatient = Box::pin(asked.ask(1, 0, granted(None)));
        assert!(impatient.as_mut().poll(&mut context).is_pending());
        let mut waiting = Box::pin(asked.ask(1, 0, granted(None)));
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        drop(impatient);
        assert!(waiting.await.is_one());
        assert_eq!(asked.count(), 2);
    }

    #[tokio::test]
    async fn a_revoked_answer_is_asked_for_anew() {
        let (answers, now) = (Decisions::default(), Instant::now());
        answers.of([1; 32], now, |_| false, async { granted(None) }).await;
        assert!(answers.of([1; 32], now, |_| false, async { granted(None) }).await.1);
        assert!(!answers.of([1; 32], now, |_| true, async { granted(None) }).await.1);
    }

    #[tokio::test]
    async fn there_are_only_so_many_answers() {
        let asked = Asked::new();
        for key in 0..MOST {
            asked.ask(key, 0, granted(None)).await;
        }
        asked.ask(MOST, 0, granted(None)).await;
        asked.ask(MOST, 0, granted(None)).await;
        assert_eq!(asked.count(), MOST + 2, "there was no room for it");
        asked.ask(0, 0, granted(None)).await;
        assert_eq!(asked.count(), MOST + 2, "what is kept is kept");
        asked.ask(MOST, 20, granted(None)).await;
        asked.ask(MOST, 20, granted(None)).await;
        assert_eq!(asked.count(), MOST + 3);
        assert_eq!(asked.answers.0.lock().cells.len(), 1);
    }
}
