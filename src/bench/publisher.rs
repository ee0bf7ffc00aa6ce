//! Publishing over REST on a few kept-alive connections, at times that do not depend on the answers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::Semaphore;

use super::socket::Socket;
use super::{BenchError, Dialect, Pattern, Plan, Server, Target, Trust, clock};

/// Requests a second for which one more publishing connection is opened, up to the plan's number.
const REQUESTS_A_POSTER: f64 = 20.0;

/// After so long a pause a connection is opened anew: servers close idle ones.
const IDLE: Duration = Duration::from_secs(4);

/// Data of one batch that is published without hurry. Servers bound a request's body.
const BATCH_BYTES: usize = 4 << 20;

/// What was published.
#[derive(Debug, Clone, Copy, Default)]
pub struct Published {
    /// Events that were taken.
    pub taken: u64,
    /// Events that were not.
    pub errors: u64,
    /// Events that were due, but so late that they were given up.
    pub unsent: u64,
    /// How long it took.
    pub seconds: f64,
}

/// When requests are due.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// So many events a second.
    Rate(f64),
    /// As fast as they are answered.
    Max,
}

/// Publishes for `time`; what could not be published `late` after its end is given up. `progress` is called now and then with the milliseconds that have passed.
pub async fn publish(
    plan: &Plan,
    pace: Pace,
    time: Duration,
    late: Duration,
    progress: impl Fn(u64),
) -> Result<Published, BenchError> {
    let batch = plan.batch as u64;
    let (requests, posters) = match pace {
        Pace::Rate(rate) => {
            let per_second = rate / batch as f64;
            let requests = (time.as_secs_f64() * per_second).ceil() as u64;
            (requests, ((per_second / REQUESTS_A_POSTER) as usize + 2).min(plan.publishers))
        }
        Pace::Max => (u64::MAX, plan.publishers),
    };
    let begin = Instant::now();
    let round = Arc::new(Round {
        begin: clock::now(),
        end: clock::now() + time.as_micros() as u64,
        given_up: clock::now() + (time + late).as_micros() as u64,
        gap: match pace {
            Pace::Rate(rate) => Some(batch as f64 / rate * 1e6),
            Pace::Max => None,
        },
        requests,
        next: AtomicU64::new(0),
        open: Semaphore::new(0),
        over: AtomicBool::new(false),
        taken: AtomicU64::new(0),
        errors: AtomicU64::new(0),
    });
    // Whatever happens, the thread below ends.
    let over = Over(round.clone());
    if let Some(gap) = round.gap {
        let round = round.clone();
        std::thread::spawn(move || round.open_when_due(begin, gap));
    }
    let posting = futures_util::future::try_join_all((0..posters).map(|number| post(plan, number, &round)));
    tokio::pin!(posting);
    loop {
        tokio::select! {
            outcome = &mut posting => break outcome.map_err(BenchError::Publish).map(drop)?,
            () = tokio::time::sleep(Duration::from_millis(100)) => progress(begin.elapsed().as_millis() as u64),
        }
    }
    drop(over);
    let (taken, errors) = (round.taken.load(Ordering::Relaxed), round.errors.load(Ordering::Relaxed));
    let due = round.gap.map_or(0, |_| requests * batch);
    Ok(Published { taken, errors, unsent: due.saturating_sub(taken + errors), seconds: begin.elapsed().as_secs_f64() })
}

/// What the publishing connections share.
struct Round {
    /// By the run's clock.
    begin: u64,
    end: u64,
    given_up: u64,
    /// Microseconds from request to request.
    gap: Option<f64>,
    requests: u64,
    /// The number of the next request.
    next: AtomicU64,
    /// A permit for each request that is due.
    open: Semaphore,
    over: AtomicBool,
    taken: AtomicU64,
    errors: AtomicU64,
}

impl Round {
    /// Gives a permit for each request when it is due. A thread of its own, because a thread's sleep is
    /// exact to some 50 µs, and tokio's to a millisecond.
    #[expect(clippy::disallowed_methods, reason = "it runs on a thread of its own")]
    fn open_when_due(&self, begin: Instant, gap: f64) {
        let mut opened = 0;
        while opened < self.requests && !self.over.load(Ordering::Relaxed) {
            let due = Duration::from_secs_f64(opened as f64 * gap / 1e6);
            match due.checked_sub(begin.elapsed()) {
                // In short steps, so that it ends soon when the round does.
                Some(wait) if !wait.is_zero() => std::thread::sleep(wait.min(Duration::from_millis(100))),
                _ => {
                    let due = (begin.elapsed().as_secs_f64() * 1e6 / gap) as u64 + 1;
                    let due = due.clamp(opened + 1, self.requests);
                    self.open.add_permits((due - opened) as usize);
                    opened = due;
                }
            }
        }
        // The rest of the connections find that nothing is left.
        self.open.close();
    }

