//! The cheapest way to give each of many things one of two labels.
//!
//! Where each thing costs something under either label, and pairs cost something where theirs differ, the best labelling
//! is a minimum cut between a source and a sink (Greig, Porteous and Seheult, *Exact Maximum A Posteriori Estimation for
//! Binary Images*, 1989), whatever the shape of the graph; and a minimum cut is found by a maximum flow (Dinic 1970).

use std::collections::VecDeque;

/// A cost that no sum of others reaches: for what must not be cut.
pub(crate) const NEVER: u64 = u64::MAX / 8;

/// The edges that may be looked at, over the whole search. Networks need some thousands; a graph that was made to be
/// slow gets no answer instead of taking for ever.
const PATIENCE: usize = 50_000_000;

/// One direction of an edge.
struct Edge {
    to: usize,
    capacity: u64,
}

/// Things to be labelled, of which the first two are the labels themselves.
pub(crate) struct Cut {
    /// By node, its edges; edge `e` and `e ^ 1` are the two directions of one.
    at: Vec<Vec<usize>>,
    edges: Vec<Edge>,
}

/// The thing that is on the near side whatever happens.
pub(crate) const NEAR: usize = 0;
/// The thing that is on the far side whatever happens.
pub(crate) const FAR: usize = 1;

impl Cut {
    pub(crate) fn new() -> Cut {
        Cut { at: vec![Vec::new(); 2], edges: Vec::new() }
    }

    /// One more thing.
    pub(crate) fn thing(&mut self) -> usize {
        self.at.push(Vec::new());
        self.at.len() - 1
    }

    /// What it costs where `near` is on the near side and `far` on the far side.
    pub(crate) fn charge(&mut self, near: usize, far: usize, cost: u64) {
        if near == far || cost == 0 {
            return;
        }
        for (from, to, capacity) in [(near, far, cost), (far, near, 0)] {
            self.at[from].push(self.edges.len());
            self.edges.push(Edge { to, capacity });
        }
    }

    /// For each thing whether it is on the near side of the cheapest cut; `None` where it takes too long to find.
    pub(crate) fn near(mut self) -> Option<Vec<bool>> {
        let mut looked = 0;
        loop {
            let distances = self.distances(&mut looked);
            if distances[FAR] == usize::MAX {
                return Some(distances.iter().map(|&d| d != usize::MAX).collect());
            }
            let mut next = vec![0; self.at.len()];
            while self.augment(&distances, &mut next, &mut looked) {}
            if looked > PATIENCE {
                return None;
            }
        }
    }

    /// By thing, the fewest edges with capacity left from the near side.
    fn distances(&self, looked: &mut usize) -> Vec<usize> {
        let mut distances = vec![usize::MAX; self.at.len()];
        distances[NEAR] = 0;
        let mut queue = VecDeque::from([NEAR]);
        while let Some(thing) = queue.pop_front() {
            *looked += self.at[thing].len();
            for &e in &self.at[thing] {
                let Edge { to, capacity } = self.edges[e];
                if capacity > 0 && distances[to] == usize::MAX {
                    distances[to] = distances[thing] + 1;
                    queue.push_back(to);
                }
            }
        }
        distances
    }

    /// Sends more along one shortest path; whether there was one. `next` holds by thing the first edge that may still lead
    /// anywhere.
    fn augment(&mut self, distances: &[usize], next: &mut [usize], looked: &mut usize) -> bool {
        let mut path: Vec<usize> = Vec::new();
        let mut thing = NEAR;
        while thing != FAR {
            *looked += 1;
            if *looked > PATIENCE {
                return false;
            }
            match self.at[thing].get(next[thing]) {
                Some(&e) => {
                    let Edge { to, capacity } = self.edges[e];
                    if capacity > 0 && distances[to] == distances[thing] + 1 {
                        path.push(e);
                        thing = to;
                    } else {
                        next[thing] += 1;
                    }
                }
                // Nothing leads on from here: back, and another edge.
                None => {
                    let Some(e) = path.pop() else { return false };
                    thing = self.edges[e ^ 1].to;
                    next[thing] += 1;
                }
            }
        }
        let flow = path.iter().map(|&e| self.edges[e].capacity).min().unwrap_or(0);
        for e in path {
            self.edges[e].capacity -= flow;
            self.edges[e ^ 1].capacity += flow;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_labelling_is_cheaper(
            things in 1usize..8,
            charges in prop::collection::vec((0usize..10, 0usize..10, 0u64..20), 0..30),
        ) {
            let charges: Vec<_> =
                charges.into_iter().map(|(a, b, c)| (a % (things + 2), b % (things + 2), c)).collect();
            let mut cut = Cut::new();
            for _ in 0..things {
                cut.thing();
            }
            for &(a, b, cost) in &charges {
                cut.charge(a, b, cost);
            }
            let cost = |near: &dyn Fn(usize) -> bool| -> u64 {
                charges.iter().filter(|&&(a, b, _)| near(a) && !near(b)).map(|c| c.2).sum()
            };
            let found = cut.near().unwrap();
            prop_assert!(found[NEAR] && !found[FAR]);
            for labels in 0..1usize << things {
                let all = |thing: usize| match thing {
                    NEAR => true,
                    FAR => false,
                    _ => labels >> (thing - 2) & 1 == 1,
                };
                prop_assert!(cost(&|t| found[t]) <= cost(&all));
            }
        }
    }
}
