// SPDX-License-Identifier: Apache-2.0
//! What an operator writes: flags, the environment, URLs and other values, and the config file.
//!
//! Holds     1. anything is a configuration or a refusal that says why;
//!           2. a value that is printed is read again as the same.

use cairn::config::{
    Config, file,
    given::{Asked, Given},
    urls, value,
};
use cairn_engine::fuzz::Target;
use std::time::Duration;

/// Lines are arguments; those behind an empty one are variables.
pub const FLAGS: Target =
    Target { name: "flags", run: flags, fix: |_| {}, samples: flag_samples, anchors: super::spread };

/// Lines are values of any kind.
pub const URLS: Target =
    Target { name: "urls", run: values, fix: |_| {}, samples: value_samples, anchors: super::spread };

pub const FILE: Target = Target {
    name: "config-file",
    run: read_file,
    fix: |_| {},
    samples: file_samples,
    anchors: super::spread,
};

fn flags(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let (arguments, environment) = text.split_once("\n\n").unwrap_or((&text, ""));
    let arguments: Vec<String> = arguments.lines().map(str::to_owned).collect();
    // A file is another target's.
    if text.contains("config-file") || text.contains("CONFIG_FILE") {
        return false;
    }
    let variables = environment.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    match Given::read(&arguments, variables) {
        Err(why) => {
            assert!(!why.to_string().is_empty());
            false
        }
        Ok(Asked::Help | Asked::Version) => false,
        Ok(Asked::Serve(given)) => match Config::new(&given) {
            Ok((config, _)) => {
                assert!(!config.listen_client.is_empty() && config.heartbeat_ms > 0);
                true
            }
            Err(why) => {
                assert!(!why.to_string().is_empty());
                false
            }
        },
    }
}

fn flag_samples() -> Vec<Vec<u8>> {
    let samples = [
        "--name=m1\n--data-dir\n/tmp/x\n-quota-backend-bytes=0x10000000\n--pre-vote=false\n--log-level=debug",
        "--listen-client-urls=http://127.0.0.1:2379,https://[::1]:1\n--advertise-client-urls=http://a.b:2379\n\
         --cert-file=c\n--key-file=k\n--max-concurrent-streams=4294967295\n--auth-failure-rate=7",
        "--initial-cluster=m1=http://a:1,m2=http://b:1\n--name=m1\n--initial-advertise-peer-urls=http://a:1\n\
         --initial-cluster-state=existing\n--auto-compaction-mode=revision\n--auto-compaction-retention=5",
        "--log-level=info\n--max-learners=2\n\nETCD_NAME=e\nETCD_HEARTBEAT_INTERVAL=50\n\
         ETCD_ELECTION_TIMEOUT=500\nETCD_AUTH_TOKEN=simple\nETCD_CORS=*\nETCD_UNKNOWN=1",
    ];
    samples.iter().map(|sample| sample.as_bytes().to_vec()).collect()
}

fn values(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let mut good = 0;
    for line in text.lines() {
        if let Ok(url) = urls::parse_listen(line) {
            assert_eq!(urls::check_announced(line), Ok(()), "{line}");
            assert!(!url.host().is_empty() || line.contains(":///"), "{line}");
            good += 1;
        }
        if let Some(ns) = value::parse_duration_ns(line) {
            if let Ok(positive) = u64::try_from(ns) {
                let printed = value::format_duration(Duration::from_nanos(positive));
                assert_eq!(value::parse_duration_ns(&printed), Some(ns), "{line} is {printed}");
            }
            good += 1;
        }
        if let Some(number) = value::parse_int(line) {
            assert_eq!(value::parse_int(&number.to_string()), Some(number), "{line}");
            let digits = line.trim_start_matches(['+', '-']);
            assert_eq!(value::parse_uint(digits), Some(number.unsigned_abs()), "{line}");
            good += 1;
        }
        let list = value::parse_list(line);
        assert_eq!(list.is_empty(), line.is_empty());
        value::nearest(line, ["data-dir", "name", "listen-client-urls"].into_iter());
    }
    // All of a sample, and most of what is near it.
    good > 5
}

fn value_samples() -> Vec<Vec<u8>> {
    let samples = [
        "http://127.0.0.1:2379\nhttps://[::1]:0\nunix://etcd.sock:1\nhttp://localhost:65535\nunixs:///run/x\n0x1f\n-9223372036854775808",
        "1h2m3.5s\n300ms\n-1.5h\n0\n9223372036854775807ns\n1.000000001s\n7us\n0b1_1\n0o17\n+5\n010",
    ];
    samples.iter().map(|sample| sample.as_bytes().to_vec()).collect()
}

fn read_file(input: &[u8]) -> bool {
    match file::read(&String::from_utf8_lossy(input)) {
        Ok(entries) => !entries.is_empty(),
        Err(why) => {
            assert!(!why.is_empty());
            false
        }
    }
}

fn file_samples() -> Vec<Vec<u8>> {
    let samples = [
        "name: m1\nlisten-client-urls: http://127.0.0.1:1,http://127.0.0.1:2\nlog-outputs: [stderr, /tmp/x.log]\n\
         grpc-keepalive-interval: 7200000000000\nsocket-options:\n  reuse-port: true\nclient-transport-security:\n  \
         cert-file: ''\nwal-dir:\n",
        "{\"name\": \"j\", \"quota-backend-bytes\": 8589934592, \"pre-vote\": false, \"max-txn-ops\": 0x80}",
        "# a comment\n---\nname: &a \"m\\u00fc\"\ndata-dir: *a\nelection-timeout: 1000\nheartbeat-interval: !!int 100\n...\n",
    ];
    samples.iter().map(|sample| sample.as_bytes().to_vec()).collect()
}
