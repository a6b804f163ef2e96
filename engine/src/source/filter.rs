//! What is left out of a backup.
//!
//! Patterns have the syntax of `.gitignore` with one difference: there is no directory that an
//! inner slash could anchor to, so a pattern starting with `/` is an absolute path, and every
//! other matches at any depth (`target/debug` like `**/target/debug`). Later patterns win, and
//! `!` includes again; `?` stands for one byte. Filters never apply to the roots themselves: what a person names is
//! backed up.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::error::SourceError;

/// Name of the file that marks a cache directory (<https://bford.info/cachedir/>).
pub const CACHEDIR_TAG: &str = "CACHEDIR.TAG";

/// The first bytes that make a file of that name a tag.
pub const CACHEDIR_SIGNATURE: &[u8; 43] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// What to read and what to leave out.
#[derive(Clone, Debug)]
pub struct FileSourceOptions {
    /// Files, directories and devices to back up, absolute or relative to the working directory.
    pub roots: Vec<PathBuf>,
    /// Patterns of what to leave out.
    pub excludes: Vec<String>,
    /// Files with such patterns, one a line, `#` starts a comment. They come after `excludes`.
    pub exclude_files: Vec<PathBuf>,
    /// Of directories tagged as caches, keep only the tag.
    pub exclude_caches: bool,
    /// Leave out files longer than this many bytes.
    pub exclude_larger_than: Option<u64>,
    /// Stay on each root's file system; mount points are kept as empty directories.
    pub one_file_system: bool,
    /// Also enter file systems made by the kernel (proc, sysfs and the like) that lie below a
    /// root. Their files are no data, and some never end.
    pub kernel_file_systems: bool,
    /// Read the content of block devices met below the roots, instead of recording the node.
    /// A root that is a block device is always read.
    pub read_devices: bool,
    /// Ask the file system for holes, so that they cost nothing.
    pub detect_holes: bool,
}

impl Default for FileSourceOptions {
    fn default() -> Self {
        Self {
            roots: Vec::new(),
            excludes: Vec::new(),
            exclude_files: Vec::new(),
            exclude_caches: false,
            exclude_larger_than: None,
            one_file_system: false,
            kernel_file_systems: false,
            read_devices: false,
            detect_holes: true,
        }
    }
}

/// Reads a list of roots from a file: separated by NUL if it contains one, else by newlines.
///
/// # Errors
/// Fails if the file cannot be read.
pub fn files_from(list: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let bytes = std::fs::read(list).map_err(|e| SourceError::io("read the list", list, e))?;
    Ok(parse_files_from(&bytes))
}

/// Splits a list of roots: by NUL if it contains one, else by newlines; empty items are nothing.
#[must_use]
pub fn parse_files_from(list: &[u8]) -> Vec<PathBuf> {
    let separator = if list.contains(&0) { 0 } else { b'\n' };
    list.split(|byte| *byte == separator)
        .filter(|name| !name.is_empty())
        .map(|name| PathBuf::from(OsStr::from_bytes(name)))
        .collect()
}

/// The patterns, compiled.
pub(super) struct Excludes {
    patterns: Gitignore,
}

impl Excludes {
    pub(super) fn compile(options: &FileSourceOptions) -> Result<Self, SourceError> {
        let mut builder = GitignoreBuilder::new("/");
        // Git takes `a[` for a name; here it is more likely a mistake.
        builder.allow_unclosed_class(false);
        for pattern in &options.excludes {
            add(&mut builder, pattern)?;
        }
        for path in &options.exclude_files {
            let text = std::fs::read(path)
                .map_err(|e| SourceError::io("read the exclude file", path, e))?;
            for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
                let line = std::str::from_utf8(line).map_err(|_| SourceError::PatternEncoding {
                    path: path.clone(),
                    line: number,
                })?;
                let line = line.strip_suffix('\r').unwrap_or(line);
                if !line.starts_with('#') {
                    add(&mut builder, line)?;
                }
            }
        }
        let patterns = builder.build().map_err(|error| SourceError::Pattern {
            pattern: options.excludes.join(" "),
            message: error.to_string(),
        })?;
        Ok(Self { patterns })
    }

    /// Whether an entry below a root is left out. The caller does not enter what is left out, so
    /// only the entry itself is looked at, never its parents.
    pub(super) fn leaves_out(&self, path: &Path, directory: bool) -> bool {
        self.patterns.matched(path, directory).is_ignore()
    }
}