    /// Waits for the next request, and returns its number and when it was due; `None` when the round is over.
    async fn next(&self) -> Option<(u64, u64)> {
        let Some(gap) = self.gap else {
            let now = clock::now();
            return (now < self.end).then(|| (self.next.fetch_add(1, Ordering::Relaxed), now));
        };
        // Closed means that all are due.
        if let Ok(permit) = self.open.acquire().await {
            permit.forget();
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let late = clock::now() > self.given_up;
        (number < self.requests && !late).then(|| (number, self.begin + (number as f64 * gap) as u64))
    }
}

struct Over(Arc<Round>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

async fn post(plan: &Plan, number: usize, round: &Round) -> io::Result<()> {
    let target = &plan.target;
    let mut poster = Poster::connect(target, number).await?;
    let batch = plan.batch as u64;
    let listener = |event: u64| event % plan.connections.max(1) as u64;
    while let Some((request, due)) = round.next().await {
        let first = request * batch;
        let request = match batch {
            1 => target.publish_request(poster.server, listener(first), due),
            _ => target.batch_request(poster.server, (first..first + batch).map(listener), due),
        };
        let taken = poster.post(&request, batch).await?;
        round.taken.fetch_add(taken, Ordering::Relaxed);
        round.errors.fetch_add(batch - taken, Ordering::Relaxed);
    }
    Ok(())
}

/// Publishes `events` events for each of `listeners`.
pub async fn publish_each(target: &Target, listeners: usize, events: u64) -> Result<(), BenchError> {
    let listeners = if target.pattern == Pattern::Topic { 1 } else { listeners as u64 };
    let numbers: Vec<u64> = (0..listeners * events).map(|event| event / events).collect();
    let batch = match target.dialect {
        Dialect::Whimbrel => (BATCH_BYTES / target.event_bytes.max(1)).clamp(1, 1000),
        Dialect::Nchan | Dialect::SocketIo => 1,
    };
    let mut poster = Poster::connect(target, 0).await.map_err(BenchError::Publish)?;
    for numbers in numbers.chunks(batch) {
        let request = match numbers {
            [number] => target.publish_request(poster.server, *number, clock::now()),
            _ => target.batch_request(poster.server, numbers.iter().copied(), clock::now()),
        };
        if poster.post(&request, numbers.len() as u64).await.map_err(BenchError::Publish)? < numbers.len() as u64 {
            return Err(BenchError::Publish(io::Error::other("an event was not taken")));
        }
    }
    Ok(())
}

/// One kept-alive connection; a request at a time.
struct Poster<'a> {
    server: &'a Server,
    trust: &'a Trust,
    socket: BufReader<Socket>,
    used: Instant,
}

impl<'a> Poster<'a> {
    /// Connects to the server of publisher `number`.
    async fn connect(target: &'a Target, number: usize) -> io::Result<Self> {
        let (server, trust) = (target.server(number), &target.trust);
        let socket = BufReader::new(trust.connect(server).await?);
        Ok(Poster { server, trust, socket, used: Instant::now() })
    }

    /// Sends a request of `events` events and reads the answer. Returns how many were taken.
    async fn post(&mut self, request: &[u8], events: u64) -> io::Result<u64> {
        if self.used.elapsed() > IDLE {
            self.socket = BufReader::new(self.trust.connect(self.server).await?);
        }
        self.socket.get_mut().write_all(request).await?;
        self.socket.get_mut().flush().await?;
        let (status, body) = self.answer().await?;
        self.used = Instant::now();
        Ok(match status {
            200..=202 if events == 1 => 1,
            200..=202 => events.saturating_sub(memchr::memmem::find_iter(&body, b"{\"error\":").count() as u64),
            _ => {
                tracing::debug!(status, "a publish was refused");
                0
            }
        })
    }

    async fn answer(&mut self) -> io::Result<(u16, Vec<u8>)> {
        let mut line = String::new();
        if self.socket.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no HTTP answer: {line:?}")))?;
        let mut length = 0;
        loop {
            line.clear();
            self.socket.read_line(&mut line).await?;
            let header = line.trim_end();
            if header.is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        self.socket.read_exact(&mut body).await?;
        Ok((status, body))
    }
}
