//! Session identifiers and the secrets that resume sessions.
//!
//! The secret itself goes to the client and nowhere else; the log holds its hash.

use ring::digest;

use crate::domain::id::SessionId;
use crate::protocol::handshake::SECRET_BYTES;

/// The operating system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoEntropy;

/// What resumes a session.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::gateway) struct Secret([u8; SECRET_BYTES]);

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub(in crate::gateway) fn draw() -> Result<Self, NoEntropy> {
        let mut bytes = [0; SECRET_BYTES];
        crate::entropy::fill(&mut bytes).map_err(|_| NoEntropy)?;
        Ok(Self(bytes))
    }

    /// One that a client showed.
    #[must_use]
    pub(in crate::gateway) fn shown(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the client alone.
    #[must_use]
    pub(in crate::gateway) fn reveal(&self) -> [u8; SECRET_BYTES] {
        self.0
    }

    /// SHA-256. A secret has 256 random bits, so a fast hash is enough.
    #[must_use]
    pub(in crate::gateway) fn hash(&self) -> [u8; 32] {
        let digest = digest::digest(&digest::SHA256, &self.0);
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        hash
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// An identifier for a new session: 63 random bits, never zero.
///
/// # Errors
/// [`NoEntropy`].
pub(in crate::gateway) fn draw_session_id() -> Result<SessionId, NoEntropy> {
    let mut bytes = [0; 8];
    crate::entropy::fill(&mut bytes).map_err(|_| NoEntropy)?;
    Ok(SessionId((u64::from_le_bytes(bytes) >> 1).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_sha_256_and_nothing_prints_the_secret() {
        let hash: String =
            Secret::shown([0; 32]).hash().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925");
        let secret = Secret::draw().unwrap();
        assert_ne!(secret, Secret::draw().unwrap());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    #[test]
    fn identifiers_are_positive_63_bit_numbers() {
        for _ in 0..100 {
            let id = draw_session_id().unwrap();
            assert!(id.0 != 0 && id.0 >> 63 == 0);
        }
    }
}
