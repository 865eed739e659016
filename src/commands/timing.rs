//! Time measured: where it goes within a run, and how several networks compare.

use planish_engine::{CancelToken, Profile, Session};
use planish_graph::{Result, Tensor};
use std::time::{Duration, Instant};

/// Profiled runs, of which each step's fastest time counts.
const PROFILE_RUNS: usize = 10;

/// Several profiled runs, of which each step's fastest time counts.
pub fn profile(session: &Session, inputs: &[Tensor]) -> Result<Profile> {
    let mut best: Option<Profile> = None;
    for _ in 0..PROFILE_RUNS {
        let mut profile = Profile::default();
        session.run_with(inputs, &CancelToken::new(), Some(&mut profile))?;
        best = Some(match best {
            None => profile,
            Some(mut best) => {
                for (old, new) in best.steps.iter_mut().zip(profile.steps) {
                    old.time = old.time.min(new.time);
                    old.start = new.start;
                }
                best
            }
        });
    }
    Ok(best.unwrap_or_default())
}

/// Runs of a session in its turn; the first is not timed, because it finds the caches as others left them.
const TURN: usize = 3;

/// The milliseconds of runs of each of `sessions`, in turn, so that what else happens on the machine meets all alike. It
/// takes `seconds` and at least three rounds, unless `go_on` says otherwise after a round.
pub fn in_turn(
    sessions: &[&Session],
    inputs: &[Tensor],
    seconds: f64,
    go_on: &dyn Fn() -> bool,
) -> Result<Vec<Vec<f64>>> {
    let mut times = vec![Vec::new(); sessions.len()];
    let begun = Instant::now();
    let limit = Duration::from_secs_f64(seconds);
    let mut rounds = 0;
    while rounds < 3 || (begun.elapsed() < limit && rounds < 2000) {
        for (session, times) in sessions.iter().zip(&mut times) {
            session.run(inputs)?;
            for _ in 1..TURN {
                let start = Instant::now();
                session.run(inputs)?;
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        rounds += 1;
        if !go_on() {
            break;
        }
    }
    Ok(times)
}
