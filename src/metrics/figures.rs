//! How figures are declared: kinds, labels, and the macro that makes a group of them.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric, counter, gauge};
use prometheus_client::registry::Registry;

/// What only grows. `/metrics` shows it with `_total` after its name.
pub type Counter = counter::Counter<u64, AtomicU64>;
/// What is so now.
pub type Gauge = gauge::Gauge<i64, AtomicI64>;
/// What is so now, in fractions.
pub type FloatGauge = gauge::Gauge<f64, AtomicU64>;

/// How long something took, in buckets from 0.1 ms to 26 s, each four times the one before.
#[derive(Debug, Clone)]
pub struct Seconds(Histogram);

impl Default for Seconds {
    fn default() -> Self {
        Seconds(Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(0.0001, 4.0, 10)))
    }
}

impl Seconds {
    /// It took this long once.
    pub fn observe(&self, seconds: f64) {
        self.0.observe(seconds);
    }
}

impl TypedMetric for Seconds {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Seconds {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// A figure as the registry takes it, and as `docs/metrics.md` lists it.
pub trait Figure: EncodeMetric + TypedMetric + Clone + Default + Send + Sync + std::fmt::Debug + 'static {
    /// The label that its values are told apart by.
    const LABEL: Option<&'static str> = None;
}

impl Figure for Counter {}
impl Figure for Gauge {}
impl Figure for FloatGauge {}
impl Figure for Seconds {}

/// A label of figures. Its values are known beforehand: never a device, topic, event type or node.
pub trait Label: EncodeLabelSet + Clone + std::hash::Hash + Eq + Send + Sync + std::fmt::Debug + 'static {
    const NAME: &'static str;
}

impl<L: Label, F: Figure> Figure for Family<L, F> {
    const LABEL: Option<&'static str> = Some(L::NAME);
}

macro_rules! labels {
    ($($label:ident { $name:ident })*) => {$(
        #[doc = concat!("The label `", stringify!($name), "`.")]
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $label {
            /// Its value.
            pub $name: &'static str,
        }

        impl Label for $label {
            const NAME: &'static str = stringify!($name);
        }
    )*};
}

labels! {
    ByOutcome { outcome }
    ByPath { path }
    ByProblem { problem }
    ByReason { reason }
    ByRole { role }
    ByTask { task }
    ByTransport { transport }
    ByWork { work }
}

/// A figure that is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// As `/metrics` shows it, without the suffixes of a histogram's series.
    pub name: String,
    pub kind: String,
    pub label: Option<&'static str>,
    pub help: &'static str,
}

/// Takes figures in: Prometheus reads them from the registry, people from the list.
#[derive(Debug)]
pub struct Catalogue {
    pub(super) registry: Registry,
    pub(super) listed: Vec<Listed>,
    group: &'static str,
}

impl Catalogue {
    pub(super) fn new() -> Self {
        Catalogue { registry: Registry::default(), listed: Vec::new(), group: "" }
    }

    /// The names of figures that are added from here on begin so.
    pub(super) fn group(&mut self, group: &'static str) -> &mut Self {
        self.group = group;
        self
    }

    pub(super) fn add<F: Figure>(&mut self, name: &str, help: &'static str, figure: &F) {
        let name = format!("{}{name}", self.group);
        let suffix = if matches!(F::TYPE, MetricType::Counter) { "_total" } else { "" };
        let help = help.trim().trim_end_matches('.');
        // The registry appends the full stop and a counter's suffix by itself.
        self.registry.register(&name, help, figure.clone());
        self.list(&name, suffix, F::TYPE.as_str(), F::LABEL, help);
    }

    /// Lists a figure that is registered by itself.
    pub(super) fn list(
        &mut self,
        name: &str,
        suffix: &str,
        kind: &str,
        label: Option<&'static str>,
        help: &'static str,
    ) {
        self.listed.push(Listed { name: format!("{name}{suffix}"), kind: kind.to_owned(), label, help });
    }
}

/// Declares a group of figures. Each is registered under its field's name, and the field's documentation is its help.
macro_rules! figures {
    ($(#[$meta:meta])* pub struct $group:ident { $(#[doc = $help:literal] $figure:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub struct $group {
            $(#[doc = $help] pub $figure: $kind,)*
        }

        impl $group {
            /// All figures at nought, where Prometheus reads them.
            pub(super) fn register(catalogue: &mut $crate::metrics::figures::Catalogue) -> Self {
                let group = Self::default();
                $(catalogue.add(stringify!($figure), $help, &group.$figure);)*
                group
            }
        }
    };
}
pub(super) use figures;
