//! `whimbrel serve`: a node.

use std::process::ExitCode;

use crate::config::Flags;
use crate::node;

use super::{Failure, log};

pub const NOTES: &str = "\
Each setting can be given as the environment variable named beside it; a flag wins over its variable. \
A setting that can't work ends the start with one line that names it, and exit code 2.";

pub async fn run(flags: Flags) -> Result<ExitCode, Failure> {
    let (settings, warnings) = flags.validate(std::env::vars_os())?;
    log::start(&settings.log, settings.log_json);
    node::serve(settings, &warnings).await.map_err(Failure::usage)?;
    Ok(ExitCode::SUCCESS)
}
