//! Calibration: what the values of the float network are for real pictures.

use super::grid::{Grid, Levels};
use super::observe::Observer;
use super::prepare::Network;
use super::roles::Roles;
use super::run::Pictures;
use super::statistics::Statistics;
use super::watch::Watch;
use planish_graph::error::Context;
use planish_graph::{Result, ValueId, invalid};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The statistics of every scale that a network needs, and the values that share them.
#[derive(Clone, Debug)]
pub struct Calibration {
    groups: BTreeMap<usize, Statistics>,
    members: Vec<(ValueId, usize)>,
}

impl Calibration {
    /// Runs `pictures` twice through `network`: for the ranges, then for the histograms. Where the watch stops it, what was
    /// seen until then counts. An error where a value is not finite.
    pub fn of(network: &Network, pictures: &Pictures<'_>, watch: &mut Watch<'_>) -> Result<Calibration> {
        if pictures.batches.is_empty() {
            invalid!("there is no picture to calibrate with");
        }
        let graph = &network.graph;
        let roles = Roles::of(network, &BTreeSet::new(), &BTreeSet::new());
        let sources: Vec<(ValueId, usize)> = roles.sources().collect();
        let values: Vec<ValueId> = sources.iter().map(|s| s.0).collect();
        let mut groups: BTreeMap<usize, Statistics> = BTreeMap::new();
        watch.begin("calibrating: ranges", pictures.batches.len());
        pictures.visit(graph, &values, watch, |_, v, tensor| {
            let group = groups.entry(sources[v].1).or_default();
            let place = || format!("value \"{}\"", graph.value(values[v]).name);
            group.widen(tensor.as_slice::<f32>()?).context(place)
        })?;
        watch.begin("calibrating: histograms", pictures.batches.len());
        pictures.visit(graph, &values, watch, |_, v, tensor| {
            groups.entry(sources[v].1).or_default().count(tensor.as_slice::<f32>()?);
            Ok(())
        })?;
        let all = (0..graph.values.len() as u32).map(ValueId).filter(|v| roles.is_integer(*v));
        let members = all.map(|v| (v, roles.group(v))).collect();
        Ok(Calibration { groups, members })
    }
    /// The grids that an observer makes of it, by value.
    pub fn grids(&self, observer: &dyn Observer, levels: Levels) -> HashMap<ValueId, Grid> {
        let made: BTreeMap<usize, Grid> = self
            .groups
            .iter()
            .map(|(&group, statistics)| {
                let (low, high) = observer.range(statistics, levels);
                (group, Grid::spanning(low, high, levels))
            })
            .collect();
        self.members.iter().filter_map(|(v, group)| Some((*v, *made.get(group)?))).collect()
    }
    /// How many different scales there are.
    pub fn scales(&self) -> usize {
        self.groups.len()
    }
}
