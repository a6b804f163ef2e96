//! Reads packs from front to back: their hash, every frame, every chunk, their own directory. Many at
//! once, so that a frame that serves others as base is decoded once for all; and one by one where
//! something is wrong, to tell what.

use cairn_format::error::FormatError;
use cairn_format::ids::ChunkId;
use cairn_format::names::ObjectName;
use cairn_format::pack::FrameDescription;
use cairn_format::segment::NAMESPACE_TRUSTED;
use parking_lot::Mutex;
use rayon::prelude::*;

use super::{Finding, pack_name};
use crate::context::Counter;
use crate::error::{Error, Explain};
use crate::index::catalog::Catalog;
use crate::index::local::{ChunkPlace, PackAge, PackNumber, PackRecord};
use crate::pack::reader::{PackReader, available};
use crate::parity::{self, Rescue, rescue};
use crate::repo::Repository;
use crate::repo::chunks::ChunkReader;
use crate::repo::sweep::FrameTask;
use crate::seal::PartOpener;
use crate::store::StoreError;
use crate::timings::Stage;

/// Bytes of a pack read with one request.
const READ_BYTES: u64 = 4 << 20;
/// Findings of one pack that are listed; the rest is summed up.
const FINDINGS_MAX: usize = 16;

/// What is wrong with one pack.
#[derive(Default)]
pub struct PackFindings {
    /// For people.
    pub findings: Vec<Finding>,
    /// Frames that do not decode.
    pub frames: Vec<u32>,
    /// Chunks that are not what their id says.
    pub chunks: Vec<ChunkId>,
    /// Nothing of it can be read.
    pub unreadable: bool,
    /// It is damaged, and its parity gives back all of it.
    pub healable: bool,
}

impl PackFindings {
    fn add(&mut self, pack: &PackRecord, code: &'static str, message: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { code, object: pack_name(pack), message });
        }
    }
}

/// Checks packs.
pub struct PackCheck<'a> {
    repository: &'a Repository,
    catalog: &'a Catalog,
    weighing: Mutex<()>,
}

/// Position in a pack while it is read.
struct Cursor<'p> {
    pack: &'p PackRecord,
    number: PackNumber,
    frames: Vec<FrameDescription>,
    next_frame: usize,
    frame_offset: u64,
    buffer: Vec<u8>,
    buffer_offset: u64,
}

impl<'a> PackCheck<'a> {
    /// A checker.
    ///
    /// # Errors
    /// When the key cannot read.
    pub fn new(repository: &'a Repository, catalog: &'a Catalog) -> Result<Self, Error> {
        repository.require_read("verify packs")?;
        Ok(Self { repository, catalog, weighing: Mutex::default() })
    }

    /// Checks packs.
    ///
    /// # Errors
    /// Failures of the store or the cache that are not damage.
    pub fn check_all(&self, packs: &[&PackAge]) -> Result<Vec<PackFindings>, Error> {
        let frames = packs
            .par_iter()
            .map(|pack| self.catalog.frames(pack.number))
            .collect::<Result<Vec<_>, Error>>()?;
        let mut tasks = Vec::new();
        let mut sound = vec![true; packs.len()];
        for (index, (pack, frames)) in packs.iter().zip(&frames).enumerate() {
            match tasks_of(index, pack.number, frames) {
                Ok(of_pack) => tasks.extend(of_pack),
                Err(_) => sound.iter_mut().skip(index).take(1).for_each(|sound| *sound = false),
            }
        }
        let reader = self.repository.chunk_reader(NAMESPACE_TRUSTED)?;
        let numbers = packs.iter().map(|pack| pack.number).collect::<Vec<_>>();
        let (left, hashes) = reader.sweep_packs(tasks, &numbers, &|task, plain| {
            let (pack, frame) = task.job;
            let found = packs.get(pack).zip(frames.get(pack).and_then(|all| all.get(frame)));
            let bytes = u64::from(task.place.plain_bytes);
            let _checking = self.repository.context.timings.span(Stage::Check, bytes);
            Ok(found.is_some_and(|(pack, frame)| {
                reader.wrong_chunks(&pack.record, &task.place, frame, plain).is_empty()
            }))
        })?;
        for (index, _) in left {
            sound.iter_mut().skip(index).take(1).for_each(|sound| *sound = false);
        }
        let all = packs.par_iter().zip(frames).zip(sound).with_max_len(1);
        all.map(|((pack, frames), sound)| {
            self.repository.check_cancelled()?;
            let mut found = PackFindings::default();
            if sound && hashes.get(&pack.number) == Some(&true) {
                self.check_directory(&pack.record, &frames, &reader, &mut found)?;
                self.repository.monitor().count(Counter::PacksVerified, 1);
                return Ok(found);
            }
            let found = self.check(pack.number, &pack.record)?;
            self.weigh(&pack.record, found)
        })
        .collect()
    }

