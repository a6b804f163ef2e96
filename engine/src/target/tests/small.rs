//! Files made, written and finished in one go.

use super::*;

#[test]
fn a_whole_file_is_what_the_ordinary_way_makes_it() {
    let (_dir, place) = scratch();
    let target = target(&place, TargetOptions::default());
    let xattrs = vec![Xattr { name: b"user.colour".to_vec(), value: b"red".to_vec() }];
    for mode in [0o644, 0o400, 0o4755, 0] {
        let meta = Meta { xattrs: xattrs.clone(), ..meta(mode) };
        let (one, three) = (format!("one-{mode}"), format!("three-{mode}"));
        assert!(target.create_whole(&safe(&one), &meta, b"content").unwrap().unwrap().is_empty());
        let Created::File(made) = target.create(&safe(&three), &file(7), &meta).unwrap() else {
            panic!()
        };
        target.write_at(&made, 0, b"content").unwrap();
        assert!(target.finish(&safe(&three), &file(7), &meta).is_empty());
        let seen = |name: &str| {
            let path = place.join(name);
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let mut value = [0; 16];
            let bytes = rustix::fs::getxattr(&path, "user.colour", &mut value).unwrap();
            let content = if am_root() { std::fs::read(&path).unwrap() } else { Vec::new() };
            let owner = (meta.uid(), meta.gid());
            (meta.mode(), meta.mtime_nsec(), meta.mtime(), owner, value, bytes, content)
        };
        assert_eq!(seen(&one), seen(&three));
    }
}

#[test]
fn what_is_there_already_is_left_to_the_ordinary_way() {
    let (_dir, place) = scratch();
    std::fs::write(place.join("there"), b"mine").unwrap();
    symlink("elsewhere", place.join("link")).unwrap();
    let options = TargetOptions { allow_non_empty: true, ..TargetOptions::default() };
    let target = target(&place, options);
    for name in ["there", "link", "no/directory", "there/below"] {
        assert!(target.create_whole(&safe(name), &meta(0o600), b"x").unwrap().is_none(), "{name}");
    }
    assert_eq!(std::fs::read(place.join("there")).unwrap(), b"mine");
    assert!(!place.join("elsewhere").exists());
}
