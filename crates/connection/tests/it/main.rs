//! Adoption, connections, upstreams and the relay against a real kernel, in namespaces of the tests' own where that is needed.

mod accept_queue;
mod adoption;
mod close;
mod connection;
mod early_data;
mod handle;
mod kernel_listener;
mod proxy_protocol;
mod relay;
mod states;
mod support;
mod time_wait;
mod timeouts;
mod unix_relay;
mod upstream;
