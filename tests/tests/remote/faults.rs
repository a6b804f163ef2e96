//! Goal: over a bad connection or a bad server, a backup and a restore come through or fail
//! loudly; what they leave behind is whole, and nothing restored is wrong.
//! Method: a proxy before moto that drops, delays, truncates, corrupts, refuses and lies.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cairn_tests::compare::{assert_same, look, wrong_contents};
use cairn_tests::lab::inside;
use cairn_tests::process::Cairn;
use cairn_tests::seed::Seed;
use cairn_tests::servers::Target;
use cairn_tests::servers::moto::Moto;
use cairn_tests::servers::proxy::{Asked, Fault, Proxy};

use crate::scenario::{cairn, source, text};

/// Whether a fault strikes a request.
type Chooses = Box<dyn Fn(&Asked) -> bool + Send + Sync>;

/// The target by way of a proxy.
pub fn through(target: &Target, proxy: &Proxy) -> Target {
    let endpoint = format!("http://127.0.0.1:{}", proxy.port);
    target.with("AWS_ENDPOINT_URL", endpoint)
}

#[test]
fn a_bad_connection_is_lived_with() {
    let server = Moto::start();
    // Two of each: a call that makes two requests then succeeds at its fifth attempt at last, however
    // the dice fall. Two of seven are left for connections that were closed as they were used again.
    let state = Mutex::new((Seed::new(), HashMap::<_, u32>::new()));
    let faults = Arc::new(AtomicUsize::new(0));
    let struck = Arc::clone(&faults);
    let proxy = Proxy::start(server.target().port, move |asked: &Asked| {
        let mut state = state.lock().expect("no test panics here");
        let fault = match state.0.below(24) {
            0 => Fault::DropBefore,
            1 => Fault::DropAfter,
            2 => Fault::Truncate,
            3 => Fault::Answer(503, "SlowDown"),
            4 => Fault::Answer(500, "InternalError"),
            5 => Fault::Answer(429, "TooManyRequests"),
            6 | 7 => return Fault::Delay(100),
            _ => return Fault::None,
        };
        let strikes = state.1.entry((asked.method.clone(), asked.uri.clone())).or_default();
        *strikes += 1;
        if *strikes > 2 {
            return Fault::None;
        }
        struck.fetch_add(1, Ordering::Relaxed);
        fault
    });
    // Trying the storage out is begun anew as a whole: over a connection as bad as this one it
    // fails, loudly, before anything is made.
    let mut cairn = cairn(&server.target());
    cairn.init();
    cairn.set_target(&through(&server.target(), &proxy));
    let source = source(&cairn);
    for _ in 0..2 {
        cairn.run(["backup", text(&source)]).expect(0);
    }
    assert_same(&source, &inside(&cairn.restored("latest", "restored"), &source));
    cairn.run(["verify", "--level", "full"]).expect(0);
    assert!(faults.load(Ordering::Relaxed) >= 10, "the connection was not bad");
}

#[test]
fn what_is_altered_on_its_way_to_the_server_is_sent_again() {
    let server = Moto::start();
    let seen = Mutex::new(HashSet::new());
    // The first write of every object.
    let proxy = Proxy::start(server.target().port, move |asked: &Asked| {
        let first = asked.method == "PUT"
            && seen.lock().expect("no test panics here").insert(asked.uri.clone());
        if first { Fault::CorruptRequest } else { Fault::None }
    });
    let mut cairn = cairn(&server.target());
    // Two that create `format` must not replace one another's: it is made before.
    cairn.init();
    cairn.set_target(&through(&server.target(), &proxy));
    let source = source(&cairn);
    cairn.run(["backup", text(&source)]).expect(0);
    drop(proxy);
    cairn.set_target(&server.target());
    cairn.run(["verify", "--level", "full"]).expect(0);
    assert_same(&source, &inside(&cairn.restored("latest", "restored"), &source));
}

#[test]
fn a_format_object_that_arrives_altered_is_refused() {
    let server = Moto::start();
    let proxy = Proxy::start(server.target().port, |asked: &Asked| {
        let format = asked.method == "PUT" && asked.uri.ends_with("/format");
        if format { Fault::CorruptRequest } else { Fault::None }
    });
    let cairn = cairn(&through(&server.target(), &proxy));
    let ran = cairn.run(["init"]);
    assert!(![Some(0), None].contains(&ran.code), "{ran:#?}");
}

