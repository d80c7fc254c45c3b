// SPDX-License-Identifier: Apache-2.0
//! The failpoints of a server, over gofail's HTTP; and the table of those that there are.
//!
//! Owns      one request a connection, by hand: what comes back is seen as it is.
//! Never     tries again.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a request may take.
const ANSWER: Duration = Duration::from_secs(10);

/// The status of a process that a failpoint ended.
pub const PANICKED: i32 = 2;

/// One row of `tests/rules/failpoints.tsv`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    pub name: String,
    pub is_there: bool,
}

/// The table, in order of names.
///
/// # Panics
/// If it is not one.
pub fn table() -> Vec<Row> {
    let text = std::fs::read_to_string(xtask::root().join("tests/rules/failpoints.tsv")).expect("a table");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('\t').collect();
        let [name, there, what] = cells.as_slice() else { panic!("three cells, not {line:?}") };
        assert!(!what.is_empty() && matches!(*there, "yes" | "no"), "{line:?}");
        Row { name: (*name).to_owned(), is_there: *there == "yes" }
    };
    let rows: Vec<Row> = text.lines().skip(1).map(row).collect();
    assert!(rows.is_sorted_by(|a, b| a.name < b.name), "the table is not in order");
    rows
}

/// Where a server has its failpoints served.
#[derive(Clone, Copy, Debug)]
pub struct Failpoints {
    pub port: u16,
}

/// Status, headers and body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Failpoints {
    /// One request; `None` if there is no whole answer.
    pub async fn ask(&self, method: &str, path: &str, body: &str) -> Option<Told> {
        let asking = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            let status = head.split(' ').nth(1)?.parse().ok()?;
            Some(Told { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
        };
        tokio::time::timeout(ANSWER, asking).await.ok().flatten()
    }

    /// Sets terms.
    ///
    /// # Panics
    /// If they are not taken.
    pub async fn set(&self, name: &str, terms: &str) {
        let told = self.ask("PUT", &format!("/{name}"), terms).await;
        assert_eq!(told.map(|told| told.status), Some(204), "{name}={terms}");
    }

    /// Clears what was set.
    ///
    /// # Panics
    /// If nothing was.
    pub async fn clear(&self, name: &str) {
        let told = self.ask("DELETE", &format!("/{name}"), "").await;
        assert_eq!(told.map(|told| told.status), Some(204), "{name}");
    }

    /// How often a term was carried out since it was set.
    ///
    /// # Panics
    /// If none is set.
    pub async fn count(&self, name: &str) -> u64 {
        let told = self.ask("GET", &format!("/{name}/count"), "").await.expect("an answer");
        told.body.parse().unwrap_or_else(|_| panic!("{name}: {told:?}"))
    }
}
