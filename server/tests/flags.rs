// SPDX-License-Identifier: Apache-2.0
//! The table of flags and the rules' page hold each other, and every flag does what its class says.

use cairn::config::{
    Config, ConfigError,
    flags::{Class, FILE_ONLY, FLAGS, Flag, GATES, Kind},
    given::{Asked, Given, GivenError, Remark},
};
use std::collections::{BTreeMap, BTreeSet};

const PAGE: &str = include_str!("../../tests/rules/flags.tsv");

struct Row {
    kind: &'static str,
    name: &'static str,
    variable: &'static str,
    default: &'static str,
    key: &'static str,
    status: &'static str,
    cairn: &'static str,
}

fn rows(kind: &str) -> Vec<Row> {
    let mut lines = PAGE.lines();
    assert_eq!(
        lines.next(),
        Some(
            "kind\tflag or gate\tenvironment variable\tdefault\ttype\tconfig file key\tsince\tstatus\tmeaning\tcairn"
        )
    );
    let row = |line: &'static str| {
        let fields: Vec<&str> = line.split('\t').collect();
        assert_eq!(fields.len(), 10, "{line}");
        Row {
            kind: fields[0],
            name: fields[1],
            variable: fields[2],
            default: fields[3],
            key: fields[5],
            status: fields[7],
            cairn: fields[9],
        }
    };
    lines.map(row).filter(|row| row.kind == kind).collect()
}

fn bare(name: &str) -> &str {
    name.trim_start_matches('-')
}

const HTTPS: &str = "--listen-client-urls=https://127.0.0.1:1";
const ADVERTISED: &str = "--advertise-client-urls=https://127.0.0.1:1";
const HTTPS_PEER: &str = "--listen-peer-urls=https://127.0.0.1:1";
const SHOWN: &[&str] = &["--cert-file=c", "--key-file=k", HTTPS, ADVERTISED];
const CHECKED: &[&str] = &["--trusted-ca-file=ca", "--cert-file=c", "--key-file=k", HTTPS, ADVERTISED];
const DISCOVERED: &[&str] = &["--discovery-token=t", "--discovery-endpoints=http://127.0.0.1:1"];
const CHECKED_PEERS: &[&str] =
    &["--peer-trusted-ca-file=ca", "--peer-cert-file=c", "--peer-key-file=k", HTTPS_PEER];

