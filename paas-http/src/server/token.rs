//! The server's token: made at its first start, kept in a file that its owner alone can read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use paas_core::{Error, Kind, Result, Secret};

const OPERATION: &str = "server.token";
const TOKEN_BYTES: usize = 32;
/// Longer than any token: what is longer is something else.
const MAX_FILE_BYTES: u64 = 4096;

/// Reads the token in `path`, or makes one of 256 random bits; answers also whether it is a new one.
///
/// # Errors
/// `Invalid` when the file may be read by others or holds no token; `Unavailable` when it can't be read or made.
pub(super) fn open(path: &Path) -> Result<(Secret, bool)> {
    let failed = |error: io::Error| {
        Error::new(Kind::Unavailable, OPERATION, format!("the token's file {} can't be used", path.display()))
            .source(error)
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = generate()?;
            write(path, &token).map_err(failed)?;
            return Ok((token, true));
        }
        opened => opened.map_err(failed)?,
    };
    if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
        let message = format!("the token's file {} may be read by others", path.display());
        return Err(Error::invalid(OPERATION, message).hint("remove it: the next start makes another token"));
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
    let token = text.trim();
    // As many characters as 256 bits need.
    if token.len() < TOKEN_BYTES || token.contains(|letter: char| !letter.is_ascii_graphic()) {
        let message = format!("the token's file {} holds no token", path.display());
        return Err(Error::invalid(OPERATION, message).hint("remove it: the next start makes another token"));
    }
    Ok((Secret::from(token), false))
}

fn generate() -> Result<Secret> {
    let mut random = [0_u8; TOKEN_BYTES];
    getrandom::fill(&mut random).map_err(|error| Error::internal(OPERATION, error.to_string()))?;
    Ok(Secret::from(format!("paas_{}", URL_SAFE_NO_PAD.encode(random))))
}

/// Writes the file whole or not at all: killed on the way, the next start must not find half a token. Nobody else
/// writes it: the caller has the directory for itself.
fn write(path: &Path, token: &Secret) -> io::Result<()> {
    let draft = path.with_extension("new");
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    writeln!(file, "{}", token.expose())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_long_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let (token, is_new) = open(&path).unwrap();
        assert!(is_new);
        assert_eq!(token.expose().len(), "paas_".len() + 43);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(open(&path).unwrap(), (token.clone(), false));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(open(&other.path().join("token")).unwrap().0, token);
    }

    #[test]
    fn a_file_that_others_read_or_that_holds_no_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(open(&path).unwrap_err().kind(), Kind::Invalid);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "").unwrap();
        assert_eq!(open(&path).unwrap_err().kind(), Kind::Invalid);
    }
}