/// Restores through a proxy; returns the exit code, after having made sure that no file that was
/// restored has the wrong content.
fn restore_through(cairn: &Cairn, target: &str, source: &std::path::Path) -> Option<i32> {
    let folder = cairn.path(target);
    let ran = cairn.run(["restore", "latest", "--target", text(&folder), "--keep-going"]);
    let restored = inside(&folder, source);
    if restored.exists() && ran.code == Some(0) {
        assert_same(source, &restored);
    }
    if restored.exists() {
        let wrong = wrong_contents(&look(source), &restored);
        assert!(wrong.is_empty() || ran.code != Some(0), "{wrong:?} are wrong: {ran:#?}");
    }
    if ran.code != Some(0) {
        assert!(ran.stderr.contains("error:"), "it fails in silence: {ran:#?}");
    }
    ran.code
}

#[test]
fn what_is_altered_on_its_way_back_is_never_taken_for_the_data() {
    let server = Moto::start();
    let mut cairn = cairn(&server.target());
    cairn.init();
    let source = source(&cairn);
    cairn.run(["backup", text(&source)]).expect(0);
    let reads = |asked: &Asked| asked.method == "GET" && !asked.uri.contains("list-type");
    // Everything, packs only, everything else only, every third answer.
    let choices: [Chooses; 4] = [
        Box::new(move |asked| reads(asked)),
        Box::new(move |asked| reads(asked) && asked.uri.contains("/packs/data/")),
        Box::new(move |asked| reads(asked) && !asked.uri.contains("/packs/")),
        Box::new(move |asked| reads(asked) && asked.number % 3 == 0),
    ];
    for (number, choice) in choices.into_iter().enumerate() {
        let proxy = Proxy::start(server.target().port, move |asked| {
            if choice(asked) { Fault::CorruptAnswer } else { Fault::None }
        });
        cairn.set_target(&through(&server.target(), &proxy));
        // Nothing of an earlier round helps.
        let _absent = std::fs::remove_dir_all(cairn.path("cache"));
        let code = restore_through(&cairn, &format!("restored-{number}"), &source);
        if number < 2 {
            assert_ne!(code, Some(0), "all data was altered");
        }
    }
    cairn.set_target(&server.target());
    cairn.run(["verify", "--level", "full"]).expect(0);
}

#[test]
fn a_server_that_loses_what_it_acknowledged_is_found_out() {
    let server = Moto::start();
    let lies = Arc::new(AtomicBool::new(false));
    let lying = Arc::clone(&lies);
    let proxy = Proxy::start(server.target().port, move |asked: &Asked| {
        let lie = lying.load(Ordering::SeqCst) && asked.method == "PUT";
        if lie { Fault::Lie } else { Fault::None }
    });
    let cairn = cairn(&through(&server.target(), &proxy));
    cairn.init();
    let source = source(&cairn);
    lies.store(true, Ordering::SeqCst);
    let ran = cairn.run(["backup", text(&source)]);
    assert!(![Some(0), Some(3), None].contains(&ran.code), "{ran:#?}");
    lies.store(false, Ordering::SeqCst);
    assert_eq!(cairn.run(["snapshots", "--json"]).expect(0).json("snapshot").len(), 0);
    cairn.run(["backup", text(&source)]).expect(0);
    cairn.run(["verify", "--level", "full"]).expect(0);
}

#[test]
fn credentials_that_expire_in_mid_run_end_it_and_the_next_run_goes_on() {
    let server = Moto::start();
    let expired = Arc::new(AtomicBool::new(true));
    let expires = Arc::clone(&expired);
    let packs = Mutex::new(0);
    let proxy = Proxy::start(server.target().port, move |asked: &Asked| {
        if !expires.load(Ordering::SeqCst) {
            return Fault::None;
        }
        let mut packs = packs.lock().expect("no test panics here");
        *packs += u32::from(asked.method == "PUT" && asked.uri.contains("/packs/"));
        if *packs > 1 { Fault::Answer(400, "ExpiredToken") } else { Fault::None }
    });
    let cairn = cairn(&through(&server.target(), &proxy));
    cairn.init();
    let source = source(&cairn);
    let ran = cairn.run(["backup", text(&source)]).expect(13);
    assert!(ran.stderr.contains("ExpiredToken"), "{ran:#?}");
    expired.store(false, Ordering::SeqCst);
    cairn.run(["backup", text(&source)]).expect(0);
    cairn.run(["verify", "--level", "full"]).expect(0);
    assert_same(&source, &inside(&cairn.restored("latest", "restored"), &source));
}

