//! The listeners of a configuration: started anew, or in place of a predecessor's.

use std::collections::HashMap;

use portcullis::guard::expand_wildcards;
use portcullis::{Bookmark, BuildError, Builder, KeySchedule, ListenConfig, Listener, Successor};

use super::descriptors;
use super::limits::rules;
use crate::config::{Config, Datapath, ListenerConfig};
use crate::failure::Failure;
use crate::rights;
use crate::takeover::Predecessor;

/// A listener that guards its addresses, or is going to, where a predecessor still does.
pub enum Prepared {
    Started(Box<Listener>),
    Successor(Box<Successor>),
}

/// All that may fail. Addresses that no predecessor guards are guarded from here on; what gets through its handshake there waits in the
/// accept queue.
///
/// # Errors
/// The first listener that cannot be.
pub async fn prepare_all(
    config: &Config,
    masters: Option<&KeySchedule>,
    limit: u64,
    predecessor: Option<&mut Predecessor>,
) -> Result<Vec<Prepared>, Failure> {
    let mut predecessor = predecessor;
    let mut prepared = Vec::new();
    for listener in &config.listeners {
        let accept_queue = descriptors::accept_queue(listener.accept_queue, limit, config.listeners.len());
        // The lists are in force before the first SYN is judged. How many connections there may be is known later, and before the first
        // is accepted.
        let rules = rules(listener, usize::MAX)?;
        let builder = builder(config, listener, masters.cloned()).accept_queue(accept_queue).rules(rules);
        let left = predecessor
            .as_mut()
            .and_then(|predecessor| predecessor.estate(&listener.name, &expand_wildcards(&listener.bind)));
        let done = match left {
            Some(left) => builder.succeed(left).map(|successor| Prepared::Successor(Box::new(successor))),
            None => builder.build().await.map(|listener| Prepared::Started(Box::new(listener))),
        };
        prepared.push(done.map_err(|error| failure(listener, &error))?);
    }
    Ok(prepared)
}

/// From here on all addresses are guarded, by us. A predecessor stops meanwhile.
///
/// # Errors
/// When it dies over it, and when a successor cannot start: then nobody answers.
pub fn start_all(
    config: &Config,
    prepared: Vec<Prepared>,
    predecessor: Option<&mut Predecessor>,
) -> Result<Vec<Listener>, Failure> {
    let bookmarks = predecessor.map(Predecessor::stop).transpose();
    let mut bookmarks: HashMap<String, Vec<Bookmark>> = bookmarks
        .map_err(|error| Failure::runtime("the process that was to be taken over from has ended over it", error))?
        .unwrap_or_default();
    let start = |(of, prepared): (&ListenerConfig, Prepared)| match prepared {
        Prepared::Started(listener) => Ok(*listener),
        Prepared::Successor(successor) => {
            let bookmarks = bookmarks.remove(&of.name).unwrap_or_default();
            successor.start(&bookmarks).map_err(|error| failure(of, &error))
        }
    };
    config.listeners.iter().zip(prepared).map(start).collect()
}

fn failure(listener: &ListenerConfig, error: &BuildError) -> Failure {
    let message = format!("listener \"{}\": {error}", listener.name);
    match error {
        BuildError::Rights(_) => Failure::Rights(message),
        BuildError::Kernel { addr, source } => rights::low_port(*addr, source).unwrap_or(Failure::Runtime(message)),
        _ => Failure::Runtime(message),
    }
}

fn builder(config: &Config, listener: &ListenerConfig, master: Option<KeySchedule>) -> Builder {
    let mut builder = Listener::builder()
        .bind(&*listener.bind)
        .datapath(match config.datapath {
            Datapath::Auto => portcullis::Datapath::Auto,
            Datapath::Bpf => portcullis::Datapath::Bpf,
            Datapath::Raw => portcullis::Datapath::Raw,
            Datapath::Kernel => portcullis::Datapath::Kernel,
        })
        .bpf_hook(config.bpf_hook)
        .listen_config(listen_config(listener))
        .name(&listener.name)
        .fail_closed(listener.fail_closed);
    for name in &listener.interfaces {
        builder = builder.interface(name);
    }
    if let Some(dir) = &config.bpf_pins {
        builder = builder.bpf_pins(dir);
    }
    if let Some(workers) = config.workers {
        builder = builder.workers(workers);
    }
    if let Some(master) = master {
        builder = builder.master_key(master);
    }
    builder
}

fn listen_config(listener: &ListenerConfig) -> ListenConfig {
    ListenConfig {
        half_open_max: listener.half_open.max,
        high_watermark_percent: listener.half_open.high_percent,
        low_watermark_percent: listener.half_open.low_percent,
        prefix_share_percent: listener.half_open.prefix_share_percent,
        synack_retries: listener.half_open.synack_retries,
        replies_per_prefix: listener.replies_per_prefix,
        bad_cookies_per_prefix: listener.cookies.bad_per_prefix,
        accept_cookies: listener.cookies.accept,
        window_scale: listener.window_scale,
        ..ListenConfig::default()
    }
}
