//! Variables that Kubernetes sets in every pod for each service of the namespace. They are no settings.

use std::ffi::OsStr;

/// Whether `name`, without `WHIMBREL_` in front, stands for a service named `whimbrel` itself.
pub fn is_own(name: &str) -> bool {
    name == "PORT" || name.starts_with("PORT_") || name.starts_with("SERVICE_")
}

/// Whether it stands for a service whose name begins with `whimbrel-`, such as `REDIS_PORT_6379_TCP_ADDR`.
pub fn is_another(name: &str, value: &OsStr) -> bool {
    let is_address = || {
        let value = value.to_str().unwrap_or_default();
        ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.ends_with("_PORT") && is_address()
        || name.split_once("_PORT_").is_some_and(|(_, port)| is_port(port))
}

/// `6379_TCP`, and `6379_TCP_ADDR`, `…_PORT`, `…_PROTO`.
fn is_port(text: &str) -> bool {
    let parts: Vec<&str> = text.split('_').collect();
    let (port, protocol) = match parts.as_slice() {
        [port, protocol] | [port, protocol, "ADDR" | "PORT" | "PROTO"] => (port, protocol),
        _ => return false,
    };
    port.parse::<u16>().is_ok() && matches!(*protocol, "TCP" | "UDP" | "SCTP")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_sets_for_services_is_distinguished_from_misspelt_settings() {
        for (name, value) in [
            ("REDIS_SERVICE_HOST", "10.0.0.1"),
            ("REDIS_SERVICE_PORT", "6379"),
            ("REDIS_SERVICE_PORT_CLIENT_TLS", "6379"),
            ("REDIS_PORT", "tcp://10.0.0.1:6379"),
            ("REDIS_PORT_6379_TCP", "tcp://10.0.0.1:6379"),
            ("REDIS_PORT_6379_TCP_PROTO", "tcp"),
            ("REDIS_PORT_6379_TCP_PORT", "6379"),
            ("ADMIN_HEADLESS_PORT_53_UDP_ADDR", "10.0.0.1"),
        ] {
            assert!(is_another(name, OsStr::new(value)), "{name}");
        }
        for (name, value) in [
            ("LISTEN_PORT", "8080"),
            ("REDIS_PORT", "6379"),
            ("REDIS_HOST", "10.0.0.1"),
            ("PORT_RANGE", "1-5"),
            ("LINK_PORT_MAX", "9"),
            ("REDIS_PORT_HIGH_TCP", "1"),
        ] {
            assert!(!is_another(name, OsStr::new(value)), "{name}");
        }
    }
}
