//! The console that each node serves, in a browser.

use crate::support::javascript::browser_tests;

#[tokio::test]
async fn the_console_shows_the_service_and_steers_it() {
    browser_tests("console").await;
}
