//! What a policy would keep of an imagined series of backups.

use cairn_format::ids::SnapshotId;

use super::apply::{Candidate, Reason, Standing, Verdict, apply};
use super::calendar::Age;
use super::error::RetentionError;
use super::policy::Policy;

/// Most backups a simulation imagines: ten years of hourly ones and some more.
pub const SIMULATED_BACKUPS_MAX: u32 = 100_000;

/// Backups at regular times.
#[derive(Clone, Copy, Debug)]
pub struct Simulation {
    /// When the first is made, milliseconds since 1970.
    pub start_ms: i64,
    /// Time from one to the next.
    pub every: Age,
    /// Time from the first to the end.
    pub length: Age,
}

/// A backup that would still be there at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simulated {
    /// When it was made, milliseconds since 1970.
    pub time_ms: i64,
    /// Why it is still there.
    pub reasons: Vec<Reason>,
}

/// What is left at the end, oldest first, and how many backups there were. The policy is applied
/// as backups are made, not only at the end.
///
/// # Errors
/// [`RetentionError::Simulation`] for more than [`SIMULATED_BACKUPS_MAX`] backups, or none.
pub fn simulate(
    policy: &Policy,
    simulation: &Simulation,
) -> Result<(Vec<Simulated>, u32), RetentionError> {
    let zone = policy.zone();
    let too_long = || RetentionError::Simulation { backups_max: SIMULATED_BACKUPS_MAX };
    let end_ms = simulation.length.after(1, simulation.start_ms, zone).ok_or_else(too_long)?;
    let mut kept = Vec::<Candidate>::new();
    let mut backups = 0;
    // Applying it rarely gives the same as after every backup, and is quicker.
    let mut apply_at = 64;
    let mut time_ms = simulation.start_ms;
    while time_ms <= end_ms {
        if backups == SIMULATED_BACKUPS_MAX {
            return Err(too_long());
        }
        kept.push(imagined(backups, time_ms));
        backups += 1;
        if kept.len() >= apply_at {
            let verdicts = apply(policy, time_ms, &kept, false);
            let mut verdicts = verdicts.iter();
            kept.retain(|_| verdicts.next().is_some_and(Verdict::keeps));
            apply_at = 64 + kept.len() * 2;
        }
        time_ms =
            simulation.every.after(backups, simulation.start_ms, zone).ok_or_else(too_long)?;
    }
    let reference_ms = kept.last().map_or(simulation.start_ms, |newest| newest.time_ms);
    let verdicts = apply(policy, reference_ms, &kept, false);
    let left = kept.iter().zip(verdicts).filter_map(|(one, verdict)| match verdict {
        Verdict::Keep(reasons) => Some(Simulated { time_ms: one.time_ms, reasons }),
        Verdict::Go(_) => None,
    });
    Ok((left.collect(), backups))
}

fn imagined(number: u32, time_ms: i64) -> Candidate {
    let mut id = [0; SnapshotId::LEN];
    if let Some(head) = id.first_chunk_mut() {
        *head = number.to_be_bytes();
    }
    let id = SnapshotId::from_bytes(id);
    Candidate { id, time_ms, tags: Vec::new(), standing: Standing::Acknowledged }
}
