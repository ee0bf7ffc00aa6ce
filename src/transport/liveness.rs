//! Whether a client is still there, by what it takes and answers between pings.

/// Ping intervals without any byte taken, or any pong, after which a client counts as gone.
const SILENT_INTERVALS: u8 = 2;

/// What the end of a ping interval asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// A ping.
    Ping,
    /// Nothing: frames wait for the client already, so it needs no ping on top of them.
    Wait,
    /// The client took nothing for too long: the connection ends without a word.
    Stalled,
    /// It took pings and answered none: it may still learn why it is closed.
    Unanswered,
}

/// Counts ping intervals in which a client gave no sign of life.
#[derive(Debug)]
pub struct Liveness {
    /// The socket took something since the last ping.
    took: bool,
    /// Intervals in a row with frames waiting and none taken.
    stalled: u8,
    /// Pings without a pong.
    unanswered: u8,
}

impl Liveness {
    /// A client that just connected.
    pub const fn new() -> Self {
        Liveness { took: true, stalled: 0, unanswered: 0 }
    }

    /// The socket took bytes.
    pub fn took(&mut self) {
        self.took = true;
    }

    /// The client sent a pong, or anything else.
    pub fn answered(&mut self) {
        self.unanswered = 0;
    }

    /// A ping was queued that wants a pong.
    pub fn pinged(&mut self) {
        self.unanswered += 1;
    }

    /// A ping interval is over. `idle`: no frame waits for the client.
    pub fn beat(&mut self, idle: bool) -> Beat {
        self.stalled = if self.took || idle { 0 } else { self.stalled + 1 };
        self.took = false;
        match self {
            Liveness { stalled: SILENT_INTERVALS.., .. } => Beat::Stalled,
            Liveness { unanswered: SILENT_INTERVALS.., .. } => Beat::Unanswered,
            Liveness { stalled: 1.., .. } => Beat::Wait,
            Liveness { .. } => Beat::Ping,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_takes_nothing_for_two_intervals_is_gone() {
        let mut client = Liveness::new();
        assert_eq!(client.beat(false), Beat::Ping, "it took something since it connected");
        assert_eq!([client.beat(false), client.beat(false)], [Beat::Wait, Beat::Stalled]);
    }

    #[test]
    fn a_client_that_takes_anything_or_has_nothing_to_take_is_there() {
        let mut client = Liveness::new();
        assert_eq!([client.beat(false), client.beat(false)], [Beat::Ping, Beat::Wait]);
        client.took();
        assert_eq!([client.beat(false), client.beat(false)], [Beat::Ping, Beat::Wait]);
        assert_eq!([client.beat(true), client.beat(true), client.beat(true)], [Beat::Ping; 3]);
    }

    #[test]
    fn a_client_that_answers_no_ping_is_gone_after_two() {
        let mut client = Liveness::new();
        for _ in 0..2 {
            client.took();
            assert_eq!(client.beat(true), Beat::Ping);
            client.pinged();
        }
        assert_eq!(client.beat(true), Beat::Unanswered);
        client.answered();
        assert_eq!(client.beat(true), Beat::Ping);
    }
}
