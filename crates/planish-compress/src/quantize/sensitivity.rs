//! How much each layer costs by itself: the whole network in float but for one layer's input and weights.

use super::place::only_layer;
use super::prepare::Network;
use super::run::{Distance, Pictures};
use super::scheme::Scheme;
use super::watch::Watch;
use planish_graph::{Result, Tensor};

/// What quantising each layer alone does to the answers, which are `wanted` in float. Layers that the watch leaves no time
/// for are `None`.
pub fn sensitivity(
    network: &Network,
    scheme: &Scheme,
    wanted: &[Tensor],
    pictures: &Pictures<'_>,
    watch: &mut Watch<'_>,
) -> Result<Vec<Option<Distance>>> {
    watch.begin("sensitivity of layers", network.layers.len());
    let mut found = vec![None; network.layers.len()];
    for (l, found) in found.iter_mut().enumerate() {
        if watch.is_stopped() {
            break;
        }
        let graph = only_layer(network, scheme, l)?;
        let got = watch.within(|w| pictures.outputs(&graph, w))?;
        *found = Some(Distance::between(wanted, &got));
        watch.step();
    }
    Ok(found)
}