fn add(builder: &mut GitignoreBuilder, pattern: &str) -> Result<(), SourceError> {
    let (negation, body) = match pattern.strip_prefix('!') {
        Some(body) => ("!", body),
        None => ("", pattern),
    };
    // A leading `#` given as an option is a name, not a comment.
    let body = if negation.is_empty() && body.starts_with('#') {
        format!("\\{body}")
    } else {
        body.to_string()
    };
    let inner_slash = body.trim_end_matches('/').contains('/') && !body.starts_with('/');
    let prefix = if inner_slash && !body.starts_with("**/") { "**/" } else { "" };
    builder.add_line(None, &format!("{negation}{prefix}{body}")).map(drop).map_err(|error| {
        SourceError::Pattern { pattern: pattern.to_string(), message: error.to_string() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excludes(patterns: &[&str]) -> Excludes {
        let excludes = patterns.iter().map(ToString::to_string).collect();
        Excludes::compile(&FileSourceOptions { excludes, ..FileSourceOptions::default() }).unwrap()
    }

    #[test]
    fn patterns_match_as_documented() {
        let cases: [(&[&str], &str, bool, bool); 16] = [
            (&["*.tmp"], "/srv/a.tmp", false, true),
            (&["*.tmp"], "/srv/a.tmpx", false, false),
            (&["/srv/cache"], "/srv/cache", true, true),
            (&["/srv/cache"], "/home/srv/cache", true, false),
            (&["target/debug"], "/a/b/target/debug", true, true),
            (&["target/debug"], "/target/debug", true, true),
            (&["**/x/y"], "/q/x/y", false, true),
            (&["cache/"], "/a/cache", true, true),
            (&["cache/"], "/a/cache", false, false),
            (&["*.log", "!keep.log"], "/a/keep.log", false, false),
            (&["*.log", "!keep.log"], "/a/lose.log", false, true),
            (&["#odd"], "/a/#odd", false, true),
            (&["logs/*.log", "!logs/a.log"], "/x/logs/a.log", false, false),
            (&["/srv/**/tmp"], "/srv/a/b/tmp", true, true),
            (&[""], "/srv", true, false),
            (&["a??b"], "/srv/a\u{fc}b", false, true),
        ];
        for (patterns, path, directory, left_out) in cases {
            assert_eq!(
                excludes(patterns).leaves_out(Path::new(path), directory),
                left_out,
                "{patterns:?} {path}"
            );
        }
    }

    #[test]
    fn names_of_any_bytes_can_be_matched() {
        let path = Path::new(OsStr::from_bytes(b"/srv/\xff\xfe.tmp"));
        assert!(excludes(&["*.tmp"]).leaves_out(path, false));
        assert!(!excludes(&["*.log"]).leaves_out(path, false));
    }

    #[test]
    fn a_malformed_pattern_is_named() {
        let options =
            FileSourceOptions { excludes: vec!["a[".into()], ..FileSourceOptions::default() };
        match Excludes::compile(&options) {
            Err(SourceError::Pattern { pattern, .. }) => assert_eq!(pattern, "a["),
            other => panic!("{:?}", other.map(drop)),
        }
    }

    #[test]
    fn exclude_files_are_read_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("list");
        std::fs::write(&list, "# comment\n\n*.bak\r\n!good.bak\n").unwrap();
        let options =
            FileSourceOptions { exclude_files: vec![list.clone()], ..FileSourceOptions::default() };
        let compiled = Excludes::compile(&options).unwrap();
        assert!(compiled.leaves_out(Path::new("/x/a.bak"), false));
        assert!(!compiled.leaves_out(Path::new("/x/good.bak"), false));
        assert!(!compiled.leaves_out(Path::new("/x/# comment"), false));

        std::fs::write(&list, b"fine\n\xff\n").unwrap();
        assert!(matches!(
            Excludes::compile(&options),
            Err(SourceError::PatternEncoding { line: 2, .. })
        ));
    }

    #[test]
    fn lists_of_roots_split_by_newline_or_nul() {
        let paths = |items: &[&str]| items.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(parse_files_from(b"/a b\n/c\n\n"), paths(&["/a b", "/c"]));
        assert_eq!(parse_files_from(b"/a\nb\0/c\0"), paths(&["/a\nb", "/c"]));
        assert_eq!(parse_files_from(b""), paths(&[]));
    }
}
