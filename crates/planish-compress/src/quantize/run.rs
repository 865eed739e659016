//! Runs graphs over the calibration pictures and looks at values inside them, through the engine's sessions.

use super::watch::Watch;
use planish_engine::{Session, SessionOptions};
use planish_graph::{Error, Graph, Result, Tensor, ValueId};

/// The most elements, of one picture, that are looked at in one go: what a session hands out lies in memory all at once.
const MOST_ELEMENTS: usize = 16 << 20;

/// Pictures as the network takes them, in batches, and how sessions run.
#[derive(Clone, Copy)]
pub struct Pictures<'a> {
    /// One tensor a batch, for the network's only input.
    pub batches: &'a [Tensor],
    /// For every session that is made.
    pub options: &'a SessionOptions,
}

impl<'a> Pictures<'a> {
    /// The shape of a batch.
    pub fn shape(&self) -> &'a [usize] {
        self.batches.first().map_or(&[], |batch| batch.shape())
    }
    /// The first pictures, `count` or the next whole number of batches above it.
    pub fn first(&self, count: usize) -> Pictures<'a> {
        let mut seen = 0;
        let whole = self.batches.iter().take_while(|b| {
            let more = seen < count;
            seen += b.shape()[0];
            more
        });
        Pictures { batches: &self.batches[..whole.count()], options: self.options }
    }
    /// How many there are.
    pub fn count(&self) -> usize {
        self.batches.iter().map(|b| b.shape()[0]).sum()
    }
    /// Shows the `values` of `graph` for each batch: number of the batch, number of the value, tensor. Every
    /// value is shown for the first batch at least; further ones are left out, without an error, where `watch` says so.
    pub fn visit(
        &self,
        graph: &Graph,
        values: &[ValueId],
        watch: &mut Watch<'_>,
        mut visit: impl FnMut(usize, usize, &Tensor) -> Result<()>,
    ) -> Result<()> {
        if graph.inputs.len() != 1 {
            return Err(Error::unsupported("only networks with one input can be quantised"));
        }
        for part in self.parts(graph, values)? {
            let ids: Vec<ValueId> = part.iter().map(|&i| values[i]).collect();
            let session = self.session(graph, &ids)?;
            for (b, batch) in self.batches.iter().enumerate() {
                for (tensor, &i) in session.run(std::slice::from_ref(batch))?.iter().zip(&part) {
                    visit(b, i, tensor)?;
                }
                if !watch.step() {
                    break;
                }
            }
        }
        Ok(())
    }
    /// A session that makes only `values`.
    fn session(&self, graph: &Graph, values: &[ValueId]) -> Result<Session> {
        let mut part = Graph { outputs: values.to_vec(), ..graph.clone() };
        part.drop_unused();
        Session::new(part, self.options)
    }
    /// The places of `values` in portions that are looked at together.
    fn parts(&self, graph: &Graph, values: &[ValueId]) -> Result<Vec<Vec<usize>>> {
        let Some(first) = self.batches.first() else { return Ok(Vec::new()) };
        let mut parts = vec![Vec::new()];
        let facts =
            planish_graph::infer::infer(graph, &[planish_graph::Fact::new(first.dtype(), first.shape())])?;
        let mut elements = 0usize;
        for (i, v) in values.iter().enumerate() {
            let bytes = facts[v.0 as usize].as_ref().and_then(|f| f.bytes()).unwrap_or(0);
            elements = elements.saturating_add(bytes / size_of::<f32>());
            if elements > MOST_ELEMENTS.saturating_mul(first.shape()[0].max(1)) {
                parts.push(Vec::new());
                elements = 0;
            }
            parts.last_mut().expect("there is a part").push(i);
        }
        parts.retain(|p| !p.is_empty());
        Ok(parts)
    }
    /// The first output of `graph` for each batch.
    pub fn outputs(&self, graph: &Graph, watch: &mut Watch<'_>) -> Result<Vec<Tensor>> {
        let Some(&output) = graph.outputs.first() else {
            return Err(Error::invalid("the network has no output"));
        };
        let mut found = Vec::with_capacity(self.batches.len());
        self.visit(graph, &[output], watch, |_, _, tensor| {
            found.push(tensor.clone());
            Ok(())
        })?;
        Ok(found)
    }
    /// The mean of each channel (axis 1) of `values` over all pictures.
    pub fn channel_means(
        &self,
        graph: &Graph,
        values: &[ValueId],
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Vec<f64>>> {
        let mut sums: Vec<Vec<f64>> = vec![Vec::new(); values.len()];
        let mut counts = vec![0usize; values.len()];
        self.visit(graph, values, watch, |_, v, tensor| {
            let channels = *tensor.shape().get(1).unwrap_or(&1);
            let plane = tensor.shape().iter().skip(2).product::<usize>().max(1);
            sums[v].resize(channels, 0.0);
            for (i, values) in tensor.as_slice::<f32>()?.chunks_exact(plane).enumerate() {
                sums[v][i % channels] += values.iter().map(|&x| f64::from(x)).sum::<f64>();
            }
            counts[v] += tensor.len() / channels.max(1);
            Ok(())
        })?;
        for (sums, count) in sums.iter_mut().zip(counts) {
            sums.iter_mut().for_each(|s| *s /= count.max(1) as f64);
        }
        Ok(sums)
    }
}

/// How far answers are from those wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distance {
    /// The squared error over the squared answers: noise to signal.
    pub noise: f64,
    /// The share of pictures whose best class is another one.
    pub changed: f64,
}

impl Distance {
    /// Compares the rows of `got` with those of `wanted`, batch by batch.
    pub fn between(wanted: &[Tensor], got: &[Tensor]) -> Distance {
        let (mut error, mut power, mut changed, mut rows) = (0.0, 0.0, 0usize, 0usize);
        for (w, g) in wanted.iter().zip(got) {
            let (batch, w, g) = (w.shape().first().copied().unwrap_or(1).max(1), w.to_f32s(), g.to_f32s());
            let row = (w.len() / batch).max(1);
            for (w, g) in w.chunks_exact(row).zip(g.chunks_exact(row)) {
                error += w.iter().zip(g).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
                power += w.iter().map(|a| f64::from(*a).powi(2)).sum::<f64>();
                changed += usize::from(best(w) != best(g));
                rows += 1;
            }
        }
        let noise = if error == 0.0 { 0.0 } else { error / power.max(f64::MIN_POSITIVE) };
        Distance { noise, changed: changed as f64 / rows.max(1) as f64 }
    }
    /// Signal to noise in decibels; infinite where there is none.
    pub fn decibels(&self) -> f64 {
        -10.0 * self.noise.log10()
    }
}

/// The place of the largest number.
fn best(row: &[f32]) -> usize {
    (0..row.len()).reduce(|a, b| if row[b] > row[a] { b } else { a }).unwrap_or(0)
}
