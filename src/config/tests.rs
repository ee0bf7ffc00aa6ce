use std::ffi::OsString;

use super::*;

/// Reads the command line `flags` in the environment `variables`.
fn settings(flags: &[&str], variables: &[(&str, &str)]) -> Result<(Settings, Vec<String>), String> {
    let command = <Flags as clap::Args>::augment_args(clap::Command::new("test").no_binary_name(true));
    let matches = command.try_get_matches_from(flags).map_err(|e| e.to_string())?;
    let flags = <Flags as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    flags.validate(variables).map_err(|e| e.to_string())
}

fn accepted(flags: &[&str], variables: &[(&str, &str)]) -> Settings {
    settings(flags, variables).unwrap().0
}

fn refusal(flags: &[&str], variables: &[(&str, &str)]) -> String {
    let line = settings(flags, variables).unwrap_err();
    assert!(!line.contains('\n'), "more than one line: {line}");
    line
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let settings = accepted(&[], &[]);
    assert_eq!(settings.listen, ["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!(settings.redis_url, None);
    assert_eq!(settings.prefix, "whimbrel");
    assert_eq!(settings.retention, RetentionRules::default());
    assert_eq!((settings.position_seconds, settings.lease_seconds, settings.sync_seconds), (2_592_000, 15, 30));
    assert_eq!((settings.outbox_bytes, settings.ring_bytes), (65_536, 67_108_864));
    assert_eq!((settings.ping_seconds, settings.drain_delay_seconds, settings.drain_seconds), (25, 5, 10));
    assert_eq!((settings.max_event_bytes, settings.max_streams, settings.max_connections), (65_536, 64, None));
    assert_eq!(settings.embedded_bytes, 268_435_456);
    assert!(!settings.insecure && !settings.ready_strict && !settings.log_json);
    assert_eq!(Settings::default().log, "info");
}

#[test]
fn a_flag_beats_the_variable_of_the_same_name() {
    assert_eq!(accepted(&[], &[("WHIMBREL_LEASE_SECONDS", "7")]).lease(), Duration::from_secs(7));
    assert_eq!(accepted(&["--lease-seconds", "8"], &[("WHIMBREL_LEASE_SECONDS", "7")]).lease_seconds, 8);
    assert!(accepted(&["--insecure"], &[]).insecure);
    assert!(!accepted(&["--insecure=false"], &[("WHIMBREL_INSECURE", "true")]).insecure);
}

#[test]
fn every_setting_can_be_given_in_both_ways() {
    for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
        accepted(&[&format!("--{}={}", setting.flag(), setting.default)], &[]);
        accepted(&[], &[(&setting.variable(), setting.default)]);
    }
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let settings = accepted(&[], &[("WHIMBREL_REDIS_URL", ""), ("WHIMBREL_LEASE_SECONDS", "")]);
    assert_eq!((settings.redis_url, settings.lease_seconds), (None, 15));
}

#[test]
fn a_setting_that_cannot_work_is_refused_in_one_line_that_names_it() {
    let both = refusal(&["--lease-seconds", "abc"], &[]);
    assert!(
        both.starts_with(
            "WHIMBREL_LEASE_SECONDS (--lease-seconds): 'abc' is not a whole number of seconds, at least 1"
        ),
        "{both}"
    );
    for (name, value) in [
        ("LISTEN", "localhost:80"),
        ("LISTEN", "127.0.0.1"),
        ("REDIS_URL", "http://example.com"),
        ("REDIS_URL", "redis://host:port"),
        ("REDIS_URL", "redis://host/notanumber"),
        ("REDIS_URL_FILE", "/nonexistent/file"),
        ("PREFIX", "a{b}"),
        ("PREFIX", "a b"),
        ("RETENTION", "*=5"),
        ("RETENTION", "*=5\n/"),
        ("POSITION_SECONDS", "0"),
        ("LEASE_SECONDS", "0"),
        ("LEASE_SECONDS", "-1"),
        ("LEASE_SECONDS", "1.5"),
        ("LEASE_SECONDS", "99999999999"),
        ("SYNC_SECONDS", "+3"),
        ("OUTBOX_BYTES", "64k"),
        ("RING_BYTES", "x\ny"),
        ("MAX_CONNECTIONS", "0"),
        ("MAX_EVENT_BYTES", "0"),
        ("MAX_EVENT_BYTES", "999999999999"),
        ("MAX_STREAMS", "65"),
        ("INSECURE", "yes please"),
        ("LINK_LISTEN", "localhost"),
        ("LINK_ADVERTISE", "localhost"),
        ("LINK_ADVERTISE", "http://host:80"),
        ("LINK_SECRET", "too short"),
        ("LINK_SECRET_FILE", "/nonexistent/file"),
        ("MAX_LINKS", "0"),
        ("LINK_IDLE_SECONDS", "0"),
        ("OTLP_URL", "collector:4318"),
        ("OTLP_URL_FILE", "/nonexistent/file"),
        ("TRACE_RATIO", "1.5"),
        ("TRACE_RATIO", "-0.1"),
        ("TRACE_RATIO", "all"),
        ("TRACE_RATIO", "NaN"),
        ("WEBHOOK_URL", "example.com/hook"),
        ("WEBHOOK_URL", "ftp://example.com"),
        ("WEBHOOK_URL_FILE", "/nonexistent/file"),
        ("AUTHORIZE_URL", "example.com/authorize"),
        ("AUTHORIZE_URL_FILE", "/nonexistent/file"),
        ("WEBHOOK_SECRET", "whsec_c2hvcnQ="),
        ("WEBHOOK_SECRET", "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("WEBHOOK_SECRET_FILE", "/nonexistent/file"),
        ("WEBHOOK_TIMEOUT_SECONDS", "0"),
        ("LOG", "info,whimbrel=loud"),
    ] {
        let variable = format!("WHIMBREL_{name}");
        let flag = name.to_lowercase().replace('_', "-");
        let named = format!("{variable} (--{flag}): ");
        let line = refusal(&[], &[(&variable, value)]);
        assert!(line.starts_with(&named), "{line}");
        assert_eq!(refusal(&[&format!("--{flag}={value}")], &[]), line);
    }
}

#[test]
fn open_access_beyond_loopback_has_to_be_asked_for() {
    assert!(refusal(&["--listen", "0.0.0.0:8080"], &[]).starts_with("WHIMBREL_LISTEN (--listen): 0.0.0.0:8080"));
    assert!(refusal(&["--listen", "[::]:0"], &[]).contains("WHIMBREL_INSECURE=true"));
    assert!(accepted(&["--listen", "0.0.0.0:8080", "--insecure"], &[]).insecure);
    for loopback in ["127.9.9.9:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
        accepted(&["--listen", loopback], &[]);
    }
}

#[test]
fn a_redis_password_is_never_shown() {
    for url in [
        "redis://:s3cret@host:6379/1",
        "rediss://me:s3cret@host",
        "unix:///run/redis.sock?pass=s3cret",
        "redis+unix:///run/redis.sock?db=1&pass=s3cret",
    ] {
        let settings = accepted(&["--redis-url", url], &[]);
        assert!(!format!("{settings:?}").contains("s3cret"), "{settings:?}");
        assert_eq!(settings.redis_url.unwrap().expose(), url);
    }
    for url in ["redis://:s3cret@host:99999", "s3cret", "redis://:s3cret@host/s3cret", "redis+cluster://s3cret@h/9"] {
        assert!(!refusal(&["--redis-url", url], &[]).contains("s3cret"));
    }
    let shown = accepted(&["--redis-url", "redis://:s3cret@host:6379/1"], &[]).redis_url.unwrap().to_string();
    assert_eq!(shown, "redis://***@host:6379/1");
}

#[test]
fn the_redis_url_can_stand_in_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "redis://:s3cret@host\n").unwrap();
    let path = file.path().to_str().unwrap();
    let variables = [("WHIMBREL_REDIS_URL_FILE", path)];
    assert_eq!(accepted(&[], &variables).redis_url.unwrap().expose(), "redis://:s3cret@host");
    assert!(refusal(&["--redis-url", "redis://other"], &variables).contains("only one of them"));
    std::fs::write(file.path(), "s3cret").unwrap();
    let line = refusal(&[], &variables);
    assert!(line.starts_with("WHIMBREL_REDIS_URL_FILE (--redis-url-file): in the file:") && !line.contains("s3cret"));
}

