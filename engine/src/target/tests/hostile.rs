//! Tests of what must not happen: writes outside, lost files, rights nobody gave.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cairn_format::tree::{Meta, Node};

use super::super::create::{Created, Overwrite, Owners, Target, TargetOptions, check_target};
use super::super::error::TargetError;
use super::{am_root, directory, file, meta, safe, scratch, target};
use crate::error::Explain as _;

#[test]
fn nothing_is_overwritten_unless_asked() {
    let (_dir, place) = scratch();
    let options = TargetOptions::default();
    check_target(&place.join("missing"), &options).unwrap();
    check_target(&place, &options).unwrap();
    std::fs::create_dir(place.join("lost+found")).unwrap();
    check_target(&place, &options).unwrap();
    std::fs::write(place.join("file"), b"mine").unwrap();
    symlink("file", place.join("link")).unwrap();
    assert_eq!(check_target(&place, &options).unwrap_err().code(), "target.not_empty");
    assert_eq!(
        check_target(&place.join("file"), &options).unwrap_err().code(),
        "target.not_a_directory"
    );
    let target = target(&place, TargetOptions { allow_non_empty: true, ..options });
    let create = |name: &str, node: &Node| target.create(&safe(name), node, &meta(0o600));
    for name in ["file", "link", "lost+found"] {
        let error = create(name, &file(0)).unwrap_err();
        assert_eq!(error.code(), "target.exists", "{name}");
    }
    assert_eq!(create("link", &directory()).unwrap_err().code(), "target.exists");
    assert_eq!(create("link", &Node::Fifo).unwrap_err().code(), "target.exists");
    assert!(matches!(create("lost+found", &directory()), Ok(Created::Directory { existed: true })));
    assert_eq!(std::fs::read(place.join("file")).unwrap(), b"mine");
}

#[test]
fn a_directory_is_never_removed() {
    let (_dir, place) = scratch();
    std::fs::create_dir(place.join("dir")).unwrap();
    let options = TargetOptions { overwrite: Overwrite::Delta, ..TargetOptions::default() };
    let target = target(&place, options);
    for node in [file(1), Node::Fifo, Node::Symlink(b"x".to_vec())] {
        let error = target.create(&safe("dir"), &node, &meta(0o600)).unwrap_err();
        assert_eq!(error.code(), "target.directory_in_the_way");
    }
    assert!(place.join("dir").is_dir());
}

#[test]
fn links_planted_by_the_tree_lead_nowhere() {
    let (_outside, outside) = scratch();
    std::fs::write(outside.join("victim"), b"safe").unwrap();
    for overwrite in [Overwrite::Never, Overwrite::IfDifferent, Overwrite::Delta] {
        for by_component in [false, true] {
            let (_dir, place) = scratch();
            let options = TargetOptions { overwrite, ..TargetOptions::default() };
            let target = target(&place, options);
            if by_component {
                target.root.resolve_by_component();
            }
            let link = Node::Symlink(outside.as_os_str().as_bytes().to_vec());
            target.create(&safe("link"), &link, &meta(0o777)).unwrap();
            for node in [file(3), directory(), Node::Fifo, link.clone()] {
                for name in ["link/new", "link/victim"] {
                    let error = target.create(&safe(name), &node, &meta(0o777)).unwrap_err();
                    assert_eq!(error.code(), "target.replaced");
                    let problems = target.finish(&safe(name), &node, &meta(0o777));
                    assert_eq!(problems[0].code(), "target.replaced");
                }
            }
            // Metadata meant for a file must not reach through a link of its name either.
            let to_victim = Node::Symlink(outside.join("victim").as_os_str().as_bytes().to_vec());
            target.create(&safe("alias"), &to_victim, &meta(0o777)).unwrap();
            assert_eq!(
                target.finish(&safe("alias"), &file(4), &meta(0o4777))[0].code(),
                "target.replaced"
            );
            assert!(target.finish(&safe("alias"), &to_victim, &meta(0o777)).is_empty());
        }
    }
    let names: Vec<_> = std::fs::read_dir(&outside).unwrap().collect();
    assert_eq!(names.len(), 1);
    let victim = std::fs::metadata(outside.join("victim")).unwrap();
    assert_ne!(victim.mode() & 0o7777, 0o777);
    assert_ne!(victim.mtime(), meta(0).mtime.seconds);
    assert_eq!(std::fs::read(outside.join("victim")).unwrap(), b"safe");
}

