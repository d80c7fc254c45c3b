// SPDX-License-Identifier: Apache-2.0
//! Clients that others wrote tell the same story to Cairn and to etcd.
//!
//! Owns      the building of the four programs of `tests/clients`, each in its own folder under `target`.
//! Holds     1. each program runs against etcd 3.5.1 too: its control;
//!           2. each must print every part: puts, transactions, watches, leases, locks.
//! Never     installs anything outside `target`. A client that cannot be built is a counted skip, and a
//!           failure under `CI=true`.

use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_tests::server::{Program, Server};
use cairn_tests::tools;

const PARTS: &[&str] = &["puts", "transactions", "watches", "leases", "locks"];

/// Where a client's sources are, and where it is built.
fn folders(name: &str) -> (PathBuf, PathBuf) {
    let built = tools::target().join("clients").join(name);
    std::fs::create_dir_all(&built).expect("a folder under target");
    (Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name), built)
}

/// Runs a step of a build, with its output kept for the case that it fails.
fn step(dir: &Path, program: &str, args: &[&str], env: &[(&str, &Path)]) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(args).current_dir(dir).envs(env.iter().map(|(k, v)| (k, v)));
    let output = command.output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr)))
}

/// A built client: the program and its first arguments.
type Built = Result<(PathBuf, Vec<String>), String>;

fn python() -> Built {
    let (from, to) = folders("python");
    let python = to.join("bin/python");
    if !python.exists() {
        step(&to, "python3", &["-m", "venv", "."], &[])?;
    }
    let requirements = from.join("requirements.txt").display().to_string();
    let pip =
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", &requirements];
    step(&to, &python.display().to_string(), &pip, &[])?;
    Ok((python, vec![from.join("main.py").display().to_string()]))
}

fn node() -> Built {
    let (from, to) = folders("node");
    for file in ["package.json", "main.js"] {
        std::fs::copy(from.join(file), to.join(file)).map_err(|e| format!("{file}: {e}"))?;
    }
    step(&to, "npm", &["install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"], &[])?;
    Ok((PathBuf::from("node"), vec![to.join("main.js").display().to_string()]))
}

fn go() -> Built {
    let (from, to) = folders("go");
    let program = to.join("story");
    step(&from, "go", &["build", "-o", &program.display().to_string(), "."], &[])?;
    Ok((program, Vec::new()))
}

fn rust() -> Built {
    let (from, to) = folders("rust");
    step(&from, "protoc", &["--version"], &[])?;
    step(&from, env!("CARGO"), &["build", "--quiet", "--locked"], &[("CARGO_TARGET_DIR", &to)])?;
    Ok((to.join("debug/cairn-client-story"), Vec::new()))
}

/// Tells the story of one client to both servers.
async fn tell(name: &str, build: fn() -> Built) {
    let Some(etcd) = tools::etcd() else { return };
    let (program, args) = match build() {
        Ok(built) => built,
        Err(reason) => return tools::skip(&format!("the client {name}: {reason}")),
    };
    for (side, server) in [("etcd", Program::etcd(&etcd)), ("cairn", Program::cairn())] {
        let server = Server::start(server).await;
        let url = server.url();
        let endpoint = url.strip_prefix("http://").expect("an URL");
        let output = Command::new("timeout").arg("120").arg(&program).args(&args).arg(endpoint).output();
        let output = output.expect("the client starts");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let told: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("ok ")).collect();
        assert!(output.status.success(), "{name} against {side}: {}\n{out}{err}", output.status);
        assert_eq!(told, PARTS, "{name} against {side}: a part is missing");
        println!("client {name} against {side}: {}", told.join(", "));
    }
}

#[tokio::test]
async fn the_python_client_aetcd_works_unchanged() {
    tell("python", python).await;
}

#[tokio::test]
async fn the_node_client_etcd3_works_unchanged() {
    tell("node", node).await;
}

#[tokio::test]
async fn the_go_client_clientv3_works_unchanged() {
    tell("go", go).await;
}

#[tokio::test]
async fn the_rust_client_etcd_client_works_unchanged() {
    tell("rust", rust).await;
}
