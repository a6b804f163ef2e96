//! Makes the frozen repositories of the present version of the format, where there are none yet.
//! Run it once for each version, on a machine without `/tmp/cairn-frozen`; commit what it made.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use cairn_engine::context::{Context, Silent};
use cairn_engine::error::Error;
use cairn_engine::ops::backup::{self, BackupOptions, BackupSource};
use cairn_engine::ops::erase::{self, EraseOptions};
use cairn_engine::ops::snapshots;
use cairn_engine::parity::per_mille;
use cairn_engine::repo::{InitOptions, NewKey, Repository, init, keys};
use cairn_engine::seal::{Lock, SecretBytes, SeededRandom, Unlock};
use cairn_engine::store::local::LocalStore;
use cairn_format::certificate::Role;
use cairn_format::envelope::Cipher;
use cairn_format::ids::SnapshotId;
use cairn_format::limits::PACK_BYTES_MIN;
use cairn_format::names::PackKind;
use cairn_format::pack::{ChunkRef, Codec};
use cairn_format::slot::Argon2Costs;
use cairn_tests::compare::{listing, look};
use cairn_tests::craft::{Craft, compress_against, entry, file};
use cairn_tests::frozen::{CIPHERS, ERASED, LEFT_OUT, PARITY, PASSPHRASE, REMADE, SOURCE, folder};
use cairn_tests::lab::{Lab, new_key, unlock};
use cairn_tests::seed::noise;
use cairn_tests::{say, tree};

fn main() {
    fs::create_dir(SOURCE).expect("the source is not there yet");
    fs::create_dir_all(folder()).expect("a folder");
    make_source(Path::new(SOURCE));
    let ciphers = [Cipher::Aes256Gcm, Cipher::XChaCha20Poly1305];
    let others = [(REMADE, Cipher::Aes256Gcm), (PARITY, Cipher::Aes256Gcm)];
    let all = CIPHERS.into_iter().zip(ciphers).chain(others);
    for (name, cipher) in all {
        if folder().join(name).exists() {
            say(&format!("{name} is there already: it is frozen"));
        } else {
            freeze(name, cipher);
        }
    }
    fs::remove_dir_all(SOURCE).expect("the source is removed");
}

fn make_source(source: &Path) {
    fs::create_dir_all(source.join("folder/empty")).expect("a folder");
    fs::write(source.join("folder/text"), "customer,order\n".repeat(200)).expect("a file");
    fs::write(source.join("noise"), noise(2_000, 1)).expect("a file");
    fs::write(source.join("empty file"), "").expect("a file");
    fs::hard_link(source.join("noise"), source.join("noise again")).expect("a link");
    std::os::unix::fs::symlink("folder/text", source.join("link")).expect("a link");
    let odd = std::os::unix::ffi::OsStrExt::from_bytes(b"not \xff UTF-8\n");
    fs::write(source.join::<&std::ffi::OsStr>(odd), "odd").expect("a file");
    let sparse = fs::File::create(source.join("sparse")).expect("a file");
    sparse.write_all_at(b"in the middle", 1 << 20).expect("written");
    sparse.set_len(3 << 20).expect("its length");
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, source.join("pipe"), fifo, mode, 0).expect("a FIFO");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(source.join("noise"), "user.note", b"\x00\xff", flags)
        .expect("an attribute");
    tree::settle(source);
}

fn context(lab: &Lab, cipher: Cipher, cache: &str) -> Context {
    Context {
        random: Arc::new(SeededRandom::new(cipher as u64)),
        monitor: Arc::new(Silent),
        cache_dir: lab.cache(cache),
        ..lab.context.clone()
    }
}

fn freeze(name: &str, cipher: Cipher) {
    let lab = Lab::new(1);
    let place = folder().join(name);
    let store = Arc::new(LocalStore::create(&place).expect("a folder"));
    let passphrase = || SecretBytes::new(PASSPHRASE.as_bytes().to_vec());
    let costs = Argon2Costs { memory_kib: 19 * 1024, passes: 2, lanes: 1 };
    let lock = Lock::Passphrase { passphrase: passphrase(), costs };
    let key = NewKey { label: "owner".to_owned(), role: Role::Owner, lock };
    let parity = (name == PARITY).then(|| per_mille(80));
    let options =
        InitOptions { cipher, pack_bytes: PACK_BYTES_MIN, parity, ..InitOptions::new(key) };
    let context = context(&lab, cipher, "owner");
    init(store.as_ref(), &options, &context).expect("a repository");
    let open = |unlock: &Unlock, cache: &str| {
        let context = Context { cache_dir: lab.cache(cache), ..context.clone() };
        Repository::open(store.clone(), unlock, &context).expect("it opens")
    };
    let owner = open(&Unlock::Passphrase(passphrase()), "owner");
    keys::add(&owner, &new_key("writer", Role::Writer)).expect("a key");
    // The writer first: an owner does not rely on its packs, so there are those of both.
    back_up(&open(&unlock("writer"), "writer"));
    back_up(&owner);
    publish_deltas(&owner).expect("a snapshot by hand");
    if name == REMADE {
        let paths = vec![format!("{SOURCE}/{ERASED}").into_bytes()];
        let options = EraseOptions { paths, max_delete_percent: 100.0, ..EraseOptions::default() };
        let plan = erase::plan(&owner, &options, None).expect("a plan");
        let erased = erase::run(&owner, &options, plan).expect("erased");
        assert_eq!(erased.snapshots.len(), 2, "a writer's and an owner's");
    }

    let reader = open(&Unlock::Passphrase(passphrase()), "reader");
    let mut text = String::new();
    for snapshot in snapshots::list(&reader).expect("a list") {
        let (target, report) = lab.restore(&reader, &snapshot, false).expect("it restores");
        assert_eq!(report.failure_count, 0, "{:?}", report.failures);
        text += &format!("snapshot {}\n", snapshot.id);
        text += &listing(&look(&target), &LEFT_OUT);
    }
    fs::write(folder().join(format!("{name}.txt")), text).expect("a file");
    // Empty folders would not survive version control; nobody may need them.
    say(&format!("{} is frozen", place.display()));
}

fn back_up(repository: &Repository) {
    let sources = vec![BackupSource::Path(SOURCE.into())];
    backup::run(repository, BackupOptions::new("frozen", sources)).expect("the backup");
}

/// Pages stored against their former selves.
fn publish_deltas(repository: &Repository) -> Result<SnapshotId, Error> {
    let mut craft = Craft::new(repository);
    let keys = &repository.vault().keys;
    let reference = |data: &[u8]| ChunkRef { id: keys.chunk_id(data), bytes: data.len() as u32 };
    let old = noise(8_192, 3);
    let mut new = old.clone();
    new[4_000] ^= 1;
    craft.chunk(&old)?;
    let stored = compress_against(&old, &new);
    let (changed, base) = (reference(&new), reference(&old));
    craft.frame(PackKind::Data, Codec::Zstd, &stored, vec![changed], vec![base])?;
    let root = craft.directory(&[
        entry("new", file(changed.id, changed.bytes)),
        entry("old", file(base.id, base.bytes)),
    ])?;
    craft.publish(root)
}
