//! Goal: what a service has against a request, or its clock, or its disk, ends as it should: asked
//! again where that helps, told with the next step where it does not, and of no harm to other copies.
//! Method: a proxy before moto that answers as services do in such a case.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use cairn_tests::compare::assert_same;
use cairn_tests::lab::inside;
use cairn_tests::process::Cairn;
use cairn_tests::servers::moto::Moto;
use cairn_tests::servers::proxy::{Asked, Fault, Proxy};

use crate::faults::{acknowledged, through};
use crate::scenario::{cairn, source, text};

const MINUTE_MS: i64 = 60 * 1000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

#[test]
fn a_write_that_meets_another_is_made_again_after_409() {
    for code in ["OperationAborted", "ConditionalRequestConflict"] {
        let server = Moto::start();
        let refused = Mutex::new(HashMap::<_, u32>::new());
        let all = Arc::new(AtomicBool::new(false));
        let always = Arc::clone(&all);
        let proxy = Proxy::start(server.target().port, move |asked: &Asked| {
            if asked.method != "PUT" || asked.uri.ends_with("/format") {
                return Fault::None;
            }
            let mut refused = refused.lock().expect("no test panics here");
            let times = refused.entry(asked.uri.clone()).or_default();
            *times += 1;
            let again = *times > 2 && !always.load(Ordering::SeqCst);
            if again { Fault::None } else { Fault::Answer(409, code) }
        });
        let mut cairn = cairn(&server.target());
        cairn.init();
        cairn.set_target(&through(&server.target(), &proxy));
        let source = source(&cairn);
        cairn.run(["backup", text(&source)]).expect(0);
        cairn.run(["verify", "--level", "full"]).expect(0);
        assert_same(&source, &inside(&cairn.restored("latest", "restored"), &source));
        if code != "OperationAborted" {
            continue;
        }
        // One that never ends is no success.
        all.store(true, Ordering::SeqCst);
        std::fs::write(source.join("changed"), code).expect("a file");
        let ran = cairn.run(["backup", text(&source)]).expect(13);
        assert!(ran.stderr.contains(code) && ran.stderr.contains("hint: "), "{ran:#?}");
        assert_eq!(acknowledged(&cairn, &server.target().url), 1);
    }
}

#[test]
fn a_clock_that_is_off_is_told_and_nothing_is_written_by_it() {
    let server = Moto::start();
    let (ahead, asked) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicUsize::new(0)));
    let (offset, count) = (Arc::clone(&ahead), Arc::clone(&asked));
    let proxy = Proxy::start(server.target().port, move |_: &Asked| {
        count.fetch_add(1, Ordering::SeqCst);
        Fault::Clock(offset.load(Ordering::SeqCst))
    });
    let cairn = cairn(&through(&server.target(), &proxy));
    cairn.init();
    let source = source(&cairn);
    cairn.run(["backup", text(&source)]).expect(0);
    for off_ms in [DAY_MS, -DAY_MS] {
        ahead.store(off_ms, Ordering::SeqCst);
        for command in [&["backup", text(&source)][..], &["forget", "--keep-last", "1"], &["gc"]] {
            asked.store(0, Ordering::SeqCst);
            let ran = cairn.run(command).expect(13);
            let (error, hint) = ran.stderr.split_once("hint: ").expect("what to do next");
            assert!(error.contains("RequestTimeTooSkewed") && hint.contains("clock"), "{ran:#?}");
            // It would be said again.
            assert!(asked.load(Ordering::SeqCst) < 5, "it was asked again and again");
        }
    }
    // Within what S3 accepts, and further than ages may be off: backups go on, and nothing is judged
    // by its age.
    for off_ms in [10 * MINUTE_MS, -10 * MINUTE_MS] {
        ahead.store(off_ms, Ordering::SeqCst);
        cairn.run(["backup", text(&source)]).expect(0);
        let ran = cairn.run(["forget", "--keep-last", "1"]).expect(4);
        assert!(ran.stderr.contains("clock") && ran.stderr.contains("hint: "), "{ran:#?}");
    }
    ahead.store(0, Ordering::SeqCst);
    assert_eq!(cairn.run(["snapshots", "--json"]).expect(0).json("snapshot").len(), 3);
    cairn.run(["forget", "--keep-last", "1"]).expect(0);
    cairn.run(["verify", "--level", "full"]).expect(0);
    assert_same(&source, &inside(&cairn.restored("latest", "restored"), &source));
}

#[test]
fn a_full_replica_is_named_and_costs_neither_home_nor_the_one_beside_it_anything() {
    let server = Moto::start();
    let target = server.target();
    let full = Arc::new(AtomicBool::new(false));
    let fills = Arc::clone(&full);
    let proxy = Proxy::start(target.port, move |asked: &Asked| {
        let refused =
            fills.load(Ordering::SeqCst) && asked.method == "PUT" && asked.uri.contains("/small/");
        if refused { Fault::Answer(507, "XMinioStorageFull") } else { Fault::None }
    });
    let mut here = Cairn::new();
    let home = here.path("repository").into_os_string().into_string().expect("UTF-8");
    let (small, good) = ("s3://bucket/small", "s3://bucket/good");
    here.set_target(&through(&target, &proxy).at(&home));
    here.init();
    let source = source(&here);
    here.run(["backup", text(&source)]).expect(0);
    let to = ["--to", small, "--to", good];
    here.run(["replicate", "--create"].into_iter().chain(to)).expect(0);
    full.store(true, Ordering::SeqCst);
    for (run, command) in [(2, "backup"), (3, "replicate")] {
        std::fs::write(source.join("changed"), format!("in run {run}")).expect("a file");
        let ran = match command {
            "backup" => here.run(["backup", text(&source), "--also", small, "--also", good]),
            _ => {
                here.run(["backup", text(&source)]).expect(0);
                here.run(["replicate"].into_iter().chain(to))
            }
        };
        let ran = ran.expect(1);
        let (error, hint) = ran.stderr.split_once("hint: ").expect("what to do next");
        assert!(
            error.contains(&format!("{small}: ")) && error.contains("no space left"),
            "{ran:#?}"
        );
        assert!(!error.contains(&format!("{good}: ")) && hint.contains("make room"), "{ran:#?}");
        for place in [home.as_str(), good] {
            assert_eq!(acknowledged(&here, place), run);
            here.run(["verify", "--level", "full", "--repo", place]).expect(0);
        }
        // What was there before is there still.
        assert_eq!(acknowledged(&here, small), 1);
        here.run(["verify", "--level", "full", "--repo", small]).expect(0);
    }
    full.store(false, Ordering::SeqCst);
    here.run(["replicate"].into_iter().chain(to)).expect(0);
    assert_eq!(acknowledged(&here, small), 3);
    here.run(["verify", "--level", "full", "--repo", small]).expect(0);
}