    /// Says what the parity of a damaged pack makes good, and whether that of a sound one is right.
    fn weigh(&self, pack: &PackRecord, mut found: PackFindings) -> Result<PackFindings, Error> {
        if self.repository.vault().config.parity.is_none() {
            return Ok(found);
        }
        // One after another: each is held in memory.
        let _weighing = self.weighing.lock();
        let damage = match rescue(self.repository.store(), pack.kind, pack.id)? {
            Rescue::Healed(_, damage) => damage,
            Rescue::Lost(damage) => {
                found.add(pack, "parity.exceeded", damage.to_string());
                return Ok(found);
            }
            Rescue::Sound(bytes) => {
                let vault = self.repository.vault();
                let reader = PackReader::new(self.repository.store(), &vault.keys);
                let flagged = match reader.has_parity(pack.kind, pack.id) {
                    Err(error) if error.is_damage() => false,
                    flagged => flagged?,
                };
                if found.findings.is_empty() && flagged && !parity::is_true(&bytes)? {
                    let message = "its parity is not that of its data, and will not heal it";
                    found.add(pack, "pack.parity", message.to_owned());
                }
                return Ok(found);
            }
            Rescue::None => {
                let message = "nothing is left that says where its parity is".to_owned();
                found.add(pack, "parity.exceeded", message);
                return Ok(found);
            }
        };
        if damage.data == 0 {
            found.findings.retain(|finding| finding.code != "pack.hash");
            let message = match damage.recovery {
                0 => "what says where its parity is, is damaged; its data is sound".to_owned(),
                lost => format!("{lost} shards of its parity are damaged; its data is sound"),
            };
            found.add(pack, "pack.parity", message);
        } else {
            found.add(pack, "pack.healable", damage.to_string());
        }
        let findings = found.findings;
        Ok(PackFindings { findings, healable: true, ..PackFindings::default() })
    }

    /// Checks one pack by itself.
    ///
    /// # Errors
    /// Failures of the store or the cache that are not damage.
    fn check(&self, number: PackNumber, pack: &PackRecord) -> Result<PackFindings, Error> {
        let mut found = PackFindings::default();
        let chunks = self.repository.chunk_reader(pack.writer)?;
        let opener = match chunks.opener(pack) {
            Ok(opener) => opener,
            Err(error) if error.is_damage() => {
                found.add(pack, error.code(), error.to_string());
                found.unreadable = true;
                return Ok(found);
            }
            Err(error) => return Err(error),
        };
        let mut cursor = Cursor {
            pack,
            number,
            frames: self.catalog.frames(number)?,
            next_frame: 0,
            frame_offset: cairn_format::envelope::HEADER_BYTES as u64,
            buffer: Vec::new(),
            buffer_offset: 0,
        };
        let complete = self.read(&mut cursor, &chunks, &opener, &mut found)?;
        if !complete {
            let rest =
                (cursor.next_frame..cursor.frames.len()).filter_map(|n| u32::try_from(n).ok());
            found.frames.extend(rest);
            return Ok(found);
        }
        self.check_directory(pack, &cursor.frames, &chunks, &mut found)?;
        self.repository.monitor().count(Counter::PacksVerified, 1);
        Ok(found)
    }

