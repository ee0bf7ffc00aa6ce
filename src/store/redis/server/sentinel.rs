//! Sentinels: asked for the master before each connection, and subscribed to, so that a switch is known at once.
//!
//! The redis crate's own Sentinel client is not used: it opens a second connection to check a role, takes the
//! first answer even if others know a newer master, and ignores `+switch-master`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionInfo, FromRedisValue, PushInfo, PushKind, Value};
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep_until, timeout};

use super::credentials::{CredentialFiles, Login};

/// How long one Sentinel may take, connecting included.
const ASK_TIME: Duration = Duration::from_secs(1);

/// Once a majority has answered, the others get this much longer.
const GRACE: Duration = Duration::from_millis(50);

const SWITCH: &str = "+switch-master";

/// What Sentinels agree on, as far as they were reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) host: String,
    pub(super) port: u16,
    /// Of the configuration that made it the master. Each failover has a greater one; it begins at 0 again where
    /// Sentinels are set up anew.
    pub(super) epoch: u64,
    /// Whether a majority of the Sentinels answered.
    pub(super) majority: bool,
}

/// The Sentinels of one URL.
pub(super) struct Sentinels {
    master: String,
    all: Vec<Arc<Sentinel>>,
    switched: Arc<Notify>,
}

struct Sentinel {
    info: ConnectionInfo,
    credentials: CredentialFiles,
    /// Kept from one question to the next.
    connection: Mutex<Option<MultiplexedConnection>>,
    switched: Arc<Notify>,
}

/// One Sentinel's answer: the address it gives to clients, and the epoch.
type Answer = Result<(String, u16, u64), String>;

impl Sentinels {
    pub(super) fn new(all: &[ConnectionInfo], master: &str, credentials: &CredentialFiles) -> Self {
        let switched = Arc::new(Notify::new());
        let of = |info: &ConnectionInfo| {
            Arc::new(Sentinel {
                info: info.clone(),
                credentials: credentials.clone(),
                connection: Mutex::default(),
                switched: switched.clone(),
            })
        };
        Sentinels { master: master.to_owned(), all: all.iter().map(of).collect(), switched }
    }

    /// Resolves when a Sentinel has published that a master was replaced.
    pub(super) async fn switched(&self) {
        self.switched.notified().await;
    }

    /// Asks all of them at once, and waits for a majority, or for as many as answer in time.
    pub(super) async fn master(&self) -> Result<Named, String> {
        // Tasks, so that a slow Sentinel's connection comes about even if its answer is not waited for.
        let ask = |(place, sentinel): (usize, &Arc<Sentinel>)| {
            let (sentinel, master) = (sentinel.clone(), self.master.clone());
            let task = tokio::spawn(async move { sentinel.ask_in_time(&master).await });
            async move { (place, task.await.unwrap_or_else(|_| Err("the question was given up".to_owned()))) }
        };
        let mut asked: FuturesUnordered<_> = self.all.iter().enumerate().map(ask).collect();
        let mut answers: Vec<(usize, Answer)> = Vec::new();
        let mut until = Instant::now() + 2 * ASK_TIME;
        loop {
            tokio::select! {
                answer = asked.next() => match answer {
                    Some(answer) => answers.push(answer),
                    None => break,
                },
                () = sleep_until(until) => break,
            }
            if is_majority(answers.iter().filter(|(_, answer)| answer.is_ok()).count(), self.all.len()) {
                until = until.min(Instant::now() + GRACE);
            }
        }
        judge(&answers, self.all.len()).ok_or_else(|| self.why_not(&answers))
    }

    fn why_not(&self, answers: &[(usize, Answer)]) -> String {
        let reason = |(place, answer): &(usize, Answer)| {
            let reason = answer.as_ref().err()?;
            Some(format!("{}: {reason}", self.all[*place].info.addr()))
        };
        let reasons: Vec<_> = answers.iter().filter_map(reason).collect();
        format!("no Sentinel names the master '{}' ({})", self.master, reasons.join("; "))
    }
}

