//! Passwords are checked against argon2id strings, without holding anything up.
//!
//! A check costs some 20 ms and 19 MiB by design, so one runs at a time, few wait, guesses from one
//! address are looked at slowly, and a principal that has just proven its password is not asked to pay
//! again: a keyed hash of what was proven is kept in memory. The key is drawn at start and never leaves
//! the process. Nor is the memory of a check given back: taken anew each time, by whichever thread it
//! is, it stays in every thread's heap (350 MiB more after six hundred checks).

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use argon2::password_hash::{self, Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use ring::hmac;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::entropy::HashMap;
use crate::gateway::entrance::secret::NoEntropy;
use crate::gateway::tolerance::{Allowance, Tolerance};
use crate::supervisor::Supervisor;

/// Checks that run at once.
const RUNNING_MAX: usize = 1;
/// Checks that run or wait; one more is refused as overload.
const WAITING_MAX: usize = 128;
/// Wrong passwords of one address; one more is not looked at, right as it may be, but for one that was
/// proven before.
const WRONG: Allowance = Allowance { count: 8, per_s: 1 };
/// Addresses that wrong passwords came from that are remembered; others are not while all of these
/// have something to be forgiven.
const WRONG_ADDRESSES_MAX: usize = 4_096;
/// Proven passwords that are remembered.
const PROVEN_MAX: usize = 4_096;
/// Bytes of a password that are looked at.
const PASSWORD_BYTES_MAX: usize = 1_024;
/// Bytes of a salt, as the form of stored passwords allows.
const SALT_BYTES_MAX: usize = 64;
/// Checked in place of the password of a principal that does not exist, so that it takes as long.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA\
    $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The checker.
#[derive(Debug)]
pub(in crate::gateway) struct Passwords {
    key: hmac::Key,
    clock: Clock,
    running: Semaphore,
    waiting: Semaphore,
    proven: Mutex<HashSet<[u8; 32]>>,
    wrong: Mutex<HashMap<IpAddr, Tolerance>>,
    /// What the check that runs works in.
    memory: Arc<Mutex<Vec<Block>>>,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Verdict {
    /// It is the principal's password.
    Right,
    /// It is not, or there is no such principal.
    Wrong,
    /// Too many checks wait.
    Busy,
    /// It was not looked at: too many wrong ones came from its address, until this much later.
    TooOften(Duration),
}

impl Passwords {
    /// A checker that has proven nothing yet.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub(in crate::gateway) fn new(clock: Clock) -> Result<Self, NoEntropy> {
        let mut key = [0; 32];
        crate::entropy::fill(&mut key).map_err(|_| NoEntropy)?;
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            clock,
            running: Semaphore::new(RUNNING_MAX),
            waiting: Semaphore::new(WAITING_MAX),
            proven: Mutex::new(HashSet::new()),
            wrong: Mutex::default(),
            memory: Arc::default(),
        })
    }

    /// Checks a password against the principal's argon2id string; none: there is no such principal.
    /// `from`: the address that it is held against if it is wrong.
    pub(in crate::gateway) async fn check(
        &self,
        supervisor: &Supervisor,
        from: Option<IpAddr>,
        hash: Option<&str>,
        password: &str,
    ) -> Verdict {
        if password.len() > PASSWORD_BYTES_MAX {
            return Verdict::Wrong;
        }
        let tag = self.tag(hash.unwrap_or_default(), password);
        if hash.is_some() && self.lock().contains(&tag) {
            return Verdict::Right;
        }
        let Ok(_place) = self.waiting.try_acquire() else { return Verdict::Busy };
        let Ok(_turn) = self.running.acquire().await else { return Verdict::Busy };
        if let Some(wait) = from.and_then(|from| self.waits(from)) {
            return Verdict::TooOften(wait);
        }
        let (known, stored) = (hash.is_some(), hash.unwrap_or(NOBODY).to_owned());
        let (password, memory) = (password.to_owned(), Arc::clone(&self.memory));
        let check = move || {
            let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            is_right(&stored, &password, &mut memory).unwrap_or(false)
        };
        match supervisor.patiently("password check", check).await {
            Ok(true) if known => {
                let mut proven = self.lock();
                if proven.len() >= PROVEN_MAX {
                    proven.clear();
                }
                proven.insert(tag);
                Verdict::Right
            }
            Ok(_) => {
                if let Some(from) = from {
                    self.count_wrong(from);
                }
                Verdict::Wrong
            }
            Err(_) => Verdict::Busy,
        }
    }

    /// How long passwords of this address are not looked at.
    fn waits(&self, from: IpAddr) -> Option<Duration> {
        let now = self.clock.now();
        let until = self.wrong().get(&from)?.waits_until(WRONG, now)?;
        Some(until - now)
    }

    fn count_wrong(&self, from: IpAddr) {
        let now = self.clock.now();
        let mut wrong = self.wrong();
        if wrong.len() >= WRONG_ADDRESSES_MAX && !wrong.contains_key(&from) {
            wrong.retain(|_, tolerance| !tolerance.is_even(now));
            if wrong.len() >= WRONG_ADDRESSES_MAX {
                return;
            }
        }
        wrong.entry(from).or_default().count(WRONG, now);
    }

    fn wrong(&self) -> MutexGuard<'_, HashMap<IpAddr, Tolerance>> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tag(&self, hash: &str, password: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        // The length keeps the two apart.
        context.update(&(hash.len() as u64).to_le_bytes());
        context.update(hash.as_bytes());
        context.update(password.as_bytes());
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<[u8; 32]>> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_right(stored: &str, password: &str, memory: &mut Vec<Block>) -> password_hash::Result<bool> {
    let stored = PasswordHash::new(stored)?;
    let (Some(salt), Some(expected)) = (stored.salt, stored.hash) else { return Ok(false) };
    let algorithm = Algorithm::try_from(stored.algorithm)?;
    let version = stored.version.map(Version::try_from).transpose()?.unwrap_or_default();
    let parameters = Params::try_from(&stored)?;
    let mut salt_bytes = [0; SALT_BYTES_MAX];
    let salt = salt.decode_b64(&mut salt_bytes)?;
    memory.resize(parameters.block_count(), Block::default());
    let argon2 = Argon2::new(algorithm, version, parameters);
    let found = Output::init_with(expected.len(), |found| {
        let hashed = argon2.hash_password_into_with_memory(
            password.as_bytes(),
            salt,
            found,
            memory.as_mut_slice(),
        );
        Ok(hashed?)
    })?;
    // Outputs are compared in constant time.
    Ok(found == expected)
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::{PasswordHasher, SaltString};

    use super::*;

    fn hash(password: &str) -> String {
        let salt = SaltString::encode_b64(&[3; 16]).unwrap();
        Argon2::default().hash_password(password.as_bytes(), &salt).unwrap().to_string()
    }

    fn checker() -> Passwords {
        Passwords::new(Clock::system()).unwrap()
    }

    #[tokio::test]
    async fn passwords_are_checked_and_remembered() {
        let supervisor = Supervisor::new("test");
        let passwords = checker();
        let stored = hash("open sesame");
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        for _ in 0..2 {
            let verdict = passwords.check(&supervisor, None, Some(&stored), "open sesame").await;
            assert_eq!(verdict, Verdict::Right);
        }
        assert_eq!(passwords.lock().len(), 1);
        for wrong in ["", "open sesame ", &"x".repeat(5_000)] {
            let verdict = passwords.check(&supervisor, None, Some(&stored), wrong).await;
            assert_eq!(verdict, Verdict::Wrong);
        }
        assert_eq!(passwords.check(&supervisor, None, None, "open sesame").await, Verdict::Wrong);
        assert_eq!(passwords.lock().len(), 1);
        // The memory of a check is kept: 19 MiB, and not once more for each.
        assert_eq!(passwords.memory.lock().unwrap().len(), 19_456);
    }

    #[tokio::test]
    async fn wrong_passwords_of_one_address_are_looked_at_slowly() {
        let supervisor = Supervisor::new("test");
        let passwords = checker();
        let stored = hash("open sesame");
        let [here, there] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().ok());
        let right = "open sesame";
        assert_eq!(passwords.check(&supervisor, there, Some(&stored), right).await, Verdict::Right);
        passwords.lock().clear();
        let mut wrong = 0;
        let wait = loop {
            let guess = format!("guess {wrong}");
            match passwords.check(&supervisor, here, Some(&stored), &guess).await {
                Verdict::Wrong => wrong += 1,
                Verdict::TooOften(wait) => break wait,
                other => panic!("{other:?}"),
            }
            // Some are forgiven meanwhile, as a check takes its time.
            assert!(wrong < 100 * WRONG.count, "none was refused");
        };
        assert!(wrong >= WRONG.count && wait <= Duration::from_secs(1), "{wrong} {wait:?}");
        // Nor is the right one looked at then, but for other addresses it is, and what was proven
        // needs no look.
        let verdict = passwords.check(&supervisor, here, Some(&stored), right).await;
        assert!(matches!(verdict, Verdict::TooOften(_)), "{verdict:?}");
        assert_eq!(passwords.check(&supervisor, there, Some(&stored), right).await, Verdict::Right);
        assert_eq!(passwords.check(&supervisor, here, Some(&stored), right).await, Verdict::Right);
    }

    #[test]
    fn the_wrong_passwords_of_so_many_addresses_are_remembered() {
        let passwords = checker();
        for number in 0..2 * WRONG_ADDRESSES_MAX as u32 {
            passwords.count_wrong(IpAddr::V4(number.into()));
        }
        assert_eq!(passwords.wrong().len(), WRONG_ADDRESSES_MAX);
    }

    #[test]
    fn the_stand_in_for_nobody_is_a_legal_hash() {
        assert!(PasswordHash::new(NOBODY).is_ok());
    }

    #[tokio::test]
    async fn too_many_checks_are_refused() {
        let supervisor = Supervisor::new("test");
        let passwords = checker();
        let _all = passwords.waiting.acquire_many(WAITING_MAX as u32).await.unwrap();
        assert_eq!(passwords.check(&supervisor, None, None, "x").await, Verdict::Busy);
    }
}
