//! Tensors, the graph, its operators and their reference meaning.
