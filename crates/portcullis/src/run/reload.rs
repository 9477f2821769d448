//! A new configuration while it runs: read, checked and built whole, then put in the place of the old one; or not at all.

use std::sync::{Arc, Mutex, PoisonError};

use exporter::Reloads;
use portcullis::{Control, PrefixList, PreparedRules, Rules};

use super::descriptors::Descriptors;
use super::limits::{check_lists, rules};
use super::logging::LevelControl;
use super::preflight::no_circle;
use super::serve::{Served, places};
use crate::cli::RunArgs;
use crate::config::diff::{Change, Reach};
use crate::config::{Config, ListenerConfig};
use crate::failure::Failure;
use crate::read_config;

/// What a reload reaches.
pub struct Reloader {
    args: RunArgs,
    current: Mutex<Config>,
    fronts: Vec<Reached>,
    descriptors: Descriptors,
    outcomes: Arc<Reloads>,
    level: Arc<LevelControl>,
}

/// How many connections a listener may have, and what serves them.
pub type Opened = (usize, Served);

/// What a reload reaches of one listener.
pub struct Reached {
    /// Of the configuration.
    pub name: String,
    pub control: Control,
    pub served: Arc<Served>,
}

impl Reached {
    /// Lets as many in as there are [places](opened) for it; its lists have been in force from the start.
    pub fn begin(name: &str, control: Control, (places, served): Opened) -> Reached {
        control.limit_connections(places);
        Reached { name: name.to_owned(), control, served: Arc::new(served) }
    }
}

impl Reloader {
    /// For what runs with `config`, which came of these flags; counts in `outcomes`.
    pub fn new(
        args: RunArgs,
        config: Config,
        fronts: Vec<Reached>,
        descriptors: Descriptors,
        outcomes: Arc<Reloads>,
        level: Arc<LevelControl>,
    ) -> Reloader {
        Reloader { args, current: Mutex::new(config), fronts, descriptors, outcomes, level }
    }

    /// The configuration in force.
    pub fn config(&self) -> Config {
        self.lock().clone()
    }

    /// Reads the configuration file and the lists again, and brings them into force for the connections that come from then on. What
    /// has changed, or why nothing has, goes into the log and to the caller.
    ///
    /// # Errors
    /// Every fault of the file or a list, or every change that takes a restart. The old configuration is still in force then.
    pub fn reload(&self) -> Result<Vec<Change>, String> {
        let one_line = |text: String| text.lines().collect::<Vec<_>>().join("; ");
        let done = self.replace().map_err(|failure| one_line(failure.to_string()));
        match &done {
            Ok(changes) => {
                self.outcomes.count_success();
                for Change { key, from, to, .. } in changes {
                    tracing::info!(key, %from, %to, "reload: changed");
                }
                tracing::info!(changes = changes.len(), "reloaded, lists included");
            }
            Err(why) => {
                self.outcomes.count_failure();
                tracing::error!("reload refused, the old configuration is still in force: {why}");
            }
        }
        done
    }

    /// Whether a process that is started now would understand its configuration.
    ///
    /// # Errors
    /// Every fault of the file or a list.
    pub fn check(&self) -> Result<(), String> {
        let Some(file) = &self.args.config else { return Ok(()) };
        let checked = read_config(file)
            .and_then(|config| config.with_flags(&self.args).map_err(|error| Failure::Usage(format!("error: {error}"))))
            .and_then(|config| check_lists(&config));
        checked.map_err(|failure| failure.to_string())
    }

    fn replace(&self) -> Result<Vec<Change>, Failure> {
        let Some(file) = &self.args.config else {
            return Err(Failure::Usage("there is no configuration file: it was started without --config".to_owned()));
        };
        let new = read_config(file)?.with_flags(&self.args);
        let new = new.map_err(|error| Failure::Usage(format!("error: {error}")))?;
        // Held to the end: of two reloads at once, one comes after the other.
        let mut current = self.lock();
        let mut changes = current.changes(&new);
        refuse_restarts(&changes)?;
        new.listeners.iter().try_for_each(|listener| no_circle(&new, listener))?;
        let built = self.fronts.iter().map(|front| self.build(&new, front)).collect::<Result<Vec<_>, _>>()?;
        for (front, (rules, _)) in self.fronts.iter().zip(&built) {
            changes.extend(changed_lists(front, rules.rules()));
        }
        // From here on nothing fails.
        for (front, (rules, served)) in self.fronts.iter().zip(built) {
            rules.apply();
            front.served.replace(served);
        }
        // A level that an operator has set by `ctl` stands, unless the file has another one than before. That there may be no log
        // left to change is no reason to keep the old configuration.
        if current.log.level != new.log.level {
            let _ = self.level.set(new.log.level);
        }
        *current = new;
        Ok(changes)
    }

    fn build(&self, config: &Config, front: &Reached) -> Result<(PreparedRules, Served), Failure> {
        let listener = config.listeners.iter().find(|listener| listener.name == front.name);
        let listener = listener.ok_or_else(|| Failure::Usage(format!("there is no listener \"{}\"", front.name)))?;
        built(config, listener, &self.descriptors, &front.control)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Config> {
        // Nothing under the lock leaves it half done.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files may be the same, and say something else.
fn changed_lists(front: &Reached, new: &Rules) -> Vec<Change> {
    let old = front.control.gate().rules();
    let prefixes = |list: &PrefixList| format!("{} prefixes", list.len());
    let changed = |key: &str, old: &PrefixList, new: &PrefixList| {
        let key = format!("listener \"{}\": limits.{key}", front.name);
        (old != new).then(|| Change { key, from: prefixes(old), to: prefixes(new), reach: Reach::Reload })
    };
    let lists = [
        changed("allow_files: what they say", &old.allow, &new.allow),
        changed("deny_files: what they say", &old.deny, &new.deny),
    ];
    lists.into_iter().flatten().collect()
}

/// How many places there are for one of the configuration's listeners, and what is done with whoever has one: for the start.
///
/// # Errors
/// Upstreams that cannot be, no descriptor for a single connection.
pub fn opened(config: &Config, listener: &ListenerConfig, descriptors: &Descriptors) -> Result<Opened, Failure> {
    Ok((places(listener, config.listeners.len(), descriptors)?, Served::new(listener)?))
}

/// Whom one of the configuration's listeners lets in, and what is done with them; nothing of it is in force yet.
///
/// # Errors
/// Lists that cannot be read, upstreams that cannot be, no descriptor for a single connection.
fn built(
    config: &Config,
    listener: &ListenerConfig,
    descriptors: &Descriptors,
    control: &Control,
) -> Result<(PreparedRules, Served), Failure> {
    let places = places(listener, config.listeners.len(), descriptors)?;
    let (rules, served) = (rules(listener, places)?, Served::new(listener)?);
    let unready = |error| Failure::runtime(format!("listener \"{}\": its lists", listener.name), error);
    Ok((control.prepare_rules(rules).map_err(unready)?, served))
}

/// Half a reload would be worse than none.
fn refuse_restarts(changes: &[Change]) -> Result<(), Failure> {
    let restarts = changes.iter().filter(|change| change.reach == Reach::Restart);
    let told: Vec<String> = restarts.map(|Change { key, from, to, .. }| format!("{key}: {from} -> {to}")).collect();
    if told.is_empty() {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "these changes take a restart (`portcullis ctl restart`), and nothing was changed: {}",
        told.join("; ")
    )))
}
