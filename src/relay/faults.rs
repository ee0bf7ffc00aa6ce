//! What failures of the database and of the server mean to a relay.

use std::error::Error as _;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Error;

use crate::client::{ClientError, Failure, mistrust};

/// How long statements may take; the database bounds each of them by a minute itself, unless it hangs.
const DATABASE_TIME: Duration = Duration::from_secs(75);

/// What a statement gives, or why it failed.
pub async fn in_time<T>(asking: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match timeout(DATABASE_TIME, asking).await {
        Ok(answer) => answer.map_err(|error| in_words(&error)),
        Err(_) => Err(format!("no answer within {} s", DATABASE_TIME.as_secs())),
    }
}

/// The reason that people can act on.
pub fn in_words(error: &Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} ({})", error.message(), error.code().code());
    }
    if let Some(reason) = mistrust(error) {
        return reason;
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Whether the database refuses the login, or what it is asked for, and will go on doing so.
pub fn is_refusal(error: &Error) -> bool {
    // Invalid authorization, an unknown database, and syntax or access.
    error.code().is_some_and(|code| ["28", "3D", "42"].iter().any(|class| code.code().starts_with(class)))
}

/// Whether what is wrong is in the batch, and not with the server or the key.
pub fn blames_the_batch(failure: &Failure) -> bool {
    failure.is_too_large() || matches!(failure.error, ClientError::Refused { status: 400 | 422, .. })
}

/// Whether the key does not cover the stream: that is the operator's to change, and no fault of the row.
pub fn is_forbidden(error: &ClientError) -> bool {
    matches!(error, ClientError::Entry { slug, .. } if slug == "forbidden")
}

/// Whether the server may have stored something all the same.
pub fn is_unsure(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } | ClientError::Answer { .. } => true,
        ClientError::Refused { status, .. } => *status >= 500 && *status != 503,
        ClientError::Entry { slug, .. } => slug == "outcome-unknown",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16) -> Failure {
        let error = ClientError::Refused { place: "http://localhost".into(), status, detail: "no".into() };
        Failure { error, passing: false, wait: None }
    }

    fn entry(slug: &str) -> ClientError {
        ClientError::Entry { slug: slug.into(), detail: "no".into() }
    }

    #[test]
    fn only_what_is_wrong_with_rows_is_held_against_them() {
        assert!([400, 413, 422].iter().all(|status| blames_the_batch(&refused(*status))));
        assert!(![401, 403, 404, 429, 500, 503, 504].iter().any(|status| blames_the_batch(&refused(*status))));
        assert!(is_forbidden(&entry("forbidden")) && !is_forbidden(&entry("invalid-name")));
    }

    #[test]
    fn what_may_be_stored_all_the_same_is_known_to_be_unsure() {
        assert!(is_unsure(&refused(504).error) && is_unsure(&entry("outcome-unknown")));
        assert!(!is_unsure(&refused(503).error) && !is_unsure(&entry("unavailable")));
    }
}
