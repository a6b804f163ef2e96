//! Goal: a server that speaks WebDAV holds repositories.
//! Method: Apache on loopback, and a proxy before it that cuts writes.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cairn_engine::context::{Clock as _, SystemClock};
use cairn_engine::retention::CLOCK_SKEW_MS;
use cairn_engine::store::Store as _;
use cairn_engine::store::location::Location;
use cairn_engine::store::options::RemoteOptions;
use cairn_format::names::ObjectName;
use cairn_tests::compare::assert_same;
use cairn_tests::lab::inside;
use cairn_tests::process::files_below;
use cairn_tests::servers::Target;
use cairn_tests::servers::proxy::{Fault, Proxy};
use cairn_tests::servers::webdav::Webdav;

use crate::scenario::{self, cairn, says_nothing_of, source, text};

#[test]
fn every_command_works() {
    let server = Webdav::start();
    scenario::whole_course(&server.target());
    let tmp = server.data().join("tmp");
    let left: Vec<_> =
        files_below(&server.data()).into_iter().filter(|path| path.starts_with(&tmp)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn nobody_listens() {
    scenario::refused_port(Webdav::target_at);
}

/// By the date of its answers, and that of what it holds.
#[test]
fn it_tells_what_time_it_is() {
    let server = Webdav::start();
    let target = server.target();
    cairn(&target).init();
    let options = RemoteOptions::new(|name| {
        let set = target.environment.iter().find(|(other, _)| *other == name);
        set.and_then(|(_, value)| value.to_str()).map(str::to_owned)
    });
    let location = Location::parse(OsStr::new(&target.url)).expect("a location");
    let store = location.open(&options).expect("it opens");
    let near = |told: Option<i64>| {
        let told_ms = told.expect("it tells");
        let apart_ms = SystemClock.now_ms().abs_diff(told_ms);
        assert!(apart_ms < CLOCK_SKEW_MS.unsigned_abs(), "{apart_ms} ms apart");
    };
    near(store.now_ms().expect("it answers"));
    near(store.taken_ms(&ObjectName::Format).expect("it answers"));
    assert!(
        store.now_ms().expect("it answers")
            >= store.taken_ms(&ObjectName::Format).expect("it answers")
    );
}

#[test]
fn a_wrong_password_is_told() {
    let server = Webdav::start();
    let stranger = cairn(&server.target().with("WEBDAV_PASSWORD", "hunter2"));
    let ran = stranger.run(["snapshots", "--verbose"]).expect(13);
    assert!(ran.stderr.contains("denied"), "{ran:#?}");
    says_nothing_of(&stranger, &ran, "hunter2");
}

#[test]
fn writes_that_are_cut_leave_nothing_under_an_objects_name() {
    let server = Webdav::start();
    let puts = AtomicU64::new(0);
    let proxy = Proxy::start(server.target().port, move |asked| {
        if asked.method != "PUT" {
            return Fault::None;
        }
        match puts.fetch_add(1, Ordering::SeqCst) % 5 {
            0 => Fault::DropAfter,
            1 => Fault::DropBefore,
            2 => Fault::Cut,
            _ => Fault::None,
        }
    });
    let url = format!("webdav+http://127.0.0.1:{}/some/folder", proxy.port);
    let cairn = cairn(&Target { url, ..server.target() });
    cairn.init();
    let source = source(&cairn);
    cairn.run(["backup", text(&source)]).expect(0);
    for path in files_below(&server.data()) {
        let name = path.strip_prefix(server.data()).expect("below it").to_string_lossy();
        if let Some(hash) = ObjectName::parse(&name).ok().and_then(|name| name.content_hash()) {
            let data = std::fs::read(&path).expect("an object");
            assert_eq!(*blake3::hash(&data).as_bytes(), hash, "{name}");
        }
    }
    cairn.run(["verify", "--level", "full"]).expect(0);
    assert_same(&source, &inside(&cairn.restored("latest", "restored"), &source));
}

/// What Apache answers to whoever makes a folder that another makes at that moment.
#[test]
fn a_folder_that_another_makes_at_that_moment_is_no_refusal() {
    let server = Webdav::start();
    let mut cairn = cairn(&server.target());
    cairn.init();
    let seen = Mutex::new(HashSet::new());
    let refused = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&refused);
    let proxy = Proxy::start(server.target().port, move |asked| {
        let first = asked.method == "MKCOL"
            && seen.lock().expect("no test panics here").insert(asked.uri.clone());
        counted.fetch_add(u64::from(first), Ordering::SeqCst);
        if first { Fault::Answer(403, "Forbidden") } else { Fault::None }
    });
    let url = format!("webdav+http://127.0.0.1:{}/some/folder", proxy.port);
    cairn.set_target(&Target { url, ..server.target() });
    let source = source(&cairn);
    cairn.run(["backup", text(&source)]).expect(0);
    assert!(refused.load(Ordering::SeqCst) > 5, "no folder was made");
    cairn.run(["verify", "--level", "full"]).expect(0);
}
