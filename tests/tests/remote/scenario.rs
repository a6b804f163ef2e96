//! Goal: every command does on a server what it does on a local disk.
//! Method: one course of events, the same for every kind of server.

use std::path::{Path, PathBuf};

use cairn_tests::compare::assert_same;
use cairn_tests::lab::inside;
use cairn_tests::process::{Cairn, Ran};
use cairn_tests::servers::{Target, free_port};
use cairn_tests::tree;
use serde_json::Value;

/// A `cairn` whose repository is on a server.
pub fn cairn(target: &Target) -> Cairn {
    let mut cairn = Cairn::new();
    cairn.set_target(target);
    cairn
}

/// The last line of a run with `--json`.
pub fn result(ran: &Ran) -> Value {
    ran.json("result").pop().expect("every run ends with a result")
}

/// The same sources in another folder with a cache of its own, as a new machine has.
fn elsewhere(target: &Target) -> Cairn {
    cairn(target)
}

/// The path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is UTF-8")
}

fn snapshots(cairn: &Cairn) -> usize {
    cairn.run(["snapshots", "--json"]).expect(0).json("snapshot").len()
}

/// A source with everything, in the folder of this `cairn`.
pub fn source(cairn: &Cairn) -> PathBuf {
    let source = cairn.path("source");
    tree::everything(&source, 7);
    source
}

/// Initialises, backs up, deduplicates, verifies, restores, forgets; then a new machine does the
/// same with an empty cache.
pub fn whole_course(target: &Target) {
    let here = cairn(target);
    let ran = here.run(["snapshots"]).expect(10);
    assert!(ran.stderr.contains("hint:"), "{ran:#?}");
    here.run(["init", "--pack-size", "1MiB", "--dry-run"]).expect(0);
    here.run(["snapshots"]).expect(10);
    here.init();
    here.run(["init"]).expect(4);
    let source = source(&here);
    let first = result(&here.run(["backup", "--json", text(&source)]).expect(0));
    assert!(first["report"]["bytes_stored"].as_u64() > Some(1_000_000), "{first}");
    let requests = &first["requests"];
    assert!(requests["write"]["bytes_sent"].as_u64() > Some(1_000_000), "{requests}");
    // Its own lease.
    assert!(requests["delete"]["sent"].as_u64() <= Some(1), "{requests}");

    let second = result(&here.run(["backup", "--json", text(&source)]).expect(0));
    assert_eq!(second["report"]["bytes_new"], 0, "{second}");
    assert!(second["requests"]["write"]["bytes_sent"].as_u64() < Some(100_000), "{second}");
    std::fs::write(source.join("new"), "what came later").expect("a file");
    tree::settle(&source);
    here.run(["backup", text(&source)]).expect(0);
    assert_eq!(snapshots(&here), 3);
    here.run(["verify", "--level", "full"]).expect(0);
    assert_same(&source, &inside(&here.restored("latest", "restored"), &source));

    here.run(["forget", "--keep-last", "2"]).expect(0);
    assert_eq!(snapshots(&here), 2);
    here.run(["key", "add", "--role", "reader", "--new-password-file", text(&source.join("new"))])
        .expect(0);
    assert_eq!(here.run(["key", "list", "--json"]).expect(0).json("key").len(), 2);
    here.run(["stats"]).expect(0);

    let there = elsewhere(target);
    assert_eq!(snapshots(&there), 2);
    there.run(["verify", "--level", "full"]).expect(0);
    assert_same(&source, &inside(&there.restored("latest", "restored"), &source));
    there.run(["repair", "index"]).expect(0);
    // What the first machine stored is not stored again.
    let again = result(&there.run(["backup", "--json", text(&source)]).expect(0));
    assert_eq!(again["report"]["bytes_new"], 0, "{again}");
    there.run(["ls", "latest"]).expect(0);

    there.run(["forget", "--keep-last", "1"]).expect(0);
    there.run(["gc"]).expect(0);
    there.run(["verify", "--level", "full"]).expect(0);
    assert_same(&source, &inside(&there.restored("latest", "after-collection"), &source));
}

/// Two machines back up at the same time; both snapshots are whole.
pub fn two_at_once(target: &Target) {
    let (one, other) = (cairn(target), cairn(target));
    one.init();
    let sources = [source(&one), other.path("source")];
    tree::small(&sources[1], 60, 3);
    std::thread::scope(|scope| {
        for (cairn, source) in [&one, &other].into_iter().zip(&sources) {
            scope.spawn(move || {
                for _ in 0..3 {
                    cairn.run(["backup", text(source), "--job", "both", "--reread"]).expect(0);
                }
            });
        }
    });
    assert_eq!(snapshots(&one), 6);
    other.run(["verify", "--level", "full"]).expect(0);
}

/// Nobody listens at the port.
pub fn refused_port(of: impl FnOnce(u16) -> Target) {
    let target = of(free_port());
    let cairn = cairn(&target);
    for arguments in [&["snapshots"][..], &["init"]] {
        let ran = cairn.run(arguments).expect(13);
        assert!(ran.stderr.contains(&target.url), "it does not say where: {ran:#?}");
        assert!(ran.stderr.contains("hint:"), "{ran:#?}");
    }
}

/// Nothing that a run writes or leaves behind in its cache contains the secret.
pub fn says_nothing_of(cairn: &Cairn, ran: &Ran, secret: &str) {
    assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret), "{ran:#?}");
    if !cairn.path("cache").exists() {
        return;
    }
    for path in cairn_tests::process::files_below(&cairn.path("cache")) {
        let data = std::fs::read(&path).expect("a file of the cache");
        let found = data.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{} contains the secret", path.display());
    }
}
