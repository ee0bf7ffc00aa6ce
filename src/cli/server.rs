//! What the commands that are clients have in common: which server, with which credentials, and which certificates
//! they trust.

use std::env;
use std::path::PathBuf;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::Failure;
use crate::client::{Authorities, Publisher, Setup};

/// The server, where no other is given.
const LOCAL: &str = "http://127.0.0.1:8080";

/// What every request brings.
#[derive(Default, clap::Args)]
pub struct Credentials {
    /// A token or key [env: WHIMBREL_TOKEN, where other users of the machine can't see it]
    #[arg(long, hide_default_value = true)]
    token: Option<String>,
    /// A header of every request, such as 'X-Tenant: 7'
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// The authorities that may have signed the certificate of an https:// server, in PEM [env: WHIMBREL_CA_FILE]
    /// [default: those that this machine trusts]
    #[arg(long, value_name = "PATH")]
    ca_file: Option<PathBuf>,
}

/// The one server that a command asks.
#[derive(Default, clap::Args)]
pub struct Target {
    /// The server [env: WHIMBREL_URL] [default: http://127.0.0.1:8080]
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    credentials: Credentials,
}

impl Target {
    /// What asks it.
    pub fn publisher(&self) -> Result<Publisher, Failure> {
        let url = urls(self.url.as_slice()).swap_remove(0);
        Ok(Publisher::new(&url)?.setup(&self.credentials.setup()?)?)
    }
}

impl Credentials {
    /// With what requests are made.
    pub fn setup(&self) -> Result<Setup, Failure> {
        Ok(Setup { headers: self.headers()?, authorities: self.authorities()? })
    }

    /// Whose certificates are accepted.
    pub fn authorities(&self) -> Result<Authorities, Failure> {
        let file = self.ca_file.clone().or_else(|| variable("WHIMBREL_CA_FILE").map(PathBuf::from));
        let read = |file: PathBuf| Authorities::of_file(&file);
        let refuse = |error| Failure::usage(format!("--ca-file: {error}"));
        Ok(file.map(read).transpose().map_err(refuse)?.unwrap_or_default())
    }

    /// The headers of every request.
    pub fn headers(&self) -> Result<HeaderMap, Failure> {
        let mut headers: HeaderMap = self.header.iter().cloned().collect();
        if let Some(token) = self.token.clone().or_else(|| variable("WHIMBREL_TOKEN")) {
            let refuse = |_| Failure::usage("--token: a token or key is one line of visible ASCII characters");
            let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.trim())).map_err(refuse)?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        Ok(headers)
    }
}

/// The servers: those that are given, those of the environment, or the one on this machine.
pub fn urls(given: &[String]) -> Vec<String> {
    if !given.is_empty() {
        return given.to_vec();
    }
    let named: Vec<String> =
        variable("WHIMBREL_URL").iter().flat_map(|urls| urls.split_whitespace()).map(str::to_owned).collect();
    if named.is_empty() { vec![LOCAL.to_owned()] } else { named }
}

/// A variable of the environment that is not empty.
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a header is NAME: VALUE")?;
    let name = name.trim().parse().map_err(|_| "a header's name has letters, digits and dashes")?;
    let value = value.trim().parse().map_err(|_| "a header's value is one line of visible characters")?;
    Ok((name, value))
}
