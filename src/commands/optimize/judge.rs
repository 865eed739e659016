//! How good a network's answers are, by pictures that did not calibrate.
//!
//! With labels: whether the best class is right. Without: whether it is that of the network as it was read. Of a network that
//! is no classifier every output counts: how near all are to those of the network as it was read.

use super::super::eval;
use super::super::run::is_classifier;
use super::super::source::Prepared;
use planish::report::progress::Progress;
use planish::report::shares::{Paired, mean_interval, wilson};
use planish_engine::Session;
use planish_graph::{Error, Result, Tensor};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    /// Best classes that are right.
    Labels,
    /// Best classes that are those of the network as it was read.
    Agreement,
    /// One less the relative L2 distance of all float outputs from those of the network as it was read.
    Outputs,
}

impl Standard {
    /// What a network that gives such tensors is judged by.
    pub fn of(outputs: &[Tensor], labelled: bool) -> Result<Standard> {
        let scores = outputs.first().is_some_and(is_classifier);
        match (scores, labelled) {
            (true, true) => Ok(Standard::Labels),
            (true, false) if outputs.len() == 1 => Ok(Standard::Agreement),
            (false, true) => Err(Error::unsupported(
                "labels say what is right of a classifier, and this model's first output is not rows of class scores \
                 [batch, classes]: leave out --labels to keep the outputs near those of the model as it is",
            )),
            (_, false) if outputs.iter().any(|t| t.dtype().is_float()) => Ok(Standard::Outputs),
            _ => Err(Error::unsupported("no output is of floating-point numbers, which could be compared")),
        }
    }
    /// What a score stands for, for people.
    pub fn name(self) -> &'static str {
        match self {
            Standard::Labels => "top-1",
            Standard::Agreement => "agreement with the unoptimised network’s top-1",
            Standard::Outputs => "closeness to the unoptimised network’s outputs",
        }
    }
}

/// A network's score for each picture, 0 to 1.
#[derive(Clone, Debug)]
pub struct Judgement {
    scores: Vec<f64>,
    /// Whether a score is a yes or no.
    counted: bool,
}

/// What one network loses against another.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// Points.
    pub points: f64,
    /// The ends of its interval of 95 %, in points.
    pub interval: [f64; 2],
    /// Of yes and no: what differs.
    pub paired: Option<Paired>,
}

impl Judgement {
    /// The mean score in percent.
    pub fn percent(&self) -> f64 {
        100.0 * self.scores.iter().sum::<f64>() / self.scores.len().max(1) as f64
    }
    /// The interval of 95 % of [`Self::percent`].
    pub fn interval(&self) -> [f64; 2] {
        let ends = match self.counted {
            true => wilson(self.scores.iter().filter(|s| **s > 0.5).count(), self.scores.len()),
            false => mean_interval(&self.scores),
        };
        ends.map(|end| 100.0 * end)
    }
    /// What `after` loses against this, on the same pictures.
    pub fn loss(&self, after: &Judgement) -> Loss {
        let points = self.percent() - after.percent();
        if self.counted {
            let yes = |j: &Judgement| j.scores.iter().map(|s| *s > 0.5).collect::<Vec<_>>();
            let paired = Paired::of(yes(self), yes(after));
            return Loss { points, interval: paired.interval().map(|e| 100.0 * e), paired: Some(paired) };
        }
        let differences: Vec<f64> = self.scores.iter().zip(&after.scores).map(|(a, b)| a - b).collect();
        Loss { points, interval: mean_interval(&differences).map(|e| 100.0 * e), paired: None }
    }
}

/// Judges networks by the same pictures.
pub struct Judge<'a> {
    held: &'a Prepared,
    /// What is counted.
    pub standard: Standard,
    class_offset: Option<usize>,
    /// Right classes, where classes are counted.
    labels: Vec<Option<usize>>,
    /// Outputs for each batch, where they are compared.
    outputs: Vec<Vec<Tensor>>,
    go_on: &'a dyn Fn() -> bool,
}

impl<'a> Judge<'a> {
    /// A judge by `held`, for whom `session` is the network as it was read; and how that does itself.
    pub fn new(
        held: &'a Prepared,
        standard: Standard,
        class_offset: Option<usize>,
        session: &Session,
        go_on: &'a dyn Fn() -> bool,
    ) -> Result<(Judge<'a>, Judgement)> {
        let mut judge =
            Judge { held, standard, class_offset, labels: held.labels.clone(), outputs: Vec::new(), go_on };
        let counted = standard != Standard::Outputs;
        if standard == Standard::Labels {
            // Without it nothing can be said: this much is not interrupted.
            let scores = judge.scores(session, &|| true)?.unwrap_or_default();
            return Ok((judge, Judgement { scores, counted }));
        }
        let progress = Progress::new("the network as it is", held.batches.len() as u64);
        judge.labels.clear();
        for batch in &held.batches {
            let outputs = session.run(std::slice::from_ref(batch))?;
            match standard {
                Standard::Outputs => judge.outputs.push(outputs),
                _ => judge.labels.extend(best_classes(&outputs)?),
            }
            progress.advance(1);
        }
        judge.labels.truncate(held.len());
        // Classes are the network's own now.
        judge.class_offset = Some(0);
        let scores = match standard {
            Standard::Outputs => vec![1.0; held.batches.len()],
            _ => judge.labels.iter().map(|best| f64::from(u8::from(best.is_some()))).collect(),
        };
        Ok((judge, Judgement { scores, counted }))
    }

