// SPDX-License-Identifier: Apache-2.0
//! The connection on which a leader is asked about leases: one, for all that ask.
//!
//! Owns      the connection that is kept, and when another takes its place.
//! Holds     1. a lease that is kept alive through a follower costs the leader a request, and no handshake;
//!           2. one that ended, or gave no answer in time, is not asked again.
//! Never     tries again: whoever asks does, and may ask another leader then.

use super::{
    dial::Line,
    http::Answer,
    reach::{Reach, ReachError},
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

/// See the module.
#[derive(Default)]
pub(super) struct KeptLine {
    /// Locked while one is opened: who comes meanwhile asks on it too.
    open: Mutex<Option<(String, Arc<Line>)>>,
}

impl KeptLine {
    /// Sends a protobuf message to `path` at the member `url`.
    ///
    /// # Errors
    /// If it is not reached, or does not answer within `patience`.
    pub async fn ask(
        &self,
        reach: &Reach,
        url: &str,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Answer, ReachError> {
        let due = Instant::now() + patience;
        let line = timeout_at(due, self.line(reach, url)).await.unwrap_or(Err(ReachError::Late))?;
        let answer = timeout_at(due, line.ask(path, body)).await.unwrap_or(Err(ReachError::Late));
        if answer.is_err() {
            // It may be the connection that is silent; who has asked on it still waits for its own answer.
            self.forget(&line).await;
        }
        answer
    }

    async fn line(&self, reach: &Reach, url: &str) -> Result<Arc<Line>, ReachError> {
        let mut open = self.open.lock().await;
        if let Some((kept, line)) = &*open
            && kept == url
            && line.is_open()
        {
            return Ok(line.clone());
        }
        *open = None;
        let line = Arc::new(Line::open(reach, url).await?);
        *open = Some((url.to_owned(), line.clone()));
        Ok(line)
    }

    async fn forget(&self, line: &Arc<Line>) {
        let mut open = self.open.lock().await;
        if open.as_ref().is_some_and(|(_, kept)| Arc::ptr_eq(kept, line)) {
            *open = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::{Request, Response};
    use http_body_util::{BodyExt as _, Full};
    use hyper::{body::Incoming, server::conn::http2, service::service_fn};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use std::{
        convert::Infallible,
        future::pending,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
    };
    use tokio::{net::TcpListener, task::JoinSet};

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A member that says back what it is asked, and how many connections it took.
    struct Leader {
        url: String,
        taken: Arc<AtomicUsize>,
        lines: Arc<std::sync::Mutex<JoinSet<()>>>,
    }

    const UNANSWERED: &str = "unanswered";

    async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        if body == UNANSWERED {
            pending::<()>().await;
        }
        Ok(Response::new(Full::new(body)))
    }

    impl Leader {
        async fn start() -> Leader {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let url = format!("http://{}", listener.local_addr().expect("it is bound"));
            let (taken, lines) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::default()));
            let leader = Leader { url, taken: taken.clone(), lines: Arc::clone(&lines) };
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    taken.fetch_add(1, Relaxed);
                    let serve = http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service_fn(echo));
                    let mut lines: std::sync::MutexGuard<'_, JoinSet<()>> = lines.lock().expect("no panic");
                    lines.spawn(async move { drop(serve.await) });
                }
            });
            leader
        }

        async fn hang_up(&self) {
            let mut lines = std::mem::take(&mut *self.lines.lock().expect("no panic"));
            lines.shutdown().await;
        }
    }

    async fn ask(kept: &KeptLine, leader: &Leader, said: usize) -> Option<Bytes> {
        let body = Bytes::from(said.to_string());
        let answer = kept.ask(&Reach::default(), &leader.url, "/leases", body, PATIENCE).await;
        answer.ok().map(|answer| answer.body)
    }

    #[tokio::test]
    async fn all_that_ask_share_one_connection_until_it_ends() {
        let (leader, next) = (Leader::start().await, Leader::start().await);
        let kept = KeptLine::default();
        let many = futures_util::future::join_all((0..200).map(|said| ask(&kept, &leader, said))).await;
        for (said, answer) in many.into_iter().enumerate() {
            assert_eq!(answer, Some(Bytes::from(said.to_string())), "to whom it belongs");
        }
        assert_eq!(leader.taken.load(Relaxed), 1);

        leader.hang_up().await;
        // The first may find out.
        let mut answers = Vec::new();
        for said in 0..3 {
            answers.push(ask(&kept, &leader, said).await.is_some());
        }
        assert_eq!(answers[1..], [true, true], "another takes its place");
        assert_eq!(leader.taken.load(Relaxed), 2);

        assert!(ask(&kept, &next, 7).await.is_some(), "another leads");
        assert_eq!((leader.taken.load(Relaxed), next.taken.load(Relaxed)), (2, 1));
    }

    #[tokio::test]
    async fn a_connection_on_which_no_answer_comes_is_left_to_who_still_waits_on_it() {
        let leader = Leader::start().await;
        let kept = KeptLine::default();
        assert!(ask(&kept, &leader, 1).await.is_some());
        let (body, brief) = (Bytes::from(UNANSWERED), Duration::from_millis(50));
        let late = kept.ask(&Reach::default(), &leader.url, "/leases", body, brief).await;
        assert!(matches!(late, Err(ReachError::Late)), "{late:?}");
        assert!(ask(&kept, &leader, 2).await.is_some());
        assert_eq!(leader.taken.load(Relaxed), 2);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_member_that_is_not_there() {
        let nobody = Leader { url: "http://127.0.0.1:1".into(), ..Leader::start().await };
        assert!(ask(&KeptLine::default(), &nobody, 1).await.is_none());
    }
}
