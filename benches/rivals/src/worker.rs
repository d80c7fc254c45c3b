// SPDX-License-Identifier: Apache-2.0
//! A process with a store in it, as seen from outside.
//!
//! Owns      the child, and the pipe to it.
//! Holds     the child does not outlive this: it is killed when dropped.
//! Never     measures: the worker holds the clock.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::entrants::Entrant;
use crate::protocol::{Reply, Request, Took};
use crate::store::{Answer, Size, WORKER};

pub struct Worker {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    pub fn start(entrant: &Entrant, dir: &Path, value_bytes: usize) -> Answer<Worker> {
        let program = match &entrant.program {
            Some(program) => program.clone(),
            None => std::env::current_exe()?,
        };
        let mut command = Command::new(program);
        command.args([WORKER, entrant.name]).arg(dir).arg(value_bytes.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("the child's output is a pipe"));
        Ok(Worker { name: entrant.name, child, stdin, stdout })
    }

    pub fn took(&mut self, request: Request) -> Answer<Took> {
        match self.ask(request)? {
            Reply::Took(took) => Ok(took),
            other => Err(format!("{}: {request}: {other}", self.name).into()),
        }
    }

    pub fn size(&mut self) -> Answer<Size> {
        match self.ask(Request::Size)? {
            Reply::Size(size) => Ok(size),
            other => Err(format!("{}: size: {other}", self.name).into()),
        }
    }

    fn ask(&mut self, request: Request) -> Answer<Reply> {
        let stdin = self.stdin.as_mut().expect("open until the worker is ended");
        writeln!(stdin, "{request}")?;
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            let status = self.child.wait()?;
            return Err(format!("{}: {request}: the worker ended: {status}", self.name).into());
        }
        Reply::parse(line.trim_end())
    }

    /// Has the store closed in order.
    pub fn end(mut self) -> Answer<()> {
        self.stdin = None;
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("{}: the worker ended: {status}", self.name).into())
        }
    }

    /// Ends the process with SIGKILL, at once.
    pub fn kill(mut self) -> Answer<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended is not there to be killed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
