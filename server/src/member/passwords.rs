// SPDX-License-Identifier: Apache-2.0
//! Passwords: hashing, comparing, and how much of it may go on at once.
//!
//! Owns      the places for bcrypt beside the runtime, the credentials that were found good, and the letters
//!           of tokens.
//! Holds     1. comparing takes the same time for a user that does not exist;
//!           2. what is remembered of a good password is a keyed digest, good for one hash and one auth
//!              revision, in memory alone;
//!           3. clear passwords are wiped when they were used.
//! Never     writes a password, or a hash, down.

use super::Refusal;
use bytes::Bytes;
use cairn_core::auth::Auth;
use cairn_proto::errors;
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Logins that wait for a place; more are refused at once.
const WAITING_MAX: usize = 1024;
/// Good credentials that are remembered.
const REMEMBERED_MAX: usize = 4096;

/// See the module.
pub(super) struct Passwords {
    cost: u32,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    key: [u8; 32],
    remembered: Mutex<Remembered>,
    /// The hash of no password: what the unknown are compared with.
    nobody: OnceLock<String>,
}

#[derive(Default)]
struct Remembered {
    revision: u64,
    digests: HashSet<[u8; 32]>,
}

/// Leaves the queue when it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Passwords {
    /// # Errors
    /// If the system has no random bytes.
    pub fn new(cost: u32) -> Result<Passwords, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        // Half of the cores: requests go on beside a flood of logins.
        let places = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        Ok(Passwords {
            cost,
            places: Arc::new(Semaphore::new(places)),
            waiting: AtomicUsize::new(0),
            key,
            remembered: Mutex::default(),
            nobody: OnceLock::new(),
        })
    }

    /// The hash of a new password, as Go's bcrypt writes it.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<String, Refusal> {
        let cost = self.cost;
        self.beside(move || hash(&password, cost)).await?.ok_or(errors::STOPPED)
    }

    /// Compares a password with the hash of a user; `None` is a user that does not exist.
    ///
    /// # Errors
    /// That name or password is wrong.
    pub async fn compare(
        &self,
        auth: &Auth,
        name: &str,
        stored: Option<Bytes>,
        password: Zeroizing<String>,
    ) -> Result<(), Refusal> {
        let digest = stored.as_ref().map(|stored| self.digest(name, stored, &password));
        if digest.is_some_and(|digest| self.remembers(auth.revision(), &digest)) {
            return Ok(());
        }
        let stored = stored.map(|stored| String::from_utf8_lossy(&stored).into_owned());
        let (known, against) = match stored {
            Some(stored) => (true, stored),
            None => (false, self.nobody().await?),
        };
        let same =
            self.beside(move || bcrypt::verify(password.as_bytes(), &against).unwrap_or(false)).await?;
        if !(known && same) {
            return Err(errors::AUTH_FAILED);
        }
        if let Some(digest) = digest {
            self.remember(auth.revision(), digest);
        }
        Ok(())
    }

    async fn nobody(&self) -> Result<String, Refusal> {
        if let Some(hash) = self.nobody.get() {
            return Ok(hash.clone());
        }
        let hash = self.hash(Zeroizing::new(letters(32)?)).await?;
        Ok(self.nobody.get_or_init(|| hash).clone())
    }

    /// Runs bcrypt on the blocking pool, in its turn.
    async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        if before >= WAITING_MAX {
            return Err(errors::REQUEST_TOO_MANY_REQUESTS);
        }
        let place = self.places.clone().acquire_owned().await.map_err(|_| errors::STOPPED)?;
        drop(waiting);
        let task = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        match task.await {
            Ok(done) => Ok(done),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    fn digest(&self, name: &str, stored: &[u8], password: &str) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.key);
        for part in [name.as_bytes(), stored, password.as_bytes()] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn remembers(&self, revision: u64, digest: &[u8; 32]) -> bool {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.revision == revision && remembered.digests.contains(digest)
    }

    fn remember(&self, revision: u64, digest: [u8; 32]) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.revision != revision || remembered.digests.len() >= REMEMBERED_MAX {
            *remembered = Remembered { revision, digests: HashSet::new() };
        }
        remembered.digests.insert(digest);
    }
}

/// `None` if the system has no random bytes for a salt: the cost was checked at the start.
fn hash(password: &str, cost: u32) -> Option<String> {
    let parts = bcrypt::hash_with_result(password.as_bytes(), cost).ok()?;
    Some(parts.format_for_version(bcrypt::Version::TwoA))
}

