//! Which streams have their home in this region, as the region itself has it written down.

use std::time::Duration;

use redis::FromRedisValue;

use super::RedisStore;
use super::call::Call;
use super::scripts;
use crate::model::StreamName;
use crate::store::{StoreError, millis, random_step};

/// For how long a region knows that a stream's home was ended: longer than a node may be stopped between asking the
/// directory for a home and claiming it.
const ENDED_TIME: Duration = Duration::from_secs(3600);

impl RedisStore {
    /// Writes down that the stream's home is here as of `version`, unless a newer version is known. Only for
    /// which has just asked the directory. Where the home was ended as of the version that is returned, it is not
    /// written down: the directory has to record a newer one first.
    pub async fn claim(&self, stream: &StreamName, version: u32) -> Result<Option<u32>, StoreError> {
        let keys = self.keys.of(stream);
        let claim = Call::script(&scripts::HOME_CLAIM, &[&keys.events, &keys.meta])
            .arg(version)
            .arg(random_step())
            .arg(self.position_ms(stream));
        let ended = scripts::count(self.lanes.run(stream, claim).await?)?;
        Ok((ended > 0).then_some(ended))
    }

    /// Ends the homes of streams of which nothing is left here, each as of its version; says which are ended.
    pub async fn end_homes(&self, streams: &[(&StreamName, u32)]) -> Result<Vec<bool>, StoreError> {
        let end = |(stream, version): &(&StreamName, u32)| {
            let keys = self.keys.of(stream);
            Call::script(&scripts::HOME_END, &[&keys.events, &keys.nodes, &keys.meta])
                .arg(*version)
                .arg(millis(ENDED_TIME))
        };
        let answers = self.lanes.run_by_stream(streams, |(stream, _)| *stream, end).await;
        // Whatever is wrong with one stream, such as a key of another type, keeps no other's home.
        Ok(answers.into_iter().map(|answer| answer.and_then(scripts::count).is_ok_and(|ended| ended == 1)).collect())
    }

    /// A device has connected at a node of `region`. Says whether that makes so many connections in a row there, from
    /// the first to the last at least `time`, that it is to be moved; only if it `may` be now.
    pub async fn connected_through(
        &self,
        device: &StreamName,
        region: &str,
        (connections, time): (u32, Duration),
        may: bool,
    ) -> Result<bool, StoreError> {
        let call = Call::script(&scripts::CONNECTED_THROUGH, &[&self.keys.of(device).meta])
            .arg(region)
            .arg(connections)
            .arg(millis(time))
            .arg(u8::from(may))
            .arg(self.home());
        Ok(scripts::count(self.lanes.run(device, call).await?)? == 1)
    }

    /// Writes down which region this server is and which directory it belongs to, unless that is known
    /// already; what is known is returned.
    pub async fn identify(&self, region: &str, directory: &str) -> Result<(String, String), StoreError> {
        let names = ["region", region, "of", directory];
        let answer = self.pool.run(Call::script(&scripts::IDENTITY, &[&self.keys.identity()]).arg(&names)).await?;
        let held = <(String, String)>::from_redis_value(answer);
        held.map_err(|error| StoreError::Protocol(error.to_string()))
    }
}