#[test]
fn a_file_with_names_elsewhere_is_replaced_not_written() {
    let (_outside, outside) = scratch();
    let original = outside.join("original");
    std::fs::write(&original, b"original").unwrap();
    let (_dir, place) = scratch();
    std::fs::hard_link(&original, place.join("file")).unwrap();
    let options = TargetOptions { overwrite: Overwrite::Delta, ..TargetOptions::default() };
    let target = target(&place, options);
    let created = target.create(&safe("file"), &file(8), &meta(0o600)).unwrap();
    let Created::File(created) = created else { panic!() };
    target.write_at(&created, 0, b"restored").unwrap();
    assert_eq!(std::fs::read(&original).unwrap(), b"original");
    assert_eq!(std::fs::read(place.join("file")).unwrap(), b"restored");

    // Swapped in between the passes: metadata must not reach it.
    std::fs::remove_file(place.join("file")).unwrap();
    std::fs::hard_link(&original, place.join("file")).unwrap();
    let problems = target.finish(&safe("file"), &file(8), &meta(0o4777));
    assert_eq!(problems[0].code(), "target.replaced");
    assert_ne!(std::fs::metadata(&original).unwrap().mode() & 0o7777, 0o4777);
}

#[test]
fn a_closed_file_that_was_replaced_is_not_written() {
    let (_outside, outside) = scratch();
    std::fs::write(outside.join("victim"), b"safe").unwrap();
    let (_dir, place) = scratch();
    let target = target(&place, TargetOptions::default());
    let Created::File(file) = target.create(&safe("file"), &file(4), &meta(0o600)).unwrap() else {
        panic!()
    };
    target.close(&file);
    target.write_at(&file, 0, b"ab").unwrap();
    target.close(&file);
    std::fs::write(place.join("other"), b"other").unwrap();
    std::fs::remove_file(place.join("file")).unwrap();
    symlink(outside.join("victim"), place.join("file")).unwrap();
    assert_eq!(target.write_at(&file, 2, b"cd").unwrap_err().code(), "target.replaced");
    std::fs::rename(place.join("other"), place.join("file")).unwrap();
    assert_eq!(target.write_at(&file, 2, b"cd").unwrap_err().code(), "target.replaced");
    assert_eq!(std::fs::read(place.join("file")).unwrap(), b"other");
    assert_eq!(std::fs::read(outside.join("victim")).unwrap(), b"safe");
}

#[test]
fn writes_stay_within_the_length() {
    let (_dir, place) = scratch();
    let target = target(&place, TargetOptions::default());
    let Created::File(file) = target.create(&safe("file"), &file(10), &meta(0o600)).unwrap() else {
        panic!()
    };
    for (offset, bytes) in [(10, 1), (0, 11), (u64::MAX, 1), (u64::MAX, 0)] {
        let error = target.write_at(&file, offset, &vec![1; bytes]).unwrap_err();
        assert_eq!(error.code(), "target.out_of_bounds");
        let error = target.clear(&file, offset, bytes as u64).unwrap_err();
        assert_eq!(error.code(), "target.out_of_bounds");
    }
    target.write_at(&file, 9, &[1]).unwrap();
    assert_eq!(std::fs::metadata(place.join("file")).unwrap().len(), 10);
}

#[test]
fn a_racing_swap_never_leads_outside() {
    let (_outside, outside) = scratch();
    for by_component in [false, true] {
        let (_dir, place) = scratch();
        let options = TargetOptions {
            overwrite: Overwrite::Delta,
            open_files_max: 1,
            ..TargetOptions::default()
        };
        let target = target(&place, options);
        if by_component {
            target.root.resolve_by_component();
        }
        target.create(&safe("dir"), &directory(), &meta(0o755)).unwrap();
        let (dir, aside) = (place.join("dir"), place.join("aside"));
        let stop = AtomicBool::new(false);
        let created = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::fs::rename(&dir, &aside).unwrap();
                    symlink(&outside, &dir).unwrap();
                    std::fs::remove_file(&dir).unwrap();
                    std::fs::rename(&aside, &dir).unwrap();
                }
            });
            // On a busy machine the swapping thread may lose the processor for long while the
            // directory is away, so go on until some creation found it in place.
            let (mut created, give_up) = (0, Instant::now() + Duration::from_secs(60));
            for number in 0.. {
                if number >= 20_000 && (created > 0 || Instant::now() > give_up) {
                    break;
                }
                let path = safe(&format!("dir/{}", number % 50));
                let node = [file(3), directory(), Node::Fifo][number % 50 % 3].clone();
                if let Ok(Created::File(file)) = target.create(&path, &node, &meta(0o777)) {
                    created += usize::from(target.write_at(&file, 0, b"abc").is_ok());
                }
                let _ = target.finish(&path, &node, &meta(0o777));
            }
            stop.store(true, Ordering::Relaxed);
            created
        });
        assert!(created > 0, "some must have found the directory in place");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }
}

