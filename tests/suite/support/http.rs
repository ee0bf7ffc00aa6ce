//! A bare HTTP/1.1 client: one socket, one request after another, answers read to the byte.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use super::in_time;

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The id in the answer to a publish.
    pub fn id(&self) -> String {
        assert!(matches!(self.status, 200 | 201), "not published: {} {}", self.status, self.text());
        self.json()["id"].as_str().unwrap().to_owned()
    }

    /// Checks that this is a problem as RFC 9457 has it, and returns its slug and its detail.
    #[track_caller]
    pub fn problem(&self, status: u16) -> (String, String) {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let body = self.json();
        assert_eq!(body["status"], status);
        assert!(body["title"].as_str().is_some_and(|title| !title.is_empty()), "{body}");
        let slug = body["type"].as_str().unwrap().strip_prefix("urn:whimbrel:problem:").unwrap();
        (slug.to_owned(), body["detail"].as_str().unwrap().to_owned())
    }
}

/// One socket to a node.
pub struct Http {
    address: SocketAddr,
    pub socket: BufReader<TcpStream>,
}

impl Http {
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = in_time("the connection", TcpStream::connect(address)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Http { address, socket: BufReader::new(socket) }
    }

    /// Connects with a small receive buffer, so that the node soon notices a client that stops reading.
    pub async fn connect_narrow(address: SocketAddr, receive_bytes: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(receive_bytes).unwrap();
        Http { address, socket: BufReader::new(in_time("the connection", socket.connect(address)).await.unwrap()) }
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends a request. `Host` and `Content-Length` are added unless given.
    pub async fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        let given = |wanted: &str| headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
        if !given("host") {
            head += &format!("Host: {}\r\n", self.address);
        }
        if !given("content-length") && (method == "POST" || !body.is_empty()) {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut bytes = (head + "\r\n").into_bytes();
        bytes.extend_from_slice(body);
        // A node that refuses by the head alone need not take the body.
        let _ = self.socket.write_all(&bytes).await;
    }

    /// Reads the head of an answer.
    pub async fn head(&mut self) -> Answer {
        in_time("the head of an answer", async {
            let status = self.head_line().await;
            let mut words = status.splitn(3, ' ');
            assert_eq!(words.next(), Some("HTTP/1.1"), "{status:?}");
            let status = words.next().unwrap().parse().unwrap();
            let mut headers = Vec::new();
            loop {
                let line = self.head_line().await;
                if line.is_empty() {
                    return Answer { status, headers, body: Vec::new() };
                }
                let (name, value) = line.split_once(':').unwrap();
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        })
        .await
    }

    async fn head_line(&mut self) -> String {
        let mut line = String::new();
        self.socket.read_line(&mut line).await.unwrap();
        line.strip_suffix("\r\n").unwrap_or_else(|| panic!("not a line of a head: {line:?}")).to_owned()
    }

    /// Reads an answer, its body too.
    pub async fn answer(&mut self, method: &str) -> Answer {
        let mut answer = self.head().await;
        let bodiless = method == "HEAD" || answer.status == 204 || answer.status == 304;
        if !bodiless {
            let length = answer.header("content-length").expect("an answer has a length").parse().unwrap();
            answer.body = vec![0; length];
            in_time("the body of an answer", self.socket.read_exact(&mut answer.body)).await.unwrap();
        }
        answer
    }

    /// A request and its answer.
    pub async fn call(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.request(method, path, headers, body).await;
        self.answer(method).await
    }

    /// Waits until the node closes, and returns what it still sent.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = in_time("the end of the connection", self.socket.read_to_end(&mut rest)).await;
        rest
    }
}
