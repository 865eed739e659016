//! Scan: runs a nested graph for each slice of some tensors, carrying values from one to the next.

use super::accumulate::{Rows, no_rows, push_all, settle};
use super::nested::{self, bounded, given, given_tensors};
use crate::attributes::{Attributes, SubGraph};
use crate::error::{Error, Result};
use crate::infer::Fact;
use crate::ops::movement::{layout, transpose::Transpose};
use crate::ops::{Arity, NodeReader, Operator};
use crate::tensor::{Tensor, index};
use crate::{invalid, unsupported};
use std::sync::Arc;

/// How slices are taken from a scanned input, or put into a stacked output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanAxis {
    /// The axis, counted from the end where negative.
    pub axis: i64,
    /// From the last slice to the first.
    pub reversed: bool,
}

/// Inputs: the values carried into the first iteration, the scanned tensors, then the values that the body captures.
/// The body takes the carried values and a slice of each scanned tensor, and makes the next carried values and the
/// slices of the stacked outputs. Outputs: the carried values after the last iteration, then the stacked slices.
#[derive(Clone, Debug)]
pub struct Scan {
    /// One iteration.
    pub body: SubGraph,
    /// One for each scanned input.
    pub inputs: Vec<ScanAxis>,
    /// One for each stacked output.
    pub outputs: Vec<ScanAxis>,
}

impl Scan {
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        if node.before(9) {
            unsupported!("Scan of opset 8, which has a batch axis, is not supported");
        }
        let body = Attributes::require("body", node.attributes.opt_graph("body")?)?;
        let scanned = Attributes::require("num_scan_inputs", node.attributes.opt_int("num_scan_inputs")?)?;
        let scanned = usize::try_from(scanned).ok().filter(|&n| n >= 1 && n <= body.formal_inputs);
        let Some(scanned) = scanned else {
            invalid!("attribute \"num_scan_inputs\" does not fit a body of {} inputs", body.formal_inputs)
        };
        let carried = body.formal_inputs - scanned;
        nested::check(&body, scanned, carried, "body")?;
        let stacked = body.graph.outputs.len() - carried;
        let axes = |what: &str, count: usize| -> Result<Vec<ScanAxis>> {
            let list = |name: String| -> Result<Vec<i64>> {
                let list = node.attributes.opt_ints(&name)?.unwrap_or_else(|| vec![0; count]);
                if list.len() != count {
                    invalid!("attribute \"{name}\" holds {} numbers, {count} are expected", list.len());
                }
                Ok(list)
            };
            let (axes, directions) =
                (list(format!("scan_{what}_axes"))?, list(format!("scan_{what}_directions"))?);
            let pairs = axes.into_iter().zip(directions);
            Ok(pairs.map(|(axis, direction)| ScanAxis { axis, reversed: direction != 0 }).collect())
        };
        let (inputs, outputs) = (axes("input", scanned)?, axes("output", stacked)?);
        Ok(Arc::new(Scan { body, inputs, outputs }))
    }

    /// How many values are carried.
    fn carried(&self) -> usize {
        self.body.formal_inputs.saturating_sub(self.inputs.len())
    }

    /// A node's inputs as carried, scanned and captured ones.
    fn sorted<T>(&self, mut inputs: Vec<T>) -> Result<[Vec<T>; 3]> {
        nested::check(&self.body, self.inputs.len(), self.carried() + self.outputs.len(), "body")?;
        if inputs.len() != self.body.graph.inputs.len() {
            invalid!("has {} inputs, where the body takes {}", inputs.len(), self.body.graph.inputs.len());
        }
        let captured = inputs.split_off(self.body.formal_inputs);
        let scanned = inputs.split_off(self.carried());
        Ok([inputs, scanned, captured])
    }

    /// The number of slices, where it is known, and what is known of one slice of each scanned input.
    fn slices(&self, scanned: &[Fact]) -> Result<(Option<usize>, Vec<Fact>)> {
        let mut count = None;
        let mut slices = Vec::with_capacity(scanned.len());
        for (fact, scan) in scanned.iter().zip(&self.inputs) {
            let Some(shape) = fact.shape() else {
                slices.push(Fact::unknown(fact.dtype));
                continue;
            };
            let axis = index::axis(scan.axis, shape.len())?;
            let mut slice = shape.to_vec();
            let extent = slice.remove(axis);
            if count.is_some_and(|c| c != extent) {
                invalid!("the scanned inputs have {extent} and {count:?} slices");
            }
            count = Some(extent);
            slices.push(Fact::new(fact.dtype, &slice));
        }
        Ok((count, slices))
    }

    /// What is known of the carried values in any iteration, and of the outputs of the body.
    fn settled(
        &self,
        carried: Vec<Fact>,
        slices: &[Fact],
        captured: &[Fact],
    ) -> Result<(Vec<Fact>, Vec<Fact>)> {
        settle(&self.body, carried, 0, |carried| [carried, slices, captured].concat())
    }

    /// The stacked output `index` from its rows.
    fn stacked(&self, index: usize, rows: Tensor) -> Result<Tensor> {
        let ScanAxis { axis, reversed } = self.outputs[index];
        let axis = index::axis(axis, rows.rank())?;
        let count = rows.shape()[0];
        let rows = if reversed { layout::select(&rows, 0, count, |i| count - 1 - i)? } else { rows };
        if axis == 0 {
            return Ok(rows);
        }
        let mut perm: Vec<usize> = (1..rows.rank()).collect();
        perm.insert(axis, 0);
        let moved = Transpose { perm: Some(perm) }.eval(&[Some(&rows)], 1)?.pop();
        moved.ok_or_else(|| Error::invalid("the stacked output was not made"))
    }
}