#[test]
fn set_id_bits_need_the_recorded_owner() {
    let (_dir, place) = scratch();
    let options = TargetOptions { owners: Owners::Ignore, ..TargetOptions::default() };
    let target = target(&place, options);
    let foreign = Meta { uid: 4242, gid: 4242, ..meta(0o6755) };
    target.create(&safe("foreign"), &file(0), &foreign).unwrap();
    target.create(&safe("own"), &file(0), &meta(0o6755)).unwrap();
    let problems = target.finish(&safe("foreign"), &file(0), &foreign);
    assert!(matches!(&problems[..], [TargetError::SetIdLeftOut { .. }]), "{problems:?}");
    assert!(target.finish(&safe("own"), &file(0), &meta(0o6755)).is_empty());
    let mode = |name: &str| std::fs::metadata(place.join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("foreign"), mode("own")), (0o755, 0o6755));

    if !am_root() {
        let options = TargetOptions {
            owners: Owners::ByNumber,
            allow_non_empty: true,
            ..TargetOptions::default()
        };
        let target = Target::open(&place, options).unwrap();
        target.create(&safe("refused"), &file(0), &foreign).unwrap();
        let problems = target.finish(&safe("refused"), &file(0), &foreign);
        assert_eq!(problems.len(), 2, "owner and set-id: {problems:?}");
        assert_eq!(mode("refused"), 0o755);
    }
}

#[test]
fn nothing_is_accessible_to_others_before_it_is_finished() {
    let (_dir, place) = scratch();
    let made = place.join("new/target");
    let target = target(&made, TargetOptions::default());
    let create = |name: &str, node: &Node| {
        target.create(&safe(name), node, &meta(0o777)).unwrap();
        std::fs::symlink_metadata(made.join(name)).unwrap().mode() & 0o077
    };
    assert_eq!(create("dir", &directory()), 0);
    assert_eq!(create("dir/file", &file(5)), 0);
    assert_eq!(create("dir/pipe", &Node::Fifo), 0);
    assert_eq!(std::fs::metadata(&made).unwrap().mode() & 0o077, 0);
}

#[test]
fn an_inherited_acl_does_not_open_restored_files() {
    let (_dir, place) = scratch();
    let granted = Command::new("setfacl")
        .args(["-m", "default:user:12345:rwx"])
        .arg(&place)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !granted {
        return; // Without ACLs there is nothing to inherit.
    }
    let target = target(&place, TargetOptions::default());
    for (name, node) in [("dir", directory()), ("dir/file", file(0))] {
        target.create(&safe(name), &node, &meta(0o660)).unwrap();
    }
    for (name, node, mode) in [("dir/file", file(0), 0o660), ("dir", directory(), 0o770)] {
        let problems = target.finish(&safe(name), &node, &meta(mode));
        assert!(problems.is_empty(), "{problems:?}");
        let mut names = vec![0; 4096];
        let bytes = rustix::fs::listxattr(place.join(name), names.as_mut_slice()).unwrap();
        assert!(!names[..bytes].windows(9).any(|part| part == b"posix_acl"), "{name}");
    }
}

#[test]
fn devices_are_made_only_on_request() {
    let (_dir, place) = scratch();
    let options = TargetOptions { devices: false, ..TargetOptions::default() };
    let target = target(&place, options);
    for node in [Node::CharDevice { major: 1, minor: 3 }, Node::BlockDevice { major: 7, minor: 0 }]
    {
        let error = target.create(&safe("device"), &node, &meta(0o666)).unwrap_err();
        assert_eq!(error.code(), "target.device_left_out");
    }
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
}
