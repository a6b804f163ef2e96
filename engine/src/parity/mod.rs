//! Parity sections of packs (SPEC section 6.4): made when a pack is finished, proven when it is read
//! through, and used when it is damaged.
//!
//! A pack is named by the hash of all its bytes, and its parity section follows from the rest. So what
//! is reconstructed is the pack, to the last byte, or it is nothing: nothing here has to be believed.

use cairn_format::parity::{
    PARITY_FOOTER_BYTES, ParityFooter, ParityLayout, SHARD_HASH_BYTES, ShardHash,
    protected_lengths, short,
};
pub use cairn_format::record::Parity;

use crate::error::Error;

mod code;
mod proof;
mod rescue;

#[cfg(test)]
mod tests;

pub use proof::ParityProof;
pub use rescue::{Rescue, read_pack, rescue};

/// Data shards of a large pack where a share is chosen: many, as each place that is damaged costs a
/// whole shard, wherever it is.
const DATA_SHARDS: u16 = 1000;

/// Most parity that can be chosen, thousandths of the data.
pub const PARITY_PER_MILLE_MAX: u16 = 500;

/// Parity of so many thousandths of the data, 1 to [`PARITY_PER_MILLE_MAX`].
#[must_use]
pub const fn per_mille(share: u16) -> Parity {
    Parity { data: DATA_SHARDS, recovery: share }
}

/// Its share of the data, percent.
#[must_use]
pub fn percent(parity: Parity) -> f64 {
    f64::from(parity.recovery) * 100.0 / f64::from(parity.data.max(1))
}

const FOOTER: usize = PARITY_FOOTER_BYTES as usize;

/// Different footers of one object that are tried: an honest one has the same twice.
const FOOTERS_MAX: usize = 4;

/// BLAKE3-256.
pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// How much of a pack is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Data shards that are damaged or missing.
    pub data: u32,
    /// Recovery shards that are.
    pub recovery: u32,
    /// Of the two copies of footer and hashes, those that are; where that is known.
    pub records: u32,
    /// Shards of both kinds that there are.
    pub shards: u32,
    /// Of these, recovery shards: so many may be lost.
    pub spare: u32,
}

impl Damage {
    /// Damaged shards of both kinds.
    #[must_use]
    pub fn lost(&self) -> u32 {
        self.data + self.recovery
    }

    /// Whether what is left gives everything.
    #[must_use]
    pub fn can_be_made_good(&self) -> bool {
        self.lost() <= self.spare
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { shards, spare, .. } = self;
        match self.lost() {
            0 => write!(f, "its {shards} shards are sound"),
            lost if self.can_be_made_good() => {
                write!(f, "its parity gives back {lost} of its {shards} shards")
            }
            lost => write!(
                f,
                "{lost} of its {shards} shards are damaged, more than the {spare} that its parity \
                 gives back"
            ),
        }
    }
}

/// Appends the parity section to a pack that ends with its locator.
///
/// # Errors
/// [`Error::Internal`] when the pack is longer than one with parity can be.
pub fn append(pack: &mut Vec<u8>, choice: Parity) -> Result<(), Error> {
    let layout = ParityLayout::of(pack.len() as u64, choice)
        .ok_or(Error::Internal { part: "the length of a pack with parity" })?;
    pack.resize(layout.object_bytes() as usize, 0);
    code::encode(pack, &layout)?;
    write_records(pack, &layout);
    Ok(())
}

/// The hash of every shard of an object of the layout's length, data shards first.
fn shard_hashes(object: &[u8], layout: &ParityLayout) -> Vec<ShardHash> {
    let part = |range: std::ops::Range<u64>| {
        object.get(range.start as usize..range.end as usize).unwrap_or_default()
    };
    let padding = vec![0; layout.shard_bytes as usize];
    let padded = |stored: &[u8]| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(stored).update(padding.get(stored.len()..).unwrap_or_default());
        short(hasher.finalize().as_bytes())
    };
    let data = (0..layout.data).map(|index| padded(part(layout.data_shard(index))));
    let recovery = (0..layout.recovery).map(|index| padded(part(layout.recovery_shard(index))));
    data.chain(recovery).collect()
}

