//! A bearer token from a file.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, ensure};
use hyper::header::HeaderValue;
use subtle::ConstantTimeEq as _;
use tracing::{error, info};

use super::files::{Stamp, read_secret};

/// The token that is in a file now. The file may be changed at any time.
#[derive(Debug)]
pub struct Token {
    path: PathBuf,
    seen: Mutex<Seen>,
}

struct Seen {
    stamp: Option<Stamp>,
    token: Result<Vec<u8>, String>,
}

/// The token shows up in no log.
impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen")
            .field("stamp", &self.stamp)
            .finish_non_exhaustive()
    }
}

impl Token {
    /// The token of a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read, others can read it too, or it holds no token.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let stamp = Stamp::of(path);
        let token = read(path)?;
        Ok(Self {
            path: path.to_owned(),
            seen: Mutex::new(Seen {
                stamp,
                token: Ok(token),
            }),
        })
    }

    /// Whether this header carries the token that is in the file now.
    ///
    /// # Errors
    ///
    /// When the file does not hold a token that can be used any more; nobody has the
    /// right one then.
    pub fn is_carried_by(&self, header: Option<&HeaderValue>) -> Result<bool, String> {
        self.with(|token| {
            let carried = header.and_then(bearer);
            carried.is_some_and(|carried| bool::from(carried.ct_eq(token)))
        })
    }

    /// The header that carries the token to somebody else.
    ///
    /// # Errors
    ///
    /// As [`Self::is_carried_by`].
    pub fn header(&self) -> Result<HeaderValue, String> {
        let value = self.with(|token| HeaderValue::from_bytes(&[b"Bearer ", token].concat()))?;
        let mut value = value.map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn with<T>(&self, then: impl FnOnce(&[u8]) -> T) -> Result<T, String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::of(&self.path);
        if stamp != seen.stamp {
            *seen = Seen {
                stamp,
                token: read(&self.path).map_err(|error| format!("{error:#}")),
            };
            match &seen.token {
                Ok(_) => {
                    info!(file = %self.path.display(), "the token was changed, and read again")
                }
                Err(why) => error!("all requests are refused: {why}"),
            }
        }
        seen.token.as_deref().map(then).map_err(Clone::clone)
    }
}

/// What comes after the word `Bearer`.
fn bearer(header: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = header.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let content = read_secret(path)?;
    let token = content.trim_ascii();
    ensure!(!token.is_empty(), "{} holds no token", path.display());
    ensure!(
        token.iter().all(u8::is_ascii_graphic),
        "{} holds what no header can carry: a token is one word of printable ASCII",
        path.display()
    );
    HeaderValue::from_bytes(token).with_context(|| format!("read {}", path.display()))?;
    Ok(token.to_vec())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
    };

    use super::*;

    struct Fixture(tempfile::TempDir);

    impl Fixture {
        fn path(&self) -> PathBuf {
            self.0.path().join("token")
        }

        fn write(&self, content: &str, mode: u32) {
            fs::write(self.path(), content).unwrap();
            fs::set_permissions(self.path(), Permissions::from_mode(mode)).unwrap();
        }
    }

    fn fixture(content: &str, mode: u32) -> Fixture {
        let fixture = Fixture(tempfile::tempdir().unwrap());
        fixture.write(content, mode);
        fixture
    }

    fn admits(token: &Token, header: &'static str) -> Result<bool, String> {
        token.is_carried_by(Some(&HeaderValue::from_static(header)))
    }

    #[test]
    fn the_right_token_is_let_in_and_no_other() {
        let fixture = fixture("hunter2\n", 0o600);
        let token = Token::open(&fixture.path()).unwrap();
        for right in ["Bearer hunter2", "bearer hunter2"] {
            assert_eq!(admits(&token, right), Ok(true), "{right}");
        }
        for wrong in [
            "Bearer hunter",
            "Bearer hunter22",
            "Bearer ",
            "Bearer",
            "Basic hunter2",
            "hunter2",
        ] {
            assert_eq!(admits(&token, wrong), Ok(false), "{wrong}");
        }
        assert_eq!(token.is_carried_by(None), Ok(false));
        assert_eq!(token.header().unwrap(), "Bearer hunter2");
    }

    #[test]
    fn a_file_that_is_no_secret_or_holds_none_is_refused() {
        for (content, mode, why) in [
            ("a", 0o640, "chmod 0400"),
            ("a", 0o604, "chmod 0400"),
            ("", 0o600, "holds no token"),
            (" \n", 0o600, "holds no token"),
            ("two words", 0o600, "one word"),
            ("ä", 0o600, "one word"),
        ] {
            let error = Token::open(&fixture(content, mode).path()).unwrap_err();
            assert!(format!("{error:#}").contains(why), "{error:#}");
        }
        let absent = fixture("a", 0o600).path().join("absent");
        assert!(Token::open(&absent).is_err());
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let fixture = fixture("old", 0o600);
        let token = Token::open(&fixture.path()).unwrap();
        fixture.write("new", 0o600);
        assert_eq!(admits(&token, "Bearer old"), Ok(false));
        assert_eq!(admits(&token, "Bearer new"), Ok(true));
        fixture.write("new", 0o644);
        assert!(admits(&token, "Bearer new").unwrap_err().contains("0644"));
        fs::remove_file(fixture.path()).unwrap();
        assert!(admits(&token, "Bearer new").is_err());
        fixture.write("new", 0o600);
        assert_eq!(admits(&token, "Bearer new"), Ok(true));
    }

    #[test]
    fn no_debug_output_shows_it() {
        let fixture = fixture("hunter2", 0o600);
        let token = Token::open(&fixture.path()).unwrap();
        assert!(!format!("{token:?}{:?}", token.header()).contains("hunter2"));
    }
}