/// The newest configuration counts, and among equals what most say.
fn judge(answers: &[(usize, Answer)], all: usize) -> Option<Named> {
    let named = || answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
    let backers = |one: &(String, u16, u64)| named().filter(|other| *other == one).count();
    let (host, port, epoch) = named().max_by_key(|one| (one.2, backers(one)))?;
    Some(Named { host: host.clone(), port: *port, epoch: *epoch, majority: is_majority(named().count(), all) })
}

fn is_majority(some: usize, all: usize) -> bool {
    some > all / 2
}

impl Sentinel {
    async fn ask_in_time(&self, master: &str) -> Answer {
        let answer = timeout(ASK_TIME, self.ask(master)).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        if answer.is_err() {
            *self.connection.lock().await = None;
        }
        answer
    }

    async fn ask(&self, master: &str) -> Answer {
        let mut connection = self.connected().await?;
        let mut question = redis::pipe();
        question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master);
        question.cmd("SENTINEL").arg("MASTER").arg(master);
        let answers = connection.send_packed_commands(&question, 0, 2).await.map_err(|error| error.to_string())?;
        let mut answers = answers.into_iter();
        let address = match answers.next() {
            Some(Value::ServerError(error)) => return Err(error.details().unwrap_or(error.code()).to_owned()),
            Some(Value::Nil) => return Err("it has no master of that name".to_owned()),
            answer => <(String, u16)>::from_redis_value(answer.unwrap_or_default()).map_err(|e| e.to_string())?,
        };
        // A user that may ask for the address alone is enough.
        Ok((address.0, address.1, answers.next().and_then(epoch).unwrap_or(0)))
    }

    async fn connected(&self) -> Result<MultiplexedConnection, String> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = &*held {
            return Ok(connection.clone());
        }
        let switched = self.switched.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ASK_TIME))
            .set_response_timeout(Some(ASK_TIME))
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Message {
                    switched.notify_one();
                }
                Ok::<(), std::convert::Infallible>(())
            });
        let client = self.credentials.client(self.info.clone(), Login::Sentinel).await?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.map_err(|error| error.to_string())?;
        // Where a user may not subscribe, a switch is known from the next question.
        if let Err(error) = connection.subscribe(SWITCH).await {
            tracing::debug!(sentinel = %self.info.addr(), %error, "no subscription at a Sentinel");
        }
        Ok(held.insert(connection).clone())
    }
}

fn epoch(answer: Value) -> Option<u64> {
    let fields = HashMap::<String, String>::from_redis_value(answer).ok()?;
    fields.get("config-epoch")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(of: &[Option<(&str, u64)>]) -> Vec<(usize, Answer)> {
        let answer = |one: &Option<(&str, u64)>| match one {
            Some((host, epoch)) => Ok(((*host).to_owned(), 1, *epoch)),
            None => Err("away".to_owned()),
        };
        of.iter().map(answer).enumerate().collect()
    }

    fn judged(of: &[Option<(&str, u64)>]) -> Option<(String, bool)> {
        judge(&answers(of), of.len()).map(|named| (named.host, named.majority))
    }

    #[test]
    fn the_newest_configuration_counts_however_few_know_it() {
        assert_eq!(judged(&[Some(("a", 1)), Some(("b", 2)), Some(("a", 1))]), Some(("b".into(), true)));
    }

    #[test]
    fn among_equals_what_most_say_counts() {
        assert_eq!(judged(&[Some(("a", 1)), Some(("b", 1)), Some(("b", 1))]), Some(("b".into(), true)));
    }

    #[test]
    fn one_answer_is_enough_but_no_majority() {
        assert_eq!(judged(&[None, None, Some(("a", 3))]), Some(("a".into(), false)));
        assert_eq!(judged(&[None, Some(("a", 3)), Some(("a", 3))]), Some(("a".into(), true)));
        assert_eq!(judged(&[None, None]), None);
    }
}
