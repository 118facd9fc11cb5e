//! Sealing: secrets in records are ciphertext from the first day.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::domain::Secret;
use crate::error::{self, Error, Kind, Result};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// A thousand keys: more than anybody rotates.
const MAX_FILE_BYTES: usize = 64 * 1024;

/// A secret as a record holds it: XChaCha20-Poly1305 ciphertext that says which key sealed it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The key's identifier: the start of its fingerprint.
    key: String,
    /// Nonce and ciphertext, in hexadecimal.
    data: String,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Sealed(by {})", self.key)
    }
}

/// The keys that seal and open secrets. New secrets are sealed with the first key; every key opens.
pub struct Keyring {
    current: String,
    keys: BTreeMap<String, XChaCha20Poly1305>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Keyring({} keys)", self.keys.len())
    }
}

impl Keyring {
    /// A keyring of one new random key, which is gone when it is dropped: for tests and in-memory platforms.
    ///
    /// # Errors
    /// `Internal` when the operating system gives no randomness.
    pub fn ephemeral() -> Result<Self> {
        Ok(Self::from_keys(&[random_key()?]))
    }

    /// Reads the keys in `path`, one a line in hexadecimal, the current one first; makes the file, with mode
    /// 0600, when it does not exist. What is sealed with them can be opened after a loss of power: they are on stable
    /// storage first.
    ///
    /// # Errors
    /// `Invalid` when the file holds something else or others may read it; `Internal` when it can't be read or made.
    pub fn open(path: &Path) -> Result<Self> {
        let operation = "keyring.open";
        let opened = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let key = Zeroizing::new(format!("{}\n", encode_hex(random_key()?.as_slice())));
                make_private(path, &key).map_err(error::map(operation))?;
                File::open(path)
            }
            opened => opened,
        };
        let file = opened.map_err(error::map(operation))?;
        // One that was found, too: who made it may have been killed right after.
        make_durable(&file, path).map_err(error::map(operation))?;
        if is_open_to_others(&file).map_err(error::map(operation))? {
            return Err(Error::invalid(operation, "the file with the master key may be read by others").hint(
                "chmod 600 the file; if others may have read it, put a new key of 64 hexadecimal digits first",
            ));
        }
        // In its full size from the start: growing would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(MAX_FILE_BYTES));
        file.take(MAX_FILE_BYTES as u64).read_to_string(&mut text).map_err(error::map(operation))?;
        let keys: Option<Vec<_>> = text.lines().map(decode_key).collect();
        match keys {
            Some(keys) if !keys.is_empty() => Ok(Self::from_keys(&keys)),
            _ => Err(Error::invalid(operation, "the file with the master key holds no keys")
                .hint("each line must be a key of 64 hexadecimal digits; restore the file from its backup")),
        }
    }

    fn from_keys(keys: &[Zeroizing<[u8; KEY_BYTES]>]) -> Self {
        let fingerprint = |key: &[u8]| {
            use sha2::Digest;
            encode_hex(&sha2::Sha256::digest(key)[..4])
        };
        let current = keys.first().map(|key| fingerprint(key.as_slice())).unwrap_or_default();
        let keys = keys
            .iter()
            .map(|key| (fingerprint(key.as_slice()), XChaCha20Poly1305::new(&Key::from(**key))))
            .collect();
        Self { current, keys }
    }

    /// Seals `secret` for one `purpose`, such as `app_…/env`: it opens for the same purpose only, so that nobody
    /// can move a sealed secret to where it would be shown.
    ///
    /// # Errors
    /// `Internal` when the operating system gives no randomness.
    pub fn seal(&self, purpose: &str, secret: &Secret) -> Result<Sealed> {
        let operation = "keyring.seal";
        let mut nonce = [0_u8; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|error| Error::internal(operation, error.to_string()))?;
        let cipher =
            self.keys.get(&self.current).ok_or_else(|| Error::internal(operation, "the keyring is empty"))?;
        let payload = Payload { msg: secret.expose().as_bytes(), aad: purpose.as_bytes() };
        let ciphertext = cipher
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|error| Error::internal(operation, error.to_string()))?;
        let data = format!("{}{}", encode_hex(&nonce), encode_hex(&ciphertext));
        Ok(Sealed { key: self.current.clone(), data })
    }

    /// Opens what [`seal`](Self::seal) made.
    ///
    /// # Errors
    /// `Internal` when the key is not on this ring, the purpose is another one, or the data was changed.
    pub fn open_sealed(&self, purpose: &str, sealed: &Sealed) -> Result<Secret> {
        let failed = |hint: &str| {
            Error::new(Kind::Internal, "keyring.open_sealed", "a stored secret can't be opened")
                .hint(hint.to_owned())
        };
        let cipher = self
            .keys
            .get(&sealed.key)
            .ok_or_else(|| failed("restore the master key that sealed it").context("key", &sealed.key))?;
        let damaged =
            || failed("the stored data was changed or damaged; restore a backup or set the secret again");
        let data = decode_hex(&sealed.data).ok_or_else(damaged)?;
        let (nonce, ciphertext) = data.split_first_chunk::<NONCE_BYTES>().ok_or_else(damaged)?;
        let payload = Payload { msg: ciphertext, aad: purpose.as_bytes() };
        let plain = cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| damaged())?;
        String::from_utf8(plain).map(Secret::from).map_err(|_| damaged())
    }
}

fn random_key() -> Result<Zeroizing<[u8; KEY_BYTES]>> {
    let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
    getrandom::fill(key.as_mut_slice())
        .map_err(|error| Error::internal("keyring.random", error.to_string()))?;
    Ok(key)
}

fn decode_key(line: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let bytes = Zeroizing::new(decode_hex(line.trim())?);
    bytes.as_slice().try_into().ok().map(Zeroizing::new)
}

fn encode_hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    // Parsing alone would take `+f` for a number.
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// True if others than its owner may read or change the file.
fn is_open_to_others(file: &File) -> std::io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        Ok(file.metadata()?.permissions().mode() & 0o077 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        Ok(false)
    }
}

/// Makes a file that only its owner can read, whole or not at all: killed on the way, the next start must not find half a
/// key. A file that is there by then is left as it is.
fn make_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut unique = [0_u8; 8];
    getrandom::fill(&mut unique)?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.new", encode_hex(&unique)));

    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(&draft)?;
    // A link and not a renaming, which would replace what somebody else made meanwhile.
    let made = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::hard_link(&draft, path))
        .or_else(|error| (error.kind() == ErrorKind::AlreadyExists).then_some(()).ok_or(error));
    std::fs::remove_file(&draft)?;
    made
}

/// Puts the file and its name on stable storage.
fn make_durable(file: &File, path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    let synced = file.sync_all().and_then(|()| File::open(directory.unwrap_or(Path::new(".")))?.sync_all());
    match synced.as_ref().map_err(std::io::Error::kind) {
        // What this process can't change, it has not made.
        Err(ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) => Ok(()),
        _ => synced,
    }
}
