//! What no log may show: the secrets that a node was given, and every token, whoever brought it.

/// Shorter ones stand in a log by chance.
const LEAST: usize = 12;

/// The secrets among a node's settings, those in files too.
pub fn of(settings: &[(&str, &str)]) -> Vec<String> {
    let mut secrets = Vec::new();
    for (name, value) in settings {
        let file = name.strip_suffix("_FILE");
        let content = file.and_then(|_| std::fs::read_to_string(value).ok());
        let (name, value) = (file.unwrap_or(name), content.as_deref().unwrap_or(value));
        match name {
            "WHIMBREL_API_KEYS" => secrets.extend(keys(value)),
            _ if name.contains("SECRET") => secrets.extend(value.split("\n\n").map(str::to_owned)),
            _ if name.contains("PASSWORD") => secrets.push(value.to_owned()),
            _ if name.contains("URL") || name.contains("REGIONS") => secrets.extend(passwords(value)),
            _ => {}
        }
    }
    secrets.iter().map(|secret| secret.trim().to_owned()).filter(|secret| secret.len() >= LEAST).collect()
}

/// The keys in a file of producers' keys.
fn keys(file: &str) -> Vec<String> {
    let entries: Vec<serde_json::Value> = serde_json::from_str(file).unwrap_or_default();
    entries.iter().filter_map(|entry| entry["key"].as_str().map(str::to_owned)).collect()
}

/// The passwords in URLs.
fn passwords(urls: &str) -> Vec<String> {
    let logins = urls.split_whitespace().filter_map(|url| url.split_once("://")?.1.rsplit_once('@'));
    logins.filter_map(|(login, _)| login.split_once(':').map(|(_, password)| password.to_owned())).collect()
}

/// Checks that a log shows none of these, nor any token.
#[track_caller]
pub fn none_in(log: &str, secrets: &[String]) {
    for line in log.lines() {
        let shown = secrets.iter().any(|secret| line.contains(secret.as_str()));
        assert!(!shown && !has_token(line), "the log shows a secret or a token: {line}");
    }
}

/// Whether a text has a JWT in it: parts in base64, of which the first two are JSON objects.
fn has_token(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.match_indices("eyJ").any(|(at, _)| {
        let token = text[at..].split_once('.');
        token.is_some_and(|(head, rest)| head.chars().all(is_part) && rest.starts_with("eyJ"))
    })
}

#[test]
fn a_secret_or_token_in_a_log_is_found() {
    let url = ("WHIMBREL_REDIS_URL", "redis://a:passw0rd-0123@b");
    let secrets = of(&[("WHIMBREL_JWT_SECRET", "the first secret\n\nthe second one"), url]);
    assert_eq!(secrets, ["the first secret", "the second one", "passw0rd-0123"]);
    none_in("a line\nredis://***@b, eyJ and more", &secrets);
    for leak in ["x the second one y", url.1, "token=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.c2ln"] {
        assert!(std::panic::catch_unwind(|| none_in(leak, &secrets)).is_err(), "{leak}");
    }
}
