//! What people write, what files look like, and where content is cut.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};
use std::sync::LazyLock;

use arbitrary::{Result as Made, Unstructured};
use cairn_engine::chunk::{CHUNKER_DEFAULT, ContentCutter, Cutter};
use cairn_engine::ops::snapshots::{select_from, split_selector};
use cairn_engine::source::filter::{FileSourceOptions, parse_files_from};
use cairn_engine::source::meta::Fingerprint;
use cairn_engine::source::profile::{ContentKind, Profile, detect};
use cairn_engine::source::walk::Walk;
use cairn_engine::store::location::Location;
use cairn_engine::target::contain::{SafeName, SafePath};
use cairn_format::record::ChunkerSettings;
use cairn_format::tree::Timestamp;

/// See the module.
pub fn run(data: &[u8]) {
    let Some((selector, bytes)) = data.split_first() else { return };
    match selector % 8 {
        0 => drop(cutting(&mut Unstructured::new(bytes))),
        1 => profile(bytes),
        2 => roots(bytes),
        3 => selector_text(bytes),
        4 => location(bytes),
        5 => names(bytes),
        6 => fingerprint(bytes),
        _ => patterns(bytes),
    }
}

static GEAR: LazyLock<[u64; 256]> = LazyLock::new(|| {
    let mut table = [0; 256];
    let mut stream = blake3::Hasher::new().finalize_xof();
    for entry in &mut table {
        let mut bytes = [0; 8];
        stream.fill(&mut bytes);
        *entry = u64::from_le_bytes(bytes);
    }
    table
});

/// Cuts `data` as a reader does that gets it in pieces of `step` bytes.
fn cuts(cutter: &Cutter, data: &[u8], step: usize) -> Vec<usize> {
    let (mut start, mut available, mut lengths) = (0, 0, Vec::new());
    while start < data.len() {
        available = (available + step).min(data.len());
        let ends = available == data.len();
        while available - start >= cutter.bytes_max() || (ends && start < available) {
            let length = cutter.next(&data[start..available]);
            assert!((1..=cutter.bytes_max()).contains(&length));
            lengths.push(length);
            start += length;
        }
    }
    lengths
}

fn make_cutter(input: &mut Unstructured<'_>) -> Made<Cutter> {
    if input.ratio(1, 8)? {
        return Ok(Cutter::Aligned(input.int_in_range(4096..=1 << 16)?));
    }
    // Even sizes only, as a config has them.
    let bytes_avg = input.int_in_range(128..=4 << 10)? * 2;
    let settings = ChunkerSettings {
        normalisation: input.int_in_range(0..=3)?,
        bytes_min: input.int_in_range(32..=bytes_avg / 2 - 1)? * 2,
        bytes_avg,
        bytes_max: input.int_in_range((bytes_avg / 2 + 1).max(512)..=16 << 10)? * 2,
        ..CHUNKER_DEFAULT
    };
    Ok(Cutter::Content(Box::new(ContentCutter::new(settings, *GEAR))))
}

fn cutting(input: &mut Unstructured<'_>) -> Made<()> {
    let cutter = make_cutter(input)?;
    let step = input.int_in_range(1..=20_000_usize)?;
    let times = input.int_in_range(1..=4_usize)?;
    let data = input.bytes(input.len())?.repeat(times);
    let whole = cuts(&cutter, &data, data.len().max(1));
    assert_eq!(whole, cuts(&cutter, &data, step));
    assert_eq!(whole.iter().sum::<usize>(), data.len());
    // What comes after a cut does not depend on what was before it.
    if let Some(first) = whole.first() {
        assert_eq!(cuts(&cutter, &data[*first..], step), whole[1..]);
    }
    Ok(())
}

/// The length of the file, then its head.
fn profile(bytes: &[u8]) {
    let Some((length, head)) = bytes.split_first_chunk() else { return };
    let length = u64::from_le_bytes(*length);
    for length in [length, head.len() as u64, (head.len() as u64).next_multiple_of(1 << 20)] {
        let found = detect(head, length, ContentKind::File);
        assert!(found != Profile::Fixed);
        assert_eq!(detect(head, length, ContentKind::Device), Profile::Fixed);
        assert_eq!(detect(head, length, ContentKind::Stream), Profile::Cdc);
    }
}

