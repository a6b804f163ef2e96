//! Large files written past the page cache.

use rayon::prelude::*;

use super::*;
use crate::target::direct::Sink;

fn noise(bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    blake3::Hasher::new().finalize_xof().fill(&mut data);
    data
}

fn large(target: &Target, bytes: usize) -> crate::target::file::TargetFile {
    match target.create(&safe("large"), &file(bytes as u64), &meta(0o600)).unwrap() {
        Created::File(file) => file,
        other => panic!("{other:?}"),
    }
}

/// Writes all of `content` in pieces of very different lengths, from several threads.
fn write_in_pieces(target: &Target, content: &[u8]) {
    let file = large(target, content.len());
    let lengths = [700_001, 65_536, 4095, 3_000_000, 1, 131_072, 69_632, 12_345];
    let mut pieces = Vec::new();
    let (mut at, mut rest) = (0, content);
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*length).min(rest.len()));
        pieces.push((at, piece));
        at += piece.len() as u64;
        rest = after;
    }
    let write = |sink: &Sink<'_>| {
        pieces.par_iter().rev().try_for_each(|(at, piece)| {
            sink.write_if_different(&file, *at, piece).map(|wrote| assert!(wrote))
        })
    };
    target.writing::<_, TargetError>(write).unwrap();
}

#[test]
fn pieces_of_any_length_make_up_the_file() {
    for refused in [false, true] {
        let (_dir, place) = scratch();
        let target = target(&place, TargetOptions::default());
        target.direct_refused.store(refused, std::sync::atomic::Ordering::Relaxed);
        let content = noise(20_000_003);
        write_in_pieces(&target, &content);
        assert!(std::fs::read(place.join("large")).unwrap() == content, "refused: {refused}");
    }
}

#[test]
fn a_reserved_file_has_room_and_its_length() {
    let (_dir, place) = scratch();
    let target = target(&place, TargetOptions::default());
    let file = large(&target, 6 << 20);
    target.reserve(&file);
    let seen = std::fs::metadata(place.join("large")).unwrap();
    assert_eq!(seen.len(), 6 << 20);
    // Not every file system can reserve.
    assert!(seen.blocks() == 0 || seen.blocks() * 512 >= 6 << 20);
    let content = noise(6 << 20);
    target
        .writing::<_, TargetError>(|sink| sink.write_if_different(&file, 0, &content).map(|_| ()))
        .unwrap();
    assert!(std::fs::read(place.join("large")).unwrap() == content);
}

#[test]
fn an_existing_file_keeps_what_is_right() {
    let (_dir, place) = scratch();
    let mut content = noise(6 << 20);
    std::fs::write(place.join("large"), &content).unwrap();
    content[5_000_000] ^= 1;
    let options = TargetOptions { overwrite: Overwrite::Delta, ..TargetOptions::default() };
    let target = target(&place, options);
    let file = large(&target, content.len());
    let (same, changed) = content.split_at(4 << 20);
    let wrote = target.writing::<_, TargetError>(|sink| {
        let wrote = sink.write_if_different(&file, 0, same)?;
        Ok([wrote, sink.write_if_different(&file, 4 << 20, changed)?])
    });
    assert_eq!(wrote.unwrap(), [false, true]);
    assert!(std::fs::read(place.join("large")).unwrap() == content);
}

#[test]
fn what_lies_beyond_the_file_is_refused() {
    let (_dir, place) = scratch();
    let target = target(&place, TargetOptions::default());
    let file = large(&target, 6 << 20);
    let beyond = target.writing::<_, TargetError>(|sink| {
        sink.write_if_different(&file, (6 << 20) - 100_000, &[1; 200_000])
    });
    assert!(matches!(beyond, Err(TargetError::OutOfBounds { .. })), "{beyond:?}");
}

#[test]
fn a_full_medium_ends_it() {
    let (_dir, place) = scratch();
    let Some(mounted) = Mounted::tmpfs(&place, 8) else { return };
    let target = target(&place, TargetOptions::default());
    let file = large(&target, 64 << 20);
    let piece = noise(1 << 20);
    // The failure of one piece shows with a later one, or at the end.
    let outcome = target.writing::<_, TargetError>(|sink| {
        (0..64).try_for_each(|n| sink.write_if_different(&file, n << 20, &piece).map(|_| ()))
    });
    drop(target);
    drop(mounted);
    assert!(matches!(outcome, Err(TargetError::Full { .. })), "{outcome:?}");
}
