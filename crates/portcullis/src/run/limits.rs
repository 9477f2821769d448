//! The limits of a listener, as its gate wants them.

use portcullis::Rules;

use crate::config::{Config, Limits, ListenerConfig, lists};
use crate::failure::Failure;

/// Whether the lists of all listeners can be read.
///
/// # Errors
/// Everything that is wrong with any of them.
pub fn check_lists(config: &Config) -> Result<(), Failure> {
    let faults: Vec<String> = config.listeners.iter().filter_map(|listener| read(listener).err()).flatten().collect();
    if faults.is_empty() { Ok(()) } else { Err(Failure::Usage(faults.join("\n"))) }
}

/// With the lists as their files are now, and places for `connections_max` connections.
///
/// # Errors
/// Everything that is wrong with the listener's lists.
pub fn rules(config: &ListenerConfig, connections_max: usize) -> Result<Rules, Failure> {
    let rules = read(config).map_err(|faults| Failure::Usage(faults.join("\n")))?;
    Ok(Rules { connections_max, ..rules })
}

fn read(config: &ListenerConfig) -> Result<Rules, Vec<String>> {
    let Limits { new_per_second, per_prefix, allow_files, deny_files, at_limit, displace_idle } = &config.limits;
    let mut faults = Vec::new();
    let mut list = |key: &str, files| {
        lists::read(files).unwrap_or_else(|errors| {
            faults.extend(errors.iter().map(|error| format!("listener \"{}\": limits.{key}: {error}", config.name)));
            Default::default()
        })
    };
    let (allow, deny) = (list("allow_files", allow_files), list("deny_files", deny_files));
    let rules = Rules {
        per_second: *new_per_second,
        per_prefix_max: *per_prefix,
        allow,
        deny,
        at_limit: *at_limit,
        displace_idle_min: *displace_idle,
        ..Rules::default()
    };
    if let Err(error) = rules.sources() {
        faults.push(format!("listener \"{}\": limits.allow_files and limits.deny_files: {error}", config.name));
    }
    if faults.is_empty() { Ok(rules) } else { Err(faults) }
}
