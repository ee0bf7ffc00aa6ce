//! ConnectionRef a run talks to, and how it asks: requests for listening and publishing in each dialect.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Trust;

/// How the load generator listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Server-Sent Events
    Sse,
    /// WebSocket
    #[value(name = "websocket")]
    WebSocket,
}

/// Which listeners follow which streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// All follow one topic
    Topic,
    /// Each has a device inbox of its own
    Devices,
}

/// What the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// Whimbrel's API
    Whimbrel,
    /// nchan with its publishers under /pub/NAME and subscribers under /sub/NAME
    Nchan,
    /// Socket.IO, rooms joined by the query `room`, events taken by POST /publish/ROOM
    SocketIo,
}

/// One server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Server {
    /// What its `Host` is.
    pub authority: String,
    /// Where it is.
    pub address: SocketAddr,
    /// What its certificate has to be for, where it speaks TLS.
    pub secure_name: Option<String>,
}

/// ConnectionRef a run talks to, and about which streams.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    /// Listeners and publishers are spread over all of them.
    pub servers: Vec<Server>,
    /// What they speak.
    pub dialect: Dialect,
    /// How to listen.
    pub transport: Transport,
    /// Which listeners follow which streams.
    pub pattern: Pattern,
    /// What the run's streams are named after: nobody else's.
    pub name: String,
    /// Header lines that go with every request, each with its line end.
    pub headers: String,
    /// Bytes of an event's data.
    pub event_bytes: usize,
    /// Which certificates the load generator trusts over TLS.
    pub trust: Trust,
}

impl Target {
    /// The server of listener or publisher `number`.
    pub fn server(&self, number: usize) -> &Server {
        &self.servers[number % self.servers.len()]
    }

    /// What listener `number` sends to be accepted, from where it was on.
    pub fn listen_request(&self, number: usize, after: Option<&str>) -> String {
        let name = self.stream(number as u64);
        let (path, last_id) = match self.dialect {
            Dialect::Whimbrel => {
                let path = if self.transport == Transport::Sse { "sse" } else { "ws" };
                let after = after.map(|id| format!("&after={id}")).unwrap_or_default();
                (format!("/v1/{path}?{}={name}{after}", self.kind()), None)
            }
            Dialect::Nchan => (format!("/sub/{name}"), after),
            Dialect::SocketIo => (format!("/socket.io/?EIO=4&transport=websocket&room={name}"), None),
        };
        let last_id = last_id.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let upgrade = match self.transport {
            Transport::Sse => "accept: text/event-stream\r\n",
            Transport::WebSocket => {
                "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            }
        };
        format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\n{upgrade}{last_id}{}\r\n",
            self.server(number).authority,
            self.headers
        )
    }

    /// The request that publishes one event to listener `number`'s stream.
    pub fn publish_request(&self, server: &Server, number: u64, due: u64) -> Vec<u8> {
        let name = self.stream(number);
        let path = match self.dialect {
            Dialect::Whimbrel => format!("/v1/{}s/{name}/events", self.kind()),
            Dialect::Nchan => format!("/pub/{name}"),
            Dialect::SocketIo => format!("/publish/{name}"),
        };
        self.post(server, &path, "application/json", &data(due, self.event_bytes))
    }

    /// The request that publishes one event to each of these listeners' streams, due now. Only Whimbrel
    /// takes several events at once.
    pub fn batch_request(&self, server: &Server, numbers: impl Iterator<Item = u64>, due: u64) -> Vec<u8> {
        let data = data(due, self.event_bytes);
        let kind = self.kind();
        let entries: String =
            numbers.map(|number| format!("{{\"{kind}\":\"{}\",\"data\":{data}}}\n", self.stream(number))).collect();
        self.post(server, "/v1/events", "application/x-ndjson", &entries)
    }

    fn post(&self, server: &Server, path: &str, kind: &str, body: &str) -> Vec<u8> {
        format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n{}\r\n{body}",
            server.authority,
            body.len(),
            self.headers
        )
        .into_bytes()
    }

    fn kind(&self) -> &'static str {
        if self.pattern == Pattern::Topic { "topic" } else { "device" }
    }

    fn stream(&self, number: u64) -> String {
        match self.pattern {
            Pattern::Topic => self.name.clone(),
            Pattern::Devices => format!("{}-{number}", self.name),
        }
    }
}

/// An event's data of about `size` bytes, due at `due` microseconds of the run's clock.
fn data(due: u64, size: usize) -> String {
    let head = format!("{{\"due\":{due},\"fill\":\"");
    let fill = size.saturating_sub(head.len() + 2);
    format!("{head}{}\"}}", "x".repeat(fill))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(dialect: Dialect, transport: Transport, pattern: Pattern) -> Target {
        let server = Server { authority: "here:80".into(), address: ([127, 0, 0, 1], 80).into(), secure_name: None };
        let headers = "authorization: Bearer t\r\n".to_owned();
        let (servers, name, trust) = (vec![server], "run".into(), Trust::default());
        Target { servers, dialect, transport, pattern, name, headers, event_bytes: 60, trust }
    }

    #[test]
    fn each_dialect_subscribes_in_its_own_way() {
        let whimbrel = target(Dialect::Whimbrel, Transport::Sse, Pattern::Devices);
        assert_eq!(
            whimbrel.listen_request(7, Some("5-1")),
            "GET /v1/sse?device=run-7&after=5-1 HTTP/1.1\r\nhost: here:80\r\naccept: text/event-stream\r\n\
             authorization: Bearer t\r\n\r\n"
        );
        let nchan = target(Dialect::Nchan, Transport::Sse, Pattern::Topic).listen_request(7, Some("5:1"));
        assert!(
            nchan.starts_with("GET /sub/run HTTP/1.1\r\n") && nchan.contains("\r\nlast-event-id: 5:1\r\n"),
            "{nchan}"
        );
        let socket_io = target(Dialect::SocketIo, Transport::WebSocket, Pattern::Devices);
        assert!(socket_io.listen_request(7, None).contains("transport=websocket&room=run-7 "));
        let request = String::from_utf8(socket_io.publish_request(socket_io.server(0), 7, 12)).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /publish/run-7 HTTP/1.1\r\nhost: here:80\r\n"), "{head}");
        assert_eq!(body.len(), 60);
        assert!(head.contains("content-length: 60\r\n") && body.starts_with("{\"due\":12,"), "{request}");
    }

    #[test]
    fn a_batch_is_a_line_an_event() {
        let target = target(Dialect::Whimbrel, Transport::Sse, Pattern::Devices);
        let request = String::from_utf8(target.batch_request(target.server(0), 3..5, 12)).unwrap();
        let lines: Vec<serde_json::Value> =
            request.split_once("\r\n\r\n").unwrap().1.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!([&lines[0]["device"], &lines[1]["device"]], ["run-3", "run-4"]);
        assert_eq!(lines[1]["data"]["due"], 12);
    }
}
