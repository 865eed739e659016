//! Einsum: sums of products named by an equation, `"ij,jk->ik"`; the general form of matrix products, traces and
//! transpositions.
//!
//! An equation is parsed once ([`Equation`]); shapes turn it into an index space of all its labels ([`Space`]) in which
//! every operand has a stride for every label: 0 where it is stretched or absent, a sum of strides where a label repeats.

use super::elementwise::{Lists, NUMBERS, all_numbers, expect_same_type, typed_fact};
use super::matmul::{float_multiply_add, int_multiply_add};
use crate::attributes::Attributes;
use crate::error::{Context, Error, Result};
use crate::infer::Fact;
use crate::invalid;
use crate::limits::{element_count, room};
use crate::ops::{Arity, NodeReader, Operator, required};
use crate::tensor::{Numbers, Tensor, index};
use std::sync::Arc;

/// One axis of an operand: a letter, or the axes that an ellipsis stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// A named axis.
    Letter(char),
    /// `...`: any number of axes, aligned at the end and broadcast.
    Ellipsis,
}

/// A parsed equation.
#[derive(Clone, Debug, PartialEq)]
pub struct Equation {
    /// The labels of each operand.
    pub operands: Vec<Vec<Label>>,
    /// The labels of the output; found by the rule of the implicit form where the equation has none.
    pub output: Vec<Label>,
}

impl Equation {
    /// The equation that `text` writes.
    pub fn parse(text: &str) -> Result<Equation> {
        let compact: String = text.chars().filter(|c| *c != ' ').collect();
        let (left, right) = match compact.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (compact.as_str(), None),
        };
        let operands = left.split(',').map(term).collect::<Result<Vec<_>>>()?;
        let output = match right {
            Some(text) => term(text)?,
            None => implicit_output(&operands),
        };
        for (place, label) in output.iter().enumerate() {
            if output[..place].contains(label) {
                invalid!("the output names {label:?} twice");
            }
            if matches!(label, Label::Letter(_)) && !operands.iter().any(|o| o.contains(label)) {
                invalid!("the output names {label:?}, which no operand has");
            }
        }
        Ok(Equation { operands, output })
    }
}

/// The labels of one term.
fn term(text: &str) -> Result<Vec<Label>> {
    let mut labels = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("...") {
            if labels.contains(&Label::Ellipsis) {
                invalid!("term \"{text}\" has two ellipses");
            }
            labels.push(Label::Ellipsis);
            rest = behind;
        } else if c.is_ascii_alphabetic() {
            labels.push(Label::Letter(c));
            rest = &rest[1..];
        } else {
            invalid!("term \"{text}\" has '{c}', where letters and \"...\" are expected");
        }
    }
    Ok(labels)
}

/// The ellipsis, if any, then the letters that appear once, in ASCII order.
fn implicit_output(operands: &[Vec<Label>]) -> Vec<Label> {
    let all = || operands.iter().flatten();
    let once = |c: &char| all().filter(|l| **l == Label::Letter(*c)).count() == 1;
    let ellipsis = all().any(|l| *l == Label::Ellipsis).then_some(Label::Ellipsis);
    let letters = ('A'..='Z').chain('a'..='z').filter(once).map(Label::Letter);
    ellipsis.into_iter().chain(letters).collect()
}

/// The index space of an equation for given shapes: first the output's axes, then the summed ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    /// The extents of the output's axes.
    pub output: Vec<usize>,
    /// The extents of the axes that are summed over.
    pub summed: Vec<usize>,
    /// For each operand, its stride along each axis of the output, then along each summed axis.
    pub strides: Vec<Vec<usize>>,
}

/// One axis of the index space: a letter, or an axis of the ellipsis counted from its end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Axis {
    Letter(char),
    Ellipsis(usize),
}

/// The axes of an operand of `rank`, with the ellipsis spelled out.
fn spell_out(labels: &[Label], rank: usize) -> Result<Vec<Axis>> {
    let letters = labels.iter().filter(|l| **l != Label::Ellipsis).count();
    let hidden = match rank.checked_sub(letters) {
        Some(0) => 0,
        Some(n) if letters < labels.len() => n,
        _ => invalid!("a term of {letters} letters does not name the axes of a tensor of rank {rank}"),
    };
    let mut axes = Vec::with_capacity(rank);
    for label in labels {
        match label {
            Label::Letter(c) => axes.push(Axis::Letter(*c)),
            Label::Ellipsis => axes.extend((0..hidden).rev().map(Axis::Ellipsis)),
        }
    }
    Ok(axes)
}

