// SPDX-License-Identifier: Apache-2.0
//! The config file: YAML, and so JSON too, with the keys of etcd's.
//!
//! Owns      the way from a key and a scalar to a flag and the value as it would stand on a command line.
//! Holds     an unknown key is refused with the nearest known one; etcd would ignore it, and start without
//!           what was meant.
//! Never     opens a file.

use super::{
    flags::{FILE_ONLY, FLAGS, Flag, Kind},
    value,
};
use yaml_rust2::{Yaml, YamlLoader};

/// The flags that a file sets, in the order in which it names them.
pub fn read(text: &str) -> Result<Vec<(&'static Flag, String)>, String> {
    let mut documents = YamlLoader::load_from_str(text).map_err(|error| error.to_string())?;
    let mut entries = Vec::new();
    match documents.pop() {
        None | Some(Yaml::Null) => {}
        Some(_) if !documents.is_empty() => return Err("it holds more than one document".into()),
        Some(root) => collect("", &root, &mut entries)?,
    }
    Ok(entries)
}

/// Walks a mapping down to the keys of flags. `prefix` is its own path with a dot behind, or empty.
fn collect(prefix: &str, node: &Yaml, entries: &mut Vec<(&'static Flag, String)>) -> Result<(), String> {
    let Yaml::Hash(mapping) = node else {
        let path = prefix.trim_end_matches('.');
        return Err(if path.is_empty() {
            "it is not a mapping of keys to values".into()
        } else {
            format!("{path} must be a mapping")
        });
    };
    for (key, node) in mapping {
        let Yaml::String(key) = key else {
            return Err(format!("{prefix}{key:?}: a key must be text"));
        };
        let path = format!("{prefix}{key}");
        if let Some(flag) = FLAGS.iter().find(|flag| flag.key == path) {
            if let Some(value) = scalar(flag, &path, node)? {
                entries.push((flag, value));
            }
        } else if let Some((_, why)) = FILE_ONLY.iter().find(|(known, _)| *known == path) {
            return Err(format!("{path} is refused: {why}"));
        } else if FLAGS.iter().any(|flag| flag.key.starts_with(&format!("{path}."))) {
            collect(&format!("{path}."), node, entries)?;
        } else {
            let near = value::nearest(&path, FLAGS.iter().map(|flag| flag.key));
            let near = near.map(|near| format!(", the nearest is {near}")).unwrap_or_default();
            return Err(format!("unknown key {path}{near}"));
        }
    }
    Ok(())
}

/// The value as a command line would have it; `None` where the key stands without one.
fn scalar(flag: &Flag, path: &str, node: &Yaml) -> Result<Option<String>, String> {
    Ok(Some(match (flag.kind, node) {
        (_, Yaml::Null) => return Ok(None),
        (Kind::Duration, Yaml::Integer(ns)) => format!("{ns}ns"),
        (Kind::Bool, Yaml::Boolean(value)) => value.to_string(),
        (Kind::Bool, _) => return Err(format!("{path} must be true or false")),
        (Kind::Urls | Kind::List | Kind::Gates, Yaml::Array(items)) => {
            let items: Option<Vec<&str>> = items.iter().map(Yaml::as_str).collect();
            items.ok_or_else(|| format!("{path} must be a list of texts"))?.join(",")
        }
        (_, Yaml::String(text)) => text.clone(),
        (_, Yaml::Integer(number)) => number.to_string(),
        (_, Yaml::Real(text)) => text.clone(),
        (_, Yaml::Boolean(value)) => value.to_string(),
        _ => return Err(format!("{path} must be a single value")),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_names(text: &str) -> Result<Vec<(&'static str, String)>, String> {
        Ok(read(text)?.into_iter().map(|(flag, value)| (flag.name, value)).collect())
    }

    // rule: FL-3
    #[test]
    fn keys_stand_for_flags() {
        let text = "
name: m1
listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2
log-outputs: [stderr, /tmp/x.log]
grpc-keepalive-interval: 7200000000000
quota-backend-bytes: 0
pre-vote: false
socket-options:
  reuse-port: true
client-transport-security:
  cert-file: ''
wal-dir:
";
        let expected = [
            ("name", "m1"),
            ("listen-client-urls", "http://127.0.0.1:1,http://127.0.0.1:2"),
            ("log-outputs", "stderr,/tmp/x.log"),
            ("grpc-keepalive-interval", "7200000000000ns"),
            ("quota-backend-bytes", "0"),
            ("pre-vote", "false"),
            ("socket-reuse-port", "true"),
            ("cert-file", ""),
        ];
        let found = read_names(text).expect("a good file");
        let found: Vec<(&str, &str)> = found.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(found, expected);
        assert_eq!(read_names("").expect("an empty file"), []);
        assert_eq!(read_names("{\"name\": \"j\"}").expect("JSON"), [("name", "j".to_owned())]);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (text, why) in [
            ("data-dri: x", "unknown key data-dri, the nearest is data-dir"),
            ("frobnicate: 1", "unknown key frobnicate"),
            ("socket-options: {frob: true}", "unknown key socket-options.frob"),
            ("socket-options: 1", "socket-options must be a mapping"),
            ("- name", "it is not a mapping of keys to values"),
            ("pre-vote: 7", "pre-vote must be true or false"),
            ("name: [a]", "name must be a single value"),
            ("name: a\n---\nname: b", "it holds more than one document"),
            (
                "client-transport-security: {allowed-cn: [x]}",
                "client-transport-security.allowed-cn is refused: no flag sets it, use allowed-hostname",
            ),
        ] {
            assert_eq!(read_names(text), Err(why.to_owned()), "{text}");
        }
        assert!(read_names("name: \"unclosed").is_err());
    }
}
