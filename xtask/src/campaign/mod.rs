//! `cargo xtask campaign`: what docs/reliability.md says, tried again. Runs are killed and files are damaged at random, by a seed.

mod damage;
mod files;
mod kills;
mod room;

use anyhow::{Result, bail};
use clap::Args;
use room::Room;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

#[derive(Args)]
pub struct Campaign {
    /// SIGKILLs at random moments over every kind of stage
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// Damaged files of every kind that motrain reads
    #[arg(long, default_value_t = 1000)]
    files: u64,
    /// Seed of every moment and every damage
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Trials side by side
    #[arg(long, default_value_t = 2)]
    jobs: u64,
}

pub fn run(wanted: &Campaign) -> Result<()> {
    let room = Room::open()?;
    let mut wrong = kills::campaign(&room, wanted)?;
    wrong.extend(files::campaign(&room, wanted)?);
    if wrong.is_empty() {
        return Ok(());
    }
    wrong.iter().for_each(|what| println!("\n{what}"));
    bail!("{} trials went wrong; what they ran on is in {}", wrong.len(), room.findings().display())
}

/// Runs trials 0, 1, … until one says that it was the last, several at a time; what each made, in order.
fn side_by_side<T: Send>(jobs: u64, trial: impl Fn(u64) -> Result<Option<T>> + Sync) -> Result<Vec<T>> {
    let next = AtomicU64::new(0);
    let work = || {
        let mut made = Vec::new();
        loop {
            let number = next.fetch_add(1, Relaxed);
            match trial(number)? {
                Some(one) => made.push((number, one)),
                None => return anyhow::Ok(made),
            }
        }
    };
    let mut all = thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        anyhow::Ok(all)
    })?;
    all.sort_by_key(|(number, _)| *number);
    Ok(all.into_iter().map(|(_, made)| made).collect())
}
