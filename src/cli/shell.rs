//! `whimbrel completions` and `whimbrel man`: what shells and manuals want to know about the commands.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, Failure, print};

#[derive(clap::Args)]
pub struct CompletionsArguments {
    /// The shell that the completions are for
    shell: Shell,
}

#[derive(clap::Args)]
pub struct ManArguments {
    /// Write a page for each command into this folder, instead of printing the one of whimbrel
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

pub fn completions(arguments: &CompletionsArguments) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "whimbrel", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::SUCCESS)
}

pub fn man(arguments: &ManArguments) -> Result<ExitCode, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("the manual can't be written: {error}"));
    match &arguments.folder {
        Some(folder) => {
            std::fs::create_dir_all(folder)
                .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
                .map_err(failed)?;
        }
        None => {
            let mut page = Vec::new();
            Man::new(Cli::command()).render(&mut page).map_err(failed)?;
            print(String::from_utf8_lossy(&page).trim_end())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
