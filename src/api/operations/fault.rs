//! Why an operation was not carried out: the same names of problems as over REST.

use serde::Serialize;

use crate::access::rates::TooFast;
use crate::access::{Denied, Refusal};
use crate::hub::{AckError, ListenError, OptionError, PublishError};
use crate::presence::RenewError;
use crate::transport::CloseReason;

/// Why an operation was not carried out.
#[derive(Serialize)]
pub struct Fault {
    pub code: &'static str,
    pub detail: String,
}

impl From<PublishError> for Fault {
    fn from(error: PublishError) -> Self {
        Fault { code: error.slug(), detail: error.to_string() }
    }
}

impl From<OptionError> for Fault {
    fn from(error: OptionError) -> Self {
        match error {
            OptionError::Event(error) => error.into(),
            error => Fault::bad(error),
        }
    }
}

/// Under the name with which a connection would be closed for it.
impl From<ListenError> for Fault {
    fn from(error: ListenError) -> Self {
        Fault { code: CloseReason::from(&error).as_str(), detail: error.to_string() }
    }
}

impl From<AckError> for Fault {
    fn from(error: AckError) -> Self {
        Fault { code: error.slug(), detail: error.to_string() }
    }
}

impl From<Denied> for Fault {
    fn from(denied: Denied) -> Self {
        let code = match denied {
            Denied::Unknown(_) => "unauthorized",
            Denied::Forbidden(_) => "forbidden",
        };
        Fault { code, detail: denied.to_string() }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::Invalid(_) | Refusal::Foreign(_) => "unauthorized",
            Refusal::Forbidden(_) => "forbidden",
            Refusal::Unavailable(_) => "unavailable",
        };
        Fault { code, detail: refusal.to_string() }
    }
}

impl From<RenewError> for Fault {
    fn from(error: RenewError) -> Self {
        Fault { code: "forbidden", detail: error.to_string() }
    }
}

impl From<TooFast> for Fault {
    fn from(error: TooFast) -> Self {
        Fault { code: "rate", detail: error.to_string() }
    }
}

impl Fault {
    /// The client asked for what there is not.
    pub fn bad(detail: impl ToString) -> Self {
        Fault { code: "bad-request", detail: detail.to_string() }
    }

    /// A bug; the log and a metric have it.
    pub fn internal() -> Self {
        Fault { code: "internal", detail: "something went wrong on the server; its log has the details".into() }
    }
}
