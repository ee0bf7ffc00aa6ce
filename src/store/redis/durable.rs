//! Publishes that are answered only once replicas have the event, or the disk.
//!
//! WAIT and WAITAOF hold up whatever is sent behind them, and they speak of what was written on their own
//! connection, so such a publish gets a connection for itself from a pool of its own.

use std::time::Duration;

use redis::FromRedisValue as _;

use super::call::Call;
use super::inspection::{self, DiskProof};
use super::pool::{Pool, Session};
use crate::model::{Durability, Published, Reached, Receipt};
use crate::store::{StoreError, millis};

/// How long replicas or the disk may take. Well below the time after which an answer counts as lost.
const WAIT_TIME: Duration = Duration::from_secs(2);

/// What confirms that a publish is as durable as asked: a command or, where every answer confirms it, none.
pub(super) async fn wait_for(pool: &Pool, durability: Durability) -> Result<Option<Call>, StoreError> {
    match durability {
        Durability::Replicas(count) => Ok(Some(Call::command("WAIT", &count.to_string()).arg(millis(WAIT_TIME)))),
        Durability::Disk => disk_wait(pool).await,
    }
}

/// What the publish before, on the same connection, has reached. `touch` is a write to the same stream.
pub(super) async fn wait(
    session: &mut Session,
    published: Published,
    touch: Call,
    wait: Option<Call>,
    durability: Durability,
) -> Result<Receipt, StoreError> {
    // The event is stored: whatever fails from here on, fails to confirm.
    // What is waited for is the connection's last write. When the event is a duplicate, publishing wrote
    // nothing; the touch is behind the first publish then, and a replica that has it has that too.
    let waits = wait.is_some();
    let answers = session.run_all([Some(touch), wait].into_iter().flatten().collect()).await;
    let answers = answers.and_then(|answers| answers.into_iter().collect::<Result<Vec<_>, _>>());
    let waited = answers.map(|mut answers| if waits { answers.pop() } else { None });
    let (reached, enough) = match durability {
        Durability::Replicas(wanted) => {
            let count = waited.ok().flatten().and_then(|answer| u32::from_redis_value(answer).ok()).unwrap_or(0);
            (Reached { replicas: Some(count), disk: None }, count >= wanted)
        }
        Durability::Disk => {
            let on_disk = match waited {
                // The local count comes first, then that of replicas.
                Ok(Some(answer)) => Vec::<u32>::from_redis_value(answer).is_ok_and(|counts| counts.first() == Some(&1)),
                // The server syncs before each answer, and has answered.
                Ok(None) => true,
                Err(_) => false,
            };
            (Reached { replicas: None, disk: Some(on_disk) }, on_disk)
        }
    };
    Ok(Receipt { published, reached, enough })
}

/// What confirms that a write is on disk: a wait or, where the server syncs before each answer, nothing
/// more. Refused where nothing can confirm it.
async fn disk_wait(pool: &Pool) -> Result<Option<Call>, StoreError> {
    match inspection::inspect(pool).await?.disk() {
        Ok(DiskProof::Wait) => Ok(Some(Call::command("WAITAOF", "1").arg(0).arg(millis(WAIT_TIME)))),
        Ok(DiskProof::EachAnswer) => Ok(None),
        Err(reason) => Err(StoreError::Unsupported(reason.to_owned())),
    }
}
