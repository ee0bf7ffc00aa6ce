//! The snippets of pages in `docs/`, run as they are printed.

use std::path::Path;

use crate::support::javascript::javascript;
use crate::support::node::Node;

async fn works_as_printed(page: &str) {
    let node = Node::start(&[]);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    javascript("snippets.mjs", &[page.to_str().unwrap(), &node.url()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_docs_browser_shows_works_as_printed() {
    works_as_printed("browser.md").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_docs_websocket_shows_works_as_printed() {
    works_as_printed("websocket.md").await;
}
