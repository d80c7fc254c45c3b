// SPDX-License-Identifier: Apache-2.0
//! Large answers under TLS: several frames to one write of the socket.
//!
//! Owns      when records that are made are written, and in what pieces they are made. HTTP/2 flushes after each frame of
//!           DATA, which under TLS is a record and a system call for 16 KiB each; of a list of some hundred kilobytes the
//!           calls cost more than the cipher.
//! Holds     1. what is held is no more than a bound, and is written before anything else is read or after a small
//!              write: so a message's end is never held;
//!           2. nothing is copied for it: what is held are the records.
//! Never     looks at the bytes.

use std::{
    io::{self, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

/// From here on what is held is written.
const HELD_BYTES: usize = 64 << 10;
/// A write of this length is followed by others, as a rule.
const LARGE_BYTES: usize = 8 << 10;
/// What rustls may hold: never less than what is held here and one frame more.
const RECORDS_BYTES_MAX: usize = 2 * HELD_BYTES;

/// What is copied into a record at once. Above some 2 KiB the C library copies with one instruction, which on some
/// processors (AMD's Zen 3 and 4, glibc's bug 30994) is ten times slower where the offsets of both places within a page
/// are nearly the same; and those of frames in an answer and of records on the heap are.
const PIECE_BYTES: usize = 2 << 10;
/// Pieces of one write: those of a large frame, and its head.
const PIECES_MAX: usize = 16;

/// The first bytes of the slices, in pieces, and how many these are. A small write is one: rustls makes a list of more.
fn pieces<'a>(slices: &'a [IoSlice<'a>]) -> ([IoSlice<'a>; PIECES_MAX], usize) {
    let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
    let all = slices.iter().flat_map(|slice| slice.chunks(PIECE_BYTES)).map(IoSlice::new);
    let count = pieces.iter_mut().zip(all).map(|(piece, bytes)| *piece = bytes).count();
    (pieces, count)
}

/// See the module.
pub struct Gather<S> {
    stream: TlsStream<S>,
    /// Bytes that are in records and not written.
    held: usize,
    /// The last write was of a large frame, and nobody has asked for it to be flushed.
    large: bool,
}

impl<S> Gather<S> {
    pub fn new(mut stream: TlsStream<S>) -> Gather<S> {
        match &mut stream {
            TlsStream::Client(stream) => stream.get_mut().1.set_buffer_limit(Some(RECORDS_BYTES_MAX)),
            TlsStream::Server(stream) => stream.get_mut().1.set_buffer_limit(Some(RECORDS_BYTES_MAX)),
        }
        Gather { stream, held: 0, large: false }
    }

    /// Makes records of as much as there is room for.
    fn take(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let (pieces, count) = pieces(slices);
        let pieces = &pieces[..count];
        let taken = match &mut self.stream {
            TlsStream::Client(stream) => stream.get_mut().1.writer().write_vectored(pieces),
            TlsStream::Server(stream) => stream.get_mut().1.writer().write_vectored(pieces),
        }?;
        self.held += taken;
        self.large = taken >= LARGE_BYTES;
        Ok(taken)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gather<S> {
    fn poll_write_held(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.held = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.large = false;
        if self.held > 0
            && let Poll::Ready(Err(error)) = self.poll_write_held(context)
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        loop {
            if self.held >= HELD_BYTES {
                ready!(self.poll_write_held(context))?;
            }
            let taken = self.take(slices)?;
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
            // Records of the handshake are in the way.
            ready!(self.poll_write_held(context))?;
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.large) && self.held < HELD_BYTES {
            // If nothing follows in this turn it is written in the next, which begins with a read or comes here again.
            context.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        self.poll_write_held(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_held(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{PrivateKeyDer, ServerName},
    };
    use std::{
        future::poll_fn,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
    };
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector, client};

    /// As a frame of DATA and its head.
    const FRAME_BYTES: usize = 16 << 10;

    /// A socket whose writes are counted.
    struct Counted(DuplexStream, Arc<AtomicUsize>);

    impl AsyncRead for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Counted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.1.fetch_add(1, Relaxed);
            Pin::new(&mut self.0).poll_write(context, bytes)
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.1.fetch_add(1, Relaxed);
            Pin::new(&mut self.0).poll_write_vectored(context, slices)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(context)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(context)
        }
    }

    /// Both ends after their handshake, and the writes of the server from then on.
    async fn ends() -> (client::TlsStream<DuplexStream>, Gather<Counted>, Arc<AtomicUsize>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let chain = vec![made.cert.der().clone()];
        let server =
            ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("a server");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a root");
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let (near, far) = duplex(1 << 20);
        let writes = Arc::new(AtomicUsize::new(0));
        let name = ServerName::try_from("localhost").expect("a name");
        let (client, server) = tokio::join!(
            TlsConnector::from(Arc::new(client)).connect(name, near),
            TlsAcceptor::from(Arc::new(server)).accept(Counted(far, writes.clone()))
        );
        let server = Gather::new(server.expect("the server shakes hands").into());
        writes.store(0, Relaxed);
        (client.expect("the client shakes hands"), server, writes)
    }

    /// As HTTP/2 writes: each frame is flushed.
    async fn write(server: &mut Gather<Counted>, len: usize) {
        server.write_all(&vec![7; len]).await.expect("written");
        server.flush().await.expect("flushed");
    }

    async fn is_read(client: &mut client::TlsStream<DuplexStream>, len: usize) {
        let mut bytes = vec![0; len];
        client.read_exact(&mut bytes).await.expect("all of it");
        assert!(bytes.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn pieces_are_the_first_bytes_in_their_order_and_small() {
        let frame: Vec<u8> = (0..FRAME_BYTES).map(|n| (n % 251) as u8).collect();
        for (slices, count, whole) in [
            (vec![], 0, true),
            (vec![&frame[..9]], 1, true),
            (vec![&frame[..9], &frame], 9, true),
            (vec![&[], &frame[..PIECE_BYTES], &[], &frame[..PIECE_BYTES + 1]], 3, true),
            (vec![&frame[..], &frame, &frame], PIECES_MAX, false),
        ] {
            let given = slices.concat();
            let slices: Vec<_> = slices.into_iter().map(IoSlice::new).collect();
            let (pieces, made) = pieces(&slices);
            assert_eq!(made, count);
            let pieces = &pieces[..made];
            assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
            let pieced: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
            assert!(given.starts_with(&pieced));
            assert_eq!(pieced.len() == given.len(), whole);
            assert!(whole || pieced.len() > LARGE_BYTES, "a large frame is taken for one");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn several_frames_are_one_write_and_the_end_of_an_answer_is_not_waited_for() {
        let (mut client, mut server, writes) = ends().await;
        for _ in 0..20 {
            write(&mut server, FRAME_BYTES).await;
        }
        assert_eq!(writes.load(Relaxed), 5, "one for 64 KiB");
        write(&mut server, 100).await;
        assert_eq!(writes.load(Relaxed), 6);
        is_read(&mut client, 20 * FRAME_BYTES + 100).await;
        write(&mut server, 100).await;
        is_read(&mut client, 100).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_nothing_follows_is_written_before_the_next_read() {
        let (mut client, mut server, writes) = ends().await;
        write(&mut server, FRAME_BYTES).await;
        assert_eq!(writes.load(Relaxed), 0);
        poll_fn(|context| {
            let mut bytes = [0; 8];
            assert!(Pin::new(&mut server).poll_read(context, &mut ReadBuf::new(&mut bytes)).is_pending());
            Poll::Ready(())
        })
        .await;
        is_read(&mut client, FRAME_BYTES).await;

        write(&mut server, FRAME_BYTES).await;
        server.flush().await.expect("a second time is meant so");
        is_read(&mut client, FRAME_BYTES).await;

        write(&mut server, FRAME_BYTES).await;
        server.shutdown().await.expect("the end");
        is_read(&mut client, FRAME_BYTES).await;
        assert_eq!(client.read(&mut [0; 8]).await.expect("a clean end"), 0);
    }
}