/// A well-formed value that is not the default, and what must be given with it.
fn example(flag: &Flag) -> (&'static str, &'static [&'static str]) {
    match flag.name {
        "listen-client-urls" => ("http://127.0.0.1:1", &["--advertise-client-urls=http://127.0.0.1:1"]),
        "initial-advertise-peer-urls" | "advertise-client-urls" => ("http://h.example:1", &[]),
        "listen-peer-urls" | "listen-client-http-urls" | "listen-metrics-urls" => ("unix://x.sock", &[]),
        "cors" => ("http://a.example:80", &[]),
        "initial-cluster" => ("default=http://localhost:2380", &[]),
        "initial-cluster-state" => ("existing", &[]),
        "discovery-endpoints" => ("http://127.0.0.1:1", &["--discovery-token=t"]),
        "discovery-srv-name" => ("other", &["--discovery-srv=example.com"]),
        "discovery-srv-server" => ("127.0.0.1:53", &["--discovery-srv=example.com"]),
        "discovery-token" => ("other", &["--discovery-endpoints=http://127.0.0.1:1"]),
        "discovery-insecure-transport" => (
            "false",
            &["--discovery-token=t", "--discovery-endpoints=a:1", "--discovery-insecure-skip-tls-verify"],
        ),
        "discovery-cert" => (
            "other",
            &["--discovery-token=t", "--discovery-endpoints=http://127.0.0.1:1", "--discovery-key=k"],
        ),
        "discovery-key" => (
            "other",
            &["--discovery-token=t", "--discovery-endpoints=http://127.0.0.1:1", "--discovery-cert=c"],
        ),
        "discovery-user" => ("u:p", DISCOVERED),
        "discovery-password" => (
            "other",
            &["--discovery-token=t", "--discovery-endpoints=http://127.0.0.1:1", "--discovery-user=u"],
        ),
        "discovery-insecure-skip-tls-verify" => {
            ("true", &["--discovery-token=t", "--discovery-endpoints=https://a:1"])
        }
        "discovery-srv" => ("example.com", &[]),
        name if name.starts_with("discovery-") && name != "discovery-fallback" => {
            (if flag.kind == Kind::Duration { "7s" } else { "other" }, DISCOVERED)
        }
        "auto-compaction-mode" => ("revision", &["--auto-compaction-retention=7"]),
        "auto-compaction-retention" => ("7h", &[]),
        "auth-token" => ("", &[]),
        "metrics" => ("extensive", &[]),
        "logger" => ("zap", &[]),
        "log-outputs" => ("stdout", &[]),
        "log-level" => ("error", &[]),
        "log-format" => ("console", &[]),
        "feature-gates" => ("StopGRPCServiceOnDefrag=true", &[]),
        "election-timeout" => ("7000", &[]),
        "enable-grpc-gateway" => ("false", &[]),
        "cert-file" => ("other", &["--key-file=k", HTTPS, ADVERTISED]),
        "key-file" => ("other", &["--cert-file=c", HTTPS, ADVERTISED]),
        "trusted-ca-file" => ("other", SHOWN),
        "client-cert-auth" => ("true", CHECKED),
        "client-crl-file" | "client-cert-allowed-hostname" => ("other", CHECKED),
        "cipher-suites" => ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", SHOWN),
        "tls-min-version" => ("TLS1.3", SHOWN),
        "tls-max-version" => ("TLS1.2", SHOWN),
        "auto-tls" => ("true", &[HTTPS, ADVERTISED]),
        "self-signed-cert-validity" => ("7", &["--auto-tls", HTTPS, ADVERTISED]),
        "peer-cert-file" => ("other", &["--peer-key-file=k", HTTPS_PEER]),
        "peer-key-file" => ("other", &["--peer-cert-file=c", HTTPS_PEER]),
        "peer-trusted-ca-file" => ("other", &["--peer-cert-file=c", "--peer-key-file=k", HTTPS_PEER]),
        "peer-client-cert-auth" => ("true", CHECKED_PEERS),
        "peer-crl-file" | "peer-cert-allowed-cn" | "peer-cert-allowed-hostname" => ("other", CHECKED_PEERS),
        "peer-auto-tls" => ("true", &[HTTPS_PEER]),
        "peer-client-cert-file" => ("other", &["--peer-client-key-file=k", "--peer-trusted-ca-file=ca"]),
        "peer-client-key-file" => ("other", &["--peer-client-cert-file=c", "--peer-trusted-ca-file=ca"]),
        _ => match flag.kind {
            Kind::Bool => (if flag.default == "true" { "false" } else { "true" }, &[]),
            Kind::Uint | Kind::Uint32 | Kind::Int => {
                (if flag.name == "bcrypt-cost" { "7" } else { "77" }, &[])
            }
            Kind::Duration => ("7s", &[]),
            Kind::Text | Kind::Urls | Kind::List | Kind::Gates => ("other", &[]),
        },
    }
}

/// For a flag of which some values are refused: one of them.
fn refused_example(name: &str) -> Option<&'static str> {
    match name {
        "discovery-endpoints" => Some("https://127.0.0.1:1"),
        "initial-cluster" => Some("default=http://localhost:2380,other=https://localhost:2381"),
        _ => None,
    }
}

fn judge(arguments: &[String]) -> Result<(Config, Vec<Remark>), ConfigError> {
    match Given::read(arguments, std::iter::empty()) {
        Ok(Asked::Serve(given)) => Config::new(&given),
        other => panic!("{arguments:?}: {other:?}"),
    }
}

fn with(flag: &Flag, value: &str, more: &[&str]) -> Vec<String> {
    let first = format!("--{}={value}", flag.name);
    std::iter::once(first).chain(more.iter().map(|argument| (*argument).to_owned())).collect()
}

fn defaults() -> Config {
    judge(&[]).expect("nothing given is a good configuration").0
}

