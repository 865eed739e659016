//! What the operators of this family share: type classes, broadcasting of what is known and of what is there, and
//! walking along one axis.
//!
//! References compute on [`Numbers`]: one formula for floats (in `f64`) and one for integers (exact, wrapping when the
//! result is stored). The helpers here pair elements up; the operators bring the formulas.

use crate::error::Result;
use crate::infer::Fact;
use crate::invalid;
use crate::limits::room;
use crate::ops::{required, required_fact};
use crate::tensor::{DType, Numbers, Tensor, index};

/// Floats.
pub(super) const FLOATS: &[DType] = &[DType::F64, DType::F32, DType::F16, DType::BF16];
/// Floats and signed integers.
pub(super) const SIGNED: &[DType] =
    &[DType::F64, DType::F32, DType::F16, DType::BF16, DType::I8, DType::I16, DType::I32, DType::I64];
/// Floats and integers of 32 and 64 bits: what ONNX lists for sums and products.
pub(super) const WIDE: &[DType] =
    &[DType::F64, DType::F32, DType::F16, DType::BF16, DType::I32, DType::U32, DType::I64, DType::U64];
/// Integers.
pub(super) const INTEGERS: &[DType] =
    &[DType::I8, DType::U8, DType::I16, DType::U16, DType::I32, DType::U32, DType::I64, DType::U64];
/// Floats and integers.
pub(super) const NUMBERS: &[DType] = DType::ALL.split_at(12).0;
/// Truth values.
pub(super) const BOOL: &[DType] = &[DType::Bool];

/// What is known of input `index`, which errors call `name`; an error where its type is not among `allowed`.
pub(super) fn typed_fact<'a>(
    inputs: &'a [Option<Fact>],
    index: usize,
    name: &str,
    allowed: &[DType],
) -> Result<&'a Fact> {
    let fact = required_fact(inputs, index)?;
    if !allowed.contains(&fact.dtype) {
        let names: Vec<&str> = allowed.iter().map(|d| d.name()).collect();
        invalid!("{name} has type {}, where one of {} is expected", fact.dtype, names.join(", "));
    }
    Ok(fact)
}

/// An error where two inputs that must have one type do not.
pub(super) fn expect_same_type(a: &Fact, b: &Fact) -> Result<()> {
    if a.dtype != b.dtype {
        invalid!("the inputs have different types, {} and {}", a.dtype, b.dtype);
    }
    Ok(())
}

/// The one element of a tensor that must have exactly one (of any rank up to 1), or an error that calls it `name`.
pub(super) fn expect_single(fact: &Fact, name: &str) -> Result<()> {
    match fact.shape() {
        Some([] | [1]) | None => Ok(()),
        Some(shape) => invalid!("{name} must be one number, not a tensor of shape {shape:?}"),
    }
}

/// A value of type `dtype` and, where known, of `fact`'s shape.
pub(super) fn shaped_like(dtype: DType, fact: &Fact) -> Fact {
    Fact { dtype, shape: fact.shape.clone(), value: None }
}

/// A value of type `dtype` with the shape to which `facts` broadcast.
pub(super) fn broadcast_fact(dtype: DType, facts: &[&Fact]) -> Result<Fact> {
    let shapes: Option<Vec<&[usize]>> = facts.iter().map(|f| f.shape()).collect();
    Ok(match shapes {
        Some(shapes) => Fact::new(dtype, &index::broadcast(&shapes)?),
        None => Fact::unknown(dtype),
    })
}

/// `x` with each element replaced, by the rule for its sort of number.
pub(super) fn map(x: &Tensor, float: impl Fn(f64) -> f64, int: impl Fn(i128) -> i128) -> Result<Tensor> {
    let numbers = match x.to_numbers() {
        Numbers::Float(v) => Numbers::Float(v.into_iter().map(float).collect()),
        Numbers::Int(v) => Numbers::Int(v.into_iter().map(int).collect()),
    };
    Tensor::from_numbers(x.dtype(), x.shape(), &numbers)
}

/// Elements and the shape in which they lie.
pub(super) type Shaped<'a, T> = (&'a [usize], &'a [T]);

/// `f` of each pair of elements of `a` and `b`, broadcast to `shape`.
pub(super) fn zip<T: Copy, U: Copy, R>(
    shape: &[usize],
    a: Shaped<T>,
    b: Shaped<U>,
    f: impl Fn(T, U) -> R,
) -> Result<Vec<R>> {
    let mut out = room(shape)?;
    // Most operands have the output's shape or are one number, which needs no counting of axes.
    match (a, b) {
        ((own, a), (other, b)) if own == other => {
            out.extend(a.iter().zip(b).map(|(&a, &b)| f(a, b)));
            return Ok(out);
        }
        ((own, a), (_, &[b])) if own == shape => {
            out.extend(a.iter().map(|&a| f(a, b)));
            return Ok(out);
        }
        ((_, &[a]), (own, b)) if own == shape => {
            out.extend(b.iter().map(|&b| f(a, b)));
            return Ok(out);
        }
        _ => {}
    }
    let strides_a = index::broadcast_strides(a.0, shape);
    let strides_b = index::broadcast_strides(b.0, shape);
    index::for_each(shape, [&strides_a, &strides_b], |_, [i, j]| out.push(f(a.1[i], b.1[j])));
    Ok(out)
}