    /// Reads the pack through; false when it ends early.
    fn read(
        &self,
        cursor: &mut Cursor<'_>,
        chunks: &ChunkReader<'_>,
        opener: &PartOpener,
        found: &mut PackFindings,
    ) -> Result<bool, Error> {
        let pack = cursor.pack;
        let name = ObjectName::Pack(pack.kind, pack.id);
        let total = u64::from(pack.bytes);
        let mut hasher = blake3::Hasher::new();
        let mut offset = 0;
        while offset < total {
            let bytes = READ_BYTES.min(total - offset);
            let part = match available(self.repository.store(), &name, offset, bytes) {
                Ok(part) => part,
                Err(StoreError::NotFound { .. } | StoreError::Short { .. }) => bytes::Bytes::new(),
                Err(error @ StoreError::Unreadable { .. }) => {
                    found.add(pack, error.code(), error.to_string());
                    cursor.decode_apart(chunks, opener, found)?;
                    return Ok(true);
                }
                Err(error) => return Err(error.into()),
            };
            hasher.update(&part);
            self.repository.monitor().count(Counter::BytesVerified, part.len() as u64);
            cursor.buffer.extend_from_slice(&part);
            offset += part.len() as u64;
            cursor.decode_available(chunks, opener, found)?;
            if (part.len() as u64) < bytes {
                let message = format!("it has {offset} of its {total} bytes");
                found.add(pack, "pack.truncated", message);
                return Ok(false);
            }
        }
        if hasher.finalize().as_bytes() != pack.id.as_bytes() {
            let message = "its bytes are not those its name stands for".to_owned();
            found.add(pack, "pack.hash", message);
        }
        Ok(true)
    }