// rule: FL-4
#[test]
fn the_table_and_the_page_are_one() {
    let page = rows("flag");
    let names: Vec<&str> = page.iter().map(|row| bare(row.name)).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "a flag stands twice on the page");
    let table: BTreeMap<&str, &Flag> = FLAGS.iter().map(|flag| (flag.name, flag)).collect();
    assert_eq!(table.keys().copied().collect::<BTreeSet<_>>(), names.into_iter().collect::<BTreeSet<_>>());
    for row in &page {
        let flag = table[bare(row.name)];
        assert_eq!(flag.class.describe(), row.cairn, "{}", row.name);
        assert_eq!(flag.variable().as_deref().unwrap_or("-"), row.variable, "{}", row.name);
        assert_eq!(if flag.key.is_empty() { "-" } else { flag.key }, row.key, "{}", row.name);
        assert_eq!(flag.class == Class::Ignored, row.status == "ignored", "{}", row.name);
        let default = match row.default.split(" (acts as").next().expect("a part") {
            "(empty" | "-" | "(empty)" | "(empty, acts as map)" | "(empty, acts as NAME.etcd)" => "",
            default => default,
        };
        assert_eq!(flag.default, default, "{}", row.name);
    }
    assert!(page.len() > 100, "only {} flags on the page", page.len());
}

// rule: FL-5
#[test]
fn the_gates_and_the_page_are_one() {
    let page = rows("gate");
    assert_eq!(page.len(), GATES.len());
    for (row, gate) in page.iter().zip(GATES) {
        assert_eq!(gate.name, row.name);
        assert_eq!(gate.class.describe(), row.cairn, "{}", row.name);
        assert_eq!(gate.default.to_string(), row.default, "{}", row.name);
        assert!(row.status.starts_with(gate.stage), "{}", row.name);
    }
    for gate in GATES.iter().filter(|gate| !gate.name.starts_with("All")) {
        let flag = FLAGS.iter().find(|flag| flag.name == "feature-gates").expect("the flag");
        let value = format!("{}={}", gate.name, !gate.default);
        let (config, remarks) = judge(&with(flag, &value, &[])).expect(gate.name);
        match gate.class {
            Class::NoEffect(_) => {
                assert!(remarks.iter().any(|r| r.warning && r.value.contains(gate.name)), "{}", gate.name);
            }
            // On by default here, so that the value etcd has by default is the one that changes it.
            Class::Maps(_) => {
                let (config, _) = judge(&with(flag, &format!("{}=false", gate.name), &[])).expect(gate.name);
                assert_ne!(config, defaults(), "{}", gate.name);
            }
            _ => assert_ne!(config, defaults(), "{}", gate.name),
        }
    }
}

// rule: FL-6
// rule: FL-7
// rule: TL-1
#[test]
fn every_flag_does_what_its_class_says() {
    for flag in FLAGS.iter().filter(|flag| flag.name != "config-file" && flag.name != "version") {
        let (value, more) = example(flag);
        let judged = judge(&with(flag, value, more));
        let warned = |remarks: &[Remark]| {
            remarks.iter().any(|r| r.warning && r.value.contains(&format!("--{}", flag.name)))
        };
        match flag.class {
            Class::AsEtcd | Class::Maps(_) | Class::Own => {
                let (config, remarks) = judged.unwrap_or_else(|error| panic!("--{}: {error}", flag.name));
                assert!(!warned(&remarks), "--{}: {remarks:?}", flag.name);
                // Each of these has one meaning: nothing in the configuration can tell it from the default.
                if flag.name != "logger" {
                    let more: Vec<String> = more.iter().map(|argument| (*argument).to_owned()).collect();
                    let without = judge(&more).map_or_else(|_| defaults(), |(config, _)| config);
                    assert_ne!(config, without, "--{}={value} changes nothing", flag.name);
                }
            }
            Class::Part(_) => {
                if let Some(refused) = refused_example(flag.name) {
                    let error = judge(&with(flag, refused, more)).expect_err(flag.name).to_string();
                    assert!(error.contains(&format!("--{}", flag.name)), "{error}");
                }
                judged.unwrap_or_else(|error| panic!("--{}: {error}", flag.name));
            }
            Class::NoEffect(_) | Class::Ignored => {
                let (config, remarks) = judged.unwrap_or_else(|error| panic!("--{}: {error}", flag.name));
                assert!(warned(&remarks), "--{}={value} is accepted in silence", flag.name);
                assert_eq!(config, defaults(), "--{}", flag.name);
            }
            Class::Refused(why) => {
                let error = judged.expect_err(flag.name).to_string();
                assert_eq!(error, format!("--{}={value} is refused: {why}", flag.name));
                let same = judge(&with(flag, flag.default, &[])).expect(flag.name);
                assert_eq!(same, judge(&[]).expect("nothing given"), "--{}", flag.name);
            }
        }
    }
}