#[test]
fn links_need_a_secret_a_redis_and_an_address_that_others_can_use() {
    let listen = ["--link-listen", "0.0.0.0:7946"];
    let redis = ["--redis-url", "redis://host"];
    let secret = ["--link-secret", "a-secret-of-all-nodes"];
    let with = |parts: &[&[&'static str]]| parts.concat();
    for (flags, missing) in [
        (with(&[&listen, &redis]), "WHIMBREL_LINK_SECRET"),
        (with(&[&listen, &secret]), "WHIMBREL_REDIS_URL"),
        (with(&[&listen, &redis, &secret]), "WHIMBREL_LINK_ADVERTISE"),
    ] {
        let line = refusal(&flags, &[]);
        assert!(line.starts_with("WHIMBREL_LINK_LISTEN (--link-listen): ") && line.contains(missing), "{line}");
    }
    let settings = accepted(&with(&[&listen, &redis, &secret, &["--link-advertise", "node-1:7946"]]), &[]);
    assert!(!format!("{settings:?}").contains("a-secret"), "{settings:?}");

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "a-secret-in-a-file\n").unwrap();
    let variables = [("WHIMBREL_LINK_SECRET_FILE", file.path().to_str().unwrap())];
    let flags = with(&[&["--link-listen", "127.0.0.1:0"], &redis]);
    assert_eq!(accepted(&flags, &variables).link_secret.unwrap().expose(), "a-secret-in-a-file");
    assert!(refusal(&with(&[&flags, &secret]), &variables).contains("only one of them"));
    assert!(!refusal(&["--link-secret", "sesame"], &[]).contains("sesame"));
}

#[test]
fn webhooks_need_an_address_and_a_secret_and_show_neither() {
    let url = ("WHIMBREL_WEBHOOK_URL", "https://me:pass@example.com/T0K3N");
    let secret = ("WHIMBREL_WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    assert!(refusal(&[], &[url]).starts_with("WHIMBREL_WEBHOOK_URL (--webhook-url): webhooks are signed: "));
    assert!(refusal(&[], &[secret]).starts_with("WHIMBREL_WEBHOOK_SECRET (--webhook-secret): nothing is signed"));
    let settings = accepted(&[], &[url, secret]);
    let shown = format!("{settings:?}");
    assert!(!shown.contains("T0K3N") && !shown.contains("me:pass") && !shown.contains("MfKQ9r8"), "{shown}");
    assert_eq!(settings.webhook_timeout(), Duration::from_secs(20));

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{}\n", secret.1)).unwrap();
    let in_file = ("WHIMBREL_WEBHOOK_SECRET_FILE", file.path().to_str().unwrap());
    assert!(accepted(&[], &[url, in_file]).webhook_secret.is_some());
    assert!(refusal(&[], &[url, secret, in_file]).contains("WHIMBREL_WEBHOOK_SECRET is set too"));
    std::fs::write(file.path(), "T0K3N").unwrap();
    for (given, name) in [(in_file.0, "webhook-secret"), ("WHIMBREL_WEBHOOK_URL_FILE", "webhook-url")] {
        let line = refusal(&[], &[(given, in_file.1)]);
        assert!(
            line.starts_with(&format!("{given} (--{name}-file): in the file: ")) && !line.contains("T0K3N"),
            "{line}"
        );
    }
    for (flag, value) in [("--webhook-url", "T0K3N"), ("--webhook-secret", "T0K3N")] {
        assert!(!refusal(&[flag, value], &[]).contains("T0K3N"));
    }
}

#[test]
fn a_cluster_is_known_by_some_of_its_servers() {
    for scheme in ["redis+cluster", "rediss+cluster"] {
        let url = format!("{scheme}://app:s3cret@host,other:7000");
        let settings = accepted(&["--redis-url", &url], &[]);
        assert_eq!(settings.redis_url.unwrap().to_string(), format!("{scheme}://***@host,other:7000"));
        let line = refusal(&["--redis-url", &format!("{scheme}://host/1")], &[]);
        assert!(line.contains("a Cluster has only one"), "{line}");
    }
}

#[test]
fn sentinels_are_named_before_their_master_and_may_have_a_login_of_their_own() {
    let url = "redis+sentinel://app:s3cret@s1:26379,s2,s3/main";
    let settings = accepted(&["--redis-url", url, "--sentinel-user=reader", "--sentinel-password=hidden"], &[]);
    let server = settings.server(settings.redis_url.as_ref().unwrap());
    assert_eq!((server.url.expose(), server.sentinel_user.as_deref()), (url, Some("reader")));
    assert_eq!(server.sentinel_password.unwrap().expose(), "hidden");
    assert_eq!(server.url.to_string(), "redis+sentinel://***@s1:26379,s2,s3/main");
    assert!(refusal(&["--redis-url", "redis+sentinel://s1,s2"], &[]).contains("names no master; a URL with Sentinels"));
    assert!(refusal(&["--redis-url", url, "--sentinel-user=reader"], &[]).contains("needs a password"));
    let regions = ["--region=eu", "--regions", &format!("eu={url} us=redis://us"), "--directory-url", url];
    assert_eq!(accepted(&regions, &[]).regions.unwrap().of("eu").map(|url| url.expose()), Some(url));
}

#[test]
fn unknown_variables_are_warnings_and_those_of_kubernetes_are_silent() {
    let (settings, warnings) = settings(
        &[],
        &[
            ("WHIMBREL_LEASE_SECOND", "1"),
            ("WHIMBREL_listen", "x"),
            ("WHIMBREL_PORT", "tcp://10.0.0.1:80"),
            ("WHIMBREL_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("WHIMBREL_SERVICE_HOST", "10.0.0.1"),
            ("OTHER", "x"),
        ],
    )
    .unwrap();
    assert_eq!(
        warnings,
        [
            "WHIMBREL_LEASE_SECOND is set, but there is no such setting (did you mean WHIMBREL_LEASE_SECONDS?)",
            "WHIMBREL_listen is set, but there is no such setting (did you mean WHIMBREL_LISTEN?)"
        ]
    );
    assert_eq!(settings.lease_seconds, 15);
    assert!(super::tests::settings(&["--port", "80"], &[]).is_err());
}

#[test]
fn an_unknown_variable_that_looks_like_one_of_access_ends_the_start() {
    for name in [
        "WHIMBREL_JWT_SECRETS",
        "WHIMBREL_API_KEYS",
        "WHIMBREL_Jwt_Secret",
        "WHIMBREL_ORIGIN",
        "WHIMBREL_AUTHORISE_URL",
        "WHIMBREL_TOKENS",
    ] {
        let line = refusal(&[], &[(name, "s3cret")]);
        assert!(line.starts_with(&format!("{name}: there is no such setting")) && !line.contains("s3cret"), "{line}");
    }
    let (_, warnings) = settings(&[], &[("WHIMBREL_TOKEN", "t"), ("WHIMBREL_URL", "http://localhost:8080")]).unwrap();
    assert!(warnings.is_empty(), "they are for the commands that are clients: {warnings:?}");
}

#[test]
fn a_key_or_secret_closes_access_and_then_other_machines_may_come() {
    let everywhere = ["--listen", "0.0.0.0:8080"];
    let secret = ("WHIMBREL_JWT_SECRET", "0123456789 s3cret");
    let pem = include_str!("../../tests/keys/es256.public.pem");
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "[]").unwrap();
    let path = keys.path().to_str().unwrap();
    assert!(!accepted(&[], &[]).access().is_closed());
    for given in [secret, ("WHIMBREL_JWT_PUBLIC_KEY", pem), ("WHIMBREL_API_KEYS_FILE", path)] {
        let settings = accepted(&everywhere, &[given]);
        assert!(settings.access().is_closed());
        assert!(!format!("{settings:?}").contains("s3cret"));
        // An empty variable is no way of leaving it out: somebody meant to close access.
        let line = refusal(&[], &[(given.0, "")]);
        assert!(line.starts_with(given.0) && line.contains("is set but empty"), "{line}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), secret.1).unwrap();
    let in_file = ("WHIMBREL_JWT_SECRET_FILE", file.path().to_str().unwrap());
    assert!(accepted(&everywhere, &[in_file]).access().is_closed());
    std::fs::write(file.path(), "\n").unwrap();
    assert!(refusal(&[], &[in_file]).contains("in the file: holds no secret"));
}

#[test]
fn settings_of_access_that_need_another_are_refused_without_it() {
    for name in ["JWT_AUDIENCE", "JWT_ISSUER", "ANONYMOUS"] {
        let variable = format!("WHIMBREL_{name}");
        let value = if name == "ANONYMOUS" { "topic:news" } else { "push" };
        assert!(refusal(&[], &[(&variable, value)]).starts_with(&variable));
        accepted(&[], &[(&variable, value), ("WHIMBREL_JWT_SECRET", "0123456789abcdef")]);
    }
    assert!(refusal(&["--anonymous=news"], &[]).contains("'news' matches no stream"));
    for (flag, value) in [("--jwt-secret", "sesame"), ("--jwt-public-key", "sesame"), ("--api-keys-file", "/nowhere")] {
        let line = refusal(&[flag, value], &[]);
        assert!(line.starts_with("WHIMBREL_") && !line.contains("sesame"), "{line}");
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_text_is_refused_by_name() {
    use std::os::unix::ffi::OsStringExt as _;
    let variables = [(OsString::from("WHIMBREL_PREFIX"), OsString::from_vec(vec![0xff]))];
    let refusal = Flags::default().validate(variables).unwrap_err().to_string();
    assert_eq!(refusal, "WHIMBREL_PREFIX (--prefix): is not UTF-8 text");
}

#[test]
fn the_help_names_every_setting_with_variable_and_default() {
    let command = <Flags as clap::Args>::augment_args(clap::Command::new("test")).term_width(0);
    let help = command.clone().render_long_help().to_string();
    for setting in SETTINGS {
        assert!(help.contains(&format!("--{} ", setting.flag())) || help.contains(&format!("--{}[", setting.flag())));
        assert!(help.contains(&format!("[env: {}]", setting.variable())), "{help}");
        assert!(help.contains(&format!("[default: {}", setting.default)));
    }
}

/// What `.env.example` has to be: every setting, commented out, with its meaning and default.
fn env_example() -> String {
    let mut text = String::from(
        "# Settings of `whimbrel serve`, each with its default. The flag of the same name\n\
         # (WHIMBREL_LEASE_SECONDS is --lease-seconds) wins over the variable; an empty variable counts as not set.\n",
    );
    for setting in SETTINGS {
        text.push('\n');
        for line in setting.help {
            text.push_str(&format!("# {}\n", line.trim_start()));
        }
        text.push_str(&format!("#{}={}\n", setting.variable(), setting.default));
    }
    text
}

#[test]
fn the_example_environment_lists_every_setting() {
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example")).unwrap();
    assert_eq!(file, env_example(), "bring .env.example up to date with src/config.rs");
}

#[test]
fn regions_are_named_with_their_urls_and_the_node_calls_one_of_them_home() {
    let both = ("WHIMBREL_REGIONS", "eu=redis://eu:6379 us=redis://:hunter2@us:6379");
    let settings = accepted(&["--region", "us", "--region-rules", "device:eu-*=eu"], &[both]);
    assert_eq!(settings.redis_url.as_ref().map(ToString::to_string), Some("redis://***@us:6379".to_owned()));
    assert!(!format!("{settings:?}").contains("hunter2"));
    let own = accepted(&["--region=us", "--redis-url=redis://localhost:6379"], &[both]).redis_url.unwrap();
    assert_eq!(own.expose(), "redis://localhost:6379");
    assert!(refusal(&[], &[both]).contains("'local' is not one of WHIMBREL_REGIONS"));
    assert!(refusal(&["--region=us", "--region-rules=*=asia"], &[both]).contains("'asia'"));
    for wrong in ["eu", "eu=", "=redis://a", "EU=redis://a", "eu=redis://a eu=redis://b", "eu=http://a:secret@b", " "] {
        let line = refusal(&["--region=eu"], &[("WHIMBREL_REGIONS", wrong)]);
        assert!(line.starts_with("WHIMBREL_REGIONS") && !line.contains("secret"), "{line}");
    }
    for alone in ["--directory-url=redis://a", "--region-rules=*=eu"] {
        assert!(refusal(&[alone], &[]).contains("needs WHIMBREL_REGIONS"));
    }
    let links = ["--region=eu", "--link-listen=127.0.0.1:7000", "--link-secret=longer than any secret has to be"];
    assert!(refusal(&links, &[both]).starts_with("WHIMBREL_LINK_LISTEN"));
}

#[test]
fn regions_can_stand_in_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "eu=redis://:secret@eu:6379\nus=redis://us:6379\n").unwrap();
    let path = file.path().to_str().unwrap();
    let settings = accepted(&["--region=eu", "--regions-file", path], &[]);
    assert_eq!(settings.regions.unwrap().of("us").map(|url| url.expose()), Some("redis://us:6379"));
    assert!(
        refusal(&["--region=eu", "--regions-file", path], &[("WHIMBREL_REGIONS", "eu=redis://a")]).contains("only one")
    );
}
