//! Makes convolutional networks small and fast, and runs them.

pub mod files;
pub mod images;
pub mod report;
