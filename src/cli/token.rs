//! `whimbrel token`: a device token from the configured secret.

use std::process::ExitCode;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::access::{Patterns, TOKEN_ID_LENGTH, install_signatures, is_token_id};
use crate::config::Flags;
use crate::model::{Info, StreamKind, StreamName};
use crate::store::now_ms;

use super::{Failure, print};

pub const NOTES: &str = "\
Examples:
  whimbrel token --device 42 --subscribe 'topic:*' --ttl 3600
  WHIMBREL_TOKEN=$(whimbrel token --device 42) whimbrel subscribe device:42

The secret is WHIMBREL_JWT_SECRET or the content of WHIMBREL_JWT_SECRET_FILE; of several, the first. Where \
WHIMBREL_JWT_ISSUER and WHIMBREL_JWT_AUDIENCE are set, the token has the first of each. Your application makes \
tokens like these by itself, with any JWT library: see docs/access.md.";

#[derive(clap::Args)]
pub struct Arguments {
    /// The device whose inbox it reads (sub); without, the bearer has none
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Streams that it may follow beside its inbox: patterns such as 'topic:orders:*'; repeat it for several
    #[arg(long, value_name = "PATTERN")]
    subscribe: Vec<Patterns>,
    /// Streams that it may publish to
    #[arg(long, value_name = "PATTERN")]
    publish: Vec<Patterns>,
    /// For how long it holds, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=315_360_000))]
    ttl: u64,
    /// Its id (jti), by which it can be revoked
    #[arg(long, value_name = "TEXT")]
    id: Option<String>,
    /// What is shown beside its connections, a JSON object
    #[arg(long, value_name = "JSON")]
    info: Option<String>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (settings, _warnings) = Flags::default().validate(std::env::vars_os())?;
    let secrets = settings.jwt_secret.as_ref().ok_or_else(|| {
        Failure::usage("there is no secret to sign with: set WHIMBREL_JWT_SECRET or WHIMBREL_JWT_SECRET_FILE")
    })?;
    let mut claims = arguments.claims()?;
    let first = |of: &[String]| of.first().cloned().map(Value::from);
    claims.extend(first(&settings.jwt_issuer).map(|issuer| ("iss".to_owned(), issuer)));
    claims.extend(first(&settings.jwt_audience).map(|audience| ("aud".to_owned(), audience)));
    install_signatures();
    let token = encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secrets.newest()))
        .map_err(|error| Failure::failed(format!("the token can't be signed: {error}")))?;
    print(token)?;
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn claims(&self) -> Result<Map<String, Value>, Failure> {
        let now = now_ms() / 1000;
        let mut claims = Map::from_iter([("iat".to_owned(), json!(now)), ("exp".to_owned(), json!(now + self.ttl))]);
        if let Some(device) = &self.device {
            StreamName::new(StreamKind::Device, device)
                .map_err(|error| Failure::usage(format!("--device: {error}")))?;
            claims.insert("sub".to_owned(), json!(device));
        }
        if let Some(id) = &self.id {
            let rule = format!("--id: it has at most {TOKEN_ID_LENGTH} characters, none of them a control character");
            is_token_id(id).then_some(()).ok_or_else(|| Failure::usage(rule))?;
            claims.insert("jti".to_owned(), json!(id));
        }
        let all = |lists: &[Patterns]| lists.iter().flat_map(Patterns::iter).map(Value::from).collect::<Vec<_>>();
        let mut rights = json!({"subscribe": all(&self.subscribe), "publish": all(&self.publish)});
        if let Some(info) = &self.info {
            let info: &RawValue = serde_json::from_str(info)
                .map_err(|error| Failure::usage(format!("--info: it has to be a JSON object: {error}")))?;
            let info = Info::new(info).map_err(|error| Failure::usage(format!("--info: it {error}")))?;
            rights["info"] = json!(info);
        }
        claims.insert("whimbrel".to_owned(), rights);
        Ok(claims)
    }
}
