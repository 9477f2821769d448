//! What is deployed for Prometheus and Grafana: accepted by their own tools, in step with what Portcullis exports, and answered by a real
//! Prometheus that watches a flood.

mod binary;
mod monitoring;
mod support;