#[test]
fn what_a_server_has_against_a_request_is_told_with_what_to_look_at() {
    let server = Moto::start();
    // What S3 says of a wrong region, two ways; of a clock that is off; of keys it does not know.
    let answers = [
        (400, "AuthorizationHeaderMalformed", 2, "region"),
        (301, "PermanentRedirect", 2, "region"),
        (403, "RequestTimeTooSkewed", 13, "clock"),
        (403, "InvalidAccessKeyId", 13, "credentials"),
        (403, "SignatureDoesNotMatch", 13, "credentials"),
    ];
    for (status, code, exit_code, hint) in answers {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let proxy = Proxy::start(server.target().port, move |_: &Asked| {
            counted.fetch_add(1, Ordering::Relaxed);
            Fault::Answer(status, code)
        });
        let cairn = cairn(&through(&server.target(), &proxy));
        let ran = cairn.run(["snapshots"]).expect(exit_code);
        let (error, next) = ran.stderr.split_once("hint: ").expect("what to do next");
        assert!(error.contains(code) && next.contains(hint), "{ran:#?}");
        // It would be said again.
        assert!(asked.load(Ordering::Relaxed) < 5, "it was asked again and again");
    }
}

#[test]
fn a_full_target_is_told_and_not_asked_again() {
    let server = Moto::start();
    let proxy = Proxy::start(server.target().port, |asked: &Asked| {
        let pack = asked.method == "PUT" && asked.uri.contains("/packs/");
        if pack { Fault::Answer(507, "XMinioStorageFull") } else { Fault::None }
    });
    let cairn = cairn(&through(&server.target(), &proxy));
    cairn.init();
    let source = source(&cairn);
    let ran = cairn.run(["backup", text(&source)]).expect(1);
    assert!(ran.stderr.contains("no space left"), "{ran:#?}");
}

/// The number of acknowledged snapshots in a place.
pub fn acknowledged(cairn: &Cairn, place: &str) -> usize {
    let listed = cairn.run(["snapshots", "--json", "--repo", place]).expect(0).json("snapshot");
    listed.iter().filter(|snapshot| snapshot["acknowledged"] == true).count()
}

