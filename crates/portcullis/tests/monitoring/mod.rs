//! Rules, dashboards and runbooks, each judged alone, and then all of them against what is running.

mod dashboards;
mod exposition;
mod files;
mod live;
mod prometheus;
mod promql;
mod rules;
mod runbooks;
