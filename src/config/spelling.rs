//! What was probably meant by a variable that is no setting.

use super::{SETTINGS, Setting};

/// Says that a variable is no setting, and which one is spelt most like it.
pub fn no_such_setting(own: &str) -> String {
    let hint = nearest(&own.to_lowercase()).map(|setting| format!(" (did you mean {}?)", setting.variable()));
    format!("there is no such setting{}", hint.unwrap_or_default())
}

/// The setting whose name is a few keystrokes away, or of whose name this is the first part.
fn nearest(field: &str) -> Option<&'static Setting> {
    let most = field.len() / 4;
    let distance = |setting: &Setting| strsim::damerau_levenshtein(field, setting.field);
    let close = SETTINGS.iter().min_by_key(|setting| distance(setting)).filter(|setting| distance(setting) <= most);
    close.or_else(|| SETTINGS.iter().find(|setting| setting.field.starts_with(&format!("{field}_"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_setting_is_answered_with_the_nearest_one_and_any_other_word_with_none() {
        for (own, meant) in [
            ("REDIS_ULR", Some("redis_url")),
            ("LEASE_SECOND", Some("lease_seconds")),
            ("listen", Some("listen")),
            ("ORIGIN", Some("origins")),
            ("AUTHORISE_URL", Some("authorize_url")),
            ("JWT_SECRETS", Some("jwt_secret")),
            ("API_KEYS", Some("api_keys_file")),
            ("TYPO", None),
            ("COLOUR", None),
            ("", None),
        ] {
            assert_eq!(nearest(&own.to_lowercase()).map(|setting| setting.field), meant, "{own}");
        }
        assert_eq!(no_such_setting("REDIS_ULR"), "there is no such setting (did you mean WHIMBREL_REDIS_URL?)");
        assert_eq!(no_such_setting("TYPO"), "there is no such setting");
    }
}
