//! Goal: wherever in a request or an answer a connection is cut, the call is made again and comes to
//! the right end; nothing is taken for whole that is not.
//! Method: one object is put and read through a proxy that cuts the first connection after so many
//! bytes; every byte around heads, ends and bodies, and others under a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::sync::{Arc, Mutex};

use cairn_engine::store::location::Location;
use cairn_engine::store::options::RemoteOptions;
use cairn_engine::store::retry::Policy;
use cairn_engine::store::{Put, Store};
use cairn_format::ids::PackId;
use cairn_format::names::{Folder, ObjectName, PackKind};
use cairn_tests::seed::{Seed, noise};
use cairn_tests::servers::Target;
use cairn_tests::servers::moto::Moto;
use cairn_tests::servers::proxy::{Asked, Fault, Proxy};

/// Bytes of the object: less than a head has, so that most cuts are in heads.
const OBJECT_BYTES: usize = 300;
/// Cuts between those that are always tried.
const OTHERS: usize = 60;

/// What strikes the next request of a method for a pack, and what was seen of the last one.
#[derive(Default)]
struct State {
    armed: Option<(&'static str, Fault)>,
    struck: u64,
    uri: String,
    request_bytes: usize,
}

/// A store by way of a proxy that does as it is told.
struct Cut {
    server: Moto,
    state: Arc<Mutex<State>>,
    store: Arc<dyn Store>,
    _proxy: Proxy,
}

/// The same store as `cairn` opens, which asks again soon.
fn open(target: &Target) -> Arc<dyn Store> {
    let text = |value: &OsStr| value.to_str().expect("UTF-8").to_owned();
    let named = target.environment.iter().map(|(name, value)| ((*name).to_owned(), text(value)));
    let mut options = RemoteOptions::default().alone(named.collect::<BTreeMap<_, _>>());
    options.policy = Policy { pause_ms: 1, pause_ms_max: 1, ..Policy::default() };
    let location = Location::parse(OsStr::new(&target.url)).expect("a location");
    location.create(&options).expect("it answers")
}

impl Cut {
    fn new() -> Self {
        let server = Moto::start();
        let state = Arc::new(Mutex::new(State::default()));
        let chosen = Arc::clone(&state);
        let proxy = Proxy::start(server.target().port, move |asked: &Asked| {
            let mut state = chosen.lock().expect("no test panics here");
            match state.armed {
                Some((method, fault))
                    if asked.method == method && asked.uri.contains("/packs/data/") =>
                {
                    state.armed = None;
                    state.struck += 1;
                    state.uri.clone_from(&asked.uri);
                    state.request_bytes = asked.bytes;
                    fault
                }
                _ => Fault::None,
            }
        });
        let endpoint = format!("http://127.0.0.1:{}", proxy.port);
        let store = open(&server.target().with("AWS_ENDPOINT_URL", endpoint));
        Self { server, state, store, _proxy: proxy }
    }

    fn arm(&self, method: &'static str, fault: Fault) {
        self.state.lock().expect("no test panics here").armed = Some((method, fault));
    }

    fn struck(&self) -> u64 {
        self.state.lock().expect("no test panics here").struck
    }

    /// The lengths of the last request that was struck, and of the head and the whole of the answer to
    /// a request of its kind without a body.
    fn lengths(&self, method: &str) -> (usize, usize, usize) {
        let state = self.state.lock().expect("no test panics here");
        let line = format!("{method} {}", state.uri);
        let answer = self.server.ask(&line);
        (state.request_bytes, answer.head.len(), answer.head.len() + answer.body.len())
    }
}

/// Where to cut a message: all around its ends and the end of its head, and somewhere else.
fn cuts(head: usize, whole: usize, seed: &mut Seed) -> BTreeSet<usize> {
    let around = |at: usize| at.saturating_sub(3)..(at + 4).min(whole);
    let mut cuts = around(0).chain(around(head)).chain(around(whole)).collect::<BTreeSet<_>>();
    cuts.extend((0..OTHERS).map(|_| seed.below(whole as u64) as usize));
    cuts
}

fn pack(seed: u64) -> (ObjectName, Vec<u8>) {
    let data = noise(OBJECT_BYTES, seed);
    let id = PackId::from_bytes(*blake3::hash(&data).as_bytes());
    (ObjectName::Pack(PackKind::Data, id), data)
}

#[test]
fn an_answer_that_is_cut_at_any_byte_is_read_again() {
    let cut = Cut::new();
    let mut seed = Seed::new();
    let (name, data) = pack(1);
    cut.store.put(&name, &data).expect("it is put");
    cut.arm("GET", Fault::None);
    assert_eq!(cut.store.get(&name, 1 << 20).expect("it is read"), data);
    let (_, head, whole) = cut.lengths("GET");
    assert!(head > 100 && whole == head + OBJECT_BYTES, "{head} and {whole} bytes");
    let half = OBJECT_BYTES as u64 / 2;
    for at in cuts(head, whole, &mut seed) {
        let before = cut.struck();
        cut.arm("GET", Fault::CutAnswer(at));
        assert_eq!(cut.store.get(&name, 1 << 20).expect("it is read"), data, "cut at {at}");
        cut.arm("GET", Fault::CutAnswer(at));
        let part = cut.store.get_range(&name, half, half).expect("a part is read");
        assert_eq!(part, data[half as usize..], "cut at {at}");
        assert_eq!(cut.struck(), before + 2);
    }
}

#[test]
fn a_write_that_is_cut_at_any_byte_is_made_again_and_only_then_called_done() {
    let cut = Cut::new();
    let mut seed = Seed::new();
    let (name, data) = pack(2);
    cut.arm("PUT", Fault::None);
    cut.store.put(&name, &data).expect("it is put");
    let (request_bytes, ..) = cut.lengths("HEAD");
    let mut expected = BTreeSet::from([name]);
    let on_its_way = cuts(request_bytes - OBJECT_BYTES, request_bytes, &mut seed);
    // Answers to writes have no body: what is longer than they are is no cut.
    let back = (0..120).step_by(3);
    let faults = on_its_way.into_iter().map(Fault::CutRequest).chain(back.map(Fault::CutAnswer));
    for (number, fault) in faults.enumerate() {
        let (name, data) = pack(number as u64 + 100);
        let before = cut.struck();
        cut.arm("PUT", fault);
        assert_eq!(cut.store.put(&name, &data).expect("it is put"), Put::Written, "{fault:?}");
        assert_eq!(cut.struck(), before + 1, "{fault:?}");
        assert_eq!(cut.store.get(&name, 1 << 20).expect("it is read"), data, "{fault:?}");
        expected.insert(name);
    }
    let mut listed = BTreeMap::new();
    cut.store
        .list(Folder::DataPacks, &mut |name, bytes| {
            listed.insert(name, bytes);
            Ok(())
        })
        .expect("it lists");
    assert!(listed.values().all(|bytes| *bytes == OBJECT_BYTES as u64), "{listed:?}");
    assert_eq!(listed.into_keys().collect::<BTreeSet<_>>(), expected);
}
