//! Operators as they were before opset 7, told in the terms of opset 7.
//!
//! Until then, binary operators named the axis from which the second input's shape counts, and a few operators said
//! whether they run for training. Many networks on the web are still files of that time.

use planish_graph::{Attributes, Result, Value, invalid, unsupported};

/// Operators that opset 7 changed and that [`upgrade`] reads all the same, with the opset since which it can.
pub(crate) const UPGRADED: [(i64, &[&str]); 2] = [
    (1, &["And", "AveragePool", "Equal", "Greater", "Less", "Or", "Pow", "Xor"]),
    (6, &["Add", "BatchNormalization", "Div", "Dropout", "Gemm", "Mul", "PRelu", "Sub"]),
];

/// Rewrites the attributes of a node of an opset before 7. Returns how many extents of 1 the shape of its second input
/// must get at its end to broadcast as it did then.
pub(crate) fn upgrade(
    operator: &str,
    attributes: &mut Attributes,
    first: Option<&Value>,
    second: Option<&Value>,
) -> Result<usize> {
    match operator {
        "BatchNormalization" | "Dropout" => {
            if !attributes.flag("is_test", false)? {
                unsupported!("{operator} of opset 6 for training");
            }
            attributes.0.remove("is_test");
            Ok(0)
        }
        "Gemm" => {
            attributes.0.remove("broadcast");
            Ok(0)
        }
        "PRelu" => {
            let (x, slope) = (rank(first)?, rank(second)?);
            Ok(if slope == 1 && !has_one_element(second) { x.saturating_sub(2) } else { 0 })
        }
        "Add" | "And" | "Div" | "Equal" | "Greater" | "Less" | "Mul" | "Or" | "Pow" | "Sub" | "Xor" => {
            let broadcast = attributes.flag("broadcast", false)?;
            let axis = attributes.opt_int("axis")?;
            attributes.0.remove("broadcast");
            attributes.0.remove("axis");
            let (true, Some(axis)) = (broadcast, axis) else {
                return Ok(0);
            };
            let (a, b) = (rank(first)?, rank(second)?);
            let start = if axis < 0 { axis + a as i64 } else { axis };
            match usize::try_from(start).ok().and_then(|start| a.checked_sub(start)?.checked_sub(b)) {
                Some(trailing) => Ok(trailing),
                None => invalid!("axis {axis} does not place rank {b} inside rank {a}"),
            }
        }
        _ => Ok(0),
    }
}

fn rank(value: Option<&Value>) -> Result<usize> {
    match value.and_then(|v| v.shape.as_ref()) {
        Some(dims) => Ok(dims.len()),
        None => unsupported!("broadcasting of opset 6 between values of unstated shape"),
    }
}

fn has_one_element(value: Option<&Value>) -> bool {
    value.and_then(|v| v.constant.as_ref()).is_some_and(|t| t.len() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_graph::Dim;

    fn value(rank: usize) -> Value {
        Value { shape: Some(vec![Dim::Fixed(3); rank]), ..Value::default() }
    }

    #[test]
    fn an_axis_becomes_extents_of_one() {
        let trailing = |axis: i64, a: usize, b: usize| {
            let mut attributes = Attributes::new().with("broadcast", 1i64).with("axis", axis);
            let found = upgrade("Add", &mut attributes, Some(&value(a)), Some(&value(b)));
            assert!(attributes.0.is_empty());
            found
        };
        assert_eq!(trailing(1, 4, 1).unwrap(), 2);
        assert_eq!(trailing(-1, 4, 1).unwrap(), 0);
        assert_eq!(trailing(0, 2, 2).unwrap(), 0);
        assert!(trailing(3, 4, 2).is_err());
        assert!(trailing(-9, 4, 2).is_err());
        assert!(upgrade("Add", &mut Attributes::new(), None, None).is_ok());
    }

    #[test]
    fn others_keep_their_axis() {
        let mut attributes = Attributes::new().with("axis", 1i64);
        assert_eq!(upgrade("Concat", &mut attributes, None, None).unwrap(), 0);
        assert_eq!(attributes.opt_int("axis").unwrap(), Some(1));
    }

    #[test]
    fn training_is_refused() {
        assert!(upgrade("Dropout", &mut Attributes::new(), None, None).is_err());
        let mut test = Attributes::new().with("is_test", 1i64);
        assert_eq!(upgrade("BatchNormalization", &mut test, None, None).unwrap(), 0);
        assert!(test.0.is_empty());
    }
}
