//! What a connection may do, which changes while it lasts: grants end, are renewed, and others are added for single
//! streams.

use std::sync::Arc;

use crate::access::{Denied, Grant, Need, Visitor};
use crate::model::StreamName;

/// How long before its grant ends a client is notified.
const NOTICE_MS: u64 = 60_000;

/// What a connection may do.
pub struct Rights {
    grant: Arc<Grant>,
    /// Grants that were brought for one stream each. Most connections have none.
    extra: Option<Box<Extra>>,
    /// By what the backend knows the client, where that decides about what the grant does not name.
    visitor: Option<Arc<Visitor>>,
    /// The client was notified that the grant ends.
    noticed: bool,
}

/// Grants for one stream each.
type Extra = Vec<(StreamName, Arc<Grant>)>;

/// What happens because of the time.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// The grant is over, and with it the connection.
    Expired,
    /// The client is to be notified that the grant ends.
    Expiring,
    /// Streams whose own grants are over.
    Ended(Vec<StreamName>),
}

impl Rights {
    /// Those of a grant.
    pub fn new(grant: Arc<Grant>) -> Self {
        Rights { grant, extra: None, visitor: None, noticed: false }
    }

    /// Those of a client for which the backend decides.
    pub fn of_visitor(grant: Arc<Grant>, visitor: Option<Visitor>) -> Self {
        Rights { visitor: visitor.map(Arc::new), ..Rights::new(grant) }
    }

    /// By what the backend knows the client, where that decides.
    pub fn visitor(&self) -> Option<Arc<Visitor>> {
        self.visitor.clone()
    }

    /// The grant that the connection stands on.
    pub fn grant(&self) -> &Arc<Grant> {
        &self.grant
    }

    /// Another grant takes the place of the one before.
    pub fn renew(&mut self, grant: Arc<Grant>) {
        // From now on a token decides.
        self.visitor = None;
        self.grant = grant;
        self.noticed = false;
    }

    /// One more stream may be followed, for as long as this grant lasts.
    pub fn add(&mut self, stream: StreamName, grant: Arc<Grant>) {
        let extra = self.extra.get_or_insert_default();
        extra.retain(|(known, _)| *known != stream);
        extra.push((stream, grant));
    }

    /// A stream is not followed any more.
    pub fn remove(&mut self, stream: &StreamName) {
        if let Some(extra) = &mut self.extra {
            extra.retain(|(known, _)| known != stream);
        }
        self.extra.take_if(|extra| extra.is_empty());
    }

    /// Checks that a stream may be followed.
    pub fn check_subscribe(&self, stream: &StreamName) -> Result<(), Denied> {
        let mut extra = self.extra.iter().flat_map(|extra| extra.iter());
        match extra.any(|(known, _)| known == stream) {
            true => Ok(()),
            false => self.grant.check(Need::Subscribe(stream)),
        }
    }

    /// All grants that it rests on.
    pub fn grants(&self) -> impl Iterator<Item = &Arc<Grant>> {
        std::iter::once(&self.grant).chain(self.extra.iter().flat_map(|extra| extra.iter()).map(|(_, grant)| grant))
    }

    /// When something is due next, in milliseconds since 1970.
    pub fn next_due_ms(&self) -> Option<u64> {
        let notice = |end: u64| if self.noticed { end } else { end.saturating_sub(NOTICE_MS) };
        let extra = self.extra.iter().flat_map(|extra| extra.iter()).filter_map(|(_, grant)| grant.expires_ms);
        self.grant.expires_ms.map(notice).into_iter().chain(extra).min()
    }

    /// What is due now, once.
    pub fn due(&mut self, now_ms: u64) -> Option<Due> {
        let is_over = |grant: &Grant| grant.expires_ms.is_some_and(|end| end <= now_ms);
        if is_over(&self.grant) {
            return Some(Due::Expired);
        }
        let ended: Vec<StreamName> = self
            .extra
            .iter()
            .flat_map(|extra| extra.iter())
            .filter(|(_, grant)| is_over(grant))
            .map(|(stream, _)| stream.clone())
            .collect();
        if !ended.is_empty() {
            ended.iter().for_each(|stream| self.remove(stream));
            return Some(Due::Ended(ended));
        }
        let is_near = self.grant.expires_ms.is_some_and(|end| end.saturating_sub(NOTICE_MS) <= now_ms);
        let notify = is_near && !self.noticed;
        self.noticed |= notify;
        notify.then_some(Due::Expiring)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Holder;

    fn until(expires_ms: u64) -> Arc<Grant> {
        let grant = Grant::nothing(Holder::Token { id: None });
        Arc::new(Grant { expires_ms: Some(expires_ms), ..grant })
    }

    #[test]
    fn a_client_is_told_once_a_minute_before_the_end_and_again_after_a_renewal() {
        let mut rights = Rights::new(until(100_000));
        assert_eq!(rights.next_due_ms(), Some(40_000));
        assert_eq!(rights.due(39_999), None);
        assert_eq!((rights.due(40_000), rights.due(40_000)), (Some(Due::Expiring), None));
        assert_eq!(rights.next_due_ms(), Some(100_000));
        rights.renew(until(200_000));
        assert_eq!((rights.next_due_ms(), rights.due(100_000)), (Some(140_000), None));
        assert_eq!((rights.due(150_000), rights.due(199_999)), (Some(Due::Expiring), None));
        assert_eq!(rights.due(200_000), Some(Due::Expired));
    }

    #[test]
    fn a_grant_without_an_end_never_ends() {
        let mut rights = Rights::new(Grant::open());
        assert_eq!((rights.next_due_ms(), rights.due(u64::MAX)), (None, None));
    }

    #[test]
    fn a_grant_for_one_stream_ends_that_stream_alone() {
        let (news, other): (StreamName, StreamName) = ("topic:news".parse().unwrap(), "topic:b".parse().unwrap());
        let mut rights = Rights::new(until(500_000));
        assert!(rights.check_subscribe(&news).is_err());
        rights.add(news.clone(), until(50_000));
        assert!(rights.check_subscribe(&news).is_ok() && rights.check_subscribe(&other).is_err());
        assert_eq!(rights.next_due_ms(), Some(50_000));
        assert_eq!(rights.due(50_000), Some(Due::Ended(vec![news.clone()])));
        assert!(rights.check_subscribe(&news).is_err());
        assert_eq!(rights.next_due_ms(), Some(440_000));
        rights.add(news.clone(), until(60_000));
        rights.remove(&news);
        assert_eq!(rights.next_due_ms(), Some(440_000));
    }
}