impl Space {
    /// The space of `equation` for operands of `shapes`; an error where they do not fit.
    pub fn new(equation: &Equation, shapes: &[&[usize]]) -> Result<Space> {
        if shapes.len() != equation.operands.len() {
            invalid!("the equation has {} operands, {} were given", equation.operands.len(), shapes.len());
        }
        let mut extents: Vec<(Axis, usize)> = Vec::new();
        let mut named = Vec::with_capacity(shapes.len());
        for (number, (labels, shape)) in equation.operands.iter().zip(shapes).enumerate() {
            let axes = spell_out(labels, shape.len()).context(|| format!("operand {number}"))?;
            for (place, (&axis, &extent)) in axes.iter().zip(*shape).enumerate() {
                if axes[..place].iter().zip(*shape).any(|(a, e)| *a == axis && *e != extent) {
                    invalid!("operand {number} of shape {shape:?} repeats {axis:?} with another extent");
                }
                match extents.iter_mut().find(|(a, _)| *a == axis) {
                    None => extents.push((axis, extent)),
                    Some((_, known)) if *known == 1 || *known == extent => *known = extent,
                    Some(_) if extent == 1 => {}
                    Some((_, known)) => {
                        invalid!("{axis:?} has extent {known} and, in operand {number}, {extent}")
                    }
                }
            }
            named.push(axes);
        }
        let hidden = extents.iter().filter(|(a, _)| matches!(a, Axis::Ellipsis(_))).count();
        if hidden > 0 && !equation.output.contains(&Label::Ellipsis) {
            invalid!("the ellipsis stands for {hidden} axes, and the output has none");
        }
        let letters = equation.output.iter().filter(|l| **l != Label::Ellipsis).count();
        let kept = spell_out(&equation.output, letters + hidden)?;
        let summed: Vec<Axis> = extents.iter().map(|(a, _)| *a).filter(|a| !kept.contains(a)).collect();
        let extent = |axis: &Axis| extents.iter().find(|(a, _)| a == axis).map_or(1, |(_, e)| *e);
        let stride = |axis: &Axis, axes: &[Axis], shape: &[usize]| {
            let own = index::strides(shape);
            let same = (0..axes.len()).filter(|&i| axes[i] == *axis && shape[i] != 1);
            same.map(|i| own[i]).fold(0usize, usize::saturating_add)
        };
        let strides = named.iter().zip(shapes);
        let strides =
            strides.map(|(axes, shape)| kept.iter().chain(&summed).map(|a| stride(a, axes, shape)).collect());
        let space = Space {
            strides: strides.collect(),
            output: kept.iter().map(extent).collect(),
            summed: summed.iter().map(extent).collect(),
        };
        element_count(&space.extents())
            .map_err(|_| Error::limit("the equation's index space is too large"))?;
        Ok(space)
    }

    /// The extents of all axes, the output's first.
    pub fn extents(&self) -> Vec<usize> {
        self.output.iter().chain(&self.summed).copied().collect()
    }

    /// The sums of products of `operands`' elements.
    fn sums<T: Copy>(
        &self,
        operands: &[Vec<T>],
        (zero, one): (T, T),
        multiply_add: impl Fn(T, T, T) -> T,
    ) -> Result<Vec<T>> {
        let mut out: Vec<T> = room(&self.output)?;
        out.resize(element_count(&self.output)?, zero);
        let extents = self.extents();
        let terms = element_count(&self.summed)?;
        let mut place = vec![0usize; extents.len()];
        let mut offsets = vec![0usize; operands.len()];
        for flat in 0..element_count(&extents)? {
            let product = operands.iter().zip(&offsets).fold(one, |p, (v, &o)| multiply_add(zero, p, v[o]));
            out[flat / terms] = multiply_add(out[flat / terms], one, product);
            for axis in (0..extents.len()).rev() {
                place[axis] += 1;
                let wraps = place[axis] == extents[axis];
                for (offset, strides) in offsets.iter_mut().zip(&self.strides) {
                    *offset += strides[axis];
                    if wraps {
                        *offset -= strides[axis] * extents[axis];
                    }
                }
                if !wraps {
                    break;
                }
                place[axis] = 0;
            }
        }
        Ok(out)
    }
}