/// Both tensors' numbers, which [`Operator::infer`](crate::ops::Operator::infer) has made sure are of one type.
pub(super) enum Pair {
    /// Of two float tensors.
    Float(Vec<f64>, Vec<f64>),
    /// Of two integer or `Bool` tensors.
    Int(Vec<i128>, Vec<i128>),
}

/// The numbers of two tensors of one sort; an error where one holds floats and the other integers.
pub(super) fn pair(a: &Tensor, b: &Tensor) -> Result<Pair> {
    match (a.to_numbers(), b.to_numbers()) {
        (Numbers::Float(x), Numbers::Float(y)) => Ok(Pair::Float(x, y)),
        (Numbers::Int(x), Numbers::Int(y)) => Ok(Pair::Int(x, y)),
        _ => invalid!("the inputs have different types, {} and {}", a.dtype(), b.dtype()),
    }
}

/// The numbers of any number of tensors.
pub(super) enum Lists {
    /// Of float tensors.
    Float(Vec<Vec<f64>>),
    /// Of integer or `Bool` tensors.
    Int(Vec<Vec<i128>>),
}

/// The shapes and numbers of all inputs, which must all be there; an error where some hold floats and others integers.
pub(super) fn all_numbers<'a>(inputs: &[Option<&'a Tensor>]) -> Result<(Vec<&'a [usize]>, Lists)> {
    let (mut shapes, mut floats, mut ints) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..inputs.len() {
        let x = required(inputs, i)?;
        shapes.push(x.shape());
        match x.to_numbers() {
            Numbers::Float(v) => floats.push(v),
            Numbers::Int(v) => ints.push(v),
        }
    }
    match (floats.is_empty(), ints.is_empty()) {
        (false, true) => Ok((shapes, Lists::Float(floats))),
        (true, _) => Ok((shapes, Lists::Int(ints))),
        (false, false) => invalid!("the inputs have different types"),
    }
}

/// A tensor seen as lanes along one axis: `outer × inner` lanes of `extent` elements, `inner` apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes {
    /// The product of the extents before the axis.
    pub outer: usize,
    /// The elements of one lane.
    pub extent: usize,
    /// The product of the extents behind the axis: the distance between elements of one lane.
    pub inner: usize,
}

impl Lanes {
    /// The lanes of a tensor of `shape` along `axis`; none where it is empty.
    pub(super) fn new(shape: &[usize], axis: usize) -> Lanes {
        if shape.contains(&0) {
            return Lanes { outer: 0, extent: shape[axis], inner: 0 };
        }
        Lanes {
            outer: shape[..axis].iter().product(),
            extent: shape[axis],
            inner: shape[axis + 1..].iter().product(),
        }
    }
    /// The offset of each lane's first element, in order.
    pub(super) fn starts(self) -> impl Iterator<Item = usize> {
        let Lanes { outer, extent, inner } = self;
        (0..outer).flat_map(move |o| (0..inner).map(move |i| o * extent * inner + i))
    }
    /// The offsets of the elements of the lane that starts at `start`.
    pub(super) fn lane(self, start: usize) -> impl DoubleEndedIterator<Item = usize> {
        (0..self.extent).map(move |k| start + k * self.inner)
    }
}

/// Declares an enum of functions with their ONNX operator names, and `ALL`, `name` and `from_name` for it.
macro_rules! functions {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $onnx:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            /// Every function of the family.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The ONNX operator type.
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $onnx,)*
                }
            }
            /// The (first) function of that ONNX operator type.
            pub fn from_name(name: &str) -> $crate::Result<$name> {
                match $name::ALL.iter().find(|f| f.name() == name) {
                    Some(function) => Ok(*function),
                    None => $crate::unsupported!("{name} is no {}", stringify!($name)),
                }
            }
        }
    };
}
pub(super) use functions;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_what_they_say() {
        assert!(NUMBERS.iter().all(|d| *d != DType::Bool) && NUMBERS.len() == 12);
        assert!(FLOATS.iter().all(|d| d.is_float()) && INTEGERS.iter().all(|d| d.is_integer()));
        assert!(SIGNED.iter().all(|d| d.is_float() || d.is_signed_integer()));
        let facts = [Some(Fact::new(DType::Bool, &[2]))];
        let error = typed_fact(&facts, 0, "X", FLOATS).unwrap_err().to_string();
        assert_eq!(error, "X has type bool, where one of f64, f32, f16, bf16 is expected");
    }

    #[test]
    fn lanes_cover_every_element_once() {
        let lanes = Lanes::new(&[2, 3, 2], 1);
        let seen: Vec<Vec<usize>> = lanes.starts().map(|s| lanes.lane(s).collect()).collect();
        assert_eq!(seen, [[0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9, 11]]);
        assert_eq!(Lanes::new(&[usize::MAX, 2, 0], 1).starts().count(), 0);
    }
}
