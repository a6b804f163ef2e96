//! Sealing and opening the frames of packs, with either cipher.

use std::hint::black_box;
use std::time::{Duration, Instant};

use cairn_benches::data;
use cairn_engine::seal::envelope::SealTo;
use cairn_engine::seal::{Cipher, Envelope, Keys, Kind, Opened, Part, SeededRandom};
use cairn_format::limits::{PACK_FRAMES_MAX, TAG_BYTES};
use criterion::{BatchSize, Criterion, Throughput};

use crate::identify::keys;

const DOMAIN: u32 = 0;

pub fn bench(criterion: &mut Criterion) {
    let keys = keys();
    for (operation, measure) in [("seal", Measure::Seal), ("open", Measure::Open)] {
        let mut group = criterion.benchmark_group(operation);
        for (name, cipher) in
            [("aes-256-gcm", Cipher::Aes256Gcm), ("xchacha20-poly1305", Cipher::XChaCha20Poly1305)]
        {
            for (size, bytes) in [("64KiB", 64 << 10), ("1MiB", 1 << 20)] {
                group.throughput(Throughput::Bytes(bytes as u64));
                group.bench_function(format!("{name}/{size}"), |bencher| match measure {
                    Measure::Seal => bencher.iter_custom(|times| seal(&keys, cipher, bytes, times)),
                    Measure::Open => {
                        let (sealed, opened) = sealed_frame(&keys, cipher, bytes);
                        bencher.iter_batched_ref(
                            || sealed.clone(),
                            |frame| {
                                let opener = &opened.opener;
                                opener.open_in_place(Part::Frame(0), frame).map(|plain| plain.len())
                            },
                            BatchSize::LargeInput,
                        );
                    }
                });
            }
        }
        group.finish();
    }
}

#[derive(Clone, Copy)]
enum Measure {
    Seal,
    Open,
}

fn envelope(keys: &Keys, cipher: Cipher) -> Envelope {
    let epoch = keys.epoch();
    let public_key = keys.domain_public(DOMAIN, epoch).expect("a domain's key");
    let to = SealTo::Domain { domain: DOMAIN, epoch, public_key: &public_key };
    Envelope::create(Kind::DataPack, cipher, keys.repository(), to, &SeededRandom::new(1))
        .expect("an envelope")
}

/// Time to seal so many frames. A frame number is used once a pack, so packs are begun as needed,
/// which does not count.
fn seal(keys: &Keys, cipher: Cipher, bytes: usize, times: u64) -> Duration {
    let mut region = data::noise(bytes + TAG_BYTES as usize, 1);
    let (mut left, mut elapsed) = (times, Duration::ZERO);
    while left > 0 {
        let envelope = envelope(keys, cipher);
        let frames = left.min(u64::from(PACK_FRAMES_MAX));
        let start = Instant::now();
        for number in 0..frames {
            let sealed = envelope.sealer().seal_region(Part::Frame(number), black_box(&mut region));
            sealed.expect("each frame is sealed once");
        }
        elapsed += start.elapsed();
        left -= frames;
    }
    elapsed
}

fn sealed_frame(keys: &Keys, cipher: Cipher, bytes: usize) -> (Vec<u8>, Opened) {
    let envelope = envelope(keys, cipher);
    let mut frame = data::noise(bytes, 1);
    envelope.sealer().seal_in_place(Part::Frame(0), &mut frame).expect("a sealed frame");
    let opened = Opened::open(&envelope.header().encode(), keys).expect("an opener");
    let plain = opened.opener.open_in_place(Part::Frame(0), &mut frame.clone()).map(|p| p.len());
    assert_eq!(plain.ok(), Some(bytes), "what is timed must succeed");
    (frame, opened)
}