#[test]
fn every_class_and_kind_has_a_flag() {
    let classes: BTreeSet<String> =
        FLAGS.iter().map(|f| f.class.describe().split(':').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(classes.len(), 7, "{classes:?}");
}

// rule: FL-1
// rule: FL-6
#[test]
fn what_etcd_dropped_is_not_defined() {
    let removed = rows("removed");
    assert!(removed.len() >= 40, "only {} removed flags on the page", removed.len());
    for row in removed {
        assert_eq!(row.cairn, "undefined", "{}", row.name);
        match Given::read(&[format!("{}=1", row.name)], std::iter::empty()) {
            Err(GivenError::Syntax(text)) => {
                assert!(
                    text.starts_with(&format!("flag provided but not defined: -{}", bare(row.name))),
                    "{text}"
                );
            }
            other => panic!("{}: {other:?}", row.name),
        }
    }
}

#[test]
fn keys_without_a_flag_are_refused_by_name() {
    let page: Vec<(String, &str)> = rows("yaml")
        .iter()
        .flat_map(|row| {
            let (stem, last) = row.key.rsplit_once('.').expect("a path");
            let first = stem.split(" / ").next().expect("a part");
            let names: Vec<String> = match row.key.split_once(" / ") {
                Some((first, second)) => {
                    let (stem, _) = first.rsplit_once('.').expect("a path");
                    vec![first.to_owned(), format!("{stem}.{second}")]
                }
                None => vec![format!("{first}.{last}")],
            };
            names.into_iter().map(|name| (name, row.cairn)).collect::<Vec<_>>()
        })
        .collect();
    let table: Vec<(String, String)> =
        FILE_ONLY.iter().map(|(key, why)| ((*key).to_owned(), format!("refused: {why}"))).collect();
    let page: Vec<(String, String)> = page.into_iter().map(|(key, cairn)| (key, cairn.to_owned())).collect();
    assert_eq!(page, table);
}

// rule: FL-2
#[test]
fn variables_without_a_flag_are_told() {
    let read = |name: &str| match Given::read(&[], [(name.to_owned(), "all".to_owned())].into_iter()) {
        Ok(Asked::Serve(given)) => given.remarks,
        other => panic!("{name}: {other:?}"),
    };
    for row in rows("env") {
        let name = row.variable.replace('*', "FROBNICATE");
        let remarks = read(&name);
        assert_eq!(remarks.len(), 1, "{name}");
        assert!(remarks[0].warning, "{name}");
        let no_effect = row.cairn.starts_with("no-effect");
        assert_eq!(remarks[0].message == "environment variable has no effect", no_effect, "{name}");
    }
}

// rule: BO-2
// rule: BO-3
// rule: BO-10, BO-12, BO-13
// rule: TL-6
// rule: TL-9
// rule: TL-10
// rule: AU-28
#[test]
fn bad_configurations_are_refused_with_the_flag() {
    for (line, text) in [
        ("--heartbeat-interval=0", "--heartbeat-interval must be >0 (set to 0ms)"),
        (
            "--heartbeat-interval=300",
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]",
        ),
        (
            "--election-timeout=50001",
            "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
        ),
        (
            "--listen-client-urls=http://127.0.0.1:1",
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            "--listen-peer-urls=http://example.com:1",
            "--listen-peer-urls: expected IP in URL for binding (http://example.com:1)",
        ),
        ("--initial-cluster-state=old", "--initial-cluster-state must be new or existing, not \"old\""),
        (
            "--name=a --initial-cluster=b=http://localhost:2380",
            "couldn't find local name \"a\" in the initial cluster configuration",
        ),
        (
            "--initial-cluster=default=http://10.0.0.1:2380",
            "--initial-cluster has http://10.0.0.1:2380 but missing from --initial-advertise-peer-urls \
             (--initial-cluster http://10.0.0.1:2380, announced http://localhost:2380)",
        ),
        (
            "--initial-cluster=default",
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
        ),
        ("--auto-compaction-retention=-1", "--auto-compaction-retention=-1 must not be negative"),
        (
            "--auto-compaction-mode=hourly",
            "--auto-compaction-mode must be periodic or revision, not \"hourly\"",
        ),
        ("--log-level=loud", "--log-level must be debug, info, warn, error, panic or fatal, not \"loud\""),
        ("--log-outputs=default,stderr", "--log-outputs: default cannot stand beside other outputs"),
        ("--compact-hash-check-time=0", "--compact-hash-check-time must be >0 (set to 0s)"),
        ("--corrupt-check-time=-1s", "--corrupt-check-time=-1s must not be negative"),
        (
            "--corrupt-check-time=0s --warning-apply-duration=-1s",
            "--warning-apply-duration=-1s must not be negative",
        ),
        (
            "--listen-client-urls=https://127.0.0.1:1 --advertise-client-urls=https://127.0.0.1:1",
            "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 with HTTPS \
             scheme",
        ),
        (
            "--listen-peer-urls=https://127.0.0.1:1",
            "TLS key/cert (--peer-cert-file, --peer-key-file) must be provided for peer url https://127.0.0.1:1 with \
             HTTPS scheme",
        ),
        (
            "--listen-metrics-urls=https://127.0.0.1:1",
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        ),
        ("--cert-file=c", "--cert-file and --key-file must both be present, or both absent"),
        (
            "--listen-peer-urls=https://127.0.0.1:1 --peer-auto-tls --peer-client-cert-auth",
            "--peer-client-cert-auth needs --peer-trusted-ca-file: the authorities whose certificates are let in",
        ),
        (
            "--listen-peer-urls=https://127.0.0.1:1 --peer-auto-tls --peer-trusted-ca-file=ca \
             --peer-cert-allowed-cn=a,b --peer-cert-allowed-hostname=c",
            "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[a b], hostnames=[c])",
        ),
        (
            "--tls-min-version=TLS1.0",
            "--tls-min-version: unexpected TLS version \"TLS1.0\" (must be one of: TLS1.2, TLS1.3)",
        ),
        (
            "--tls-min-version=TLS1.3 --tls-max-version=TLS1.2",
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            "--tls-min-version=TLS1.3 --cipher-suites=TLS_AES_128_GCM_SHA256",
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        ("--cipher-suites=TLS_FROB", "unexpected TLS cipher suite \"TLS_FROB\""),
        (
            "--tls-max-version=TLS1.2 --cipher-suites=TLS_RSA_WITH_AES_128_GCM_SHA256",
            "--cipher-suites=TLS_RSA_WITH_AES_128_GCM_SHA256 leaves no suite of TLS1.2 that is offered: name one with \
             ECDHE and GCM or CHACHA20",
        ),
        (
            "--listen-peer-urls=https://127.0.0.1:1 --peer-auto-tls --self-signed-cert-validity=0",
            "--self-signed-cert-validity=0 must be from 1 to 100 years",
        ),
        (
            "--listen-peer-urls=https://127.0.0.1:1 --peer-auto-tls --peer-trusted-ca-file=ca",
            "--peer-auto-tls with --peer-trusted-ca-file: no authority has issued the certificate that a member makes \
             for itself; give --peer-cert-file and --peer-key-file instead",
        ),
        (
            "--peer-client-cert-file=c --peer-trusted-ca-file=ca",
            "--peer-client-cert-file and --peer-client-key-file must both be present, or both absent",
        ),
        (
            "--peer-client-cert-file=c --peer-client-key-file=k",
            "--peer-client-cert-file needs --peer-trusted-ca-file: the authorities of those that it is shown to",
        ),
        (
            "--initial-cluster=default=http://localhost:2380,b=https://b.example:2380 --peer-cert-file=c \
             --peer-key-file=k",
            "--initial-cluster: https://b.example:2380 needs --peer-trusted-ca-file, the authorities of the other \
             members' certificates (or --peer-auto-tls, which verifies nobody)",
        ),
        ("--auth-token=other", "--auth-token=other: auth: invalid auth options"),
        ("--auth-token=jwt", "--auth-token=jwt: auth: invalid auth signature method"),
        ("--auth-token=jwt,frob", "--auth-token=jwt,frob: auth: invalid auth options"),
        (
            "--auth-token=jwt,sign-method=none",
            "--auth-token=jwt,sign-method=none: auth: invalid auth signature method",
        ),
        (
            "--auth-token=jwt,sign-method=HS256,sign-method=HS256",
            "--auth-token=jwt,sign-method=HS256,sign-method=HS256: auth: invalid auth options",
        ),
        (
            "--auth-token=jwt,sign-method=HS256,ttl=5",
            "--auth-token=jwt,sign-method=HS256,ttl=5: ttl is no duration that is not negative",
        ),
        ("--max-request-bytes=4294967296", "--max-request-bytes=4294967296 is more than a message can hold"),
        (
            "--discovery-fallback=proxy",
            "--discovery-fallback=proxy is refused: v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        ),
    ] {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        assert_eq!(judge(&arguments).map(|_| ()), Err(ConfigError(text.into())), "{line}");
    }
}

// rule: TL-8, TL-12
#[test]
fn members_are_dialled_with_the_certificate_of_peers_or_with_one_for_that() {
    use cairn::tls::settings::{Allowed, Dialled, Protocol, Trust};
    use std::path::PathBuf;
    let judge = |line: &str| {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        judge(&arguments).unwrap_or_else(|error| panic!("{line}: {error}"))
    };
    let pair = |cert: &str, key: &str| Some((PathBuf::from(cert), PathBuf::from(key)));
    let verified = |shown| {
        let trust = Trust::Authorities { file: "ca".into(), revoked: None, allowed: Allowed::Any };
        Some(Dialled { shown, trust, protocol: Protocol::default() })
    };
    let own = "--listen-peer-urls=https://127.0.0.1:1 --peer-cert-file=c --peer-key-file=k";
    let other = "--peer-client-cert-file=cc --peer-client-key-file=ck";
    for (line, expected) in [
        (String::new(), None),
        (own.to_owned(), None),
        ("--peer-trusted-ca-file=ca".to_owned(), verified(None)),
        (format!("{own} --peer-trusted-ca-file=ca"), verified(pair("c", "k"))),
        (format!("{own} --peer-trusted-ca-file=ca {other}"), verified(pair("cc", "ck"))),
        (format!("{own} --peer-trusted-ca-file=ca --peer-auto-tls"), verified(pair("c", "k"))),
    ] {
        assert_eq!(judge(&line).0.dialled_tls, expected, "{line}");
    }
    let (config, remarks) = judge("--listen-peer-urls=https://127.0.0.1:1 --peer-auto-tls");
    assert_eq!(config.dialled_tls.map(|dialled| (dialled.shown, dialled.trust)), Some((None, Trust::Anyone)));
    assert!(remarks.iter().any(|r| r.warning && r.message.contains("verifies nobody")), "{remarks:?}");
}

// rule: AUTOC-1
// rule: AUTOC-2
#[test]
fn retention_is_hours_revisions_or_a_duration() {
    use cairn::member::AutoCompaction::{Off, Periodic, Revision};
    for (mode, retention, expected) in [
        ("periodic", "0", Off),
        ("periodic", "2", Periodic { period_ms: 7_200_000 }),
        ("periodic", "90m", Periodic { period_ms: 5_400_000 }),
        ("periodic", "1500us", Periodic { period_ms: 2 }),
        ("revision", "0", Off),
        ("revision", "1000", Revision { retention: 1000 }),
        ("revision", "1h", Revision { retention: 3_600_000_000_000 }),
    ] {
        let flags =
            [format!("--auto-compaction-mode={mode}"), format!("--auto-compaction-retention={retention}")];
        let config = judge(&flags).unwrap_or_else(|error| panic!("{mode} {retention}: {error}")).0;
        assert_eq!(config.auto_compaction, expected, "{mode} {retention}");
    }
    for retention in ["x", "-1", "-1h", "1.5"] {
        assert!(judge(&[format!("--auto-compaction-retention={retention}")]).is_err(), "{retention}");
    }
    for mode in ["", "hourly"] {
        assert!(judge(&[format!("--auto-compaction-mode={mode}")]).is_err(), "{mode:?}");
    }
}

#[test]
fn an_initial_cluster_may_name_the_own_urls_otherwise() {
    let line = ["--initial-cluster=default=http://127.0.0.1:2380".to_owned()];
    let config = judge(&line).expect("localhost resolves to 127.0.0.1").0;
    assert_eq!(config.advertise_peer, ["http://localhost:2380"]);
}