fn roots(bytes: &[u8]) {
    let paths = parse_files_from(bytes);
    let total = paths.iter().map(|path| path.as_os_str().len()).sum::<usize>();
    assert!(total <= bytes.len());
    for path in paths {
        let path = path.as_os_str().as_bytes();
        assert!(!path.is_empty() && !path.contains(&0));
        assert!(bytes.contains(&0) || !path.contains(&b'\n'));
    }
}

fn selector_text(bytes: &[u8]) {
    let (selector, path) = split_selector(bytes);
    let joined = match &path {
        Some(path) => [selector.as_slice(), b":", path].concat(),
        None => selector.clone(),
    };
    assert_eq!(joined, bytes);
    assert!(path.is_none_or(|path| path.starts_with(b"/")));
    if let Ok(text) = std::str::from_utf8(&selector) {
        assert!(select_from(Vec::new(), text).is_err());
    }
}

fn location(bytes: &[u8]) {
    let Ok(location) = Location::parse(OsStr::from_bytes(bytes)) else { return };
    match location {
        Location::Local(path) => {
            let path = path.as_os_str().as_bytes();
            assert!(!path.is_empty() && !path.contains(&0));
        }
        Location::Memory => assert!(bytes.eq_ignore_ascii_case(b"memory://")),
        Location::Remote { rest, .. } => {
            let authority = rest.split('/').next().unwrap_or_default();
            assert!(!authority.is_empty() && !rest.contains('?'));
            assert!(authority.split_once('@').is_none_or(|(user, _)| !user.contains(':')));
            assert!(rest.split('/').all(|part| part != ".."));
        }
    }
}

/// Names, separated by line feeds, that a hostile tree could have.
fn names(bytes: &[u8]) {
    let mut path = SafePath::root();
    let mut depth = 0;
    for name in bytes.split(|byte| *byte == b'\n') {
        let Ok(safe) = SafeName::new(name) else { continue };
        let shown = Path::new(OsStr::from_bytes(name));
        assert!(matches!(shown.components().collect::<Vec<_>>()[..], [Component::Normal(only)]
            if only.as_bytes() == name));
        path = path.join(name).expect("the name is safe and the path not deep");
        depth += 1;
        assert_eq!(path.names().last(), Some(&safe));
        if depth >= 200 {
            break;
        }
    }
    let below = path.below(Path::new("/target"));
    assert!(below.starts_with("/target"));
    assert_eq!(below.components().count(), 2 + depth);
}

fn fingerprint(bytes: &[u8]) {
    let Some(found) = Fingerprint::from_bytes(bytes) else { return };
    assert_eq!(found.to_bytes().as_slice(), bytes);
    assert!(found.unchanged_since(&found));
    let seconds = found.ctime.0.wrapping_add(1);
    for margin in [0, 2000, u32::MAX] {
        let settled = found.settled(Timestamp { seconds, nanoseconds: 999_999_999 }, margin);
        let later = found.settled(Timestamp { seconds: i64::MAX, nanoseconds: 0 }, margin);
        assert!(!settled || later);
    }
}

/// A folder with a few entries for patterns to be tried on.
static FOLDER: LazyLock<std::path::PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("cairn-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("a/b.tmp")).expect("a folder for temporary files");
    for name in ["a/b.tmp/c", "a/[x]", "#d"] {
        std::fs::write(folder.join(name), b"").expect("a folder for temporary files");
    }
    folder
});

/// Exclude patterns, separated by line feeds.
fn patterns(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes.get(..2048).unwrap_or(bytes)) else { return };
    let options = FileSourceOptions {
        roots: vec![FOLDER.clone()],
        excludes: text.split('\n').take(16).map(str::to_owned).collect(),
        ..FileSourceOptions::default()
    };
    if let Ok(walk) = Walk::new(options) {
        // The folder, four entries, and as many ends of directories; what is above does not count.
        assert!(walk.count() < 64);
    }
}
