//! Which paths are erased: whole paths, byte for byte, and patterns in gitignore syntax.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::error::EraseError;
use crate::tree::reader::components;

/// What makes a path a pattern.
const SPECIAL: &[u8] = b"*?[\\";

/// One path or pattern.
enum What {
    /// A path, without a slash at its end.
    Path(Vec<u8>),
    /// A pattern, and its text taken for a path.
    Pattern { matcher: Box<Gitignore>, literal: Vec<u8> },
}

struct Given {
    what: What,
    text: String,
    /// Something fits it.
    fits: bool,
    /// An entry is called like the pattern, and it fits something else.
    is_name: bool,
    fits_others: bool,
}

/// The paths that are to be erased, and which of them were met.
pub struct Paths(Vec<Given>);

impl Paths {
    /// Understands paths as given.
    ///
    /// # Errors
    /// [`EraseError::Relative`], [`EraseError::Pattern`].
    pub fn parse(given: &[Vec<u8>]) -> Result<Self, EraseError> {
        given.iter().map(|text| parse(text)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether none was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the entry at an absolute path is to be erased, by itself and not for what is above
    /// it. Notes what was met.
    pub fn takes(&mut self, path: &[u8], is_directory: bool) -> bool {
        let mut taken = false;
        for given in &mut self.0 {
            let fits = given.what.fits(path, is_directory);
            let is_name =
                matches!(&given.what, What::Pattern { literal, .. } if literal.as_slice() == path);
            given.fits |= fits;
            given.is_name |= is_name;
            given.fits_others |= fits && !is_name;
            taken |= fits;
        }
        taken
    }

    /// Whether something below a directory can be meant.
    #[must_use]
    pub fn may_be_below(&self, directory: &[u8]) -> bool {
        self.0.iter().any(|given| match &given.what {
            What::Path(path) => {
                path.strip_prefix(directory).is_some_and(|rest| rest.first() == Some(&b'/'))
            }
            What::Pattern { .. } => true,
        })
    }

    /// Whether a path is erased, or lies below one that is.
    #[must_use]
    pub fn cover(&self, path: &[u8]) -> bool {
        let mut above = Vec::new();
        let names = components(path).count();
        components(path).enumerate().any(|(number, name)| {
            above.push(b'/');
            above.extend_from_slice(name);
            // What it was at its end is not known.
            let kinds: &[bool] = if number + 1 < names { &[true] } else { &[false, true] };
            let mut given = self.0.iter();
            given.any(|given| kinds.iter().any(|kind| given.what.fits(&above, *kind)))
        })
    }

    /// Refuses when something was given that fits nothing, or that can be meant in two ways.
    ///
    /// # Errors
    /// [`EraseError::NothingMatches`], [`EraseError::Ambiguous`].
    pub fn check_met(&self, snapshots: u64) -> Result<(), EraseError> {
        if let Some(given) = self.0.iter().find(|given| given.is_name && given.fits_others) {
            return Err(EraseError::Ambiguous { pattern: given.text.clone() });
        }
        match self.0.iter().find(|given| !given.fits) {
            Some(given) => {
                Err(EraseError::NothingMatches { pattern: given.text.clone(), snapshots })
            }
            None => Ok(()),
        }
    }
}

impl What {
    fn fits(&self, path: &[u8], is_directory: bool) -> bool {
        match self {
            Self::Path(own) => own == path,
            // What is called like the pattern is meant, if nothing else fits it.
            Self::Pattern { matcher, literal } => {
                literal.as_slice() == path
                    || matcher.matched(Path::new(OsStr::from_bytes(path)), is_directory).is_ignore()
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Given, EraseError> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let pattern =
        |problem: &str| EraseError::Pattern { pattern: text.clone(), problem: problem.to_owned() };
    if !bytes.starts_with(b"/") && !bytes.starts_with(b"**/") {
        return Err(EraseError::Relative { pattern: text });
    }
    let mut literal = Vec::new();
    for name in components(bytes) {
        if matches!(name, b"." | b"..") {
            return Err(pattern("`.` and `..` are no names of entries"));
        }
        literal.push(b'/');
        literal.extend_from_slice(name);
    }
    if literal.is_empty() {
        return Err(pattern("it is the whole of every snapshot; name snapshots or a job instead"));
    }
    let what = if bytes.iter().any(|byte| SPECIAL.contains(byte)) {
        let line = std::str::from_utf8(bytes)
            .map_err(|_| pattern("a pattern must be UTF-8; only whole paths need not be"))?;
        let mut builder = GitignoreBuilder::new("/");
        builder.allow_unclosed_class(false);
        builder.add_line(None, line).map_err(|error| pattern(&error.to_string()))?;
        let matcher = builder.build().map_err(|error| pattern(&error.to_string()))?;
        What::Pattern { matcher: Box::new(matcher), literal }
    } else {
        What::Path(literal)
    };
    Ok(Given { what, text, fits: false, is_name: false, fits_others: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(given: &[&str]) -> Paths {
        let given = given.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
        Paths::parse(&given).unwrap()
    }

    #[test]
    fn paths_are_taken_byte_by_byte_and_patterns_by_their_rules() {
        let mut some = Paths::parse(&[b"/a b/\xff".to_vec(), b"/srv//x/".to_vec()]).unwrap();
        assert!(some.takes(b"/a b/\xff", false) && some.takes(b"/srv/x", true));
        assert!(!some.takes(b"/a b/\xff/below", false) && !some.takes(b"/a b", true));
        assert!(some.may_be_below(b"/a b") && some.may_be_below(b""));
        assert!(!some.may_be_below(b"/a") && !some.may_be_below(b"/srv/x"));
        assert!(some.cover(b"/srv/x/deep/down") && some.cover(b"/srv/x") && !some.cover(b"/srv"));
        let mut some = paths(&["/srv/*/alice.*", "**/cache/"]);
        assert!(some.takes(b"/srv/1/alice.txt", false) && some.takes(b"/x/y/cache", true));
        assert!(!some.takes(b"/srv/1/2/alice.txt", false) && !some.takes(b"/x/cache", false));
        assert!(some.may_be_below(b"/anything"));
        some.check_met(1).unwrap();
    }

    #[test]
    fn what_can_be_meant_in_two_ways_is_refused() {
        let refused = |text: &str| Paths::parse(&[text.as_bytes().to_vec()]).err().unwrap();
        for text in ["alice", "home/alice", "*.sql", "./x", "!/x", "#x"] {
            assert!(matches!(refused(text), EraseError::Relative { .. }), "{text}");
        }
        for text in ["/", "//", "/a/../b", "/a/./b", "/a/["] {
            assert!(matches!(refused(text), EraseError::Pattern { .. }), "{text}");
        }
        let mut both = paths(&["/x/a[1]"]);
        assert!(both.takes(b"/x/a[1]", false));
        both.check_met(1).unwrap();
        both.takes(b"/x/a1", false);
        assert!(matches!(both.check_met(1), Err(EraseError::Ambiguous { .. })));
        let mut escaped = paths(&["/x/a\\[1\\]"]);
        assert!(escaped.takes(b"/x/a[1]", false) && !escaped.takes(b"/x/a1", false));
        escaped.check_met(1).unwrap();
    }

    #[test]
    fn what_fits_nothing_is_named() {
        let mut two = paths(&["/there", "/absent"]);
        two.takes(b"/there", false);
        let pattern = "/absent".to_owned();
        assert_eq!(two.check_met(3), Err(EraseError::NothingMatches { pattern, snapshots: 3 }));
    }
}