    /// How many pictures judge.
    pub fn pictures(&self) -> usize {
        self.held.len()
    }

    /// How `session` does; `None` where the judge was told not to go on.
    pub fn judge(&self, session: &Session) -> Result<Option<Judgement>> {
        let scores = self.scores(session, self.go_on)?;
        Ok(scores.map(|scores| Judgement { scores, counted: self.standard != Standard::Outputs }))
    }

    fn scores(&self, session: &Session, go_on: &dyn Fn() -> bool) -> Result<Option<Vec<f64>>> {
        let progress = Progress::new("judging", self.held.batches.len() as u64);
        let mut scores = Vec::with_capacity(self.held.len());
        for (b, batch) in self.held.batches.iter().enumerate() {
            if !go_on() {
                return Ok(None);
            }
            let outputs = session.run(std::slice::from_ref(batch))?;
            if self.standard == Standard::Outputs {
                scores.push(closeness(&self.outputs[b], &outputs));
            } else {
                let labels = &self.labels[scores.len()..];
                let rows = eval::ranks(&outputs, labels, self.class_offset)?;
                scores.extend(rows.into_iter().map(|better| f64::from(u8::from(better == Some(0)))));
            }
            progress.advance(1);
        }
        Ok(Some(scores))
    }
}

/// The best class of each row of the first output; `None` where a score is NaN.
fn best_classes(outputs: &[Tensor]) -> Result<Vec<Option<usize>>> {
    let Some(scores) = outputs.first().filter(|t| is_classifier(t)) else {
        return Err(Error::unsupported(
            "the model's first output is not rows of class scores [batch, classes]",
        ));
    };
    let best = |row: &[f32]| {
        let first = (0..row.len()).reduce(|a, b| if row[b] > row[a] { b } else { a });
        first.filter(|_| row.iter().all(|s| !s.is_nan()))
    };
    Ok(scores.as_slice::<f32>()?.chunks_exact(scores.shape()[1]).map(best).collect())
}

/// One less the relative L2 distance of all float tensors of `got` from those `wanted`, 0 where their shapes differ.
fn closeness(wanted: &[Tensor], got: &[Tensor]) -> f64 {
    let (mut squares, mut norm) = (0.0, 0.0);
    for (w, g) in wanted.iter().zip(got).filter(|(w, _)| w.dtype().is_float()) {
        if w.shape() != g.shape() {
            return 0.0;
        }
        for (w, g) in w.to_f64s().into_iter().zip(g.to_f64s()) {
            squares += (w - g) * (w - g);
            norm += w * w;
        }
    }
    match squares == 0.0 {
        true => 1.0,
        // Not a number is as far as can be.
        false => (1.0 - (squares / f64::max(norm, f64::MIN_POSITIVE)).sqrt()).max(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closeness_is_one_for_equals_and_never_negative() {
        let tensor = |values: &[f32]| vec![Tensor::new(&[values.len()], values).unwrap()];
        assert_eq!(closeness(&tensor(&[1.0, 2.0]), &tensor(&[1.0, 2.0])), 1.0);
        assert!((closeness(&tensor(&[3.0, 4.0]), &tensor(&[3.0, 4.5])) - 0.9).abs() < 1e-9);
        assert_eq!(closeness(&tensor(&[1.0]), &tensor(&[-9.0])), 0.0);
        assert_eq!(closeness(&tensor(&[1.0]), &tensor(&[f32::NAN])), 0.0);
        assert_eq!(closeness(&tensor(&[1.0]), &tensor(&[1.0, 1.0])), 0.0);
    }

    #[test]
    fn losses_are_points_of_the_mean() {
        let counted = |scores: &[f64]| Judgement { scores: scores.to_vec(), counted: true };
        let loss = counted(&[1.0, 1.0, 0.0, 1.0]).loss(&counted(&[1.0, 0.0, 0.0, 1.0]));
        assert!(
            (loss.points - 25.0).abs() < 1e-9 && loss.paired.is_some_and(|p| (p.lost, p.gained) == (1, 0))
        );
        let [low, high] = loss.interval;
        assert!(low < 25.0 && 25.0 < high);
    }
}
