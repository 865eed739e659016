//! What must hold before a graph is optimised, planned or run. Passes and the engine rely on it.

use super::Graph;
use crate::error::{Context, Result};
use crate::invalid;
use std::collections::HashSet;

impl Graph {
    /// Checks the graph: names unique, every id in range, one maker a value, makers before users, inputs typed, numbers
    /// of inputs and outputs as the operators say.
    pub fn validate(&self) -> Result<()> {
        let count = self.values.len();
        let known = |id: &super::ValueId| (id.0 as usize) < count;
        let mut names = HashSet::with_capacity(count);
        for value in &self.values {
            if value.name.is_empty() {
                invalid!("a value has no name");
            }
            if !names.insert(value.name.as_str()) {
                invalid!("two values are named \"{}\"", value.name);
            }
        }
        if !self.inputs.iter().chain(&self.outputs).all(known) {
            invalid!("an input or output names a value that does not exist");
        }
        let mut made = vec![false; count];
        for (i, value) in self.values.iter().enumerate() {
            made[i] = value.constant.is_some();
        }
        for input in &self.inputs {
            let value = self.value(*input);
            if std::mem::replace(&mut made[input.0 as usize], true) {
                invalid!("input \"{}\" is listed twice or is also a constant", value.name);
            }
            if value.dtype.is_none() {
                invalid!("input \"{}\" has no element type", value.name);
            }
        }
        for node in &self.nodes {
            (|| {
                for id in node.inputs.iter().chain(&node.outputs).flatten() {
                    if !known(id) {
                        invalid!("names a value that does not exist");
                    }
                }
                for id in node.inputs.iter().flatten() {
                    if !made[id.0 as usize] {
                        invalid!("reads \"{}\" before anything makes it", self.value(*id).name);
                    }
                }
                for id in node.outputs.iter().flatten() {
                    if std::mem::replace(&mut made[id.0 as usize], true) {
                        invalid!("makes \"{}\", which something else makes too", self.value(*id).name);
                    }
                }
                node.op.arity().check(&node.inputs, &node.outputs)
            })()
            .context(|| node.place())?;
        }
        for output in &self.outputs {
            if !made[output.0 as usize] {
                invalid!("nothing makes output \"{}\"", self.value(*output).name);
            }
        }
        Ok(())
    }
}
