//! The accuracy before and after, and the layers that go back to float so that it drops no further than asked.
//!
//! Layers go back in the order of what quantising each of them alone does to the answers. How many must is found by
//! doubling and halving, since an evaluation takes long and the drop hardly ever grows with fewer quantised layers.

use super::super::eval::Accuracy;
use planish_compress::quantize::{Form, Pictures, Quantised, Watch};
use planish_graph::{Graph, Result};

/// The accuracy before and after.
pub struct Bounded {
    /// Of the float model.
    pub float: Accuracy,
    /// Of the quantised model as it is written.
    pub quantised: Accuracy,
    /// Of the quantised model with no more layers in float than were asked for.
    pub all: f64,
    /// Whether the drop is within the bound, where there is one.
    pub kept: Option<bool>,
}

/// Measures, and where `most` points may be lost puts layers of `quantised` back to float until no more are.
pub fn within(
    most: Option<f64>,
    float: &Graph,
    quantised: &mut Quantised,
    pictures: &Pictures<'_>,
    measure: &dyn Fn(Graph) -> Result<Accuracy>,
    watch: &mut Watch<'_>,
) -> Result<Bounded> {
    let before = measure(float.clone())?;
    let top1 = |a: &Accuracy| a.percent(a.top1);
    let first = measure(quantised.graph(Form::Simulated)?)?;
    let all = top1(&first);
    let Some(most) = most else { return Ok(Bounded { float: before, quantised: first, all, kept: None }) };
    let holds = |a: &Accuracy| top1(&before) - top1(a) <= most;
    if holds(&first) {
        return Ok(Bounded { float: before, quantised: first, all, kept: Some(true) });
    }
    quantised.measure_sensitivity(pictures, watch)?;
    let order = quantised.by_sensitivity();
    let asked = quantised.float().clone();
    let mut attempt = |count: usize, watch: &mut Watch<'_>| -> Result<Accuracy> {
        let layers = asked.iter().chain(&order[..count]).copied().collect();
        quantised.keep_float(layers, pictures, watch)?;
        measure(quantised.graph(Form::Simulated)?)
    };
    let (mut too_few, mut count) = (0, 1);
    let mut enough = None;
    while enough.is_none() && too_few < order.len() && !watch.is_stopped() {
        match attempt(count, watch)? {
            found if holds(&found) => enough = Some(count),
            _ => (too_few, count) = (count, (2 * count).min(order.len())),
        }
    }
    let mut last = enough.unwrap_or(count);
    while let Some(found) = enough
        && found > too_few + 1
        && !watch.is_stopped()
    {
        let middle = (too_few + found) / 2;
        match holds(&attempt(middle, watch)?) {
            true => enough = Some(middle),
            false => too_few = middle,
        }
        last = enough.unwrap_or(last);
    }
    // The last attempt may have been one that failed.
    let found = attempt(last, watch)?;
    let kept = Some(holds(&found));
    Ok(Bounded { float: before, quantised: found, all, kept })
}
