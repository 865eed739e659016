//! Attributes that are worth choosing whatever the operator: most ignore them, the others vary.

use crate::source::Source;
use planish_graph::Attributes;

/// Attributes that some operators read; the others ignore them.
pub(crate) fn general_attributes(source: &mut Source<'_>, name: &str, attributes: &mut Attributes) {
    let mut add = |name: &str, value: planish_graph::Attribute| {
        attributes.0.entry(name.to_string()).or_insert(value);
    };
    add("keepdims", source.pick(&[1i64, 0]).into());
    add("axis", source.pick(&[1i64, -1, 0, 2, 3, -2]).into());
    if name.starts_with("Reduce") && source.once_in(2) {
        return;
    }
    add("blocksize", source.pick(&[2i64, 1, 3]).into());
    if name == "DepthToSpace" {
        add("mode", source.pick(&["DCR", "CRD"]).into());
    }
    add("groups", source.pick(&[2i64, 1, 3, 4]).into());
    add("count_include_pad", source.pick(&[0i64, 1]).into());
    add("size", source.pick(&[3i64, 1, 5]).into());
    add("p", source.pick(&[2i64, 1, 3]).into());
    add("epsilon", 1e-3f32.into());
    if source.once_in(8) {
        add("alpha", source.pick(&[0.1f32, 0.0, -0.5, 2.0]).into());
        add("to", source.pick(&[1i64, 6, 7, 10, 9]).into());
        add("exclusive", source.pick(&[0i64, 1]).into());
        add("reverse", source.pick(&[0i64, 1]).into());
        add("largest", source.pick(&[0i64, 1]).into());
        add("noop_with_empty_axes", source.pick(&[0i64, 1]).into());
    }
}
