//! Chunks out of the parity of damaged packs. A pack is read whole for that, and made whole in memory;
//! what is stored stays as it is (`repair` heals it).

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use cairn_format::envelope::HEADER_BYTES;
use cairn_format::ids::ChunkId;
use cairn_format::names::ObjectName;

use super::ChunkReader;
use super::cache::FrameCache;
use crate::context::{Counter, Remark};
use crate::error::Error;
use crate::index::local::{ChunkPlace, PackNumber, PackRecord};
use crate::parity::{Rescue, rescue};
use crate::seal::{Opened, PartOpener};

/// Plaintext of frames of damaged packs kept at hand, bytes.
const FRAMES_BYTES: usize = 8 << 20;

/// A pack as its name says it is, in memory.
pub(super) struct WholePack {
    pub(super) bytes: Bytes,
    pub(super) opener: PartOpener,
}

/// What was rescued last, for all readers of a repository. One pack at a time, as they are large.
pub(in crate::repo) struct Rescued {
    pack: Option<(PackNumber, Arc<WholePack>)>,
    /// Packs that nothing can be had of this way.
    hopeless: HashSet<PackNumber>,
    /// Packs of which it was said that parity is used.
    said: HashSet<PackNumber>,
    /// Apart from the frames of sound packs: what stands here must not become the base of anything.
    frames: FrameCache,
}

impl Rescued {
    pub(in crate::repo) fn new() -> Self {
        Self {
            pack: None,
            hopeless: HashSet::new(),
            said: HashSet::new(),
            frames: FrameCache::new(FRAMES_BYTES),
        }
    }
}

impl ChunkReader<'_> {
    /// A damaged pack as it was, if its parity gives it.
    ///
    /// # Errors
    /// Failures of the store that are not damage.
    pub(super) fn rescued_pack(
        &self,
        number: PackNumber,
        pack: &PackRecord,
    ) -> Result<Option<Arc<WholePack>>, Error> {
        if self.repository.vault().config.parity.is_none() {
            return Ok(None);
        }
        // Held meanwhile: a second one would take as much memory again.
        let mut rescued = self.repository.rescued.lock();
        match &rescued.pack {
            Some((known, whole)) if *known == number => return Ok(Some(Arc::clone(whole))),
            _ if rescued.hopeless.contains(&number) => return Ok(None),
            _ => rescued.pack = None,
        }
        let found = rescue(self.repository.store(), pack.kind, pack.id)?;
        let say = |code, message: &dyn std::fmt::Display| {
            let subject = ObjectName::Pack(pack.kind, pack.id).to_string();
            let message = message.to_string();
            self.repository.monitor().warn(Remark { code, subject, message });
        };
        let bytes = match found {
            Rescue::Sound(bytes) => bytes,
            Rescue::Healed(bytes, damage) => {
                if rescued.said.insert(number) {
                    say("parity.used", &format_args!("it is damaged; {damage}"));
                }
                bytes
            }
            Rescue::Lost(damage) => {
                say("parity.exceeded", &damage);
                rescued.hopeless.insert(number);
                return Ok(None);
            }
            Rescue::None => {
                rescued.hopeless.insert(number);
                return Ok(None);
            }
        };
        self.repository.monitor().count(Counter::BytesFetched, bytes.len() as u64);
        let header = bytes.get(..HEADER_BYTES).unwrap_or_default();
        let opened = Opened::open(header, &self.repository.vault().keys)
            .map_err(Error::sealed(ObjectName::Pack(pack.kind, pack.id)))?;
        let whole = Arc::new(WholePack { bytes, opener: opened.opener });
        rescued.pack = Some((number, Arc::clone(&whole)));
        Ok(Some(whole))
    }

    /// A chunk out of the parity of one of the packs where it stands, if one gives it.
    ///
    /// # Errors
    /// Failures of the store or the cache that are not damage.
    pub(super) fn rescued_chunk<'p>(
        &self,
        id: ChunkId,
        places: impl IntoIterator<Item = &'p ChunkPlace>,
    ) -> Result<Option<Bytes>, Error> {
        for place in places {
            match self.rescued_chunk_at(id, place) {
                Ok(None) => {}
                Err(error) if error.is_damage() => {}
                other => return other,
            }
        }
        Ok(None)
    }

    fn rescued_chunk_at(&self, id: ChunkId, place: &ChunkPlace) -> Result<Option<Bytes>, Error> {
        let pack = self.catalog.pack(place.pack)?;
        let key = (place.pack, place.frame_number);
        let kept = self.repository.rescued.lock().frames.get(key);
        let frame = match kept {
            Some(frame) => frame,
            None => {
                let Some(whole) = self.rescued_pack(place.pack, &pack)? else { return Ok(None) };
                let (mut scratch, mut plain) = (Vec::new(), Vec::new());
                let WholePack { bytes, opener } = &*whole;
                self.decode_frame(&pack, place, opener, 0, bytes, &mut scratch, &mut plain)?;
                let frame = Bytes::from(plain);
                self.repository.rescued.lock().frames.put(key, frame.clone());
                frame
            }
        };
        let chunk = self.slice(&pack, id, place, &frame)?;
        Ok(Some(frame.slice_ref(chunk)))
    }
}
