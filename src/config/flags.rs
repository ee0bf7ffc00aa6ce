//! From the command line and the environment to settings.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{Arg, ArgMatches};

use super::{SETTINGS, SettingError, Settings, VARIABLE, access, kubernetes, read, spelling, variable};

/// The settings of the command line: texts that nobody has judged yet. No `Debug`, because a Redis URL
/// holds a password.
#[derive(Clone, Default)]
pub struct Flags(BTreeMap<String, String>);

impl Flags {
    /// Joins the flags with the environment and judges everything. The second part of the answer are
    /// warnings for the log, one line each.
    pub fn validate(
        self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(Settings, Vec<String>), SettingError> {
        let mut given: BTreeMap<&'static str, String> = BTreeMap::new();
        let mut warnings = Vec::new();
        for (name, value) in environment {
            let Some(name) = name.to_str() else { continue };
            let Some(own) = name.strip_prefix(VARIABLE).filter(|own| !kubernetes::is_own(own)) else { continue };
            let field = own.to_lowercase();
            let known = SETTINGS.iter().find(|setting| setting.field == field);
            let Some(setting) = known.filter(|_| name == variable(&field)) else {
                if access::is_of_clients(name) || kubernetes::is_another(own, &value) {
                    continue;
                }
                access::refuse_misspelt(name, own)?;
                warnings.push(format!("{name} is set, but {}", spelling::no_such_setting(own)));
                continue;
            };
            let text = value.into_string().map_err(|_| SettingError::new(&field, "is not UTF-8 text".into()))?;
            match text.is_empty() {
                false => _ = given.insert(setting.field, text),
                true => access::refuse_empty(setting.field)?,
            }
        }
        for (field, text) in self.0 {
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.field == field) {
                given.insert(setting.field, text);
            }
        }
        warnings.sort();
        Ok((read(&given)?.settle()?, warnings))
    }

    /// Leaves a setting out of a command's help, unless it is one of these. The command takes it all the same.
    pub fn hide_other_than(shown: &[&str], arg: Arg) -> Arg {
        let id = arg.get_id().as_str();
        let is_hidden = SETTINGS.iter().any(|setting| setting.field == id) && !shown.contains(&id);
        arg.hide(is_hidden)
    }
}

impl clap::Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let known = SETTINGS.iter().map(|setting| {
            let default = if setting.default.is_empty() { "none" } else { setting.default };
            let meaning: String = setting.help.iter().map(|line| line.trim_start()).collect::<Vec<_>>().join(" ");
            let arg = Arg::new(setting.field)
                .long(setting.flag())
                .value_name(setting.value)
                .allow_negative_numbers(true)
                .help(format!("{meaning} [env: {}] [default: {default}]", setting.variable()));
            if setting.value == "BOOL" {
                arg.num_args(0..=1).require_equals(true).default_missing_value("true")
            } else {
                arg
            }
        });
        command.args(known)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Flags::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for id in matches.ids() {
            // Groups have an id too, but no text.
            if let Ok(Some(text)) = matches.try_get_one::<String>(id.as_str()) {
                self.0.insert(id.to_string(), text.clone());
            }
        }
        Ok(())
    }
}
