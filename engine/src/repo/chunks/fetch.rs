//! Fetching many chunks: in pack order and in parallel, each frame once; what does not go smoothly
//! with care, telling damage apart from what a collection moved, and looking for copies.

use std::collections::BTreeSet;

use cairn_format::ids::ChunkId;
use parking_lot::Mutex;
use rayon::prelude::*;

use super::cache::FrameKey;
use super::{ChunkReader, ROUNDS_MAX};
use crate::context::Counter;
use crate::error::Error;
use crate::index::local::{ChunkPlace, PackRecord};
use crate::repo::sweep::FrameTask;
use crate::store::StoreError;
use crate::store::away::Away;
use crate::timings::Stage;

/// Sealed bytes fetched with one request, at most.
const FETCH_BYTES_MAX: u64 = 4 << 20;
/// Bytes between two wanted frames that are fetched rather than skipped.
const FETCH_GAP_BYTES: u64 = 64 << 10;
/// Frames of one range that a task decodes one after another.
const FRAMES_PER_TASK_MIN: usize = 4;

/// A chunk that is wanted, and where its bytes go.
pub struct Wanted<T> {
    /// The chunk.
    pub id: ChunkId,
    /// Where it lies.
    pub place: ChunkPlace,
    /// Whatever the caller needs to know what it is for.
    pub tag: T,
}

/// Frames of one pack that are fetched with one request.
struct Fetch<T> {
    pack: PackRecord,
    start: u64,
    end: u64,
    frames: Vec<Vec<Wanted<T>>>,
}

/// What a round left.
struct Left<T> {
    /// Whose packs are gone.
    vanished: Mutex<Vec<Wanted<T>>>,
    /// Those that the store did not give because it does not answer.
    unreached: Mutex<Vec<Wanted<T>>>,
    /// Why.
    why: Mutex<Option<Error>>,
}

impl<T> Left<T> {
    const fn new() -> Self {
        Self {
            vanished: Mutex::new(Vec::new()),
            unreached: Mutex::new(Vec::new()),
            why: Mutex::new(None),
        }
    }

    fn unreached(&self, wanted: impl IntoIterator<Item = Wanted<T>>, error: Error) {
        self.unreached.lock().extend(wanted);
        self.why.lock().get_or_insert(error);
    }
}

impl<T> Fetch<T> {
    /// The same with a request for each frame.
    fn apart(self) -> Vec<Self> {
        let pack = self.pack;
        let one = |frame: Vec<Wanted<T>>| {
            let place = frame.first()?.place;
            let start = u64::from(place.frame_offset);
            let end = start + u64::from(place.frame_bytes);
            Some(Self { pack, start, end, frames: vec![frame] })
        };
        self.frames.into_iter().filter_map(one).collect()
    }
}

/// Receives wanted chunks that follow one another in a frame: their plaintext in one piece, or why
/// they cannot be had. An error ends the fetch.
pub type Deliver<'a, T> =
    &'a (dyn Fn(&[Wanted<T>], Result<&[u8], Error>) -> Result<(), Error> + Sync);

/// Cuts wanted chunks of one frame into those that follow one another without a gap.
fn runs<T>(frame: &[Wanted<T>]) -> impl Iterator<Item = &[Wanted<T>]> {
    frame.chunk_by(|a, b| a.place.offset.checked_add(a.place.bytes) == Some(b.place.offset))
}

/// The single chunks of what was delivered.
pub fn single<'r, T>(
    run: &'r [Wanted<T>],
    content: &'r [u8],
) -> impl Iterator<Item = (&'r Wanted<T>, &'r [u8])> {
    let mut rest = content;
    run.iter().map(move |wanted| {
        let (chunk, after) = rest.split_at(rest.len().min(wanted.place.bytes as usize));
        rest = after;
        (wanted, chunk)
    })
}