/// What stands for the letters of a token wherever they are kept: who reads it cannot use it.
pub(super) fn fingerprint(letters: &str) -> String {
    let digest = Sha256::digest(letters.as_bytes());
    let half = digest.first_chunk().expect("a digest has 32 bytes");
    format!("{:032x}", u128::from_be_bytes(*half))
}

/// Letters that nobody can guess.
pub(super) fn letters(count: usize) -> Result<String, Refusal> {
    const LETTERS: &[u8; 52] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    /// The bytes above would make the first letters likelier.
    const EVEN: u8 = (256 / LETTERS.len() * LETTERS.len()) as u8;
    let mut text = String::with_capacity(count);
    while text.len() < count {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes).map_err(|_| errors::STOPPED)?;
        let even = bytes.iter().filter(|byte| **byte < EVEN);
        text.extend(
            even.map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).take(count - text.len()),
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: u32 = 4;

    fn clear(password: &str) -> Zeroizing<String> {
        Zeroizing::new(password.to_owned())
    }

    // rule: AU-6
    #[tokio::test]
    async fn hashes_are_gos_and_compare() {
        let passwords = Passwords::new(COST).expect("random bytes");
        let auth = Auth::default();
        for password in ["pass", "", "ünï", &"x".repeat(72)] {
            let hash = passwords.hash(clear(password)).await.expect("a hash");
            assert!(hash.starts_with("$2a$04$") && hash.len() == 60, "{hash}");
            let stored = Some(Bytes::from(hash));
            assert_eq!(passwords.compare(&auth, "u", stored.clone(), clear(password)).await, Ok(()));
            let wrong = passwords.compare(&auth, "u", stored, clear("wrong")).await;
            assert_eq!(wrong, Err(errors::AUTH_FAILED));
        }
        for stored in [None, Some(Bytes::new()), Some(Bytes::from_static(b"no hash"))] {
            assert_eq!(passwords.compare(&auth, "u", stored, clear("")).await, Err(errors::AUTH_FAILED));
        }
    }

    #[tokio::test]
    async fn what_was_good_is_good_for_the_same_user_hash_password_and_revision() {
        let passwords = Passwords::new(COST).expect("random bytes");
        let auth = Auth::default();
        let hash = Bytes::from(passwords.hash(clear("p")).await.expect("a hash"));
        passwords.compare(&auth, "u", Some(hash.clone()), clear("p")).await.expect("it is the password");
        let knows = |revision, name: &str, hash: &[u8], password: &str| {
            passwords.remembers(revision, &passwords.digest(name, hash, password))
        };
        assert!(knows(1, "u", &hash, "p"));
        assert!(!knows(2, "u", &hash, "p"));
        assert!(!knows(1, "v", &hash, "p"));
        assert!(!knows(1, "u", b"other", "p"));
        assert!(!knows(1, "u", &hash, "q"));
    }

    #[test]
    fn a_fingerprint_is_half_of_a_digest() {
        assert_eq!(fingerprint("abc"), "ba7816bf8f01cfea414140de5dae2223");
    }

    #[test]
    fn letters_are_drawn_anew() {
        let drawn: HashSet<String> = (0..1000).map(|_| letters(16).expect("random bytes")).collect();
        assert_eq!(drawn.len(), 1000);
        assert!(drawn.iter().all(|text| text.len() == 16 && text.bytes().all(|b| b.is_ascii_alphabetic())));
        let used: HashSet<char> = drawn.iter().flat_map(|text| text.chars()).collect();
        assert_eq!(used.len(), 52);
    }

    /// Whoever is compared with nothing waits as long.
    #[tokio::test]
    async fn s08_an_unknown_user_costs_as_much_as_a_known_one() {
        let passwords = Passwords::new(9).expect("random bytes");
        let auth = Auth::default();
        let hash = Bytes::from(passwords.hash(clear("p")).await.expect("a hash"));
        passwords.nobody().await.expect("made once");
        let mut fastest = [std::time::Duration::MAX; 2];
        // The fastest of several: what else the machine does only ever adds.
        for _ in 0..5 {
            for (stored, fastest) in [Some(hash.clone()), None].into_iter().zip(&mut fastest) {
                let since = std::time::Instant::now();
                passwords.compare(&auth, "u", stored, clear("wrong")).await.expect_err("wrong");
                *fastest = since.elapsed().min(*fastest);
            }
        }
        let [known, unknown] = fastest.map(|time| time.as_secs_f64());
        assert!(known < unknown * 2.0 && unknown < known * 2.0, "known {known} s, unknown {unknown} s");
    }
}
