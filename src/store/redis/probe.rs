//! Tries what a node needs of its Redis, under the names that it uses: a subscription, a script, a write, a message.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{FromRedisValue as _, PushKind, Value};
use tokio::sync::Notify;

use super::call::Call;
use super::errors::{refused, unanswered};
use super::keys::Keys;
use super::scripts;
use super::shards::{Map, SLOTS, Shards};
use crate::model::NodeId;
use crate::store::StoreError;

/// How long a message may take from a script to its subscription.
const MESSAGE_TIME: Duration = Duration::from_secs(2);

/// Fails with what is missing, named so that an operator can grant it. Of a Cluster, every server has to pass that can be
/// reached, and one at least.
pub(super) async fn probe(shards: &Shards, keys: &Keys) -> Result<(), StoreError> {
    let map = shards.now();
    let of = |place: usize| probe_at(&map, place, keys);
    let probed = join_all((0..map.shards.len()).map(of)).await;
    let is_away = |probed: &Result<(), StoreError>| matches!(probed, Err(StoreError::Unavailable(_)));
    if probed.iter().all(is_away) {
        return probed.into_iter().next().unwrap_or(Ok(()));
    }
    probed.into_iter().filter(|probed| !is_away(probed)).collect()
}

async fn probe_at(map: &Map, place: usize, keys: &Keys) -> Result<(), StoreError> {
    let server = &map.shards[place].server;
    // A name that no node has, so that it disturbs nobody, and whose key is on this server.
    let names = std::iter::repeat_with(NodeId::random);
    let fits = |node: &NodeId| map.has(place, &keys.lease(node));
    let node = names.take(usize::from(SLOTS)).find(fits).unwrap_or_else(NodeId::random);
    let (key, channel) = (keys.lease(&node), keys.channel(&node));
    let arrived = Arc::new(Notify::new());
    let notify = arrived.clone();
    let on_push = move |push: redis::PushInfo| {
        if push.kind == PushKind::Message {
            notify.notify_one();
        }
    };
    let subscription = server.open(on_push).await?;
    let denied = |what: String, error: &str| StoreError::Refused(format!("the user may not {what}: {error}"));
    subscription.io().subscribe(&channel).await.map_err(|error| match error.code() {
        Some("NOPERM") => denied(
            format!("subscribe to the channels {0}*; grant it &{0}* (Redis 7 grants none by default)", keys.channels()),
            "NOPERM",
        ),
        _ => unanswered(&error),
    })?;
    // A connection of its own: over that of a subscription, older servers take nothing else.
    let opened = server.open(|_| {}).await?;
    let script = &*scripts::PROBE;
    let mut calls = redis::pipe();
    calls.add_command(script.load());
    let call = Call::script(script, &[&key]).arg(&channel).arg("probe");
    calls.add_command(call.command);
    let answers = opened.io().send_packed_commands(&calls, 0, 2).await.map_err(|error| unanswered(&error))?;
    let answer = answers.into_iter().find(|answer| matches!(answer, Value::ServerError(_) | Value::Array(_)));
    let missing = match answer {
        Some(Value::ServerError(error)) if error.code() == "NOPERM" => {
            let text = error.details().unwrap_or_default();
            let prefix = keys.prefix();
            let what = if text.contains("keys") {
                format!("use the keys {prefix}:*; grant it ~{prefix}:*")
            } else {
                "run scripts (SCRIPT LOAD and EVALSHA); grant it +@scripting".to_owned()
            };
            return Err(denied(what, text));
        }
        // It writes nothing until replicas are back, and says so to each publish; what it has can be read.
        Some(Value::ServerError(error)) if error.code() == "NOREPLICAS" => return Ok(()),
        Some(Value::ServerError(error)) => return Err(refused(&error)),
        Some(answer) => Vec::<String>::from_redis_value(answer).unwrap_or_default(),
        None => Vec::new(),
    };
    if !missing.is_empty() {
        return Err(denied(format!("run {}", missing.join(", ")), "NOPERM within a script"));
    }
    let arrived_in_time = tokio::time::timeout(MESSAGE_TIME, arrived.notified()).await;
    arrived_in_time.map_err(|_| StoreError::Refused(format!("a message to the channel {channel} did not arrive")))
}