    /// The pack's own directory says what the index says.
    fn check_directory(
        &self,
        pack: &PackRecord,
        frames: &[FrameDescription],
        chunks: &ChunkReader<'_>,
        found: &mut PackFindings,
    ) -> Result<(), Error> {
        match chunks.directory(pack) {
            Ok(section) if section.frames == frames && section.namespace == pack.writer => {}
            Ok(_) => {
                let message = "its directory and the index describe it differently".to_owned();
                found.add(pack, "pack.directory", message);
            }
            Err(error) if error.is_damage() => found.add(pack, error.code(), error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl Cursor<'_> {
    /// Decodes every frame that is in the buffer as a whole, and drops what was decoded.
    fn decode_available(
        &mut self,
        chunks: &ChunkReader<'_>,
        opener: &PartOpener,
        found: &mut PackFindings,
    ) -> Result<(), Error> {
        let end = self.buffer_offset + self.buffer.len() as u64;
        let mut whole = Vec::new();
        while let Some(frame) = self.frames.get(self.next_frame) {
            let frame_end = self.frame_offset + u64::from(frame.sealed_bytes);
            if frame_end > end {
                break;
            }
            let number = u32::try_from(self.next_frame).unwrap_or(u32::MAX);
            whole.push((number, self.frame_offset, frame));
            self.frame_offset = frame_end;
            self.next_frame += 1;
        }
        let range = (self.buffer_offset, self.buffer.as_slice());
        let outcomes = whole
            .into_par_iter()
            .map(|(number, offset, frame)| {
                let checked = place_of(self.number, number, offset, frame)
                    .map_err(Error::format(pack_name(self.pack)))
                    .and_then(|place| chunks.check_frame(self.pack, &place, frame, opener, range));
                (number, checked)
            })
            .collect::<Vec<_>>();
        self.note(outcomes, found)?;
        // Behind the last frame nothing is kept, and the buffer begins after where frames ended.
        let keep_from = self.frame_offset.min(end).saturating_sub(self.buffer_offset);
        let drop = usize::try_from(keep_from).unwrap_or(usize::MAX).min(self.buffer.len());
        self.buffer.drain(..drop);
        self.buffer_offset += drop as u64;
        if self.next_frame == self.frames.len() {
            // What follows are filler, directory and locator: hashed, not kept.
            self.buffer.clear();
            self.buffer_offset = end;
        }
        Ok(())
    }

    /// Reads and decodes the frames that are left one by one: those beside what cannot be read.
    fn decode_apart(
        &mut self,
        chunks: &ChunkReader<'_>,
        opener: &PartOpener,
        found: &mut PackFindings,
    ) -> Result<(), Error> {
        let mut outcomes = Vec::new();
        while let Some(frame) = self.frames.get(self.next_frame) {
            let number = u32::try_from(self.next_frame).unwrap_or(u32::MAX);
            let end = self.frame_offset + u64::from(frame.sealed_bytes);
            let checked = chunks.range(self.pack, self.frame_offset, end).and_then(|range| {
                let place = place_of(self.number, number, self.frame_offset, frame)
                    .map_err(Error::format(pack_name(self.pack)))?;
                chunks.check_frame(self.pack, &place, frame, opener, (range.0, &range.1))
            });
            let checked = checked.map_err(|error| match error {
                Error::Store(StoreError::Unreadable { .. }) => Error::FrameDamaged {
                    pack: self.pack.id,
                    frame: number,
                    message: "it cannot be read from its medium".to_owned(),
                },
                error => error,
            });
            outcomes.push((number, checked));
            self.frame_offset = end;
            self.next_frame += 1;
        }
        self.note(outcomes, found)
    }

    /// Notes what came of frames.
    fn note(
        &self,
        outcomes: Vec<(u32, Result<Vec<ChunkId>, Error>)>,
        found: &mut PackFindings,
    ) -> Result<(), Error> {
        for (number, outcome) in outcomes {
            match outcome {
                Ok(wrong) => {
                    for chunk in &wrong {
                        let message = format!(
                            "chunk {} in frame {number} is not what its id says",
                            chunk.short()
                        );
                        found.add(self.pack, "chunk.hash", message);
                    }
                    found.chunks.extend(wrong);
                }
                // Where nobody needs a frame its bases may have been collected: those who need it say
                // so when trees are checked.
                Err(Error::BaseMissing { .. }) => found.frames.push(number),
                Err(error) if error.is_damage() => {
                    found.frames.push(number);
                    found.add(self.pack, error.code(), error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A task for each frame of a pack; its job: indices of the pack and the frame.
fn tasks_of(
    index: usize,
    number: PackNumber,
    frames: &[FrameDescription],
) -> Result<Vec<FrameTask<(usize, usize)>>, FormatError> {
    let mut offset = cairn_format::envelope::HEADER_BYTES as u64;
    let mut tasks = Vec::with_capacity(frames.len());
    for (in_pack, frame) in frames.iter().enumerate() {
        let frame_number =
            u32::try_from(in_pack).map_err(|_| FormatError::Value { what: "number of frames" })?;
        let place = place_of(number, frame_number, offset, frame)?;
        offset += u64::from(frame.sealed_bytes);
        tasks.push(FrameTask { place, job: (index, in_pack) });
    }
    Ok(tasks)
}

fn place_of(
    pack: PackNumber,
    frame_number: u32,
    frame_offset: u64,
    frame: &FrameDescription,
) -> Result<ChunkPlace, FormatError> {
    let frame_offset =
        u32::try_from(frame_offset).map_err(|_| FormatError::Value { what: "offset of frame" })?;
    Ok(ChunkPlace {
        pack,
        frame_number,
        frame_offset,
        frame_bytes: frame.sealed_bytes,
        plain_bytes: frame.plain_bytes(),
        codec: frame.codec.to_byte(),
        based: !frame.bases.is_empty(),
        offset: 0,
        bytes: 0,
    })
}
