//! deploy/container/compose.yml.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::files::{at, text_at, yaml};

/// The file itself.
pub const COMPOSE: &str = "deploy/container/compose.yml";

/// What the product's image is called there.
pub const IMAGE: &str = "localhost/portcullis:";

/// The whole file.
pub fn compose() -> Value {
    yaml(COMPOSE)
}

/// Its services, by name.
pub fn services(compose: &Value) -> BTreeMap<&str, &Value> {
    at(compose, "/services").as_object().unwrap().iter().map(|(name, service)| (name.as_str(), service)).collect()
}

/// Those that run the product.
pub fn doors(compose: &Value) -> BTreeMap<&str, &Value> {
    let is_ours = |(_, service): &(&str, &Value)| text_at(service, "/image").starts_with(IMAGE);
    services(compose).into_iter().filter(is_ours).collect()
}

/// A time as compose writes it, in whole seconds: `35s`.
pub fn seconds(text: &str) -> Duration {
    let number = text.strip_suffix('s').and_then(|number| number.parse().ok());
    Duration::from_secs(number.unwrap_or_else(|| panic!("{text} is no number of seconds")))
}
