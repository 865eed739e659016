//! The middle of planish: tensors, the graph, and what every operator means.
//!
//! A network exists once, as a [`Graph`]. Files become graphs, passes and transforms turn graphs into graphs, the
//! engine compiles a graph to a plan. Each operator is one file under [`ops`]: attributes, shape and type rule,
//! multiply-accumulate count and reference evaluation, the oracle of every test.

pub mod attributes;
pub mod error;
pub mod formats;
pub mod graph;
pub mod infer;
pub mod limits;
pub mod ops;
pub mod reference;
pub mod tensor;

pub use attributes::{Attribute, Attributes};
pub use error::{Error, ErrorKind, Result};
pub use graph::{Dim, Graph, Node, NodeId, Value, ValueId};
pub use infer::Fact;
pub use ops::{Operator, OperatorExt};
pub use tensor::{DType, Element, Tensor};
