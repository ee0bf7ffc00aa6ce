//! One command on its way to a server.

use redis::{Cmd, ToRedisArgs};

use super::scripts::Script;
use super::shards::slot_of;

/// Room made for the arguments of a script and their bytes: what an ordinary publish needs, so that it does not
/// grow in a dozen steps.
const ARGUMENTS: usize = 24;
const ARGUMENT_BYTES: usize = 768;

/// One command on its way to the server.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) command: Cmd,
    /// The script it runs, in case the server does not have it.
    pub(super) script: Option<&'static Script>,
    /// It goes to a server of a Cluster that does not have its slot yet.
    pub(super) asking: bool,
}

impl Call {
    /// A script with the keys it touches.
    pub(super) fn script(script: &'static Script, keys: &[&str]) -> Self {
        let mut command = Cmd::with_capacity(ARGUMENTS, ARGUMENT_BYTES);
        command.arg("EVALSHA").arg(&script.hash).arg(keys.len()).arg(keys);
        Call { command, script: Some(script), asking: false }
    }

    /// A plain command on one key or channel.
    pub(super) fn command(name: &str, key: &str) -> Self {
        let mut command = redis::cmd(name);
        command.arg(key);
        Call { command, script: None, asking: false }
    }

    /// The slot of its first key, and so of all.
    pub(super) fn slot(&self) -> u16 {
        let place = if self.script.is_some() { 3 } else { 1 };
        match self.command.args_iter().nth(place) {
            Some(redis::Arg::Simple(key)) => slot_of(key),
            _ => 0,
        }
    }

    /// How large its arguments are.
    pub(super) fn bytes(&self) -> usize {
        let size = |argument| match argument {
            redis::Arg::Simple(bytes) => <[u8]>::len(bytes),
            _ => 0,
        };
        self.command.args_iter().map(size).sum()
    }

    pub(super) fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.command.arg(argument);
        self
    }
}