impl Operator for Scan {
    fn name(&self) -> &'static str {
        "Scan"
    }
    fn arity(&self) -> Arity {
        Arity::exact(self.body.graph.inputs.len()).outputs(0, self.body.graph.outputs.len())
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let [carried, scanned, captured] = self.sorted(given(inputs, 0)?)?;
        let (count, slices) = self.slices(&scanned)?;
        let (mut found, made) = bounded(|| self.settled(carried, &slices, &captured))?;
        for (row, scan) in made.iter().skip(self.carried()).zip(&self.outputs) {
            let Some(mut shape) = row.shape.clone() else {
                found.push(Fact::unknown(row.dtype));
                continue;
            };
            let axis = index::axis(scan.axis, shape.len() + 1)?;
            found.push(match count {
                None => Fact::unknown(row.dtype),
                Some(count) => {
                    shape.insert(axis, count);
                    Fact::new(row.dtype, &shape)
                }
            });
        }
        Ok(found)
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let [mut carried, scanned, captured] = self.sorted(given_tensors(inputs, 0)?)?;
        let facts = |tensors: &[Tensor]| tensors.iter().map(Fact::constant).collect::<Vec<_>>();
        let (count, slices) = self.slices(&facts(&scanned))?;
        let count = count.unwrap_or(0);
        let mut rows: Vec<Option<Rows>> = self.outputs.iter().map(|_| None).collect();
        bounded(|| {
            if count == 0 {
                let (_, made) = self.settled(facts(&carried), &slices, &facts(&captured))?;
                let first = self.carried();
                for (i, row) in made.iter().enumerate().skip(first).take(self.outputs.len()) {
                    carried.push(self.stacked(i - first, no_rows(&self.body, i, row)?)?);
                }
                return Ok(carried);
            }
            for t in 0..count {
                let mut given = carried.clone();
                for (tensor, scan) in scanned.iter().zip(&self.inputs) {
                    let axis = index::axis(scan.axis, tensor.rank())?;
                    let at = if scan.reversed { count - 1 - t } else { t };
                    let mut shape = tensor.shape().to_vec();
                    shape.remove(axis);
                    given.push(layout::select(tensor, axis, 1, |_| at)?.reshaped(&shape)?);
                }
                given.extend_from_slice(&captured);
                let mut made = nested::run(&self.body, &given)?;
                if made.len() != carried.len() + rows.len() {
                    invalid!("the body made {} values", made.len());
                }
                push_all(&mut rows, &made[carried.len()..])?;
                made.truncate(carried.len());
                carried = made;
            }
            for (i, rows) in rows.into_iter().flatten().enumerate() {
                carried.push(self.stacked(i, rows.finish()?)?);
            }
            Ok(carried)
        })
    }
    fn attributes(&self) -> Attributes {
        let axes = |list: &[ScanAxis]| list.iter().map(|s| s.axis).collect::<Vec<i64>>();
        let directions = |list: &[ScanAxis]| list.iter().map(|s| i64::from(s.reversed)).collect::<Vec<i64>>();
        Attributes::new()
            .with("body", self.body.clone())
            .with("num_scan_inputs", self.inputs.len() as i64)
            .with("scan_input_axes", axes(&self.inputs))
            .with("scan_input_directions", directions(&self.inputs))
            .with("scan_output_axes", axes(&self.outputs))
            .with("scan_output_directions", directions(&self.outputs))
    }
    fn is_pure(&self) -> bool {
        nested::is_pure(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Graph, Value};
    use crate::ops::movement::identity::Identity;
    use crate::ops::movement::testing::{counting, node, run_many};
    use crate::tensor::DType;

    /// Carries the last slice; stacks the slice before.
    fn delay(input: ScanAxis, output: ScanAxis) -> Scan {
        let mut graph = Graph::new("body");
        for name in ["before", "slice"] {
            let id =
                graph.add_value(Value { name: name.into(), dtype: Some(DType::F32), ..Value::default() });
            graph.inputs.push(id);
        }
        let (before, slice) = (graph.inputs[0], graph.inputs[1]);
        let next = graph.add_node("next", Identity, &[slice]);
        let row = graph.add_node("row", Identity, &[before]);
        graph.outputs = vec![next, row];
        Scan { body: SubGraph { graph, formal_inputs: 2 }, inputs: vec![input], outputs: vec![output] }
    }

    fn forward(axis: i64) -> ScanAxis {
        ScanAxis { axis, reversed: false }
    }

    #[test]
    fn scans_along_any_axis_either_way() {
        let (start, x) = (Tensor::new(&[2], &[8f32, 9.]).unwrap(), counting(&[3, 2]));
        let scan = |op| run_many(op, &[Some(&start), Some(&x)], 2).unwrap();
        let made = scan(delay(forward(0), forward(0)));
        assert_eq!((made[0].to_f32s(), made[1].to_f32s()), (vec![4., 5.], vec![8., 9., 0., 1., 2., 3.]));
        let back = ScanAxis { axis: -2, reversed: true };
        let made = scan(delay(back, back));
        assert_eq!((made[0].to_f32s(), made[1].to_f32s()), (vec![0., 1.], vec![2., 3., 4., 5., 8., 9.]));
        let made = scan(delay(forward(0), forward(1)));
        assert_eq!(made[1], Tensor::new(&[2, 3], &[8f32, 0., 2., 9., 1., 3.]).unwrap());
    }

    #[test]
    fn nothing_to_scan() {
        let start = counting(&[2]);
        let given = [Some(&start), Some(&counting(&[2, 0]))];
        let made = run_many(delay(forward(1), forward(-1)), &given, 2).unwrap();
        assert_eq!((&made[0], made[1].shape()), (&start, &[2, 0][..]));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let x = counting(&[2, 2]);
        assert!(run_many(delay(forward(2), forward(0)), &[Some(&x), Some(&x)], 2).is_err());
        assert!(run_many(delay(forward(0), forward(3)), &[Some(&x), Some(&x)], 2).is_err());
        let ints = Tensor::new(&[1, 1], &[1i32]).unwrap();
        assert!(run_many(delay(forward(0), forward(0)), &[Some(&x), Some(&ints)], 2).is_err());
        let written = delay(forward(0), forward(0)).attributes();
        assert!(Scan::read(&mut node("Scan", 9, 2, written.clone())).is_ok());
        assert!(Scan::read(&mut node("Scan", 8, 2, written.clone())).is_err());
        let odd = written.with("scan_output_axes", vec![0i64, 0]);
        assert!(Scan::read(&mut node("Scan", 9, 2, odd)).is_err());
    }
}
