//! Keys of producers: programs that publish, read or manage.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use serde::Deserialize;
use subtle::ConstantTimeEq as _;

use super::patterns::PatternError;
use super::{Grant, Holder, Patterns};

/// Most keys. Each is compared with whatever a caller brings.
const MOST_KEYS: usize = 1000;

/// Shorter keys can be guessed.
const LEAST_KEY: usize = 16;

/// Longest name of a key.
const LONGEST_NAME: usize = 100;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scope {
    Publish,
    Read,
    Admin,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    key: Option<String>,
    sha256: Option<String>,
    scopes: Vec<Scope>,
    streams: Option<Patterns>,
    rate: Option<u32>,
}

/// A key, of which only the digest is kept.
struct ApiKey {
    digest: [u8; SHA256_OUTPUT_LEN],
    grant: Arc<Grant>,
}

/// Why a file of keys can't be used. It repeats no key.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeysError {
    /// It can't be read.
    #[error("the file can't be read: {0}")]
    File(#[from] std::io::Error),
    /// It is no list of keys.
    #[error(
        "the file has to be a JSON array of {{\"name\", \"key\" or \"sha256\", \"scopes\", \"streams\", \"rate\"}}: \
         line {line}, column {column}{hint}"
    )]
    Form {
        /// Where it breaks off.
        line: usize,
        /// Where in the line.
        column: usize,
        /// What is wrong there, unless that could show a key.
        hint: &'static str,
    },
    /// It has too many keys.
    #[error("the file has {0} keys; {MOST_KEYS} are allowed")]
    Many(usize),
    /// Two keys have one name, or one is the other.
    #[error("two keys are named '{0}'")]
    Twice(String),
    /// Two keys are the same.
    #[error("the key '{0}' is the same as another one")]
    Same(String),
    /// One key makes no sense.
    #[error("the key '{name}' {fault}")]
    Key {
        /// Its name.
        name: String,
        /// What is wrong with it.
        fault: KeyFault,
    },
}

/// What is wrong with a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Its name is empty or too long.
    #[error("needs a name of 1 to {LONGEST_NAME} characters, without control characters")]
    Name,
    /// It is given twice, or not at all.
    #[error("needs either \"key\" or \"sha256\"")]
    Which,
    /// It can be guessed.
    #[error("is too short: at least {LEAST_KEY} characters; `whimbrel key NAME` makes one")]
    Short,
    /// Its digest is none.
    #[error("has a sha256 that is not 64 hexadecimal digits")]
    Digest,
    /// It may do nothing.
    #[error("has no scopes; there are publish, read and admin")]
    Scopes,
    /// Its streams are none.
    #[error("has streams of which {0}")]
    Streams(#[from] PatternError),
    /// Its rate is none.
    #[error("has a rate of 0; leave it out for no limit, or take it out of the file")]
    Rate,
}

/// The keys of a file, read again when it changes.
pub struct ApiKeys {
    path: PathBuf,
    keys: ArcSwap<Vec<ApiKey>>,
}

impl ApiKeys {
    /// Reads a file of keys.
    pub fn open(path: &Path) -> Result<Self, ApiKeysError> {
        let keys = ArcSwap::from_pointee(read(path)?);
        Ok(ApiKeys { path: path.to_owned(), keys })
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file again. Where it can't be used, the keys stay as they are.
    pub fn reload(&self) -> Result<usize, ApiKeysError> {
        let keys = read(&self.path)?;
        let count = keys.len();
        self.keys.store(keys.into());
        Ok(count)
    }

    /// What the bearer of this text may do, if it is a key. Takes equally long whichever key it is, if any.
    pub fn find(&self, text: &str) -> Option<Arc<Grant>> {
        let wanted = digest(&SHA256, text.as_bytes());
        let mut found = None;
        for key in self.keys.load().iter() {
            if bool::from(key.digest.as_slice().ct_eq(wanted.as_ref())) {
                found = Some(key.grant.clone());
            }
        }
        found
    }
}

fn read(path: &Path) -> Result<Vec<ApiKey>, ApiKeysError> {
    parse(&fs::read_to_string(path)?)
}

fn parse(text: &str) -> Result<Vec<ApiKey>, ApiKeysError> {
    let entries: Vec<Entry> = serde_json::from_str(text).map_err(|error| ApiKeysError::Form {
        line: error.line(),
        column: error.column(),
        // In other words than serde's, which may hold a key.
        hint: if error.is_data() { "; a field is missing, not known or of the wrong kind" } else { "" },
    })?;
    if entries.len() > MOST_KEYS {
        return Err(ApiKeysError::Many(entries.len()));
    }
    let (mut names, mut digests) = (HashSet::new(), HashSet::new());
    let mut keys = Vec::with_capacity(entries.len());
    for entry in entries {
        let name = entry.name.clone();
        let key = key(entry).map_err(|fault| ApiKeysError::Key { name: name.escape_debug().to_string(), fault })?;
        if !digests.insert(key.digest) {
            return Err(ApiKeysError::Same(name));
        }
        if !names.insert(name.clone()) {
            return Err(ApiKeysError::Twice(name));
        }
        keys.push(key);
    }
    Ok(keys)
}

fn key(entry: Entry) -> Result<ApiKey, KeyFault> {
    let Entry { name, key, sha256, scopes, streams, rate } = entry;
    if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(KeyFault::Name);
    }
    let digest = match (key, sha256) {
        (Some(key), None) if key.len() < LEAST_KEY => return Err(KeyFault::Short),
        (Some(key), None) => digest(&SHA256, key.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes"),
        (None, Some(hex)) => read_hex(&hex).ok_or(KeyFault::Digest)?,
        _ => return Err(KeyFault::Which),
    };
    if scopes.is_empty() {
        return Err(KeyFault::Scopes);
    }
    if rate == Some(0) {
        return Err(KeyFault::Rate);
    }
    let streams = match streams {
        None => Patterns::all(),
        Some(streams) => streams.check().map(|()| streams)?,
    };
    let with = |scope| match scopes.contains(&scope) || scopes.contains(&Scope::Admin) {
        true => streams.clone(),
        false => Patterns::default(),
    };
    let grant = Grant {
        subscribe: with(Scope::Read),
        inspect: with(Scope::Read),
        publish: with(Scope::Publish),
        manage: with(Scope::Admin),
        ..Grant::nothing(Holder::Key { name: name.into(), rate })
    };
    Ok(ApiKey { digest, grant: Arc::new(grant) })
}

/// A digest as keys files have it.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_hex(text: &str) -> Option<[u8; SHA256_OUTPUT_LEN]> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    (digits.len() == 2 * SHA256_OUTPUT_LEN).then(|| bytes.try_into().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Need;
    use crate::model::StreamName;

