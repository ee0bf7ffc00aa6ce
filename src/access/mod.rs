//! Who may use the service, and how much of it.
//!
//! [`host`] and [`origins`] keep foreign web pages from using it through somebody's browser, and [`cors`] tells
//! browsers which pages may. [`rates`] says how often somebody may do something, [`proxies`]
//! who that is, and [`crowded`] when a device with too many connections may come back.

pub mod cors;
pub mod crowded;
pub mod host;
pub mod origins;
pub mod proxies;
pub mod rates;