#[test]
fn replicas_that_are_slow_or_dead_hold_up_neither_home_nor_each_other() {
    let server = Moto::start();
    let target = server.target();
    let dead = Arc::new(AtomicBool::new(false));
    let dies = Arc::clone(&dead);
    let proxy =
        Proxy::start(target.port, move |asked: &Asked| match asked.uri.contains("/dead/") {
            // For longer than anybody waits.
            true if dies.load(Ordering::SeqCst) => Fault::Delay(3_600_000),
            true => Fault::None,
            false => Fault::Delay(100),
        });
    let mut here = Cairn::new();
    let path = |name: &str| here.path(name).into_os_string().into_string().expect("UTF-8");
    let (home, quick) = (path("repository"), path("quick"));
    let (slow, hangs) = ("s3://bucket/slow".to_owned(), "s3://bucket/dead".to_owned());
    here.set_target(&through(&target, &proxy).at(&home));
    here.init();
    let source = source(&here);
    here.run(["backup", text(&source)]).expect(0);
    let places = [&hangs, &slow, &quick];
    let to = places.iter().flat_map(|place| ["--to", place.as_str()]);
    here.run(["replicate", "--create"].into_iter().chain(to)).expect(0);
    std::fs::write(source.join("changed"), "what came later").expect("a file");
    dead.store(true, Ordering::SeqCst);
    let also = places.iter().flat_map(|place| ["--also", place.as_str()]);
    let mut backup = here.cairn(["backup", text(&source)].into_iter().chain(also));
    let mut backup = backup.spawn().expect("cairn starts");
    // While one of them still hangs the others have it.
    for place in [&home, &quick, &slow] {
        while acknowledged(&here, place) < 2 {
            assert!(backup.try_wait().expect("it can be asked").is_none(), "{place} has nothing");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    assert!(backup.try_wait().expect("it can be asked").is_none(), "nothing hung");
    // Nor does a backup that is killed for it lose anything.
    backup.kill().expect("it is killed");
    backup.wait().expect("it ends");
    for place in [&home, &quick, &slow] {
        here.run(["verify", "--level", "full", "--repo", place]).expect(0);
    }
}

#[test]
fn a_replica_that_hangs_is_given_up_by_a_backup_and_brought_up_to_date_by_the_next_run() {
    let server = Moto::start();
    let target = server.target();
    // It answers as it should, or not at all, or a byte now and then.
    let course = Arc::new(AtomicUsize::new(0));
    let takes = Arc::clone(&course);
    let proxy = Proxy::start(target.port, move |_: &Asked| match takes.load(Ordering::SeqCst) {
        0 => Fault::None,
        1 => Fault::Delay(3_600_000),
        _ => Fault::Drip(60_000),
    });
    let mut here = Cairn::new();
    let path = |name: &str| here.path(name).into_os_string().into_string().expect("UTF-8");
    let (home, good, hangs) = (path("repository"), path("good"), "s3://bucket/hangs");
    here.set_target(&through(&target, &proxy).at(&home));
    here.init();
    let source = source(&here);
    here.run(["backup", text(&source)]).expect(0);
    here.run(["replicate", "--create", "--to", hangs, "--to", &good]).expect(0);
    for (run, how) in [(2, 1), (3, 2)] {
        std::fs::write(source.join("changed"), format!("in run {run}")).expect("a file");
        course.store(how, Ordering::SeqCst);
        let backup = ["backup", text(&source), "--also", hangs, "--also", &good];
        let ran = here.run(backup.into_iter().chain(["--give-up-after", "6s"])).expect(13);
        let (error, hint) = ran.stderr.split_once("hint: ").expect("what to do next");
        assert!(error.contains(&format!("{hangs}: ")) && error.contains("given up"), "{ran:#?}");
        assert!(hint.contains("the next run"), "{ran:#?}");
        for place in [&home, &good] {
            assert_eq!(acknowledged(&here, place), run);
            here.run(["verify", "--level", "full", "--repo", place]).expect(0);
        }
    }
    course.store(0, Ordering::SeqCst);
    here.run(["replicate", "--to", hangs]).expect(0);
    assert_eq!(acknowledged(&here, hangs), 3);
    here.run(["verify", "--level", "full", "--repo", hangs]).expect(0);
}

#[test]
fn a_restore_goes_on_from_another_copy_when_homes_region_goes_in_mid_run() {
    let server = Moto::start();
    let target = server.target();
    let (gone, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (goes, reads) = (Arc::clone(&gone), Arc::clone(&read));
    let proxy = Proxy::start(target.port, move |asked: &Asked| {
        let pack = asked.method == "GET" && asked.uri.contains("/packs/data/");
        let counts = pack && goes.load(Ordering::SeqCst);
        // One pack comes through, and then nothing any more.
        let nth = if counts { reads.fetch_add(1, Ordering::SeqCst) } else { 0 };
        let after = goes.load(Ordering::SeqCst) && reads.load(Ordering::SeqCst) > 1;
        if nth > 0 || after { Fault::DropBefore } else { Fault::None }
    });
    let home = cairn(&through(&target, &proxy));
    home.init();
    let source = source(&home);
    home.run(["backup", text(&source)]).expect(0);
    let replica = home.path("replica");
    home.run(["replicate", "--to", text(&replica), "--create"]).expect(0);
    gone.store(true, Ordering::SeqCst);
    let folder = home.path("restored");
    let restore = ["restore", "latest", "--target", text(&folder), "--fallback", text(&replica)];
    let ran = home.run(restore.into_iter().chain(["--json"])).expect(0);
    assert!(read.load(Ordering::SeqCst) > 1, "home was there all the time");
    assert_same(&source, &inside(&folder, &source));
    let result = ran.json("result").pop().expect("a result");
    assert!(result["report"]["chunks_elsewhere"].as_u64() > Some(0), "{result}");
    let warned = ran.json("warning");
    let said = |code: &str| warned.iter().filter(|one| one["code"] == code).count();
    assert_eq!((said("store.unreachable"), said("fallback.used")), (1, 1), "{warned:?}");
}
