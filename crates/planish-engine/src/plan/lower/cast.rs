//! Between `f16` and `f32`: at the ends of a graph that takes and gives `f16`. A value that is kept as what it is converted
//! to costs nothing.

use super::{Facts, Family, Keeps, Layout, Lowering, Wish};
use planish_graph::ops::math::cast::Cast;
use planish_graph::{DType, Error, Node, OperatorExt, Result};

/// Cast between floats that kernels keep.
pub(super) struct Casts;

impl Family for Casts {
    fn wish(&self, node: &Node, facts: &Facts<'_>) -> Option<Wish> {
        node.op.as_op::<Cast>().filter(|cast| matches!(cast.to, DType::F16 | DType::F32))?;
        let (x, y) = (node.input(0)?, node.output()?);
        // Levels are no numbers of themselves.
        let numbers = facts.levels(x).is_none() && facts.levels(y).is_none();
        (numbers && facts.kept(x).is_some() && facts.kept(y).is_some()).then_some(Wish::Follow)
    }

    fn keeps(&self, _: &Node, _: &Facts<'_>, _: &[Layout]) -> Keeps {
        Keeps::Follow
    }

    fn is_alias(&self, _: &Node, _: &Facts<'_>, _: &[Layout]) -> bool {
        true
    }

    fn lower(&self, l: &mut Lowering<'_>, node: &Node) -> Result<()> {
        let lost = || Error::invalid("a cast lost its input or output");
        let (x, y) = (node.input(0).ok_or_else(lost)?, node.output().ok_or_else(lost)?);
        let layout = l.layout(y);
        let operand = l.operand_as(x, layout, l.element(y))?;
        l.alias(y, layout, operand);
        Ok(())
    }
}
