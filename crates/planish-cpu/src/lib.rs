//! CPU kernels over slices, one instruction set at a time.
