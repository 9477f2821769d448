//! What is deployed for Prometheus and Grafana: accepted by their own tools, in step with what Portcullis exports, and answered by a real
//! Prometheus that watches a flood.

mod binary;
#[path = "deploy_monitoring/mod.rs"]
mod monitoring;
mod support;
