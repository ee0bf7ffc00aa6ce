//! The recipes in `examples/`, each run as its README prints it, with its page in a browser.

use crate::support::javascript::browser_tests;

#[tokio::test]
async fn each_recipe_does_what_its_readme_says() {
    browser_tests("examples").await;
}
