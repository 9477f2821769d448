//! Reads deploy/container and deploy/kubernetes.

pub mod compose;
pub mod files;
pub mod image;
pub mod manifests;
pub mod settings;