impl ChunkReader<'_> {
    /// Fetches chunks in pack order, in parallel, each frame once. Those whose pack a collection
    /// deletes meanwhile are looked up again, and fetched from where they were copied to.
    ///
    /// # Errors
    /// Whatever `deliver` fails with; failures of the store that are not damage.
    pub fn fetch<T: Send + Sync>(
        &self,
        mut wanted: Vec<Wanted<T>>,
        deliver: Deliver<'_, T>,
    ) -> Result<(), Error> {
        wanted.sort_by_key(|w| (w.place.pack, w.place.frame_number, w.place.offset));
        let mut tasks: Vec<FrameTask<Vec<Wanted<T>>>> = Vec::new();
        for item in wanted {
            let place = item.place;
            match tasks.last_mut() {
                Some(FrameTask { place: last, job })
                    if (last.pack, last.frame_number) == (place.pack, place.frame_number) =>
                {
                    job.push(item);
                }
                _ => tasks.push(FrameTask { place, job: vec![item] }),
            }
        }
        let left = self.sweep(tasks, &|task, plain| {
            let Ok(pack) = self.catalog.pack(task.place.pack) else { return Ok(false) };
            let bytes = task.job.iter().map(|wanted| u64::from(wanted.place.bytes)).sum();
            let checking = self.timings().span(Stage::Check, bytes);
            // One chunk may be wanted in many places.
            let chunks = task.job.chunk_by(|a, b| a.id == b.id && a.place == b.place);
            for wanted in chunks.filter_map(<[Wanted<T>]>::first) {
                if self.slice(&pack, wanted.id, &wanted.place, plain).is_err() {
                    return Ok(false);
                }
            }
            drop(checking);
            for run in runs(&task.job) {
                let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
                let end = last.place.offset as usize + last.place.bytes as usize;
                deliver(run, Ok(plain.get(first.place.offset as usize..end).unwrap_or_default()))?;
            }
            Ok(true)
        })?;
        self.fetch_with_care(left.into_iter().flatten().collect(), deliver)
    }

    /// Fetches what could not be had at once: tells apart why, looks for copies, also in other copies
    /// of the repository, and again for chunks whose pack a collection deletes meanwhile.
    fn fetch_with_care<T: Send + Sync>(
        &self,
        mut wanted: Vec<Wanted<T>>,
        deliver: Deliver<'_, T>,
    ) -> Result<(), Error> {
        let mut insisted = false;
        for _ in 0..ROUNDS_MAX {
            let left = Left::new();
            let fetches = self.plan(wanted, &left.vanished)?;
            fetches.into_par_iter().with_max_len(1).try_for_each(|fetch| {
                self.repository.check_cancelled()?;
                self.run(fetch, deliver, &left)
            })?;
            let vanished = std::mem::take(&mut *left.vanished.lock());
            wanted = self.find_again(vanished, &left, deliver)?;
            wanted.extend(self.fetch_unreached(left, deliver, &mut insisted)?);
            if wanted.is_empty() {
                return Ok(());
            }
        }
        wanted.chunks(1).try_for_each(|wanted| deliver(wanted, Err(Error::PlaceStale)))
    }

    /// Fetches from other copies what the store did not give because it does not answer. Returns what
    /// is to be asked for here once more, where nobody else has it and it was not really asked for.
    fn fetch_unreached<T: Send + Sync>(
        &self,
        left: Left<T>,
        deliver: Deliver<'_, T>,
        insisted: &mut bool,
    ) -> Result<Vec<Wanted<T>>, Error> {
        let Some(error) = left.why.into_inner() else { return Ok(Vec::new()) };
        self.repository.say_away(&error);
        let unreached = self.fetch_elsewhere(left.unreached.into_inner(), deliver)?;
        let insists = || !*insisted && self.repository.away().is_some_and(Away::relent);
        if unreached.is_empty() {
            return Ok(unreached);
        }
        if insists() {
            *insisted = true;
            return Ok(unreached);
        }
        Err(error)
    }

    /// Looks up chunks again whose pack is gone; says so of those that are nowhere else.
    fn find_again<T>(
        &self,
        vanished: Vec<Wanted<T>>,
        left: &Left<T>,
        deliver: Deliver<'_, T>,
    ) -> Result<Vec<Wanted<T>>, Error> {
        if vanished.is_empty() {
            return Ok(vanished);
        }
        let packs = vanished.iter().map(|wanted| wanted.place.pack).collect::<BTreeSet<_>>();
        for pack in packs {
            match self.catalog.look_again(self.repository.vault(), pack) {
                Err(error) if error.is_out_of_reach() && self.has_others() => {
                    left.unreached(vanished, error);
                    return Ok(Vec::new());
                }
                looked => looked?,
            };
        }
        let ids = vanished.iter().map(|wanted| wanted.id).collect::<Vec<_>>();
        let mut found = Vec::with_capacity(ids.len());
        for (wanted, place) in vanished.into_iter().zip(self.locate(&ids)?) {
            match place {
                Some(place) if place.pack != wanted.place.pack => {
                    found.push(Wanted { place, ..wanted });
                }
                Some(place) => {
                    let missing = match self.catalog.pack(place.pack) {
                        Ok(pack) => Error::PackMissing { pack: pack.id },
                        Err(error) => error,
                    };
                    self.deliver_copy(&wanted, missing, deliver)?;
                }
                None => match self.elsewhere(&wanted.id) {
                    Some(chunk) => deliver(std::slice::from_ref(&wanted), Ok(&chunk))?,
                    None => deliver(
                        std::slice::from_ref(&wanted),
                        Err(Error::ChunkMissing { chunk: wanted.id }),
                    )?,
                },
            }
        }
        Ok(found)
    }

    fn plan<T>(
        &self,
        mut wanted: Vec<Wanted<T>>,
        vanished: &Mutex<Vec<Wanted<T>>>,
    ) -> Result<Vec<Fetch<T>>, Error> {
        wanted.sort_by_key(|w| (w.place.pack, w.place.frame_number, w.place.offset));
        let mut fetches: Vec<Fetch<T>> = Vec::new();
        let mut last: Option<FrameKey> = None;
        for item in wanted {
            let place = item.place;
            let key = (place.pack, place.frame_number);
            let start = u64::from(place.frame_offset);
            let end = start + u64::from(place.frame_bytes);
            let same_pack = last.is_some_and(|(pack, _)| pack == place.pack);
            match fetches.last_mut() {
                Some(fetch) if last == Some(key) => {
                    if let Some(frame) = fetch.frames.last_mut() {
                        frame.push(item);
                    }
                }
                Some(fetch)
                    if same_pack
                        && start <= fetch.end + FETCH_GAP_BYTES
                        && end - fetch.start <= FETCH_BYTES_MAX =>
                {
                    fetch.end = end;
                    fetch.frames.push(vec![item]);
                }
                _ => {
                    let pack = match fetches.last() {
                        Some(fetch) if same_pack => Ok(fetch.pack),
                        _ => self.catalog.pack(place.pack),
                    };
                    let pack = match pack {
                        Ok(pack) => pack,
                        Err(error) if error.has_vanished() => {
                            vanished.lock().push(item);
                            last = None;
                            continue;
                        }
                        Err(error) => return Err(error),
                    };
                    fetches.push(Fetch { pack, start, end, frames: vec![vec![item]] });
                }
            }
            last = Some(key);
        }
        Ok(fetches)
    }

    fn run<T: Send + Sync>(
        &self,
        fetch: Fetch<T>,
        deliver: Deliver<'_, T>,
        left: &Left<T>,
    ) -> Result<(), Error> {
        let pack = fetch.pack;
        let read = self.packs.opener(pack.kind, pack.id).and_then(|opener| {
            let total = u64::from(pack.bytes);
            let range = self.packs.range(pack.kind, pack.id, total, fetch.start, fetch.end)?;
            Ok((opener, range))
        });
        let (opener, (offset, sealed)) = match read {
            Ok(read) => read,
            Err(error) if error.has_vanished() => {
                left.vanished.lock().extend(fetch.frames.into_iter().flatten());
                return Ok(());
            }
            Err(error) if error.is_out_of_reach() && self.has_others() => {
                left.unreached(fetch.frames.into_iter().flatten(), error);
                return Ok(());
            }
            // Around what the medium does not give, frame by frame.
            Err(Error::Store(StoreError::Unreadable { .. }))
                if fetch.frames.len() > 1 && self.packs.opener(pack.kind, pack.id).is_ok() =>
            {
                return fetch.apart().into_par_iter().try_for_each(|fetch| {
                    self.repository.check_cancelled()?;
                    self.run(fetch, deliver, left)
                });
            }
            Err(error) if error.is_damage() => {
                let message = match error {
                    Error::PackDamaged { message, .. } => message,
                    other => other.to_string(),
                };
                for wanted in fetch.frames.iter().flatten() {
                    let error = Error::PackDamaged { pack: pack.id, message: message.clone() };
                    self.deliver_copy(wanted, error, deliver)?;
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.repository.monitor().count(Counter::BytesFetched, sealed.len() as u64);
        // Frames with bases are short where they are stored and long where they are used: one range
        // may hold enough of them for all cores.
        fetch.frames.into_par_iter().with_min_len(FRAMES_PER_TASK_MIN).try_for_each_init(
            || (Vec::new(), Vec::new()),
            |(scratch, plain), frame| {
                self.repository.check_cancelled()?;
                let Some(first) = frame.first() else { return Ok(()) };
                let place = &first.place;
                let outcome =
                    self.decode_frame(&pack, place, &opener, offset, &sealed, scratch, plain);
                match outcome {
                    // Its bases.
                    Err(error) if error.is_out_of_reach() && self.has_others() => {
                        left.unreached(frame, error);
                        return Ok(());
                    }
                    Err(error) if !error.is_damage() => return Err(error),
                    _ => {}
                }
                for wanted in &frame {
                    let chunk = match &outcome {
                        Ok(()) => self.slice(&pack, wanted.id, &wanted.place, plain),
                        Err(error) => Err(again(error, &pack, place)),
                    };
                    match chunk {
                        Err(error) => self.deliver_copy(wanted, error, deliver)?,
                        chunk => deliver(std::slice::from_ref(wanted), chunk)?,
                    }
                }
                Ok(())
            },
        )
    }

    /// Delivers a damaged chunk from another pack that holds it too, or the damage.
    fn deliver_copy<T>(
        &self,
        wanted: &Wanted<T>,
        damage: Error,
        deliver: Deliver<'_, T>,
    ) -> Result<(), Error> {
        match self.copy_of(wanted.id, &wanted.place)? {
            Some(chunk) => deliver(std::slice::from_ref(wanted), Ok(&chunk)),
            None => deliver(std::slice::from_ref(wanted), Err(damage)),
        }
    }
}

/// The same damage once more, for the next chunk of the frame.
fn again(error: &Error, pack: &PackRecord, place: &ChunkPlace) -> Error {
    let message = match error {
        Error::FrameDamaged { pack: damaged, frame, message }
            if (damaged, frame) == (&pack.id, &place.frame_number) =>
        {
            message.clone()
        }
        // Of what it is stored against.
        other => other.to_string(),
    };
    Error::FrameDamaged { pack: pack.id, frame: place.frame_number, message }
}
