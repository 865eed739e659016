//! Makes convolutional networks small and fast, and runs them.