/// The sum of products that an equation names.
#[derive(Clone, Debug, PartialEq)]
pub struct Einsum {
    /// As it was written.
    pub text: String,
    /// What it says.
    pub equation: Equation,
}

impl Einsum {
    /// The operator of the equation that `text` writes.
    pub fn new(text: &str) -> Result<Einsum> {
        let equation = Equation::parse(text).context(|| format!("attribute \"equation\", \"{text}\""))?;
        Ok(Einsum { text: text.to_string(), equation })
    }
    pub(super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let text = Attributes::require("equation", node.attributes.opt_string("equation")?)?;
        Ok(Arc::new(Einsum::new(&text)?))
    }
    /// The index space for operands of `shapes`.
    pub fn space(&self, shapes: &[&[usize]]) -> Result<Space> {
        Space::new(&self.equation, shapes).context(|| format!("equation \"{}\"", self.text))
    }
}

impl Operator for Einsum {
    fn name(&self) -> &'static str {
        "Einsum"
    }
    fn arity(&self) -> Arity {
        Arity::range(1, usize::MAX)
    }
    fn infer(&self, inputs: &[Option<Fact>], _outputs: usize) -> Result<Vec<Fact>> {
        let first = typed_fact(inputs, 0, "operand 0", NUMBERS)?;
        let mut shapes = Vec::with_capacity(inputs.len());
        for i in 0..inputs.len() {
            let fact = typed_fact(inputs, i, &format!("operand {i}"), NUMBERS)?;
            expect_same_type(first, fact)?;
            shapes.push(fact.shape());
        }
        Ok(vec![match shapes.into_iter().collect::<Option<Vec<_>>>() {
            Some(shapes) => Fact::new(first.dtype, &self.space(&shapes)?.output),
            None => Fact::unknown(first.dtype),
        }])
    }
    /// One for each point of the index space and operand after the first, as the reference multiplies.
    fn macs(&self, inputs: &[Option<Fact>], _outputs: &[Fact]) -> u64 {
        let shapes: Option<Vec<&[usize]>> =
            inputs.iter().map(|f| f.as_ref().and_then(|f| f.shape())).collect();
        let points = shapes.and_then(|s| self.space(&s).ok()).and_then(|s| element_count(&s.extents()).ok());
        points.map_or(0, |p| (p as u64).saturating_mul(inputs.len().saturating_sub(1) as u64))
    }
    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let dtype = required(inputs, 0)?.dtype();
        let (shapes, lists) = all_numbers(inputs)?;
        let space = self.space(&shapes)?;
        let numbers = match lists {
            Lists::Float(lists) => Numbers::Float(space.sums(&lists, (0.0, 1.0), float_multiply_add)?),
            Lists::Int(lists) => Numbers::Int(space.sums(&lists, (0, 1), int_multiply_add)?),
        };
        Ok(vec![Tensor::from_numbers(dtype, &space.output, &numbers)?])
    }
    fn attributes(&self) -> Attributes {
        Attributes::new().with("equation", self.text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::math::testing::{counting, eval, floats, read, refusal};
    use crate::tensor::DType;

    fn run(equation: &str, inputs: &[&Tensor]) -> Tensor {
        eval(&Einsum::new(equation).unwrap(), inputs)
    }

    #[test]
    fn products_traces_and_transpositions() {
        let (a, b) = (counting(&[2, 3]), counting(&[3, 2]));
        assert_eq!(run("ij,jk->ik", &[&a, &b]), floats(&[2, 2], &[10., 13., 28., 40.]));
        assert_eq!(run("ij,jk", &[&a, &b]), run(" i j , j k -> i k ", &[&a, &b]));
        assert_eq!(run("ij->ji", &[&a]), floats(&[3, 2], &[0., 3., 1., 4., 2., 5.]));
        assert_eq!(run("ba", &[&a]), run("ij->ji", &[&a]));
        assert_eq!(run("ij->", &[&a]), Tensor::scalar(15f32));
        assert_eq!(run("ii", &[&counting(&[3, 3])]), Tensor::scalar(12f32));
        assert_eq!(run("ii->i", &[&counting(&[3, 3])]), floats(&[3], &[0., 4., 8.]));
        assert_eq!(run("i,i,i", &[&counting(&[3]), &counting(&[3]), &counting(&[3])]), Tensor::scalar(9f32));
        assert_eq!(run("i,->i", &[&counting(&[2]), &Tensor::scalar(3f32)]), floats(&[2], &[0., 3.]));
        assert_eq!(run("", &[&Tensor::scalar(3f32)]), Tensor::scalar(3f32));
        assert_eq!(run("bA", &[&a]), run("ij->ji", &[&a]));
    }

    #[test]
    fn ellipses_broadcast() {
        let (a, b) = (counting(&[4, 2, 3]), counting(&[3, 2]));
        assert_eq!(run("...ij,jk->...ik", &[&a, &b]).shape(), [4, 2, 2]);
        assert_eq!(run("...i,...i->...", &[&a, &b.reshaped(&[2, 3]).unwrap()]).shape(), [4, 2]);
        assert_eq!(run("b...a", &[&counting(&[2, 3, 4])]).shape(), [3, 4, 2]);
        assert_eq!(run("i...->...", &[&counting(&[2, 2])]), floats(&[2], &[2., 4.]));
        assert_eq!(run("...i->i", &[&counting(&[2])]), counting(&[2]));
        assert_eq!(run("ij->i...", &[&counting(&[2, 2])]), floats(&[2], &[1., 5.]));
        assert_eq!(
            run("ij,ij->ij", &[&counting(&[2, 1]), &counting(&[2, 2])]),
            floats(&[2, 2], &[0., 0., 2., 3.])
        );
    }

    #[test]
    fn empties_integers_and_cost() {
        let zeros = |shape: &[usize]| Tensor::zeros(DType::F32, shape).unwrap();
        assert_eq!(run("ij,jk->ik", &[&zeros(&[2, 0]), &zeros(&[0, 3])]), zeros(&[2, 3]));
        assert_eq!(run("ij->ji", &[&zeros(&[0, 3])]).shape(), [3, 0]);
        let x = Tensor::new(&[2], &[u64::MAX, 2]).unwrap();
        assert_eq!(run("i,i", &[&x, &x]), Tensor::scalar(5u64));
        let facts = [Some(Fact::new(DType::F32, &[2, 3])), Some(Fact::new(DType::F32, &[3, 4]))];
        assert_eq!(Einsum::new("ij,jk->ik").unwrap().macs(&facts, &[]), 24);
        let op = read("Einsum", 12, Attributes::new().with("equation", "ij->ji")).unwrap();
        assert_eq!(format!("{:?}", read("Einsum", 21, op.attributes()).unwrap()), format!("{op:?}"));
    }

    #[test]
    fn refuses_bad_equations() {
        for text in ["i->ii", "i->j", "a.b", "i1", "......i", "i->j->k", "i->...,", "é"] {
            let error = Einsum::new(text).unwrap_err().to_string();
            assert!(error.contains("attribute \"equation\""), "{text}: {error}");
        }
        assert!(read("Einsum", 12, Attributes::new()).is_err());
    }

    #[test]
    fn refuses_shapes_that_do_not_fit() {
        for (text, shapes) in [
            ("ij", &[&[2usize][..]][..]),
            ("ij", &[&[2, 3, 4]]),
            ("ii", &[&[1, 3]]),
            ("i,i", &[&[2], &[3]]),
            ("...i->i", &[&[2, 3]]),
            ("i,j", &[&[2]]),
            ("a,b,c", &[&[1 << 30], &[1 << 30], &[1 << 30]]),
        ] {
            let facts: Vec<Fact> = shapes.iter().map(|s| Fact::new(DType::F32, s)).collect();
            assert!(refusal(&Einsum::new(text).unwrap(), &facts).contains("equation"), "{text}");
        }
    }
}