/// Footer and hashes as they stand in front of the recovery shards, and as they stand behind.
fn records(layout: ParityLayout, hashes: &[ShardHash]) -> (Vec<u8>, Vec<u8>) {
    let hashes = hashes.concat();
    let hashes_check = short(&hash(&hashes));
    let footer = ParityFooter { layout, hashes_check }.encode(hash);
    ([footer.as_slice(), &hashes].concat(), [hashes.as_slice(), &footer].concat())
}

fn write_records(object: &mut [u8], layout: &ParityLayout) {
    let (front, back) = records(*layout, &shard_hashes(object, layout));
    for (range, record) in [(layout.front_record(), front), (layout.back_record(), back)] {
        if let Some(place) = object.get_mut(range.start as usize..range.end as usize) {
            place.copy_from_slice(&record);
        }
    }
}

/// The layouts that an object claims to have, the likeliest first: by its last bytes, and, as these
/// may be gone, by what stands right behind each place where its locator may end.
fn layouts(object: &[u8]) -> Vec<ParityLayout> {
    let mut found: Vec<ParityLayout> = Vec::new();
    let back = object.len().checked_sub(FOOTER).and_then(|at| object.get(at..));
    let front = protected_lengths().filter_map(|length| {
        let at = length as usize;
        let footer = object.get(at..at + FOOTER)?;
        ParityFooter::decode(footer, hash)
            .ok()
            .filter(|footer| footer.layout.protected_bytes == length)
    });
    let back = back.and_then(|footer| ParityFooter::decode(footer, hash).ok());
    for footer in back.into_iter().chain(front) {
        if !found.contains(&footer.layout) && found.len() < FOOTERS_MAX {
            found.push(footer.layout);
        }
    }
    found
}

/// Which shards of an object are what one of the two copies of their hashes says.
fn sound_shards(object: &[u8], layout: &ParityLayout) -> Vec<bool> {
    let front = layout.front_record().start as usize + FOOTER;
    let back = layout.back_record().start as usize;
    let entry = |table: usize, index: usize| {
        let at = table + index * SHARD_HASH_BYTES;
        object.get(at..at + SHARD_HASH_BYTES)
    };
    let judge = |(index, hash): (usize, ShardHash)| {
        [front, back].iter().any(|table| entry(*table, index) == Some(&hash))
    };
    shard_hashes(object, layout).into_iter().enumerate().map(judge).collect()
}

/// Makes an object of the layout's length what it was, as far as its parity can.
fn restore(object: &mut [u8], layout: &ParityLayout) -> Result<Damage, Error> {
    let sound = sound_shards(object, layout);
    let (data, recovery) = sound.split_at_checked(usize::from(layout.data)).unwrap_or_default();
    let count = |all: &[bool]| all.iter().filter(|sound| !**sound).count() as u32;
    let mut damage = Damage {
        data: count(data),
        recovery: count(recovery),
        records: 0,
        shards: layout.shards(),
        spare: u32::from(layout.recovery),
    };
    if !damage.can_be_made_good() {
        return Ok(damage);
    }
    code::decode(object, layout, &sound)?;
    if damage.recovery > 0 {
        code::encode(object, layout)?;
    }
    let place = |range: std::ops::Range<u64>| range.start as usize..range.end as usize;
    let places = [layout.front_record(), layout.back_record()].map(place);
    let before = places.clone().map(|place| object.get(place).map(<[u8]>::to_vec));
    write_records(object, layout);
    for (place, before) in places.into_iter().zip(before) {
        damage.records += u32::from(object.get(place) != before.as_deref());
    }
    Ok(damage)
}

/// Whether the parity section of a whole object is what follows from the rest of it.
///
/// # Errors
/// [`Error::Internal`] only.
pub fn is_true(object: &[u8]) -> Result<bool, Error> {
    let Some(layout) = layouts(object).into_iter().next() else { return Ok(false) };
    let mut again = object.get(..layout.protected_bytes as usize).unwrap_or_default().to_vec();
    again.resize(layout.object_bytes() as usize, 0);
    code::encode(&mut again, &layout)?;
    write_records(&mut again, &layout);
    Ok(again == object)
}
