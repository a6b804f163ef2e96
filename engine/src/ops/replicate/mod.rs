//! Makes and updates replicas: copies of the repository in other places, each complete by itself, with
//! rules of its own for which snapshots it keeps.
//!
//! A replica is written as a backup writes: packs, segments, snapshots, a look at the tombs there,
//! acknowledgements of its own. So it is sound wherever this ends, and whatever runs beside it. The
//! acknowledgement of the home copy speaks of the home copy only, and tombs concern the packs of the
//! copy they lie in: what a pack's name says is the same everywhere, whether it is to go is not. A
//! pack that either side has condemned is never copied as it is.

use self::memory::Memory;
use self::one::One;
use self::reads::{Reads, Undecided};
use super::shard::Shard;
use crate::error::Error;
use crate::repo::Repository;

mod carry;
mod copy;
mod decide;
mod join;
mod memory;
mod need;
mod one;
mod pass;
mod reads;
mod report;
mod share;
mod target;

pub use self::pass::{Brought, Handover, back_up};
pub use self::report::{Done, Outcome, ReplicateReport};
pub use self::target::{ERASE_WITHIN_MS_DEFAULT, Opener, Target};

/// Updates replicas, all at once: none waits for another, and each fails for itself.
///
/// # Errors
/// [`Error::Role`] for keys of other roles than owner and maintainer; failures of the home copy
/// before it begins. What goes wrong with one replica is in its [`Outcome`].
pub fn run(home: &Repository, targets: &[Target], dry_run: bool) -> Result<ReplicateReport, Error> {
    run_shard(home, targets, dry_run, Shard::ALL)
}

/// The same for a share: packs of home whose names fall to it are brought to the replicas. A snapshot
/// is made visible there by whoever finds that nothing of it is lacking any more, so by the last of
/// the hosts that bring something, or by more than one of them; what lacks something waits
/// ([`Done::waiting`]). Nothing is collected on a replica while something waits.
///
/// # Errors
/// As [`run`].
pub fn run_shard(
    home: &Repository,
    targets: &[Target],
    dry_run: bool,
    shard: Shard,
) -> Result<ReplicateReport, Error> {
    home.require_collect("replicate")?;
    home.monitor().stage("replicate", None);
    home.current_catalog()?.require_sound_tombs()?;
    let reads = Reads::new(home, targets.len());
    let replicas = targets.len() as u64;
    let work = |number, target| {
        let undecided = Undecided::new(&reads, number);
        let memory = Memory::new(home, target, dry_run);
        let reads = &reads;
        One { home, target, number, replicas, reads, dry_run, shard, memory }.run(undecided)
    };
    let outcomes = match targets {
        // By the caller's thread, and by as many workers as it has been given.
        [target] => vec![Ok(work(0, target))],
        _ => std::thread::scope(|scope| {
            let work = &work;
            let threads = targets.iter().enumerate();
            let threads = threads.map(|(number, target)| scope.spawn(move || work(number, target)));
            let threads = threads.collect::<Vec<_>>();
            threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
        }),
    };
    let replicas = targets.iter().zip(outcomes).map(|(target, done)| Outcome {
        name: target.name.clone(),
        done: done.unwrap_or(Err(Error::Internal { part: "a replication" })),
    });
    let replicas = replicas.collect();
    let (packs_read, bytes_read) = reads.total();
    Ok(ReplicateReport { replicas, packs_read, bytes_read })
}
