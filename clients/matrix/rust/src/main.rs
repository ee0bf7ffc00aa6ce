//! Clients in Rust, as somebody would use them.
//!
//! ```text
//! matrix NAME URL TOPIC      prints {"id","data"} of each event, a line each, from the earliest on
//! ```

use std::time::Duration;

use eventsource_client::{Client as _, ClientBuilder, SSE};
use futures_util::StreamExt as _;
use launchdarkly_sdk_transport::HyperTransport;
use reqwest_eventsource::{Event, EventSource};
use serde_json::Value;
use tokio_tungstenite::connect_async;

const PAUSE: Duration = Duration::from_millis(500);

fn emit(id: &str, data: &str) {
    println!("{}", serde_json::json!({ "id": id, "data": data }));
}

/// It comes back by itself after an end, and gives up at an answer that is no event stream.
async fn reqwest_eventsource(address: &str) {
    let mut last = String::new();
    loop {
        let request = reqwest::Client::new().get(address).header("Last-Event-ID", &last);
        let mut source = EventSource::new(request).expect("the request can be cloned");
        while let Some(event) = source.next().await {
            if let Ok(Event::Message(message)) = event {
                last = message.id;
                if message.event == "message" {
                    emit(&last, &message.data);
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn eventsource_client(address: &str) {
    let transport = HyperTransport::builder().build_http().expect("there is a transport");
    let client = ClientBuilder::for_url(address).expect("the address is one").build_with_transport(transport);
    let mut last = String::new();
    let mut events = client.stream();
    while let Some(event) = events.next().await {
        if let Ok(SSE::Event(event)) = event {
            last = event.id.unwrap_or(last);
            if event.event_type == "message" {
                emit(&last, &event.data);
            }
        }
    }
}

async fn tokio_tungstenite(url: &str, topic: &str) {
    let mut after = "earliest".to_owned();
    loop {
        let address = format!("{}/v1/ws?topic={topic}&after={after}", url.replacen("http", "ws", 1));
        if let Ok((mut socket, _)) = connect_async(address).await {
            while let Some(Ok(message)) = socket.next().await {
                let Ok(text) = message.to_text() else { continue };
                let Ok(frame) = serde_json::from_str::<Value>(text) else { continue };
                if frame["op"] == "event" {
                    after = frame["id"].as_str().unwrap_or_default().to_owned();
                    emit(&after, &frame["data"].to_string());
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, url, topic] = &arguments[..] else { panic!("matrix NAME URL TOPIC") };
    let address = format!("{url}/v1/sse?topic={topic}&after=earliest");
    match name.as_str() {
        "reqwest-eventsource" => reqwest_eventsource(&address).await,
        "eventsource-client" => eventsource_client(&address).await,
        "tokio-tungstenite" => tokio_tungstenite(url, topic).await,
        other => panic!("there is no client {other}"),
    }
}