    fn keys(text: &str) -> Result<ApiKeys, String> {
        let keys = parse(text).map_err(|error| error.to_string())?;
        Ok(ApiKeys { path: PathBuf::new(), keys: ArcSwap::from_pointee(keys) })
    }

    fn stream(name: &str) -> StreamName {
        name.parse().unwrap()
    }

    #[test]
    fn a_key_is_found_by_its_text_or_its_digest() {
        let hex = to_hex(digest(&SHA256, b"the second of these keys").as_ref());
        let keys = keys(&format!(
            r#"[{{"name":"a","key":"the first of these keys","scopes":["publish"]}},
                {{"name":"b","sha256":"{}","scopes":["admin"],"streams":["topic:b:*"],"rate":5}}]"#,
            hex.to_uppercase()
        ))
        .unwrap();
        let first = keys.find("the first of these keys").unwrap();
        assert!(first.covers(Need::Publish(&stream("topic:x"))) && !first.covers(Need::Subscribe(&stream("topic:x"))));
        let second = keys.find("the second of these keys").unwrap();
        assert_eq!(second.holder, Holder::Key { name: "b".into(), rate: Some(5) });
        let (inside, outside) = (stream("topic:b:1"), stream("topic:x"));
        for need in [Need::Publish, Need::Subscribe, |stream| Need::Manage(Some(stream))] {
            assert!(second.covers(need(&inside)), "admin includes the other scopes");
            assert!(!second.covers(need(&outside)));
        }
        assert!(keys.find("").is_none() && keys.find(&hex).is_none());
    }

    #[test]
    fn a_file_that_makes_no_sense_is_refused_without_showing_a_key() {
        let entry = |rest: &str| format!(r#"[{{"name":"a",{rest}}}]"#);
        for (text, words) in [
            ("".to_owned(), "JSON array"),
            ("{}".to_owned(), "JSON array"),
            (entry(r#""key":"0123456789abcdef","scopes":["publish"],"stream":[]"#), "not known"),
            (entry(r#""key":"0123456789abcdef","scopes":["write"]"#), "of the wrong kind"),
            (entry(r#""key":"0123456789abcdef","scopes":[]"#), "'a' has no scopes"),
            (entry(r#""key":"short","scopes":["read"]"#), "too short"),
            (entry(r#""scopes":["read"]"#), "either"),
            (entry(r#""sha256":"12","scopes":["read"]"#), "hexadecimal"),
            (entry(r#""key":"0123456789abcdef","scopes":["read"],"streams":["orders"]"#), "'orders' matches no stream"),
            (entry(r#""key":"0123456789abcdef","scopes":["read"],"rate":0"#), "rate of 0"),
        ] {
            let refusal = keys(&text).err().unwrap();
            assert!(refusal.contains(words), "{refusal}");
            assert!(!refusal.contains("0123456789abcdef"), "{refusal}");
        }
        let one = r#"{"name":"a","key":"0123456789abcdef","scopes":["read"]}"#;
        assert!(keys(&format!("[{one},{one}]")).err().unwrap().contains("same as another"));
        let other = one.replace("abcdef", "abcdeg");
        assert!(keys(&format!("[{one},{other}]")).err().unwrap().contains("named 'a'"));
    }
}
