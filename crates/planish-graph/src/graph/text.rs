//! The graph as text for people: one line a node, constants by type and shape.

use super::{Graph, ValueId};
use std::fmt;

impl Graph {
    /// "name: f32[batch, 3, 224, 224]" as far as it is known.
    pub fn describe(&self, id: ValueId) -> String {
        let value = self.value(id);
        let dtype = value.dtype.map_or("?".to_string(), |d| d.to_string());
        let shape = match &value.shape {
            Some(dims) => dims.iter().map(|d| d.to_string()).collect::<Vec<_>>().join(", "),
            None => "…".to_string(),
        };
        format!("{}: {dtype}[{shape}]", value.name)
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "graph {}", self.name)?;
        for &i in &self.inputs {
            writeln!(f, "  input  {}", self.describe(i))?;
        }
        for (i, value) in self.values.iter().enumerate() {
            if value.constant.is_some() {
                writeln!(f, "  const  {}", self.describe(ValueId(i as u32)))?;
            }
        }
        let names = |ids: &[Option<ValueId>]| {
            let parts: Vec<&str> =
                ids.iter().map(|i| i.map_or("_", |i| self.value(i).name.as_str())).collect();
            parts.join(", ")
        };
        for node in &self.nodes {
            writeln!(f, "  {} = {:?}({})", names(&node.outputs), node.op, names(&node.inputs))?;
        }
        for &o in &self.outputs {
            writeln!(f, "  output {}", self.describe(o))?;
        }
        Ok(())
    }
}
