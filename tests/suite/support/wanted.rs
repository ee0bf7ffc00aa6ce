//! What a client asks for, and how it connects.

use super::client::{Client, Cursor, Said, Transport, Wire};
use super::eventually;
use super::http::{Answer, Http};
use super::node::Node;
use super::sse::Blocks;
use super::token::bearer;
use super::websocket::Frames;

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    transport: Transport,
    streams: Vec<String>,
    parameters: Vec<(String, String)>,
    last_event_id: Option<String>,
    headers: Vec<(String, String)>,
    receive_bytes: Option<u32>,
}

impl Wanted {
    pub fn new(transport: Transport, streams: &[&str]) -> Self {
        let streams = streams.iter().map(ToString::to_string).collect();
        Wanted {
            transport,
            streams,
            parameters: Vec::new(),
            last_event_id: None,
            headers: Vec::new(),
            receive_bytes: None,
        }
    }

    /// Adds a parameter, such as `envelope=1`.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn after(self, position: &str) -> Self {
        self.with("after", position)
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Brings a token or key.
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &bearer(token))
    }

    /// As an EventSource does that comes back.
    pub fn last_event_id(mut self, cursor: &str) -> Self {
        self.last_event_id = Some(cursor.to_owned());
        self
    }

    /// Goes on where another client was, in the way of the transport.
    pub fn from(self, cursor: &Cursor) -> Self {
        match cursor {
            Cursor::Opaque(cursor) => self.last_event_id(cursor),
            Cursor::Ids(ids) => ids.iter().fold(self, |wanted, (stream, id)| wanted.after(&format!("{stream}/{id}"))),
        }
    }

    /// Buffers little, so that the node feels it when the client stops reading. Still more than a segment
    /// of the loopback interface, below which TCP itself crawls from one persist timer to the next.
    pub fn narrow(mut self) -> Self {
        self.receive_bytes = Some(96 * 1024);
        self
    }

    fn path(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for stream in &self.streams {
            let (kind, name) = stream.split_once(':').unwrap();
            query.append_pair(kind, name);
        }
        query.extend_pairs(&self.parameters);
        let path = match self.transport {
            Transport::Sse => "/v1/sse",
            Transport::WebSocket => "/v1/ws",
        };
        format!("{path}?{}", query.finish())
    }

    /// Connects, and expects to be welcome.
    pub async fn connect(&self, node: &Node) -> Client {
        self.ask(node).await.welcome().await
    }

    /// Connects, unless the device has as many connections as it may.
    pub async fn try_connect(&self, node: &Node) -> Option<Client> {
        let mut client = self.open(node).await.unwrap_or_else(|answer| panic!("refused: {answer:?}"));
        match client.greeting().await {
            None => Some(client),
            Some(Said::Close { reason, .. }) if reason == "limit" => None,
            Some(said) => panic!("not welcome: {said:?}"),
        }
    }

    /// Connects as soon as the node welcomes it: until then it may say that its store is away.
    pub async fn connect_in_time(&self, node: &Node) -> Client {
        eventually("a welcome", async || {
            let mut client = self.open(node).await.unwrap_or_else(|answer| panic!("refused: {answer:?}"));
            match client.greeting().await {
                None => Some(client),
                Some(Said::Close { reason, .. }) if reason == "unavailable" => None,
                Some(said) => panic!("not welcome: {said:?}"),
            }
        })
        .await
    }

    /// Connects where the node is expected to accept the request but to end the connection at once.
    pub async fn turned_away(&self, node: &Node) -> Said {
        self.let_go(node).await.0
    }

    /// The same, with what is left of the client.
    pub async fn let_go(&self, node: &Node) -> (Said, Client) {
        let mut client = self.open(node).await.unwrap_or_else(|answer| panic!("refused: {answer:?}"));
        (client.greeting().await.expect("the node lets this client in"), client)
    }

    /// Connects where the node is expected to refuse the request.
    pub async fn refused(&self, node: &Node) -> Answer {
        match self.open(node).await {
            Ok(_) => panic!("the node accepts {self:?}"),
            Err(answer) => answer,
        }
    }

    /// Sends the request, and reads nothing yet.
    pub async fn ask(&self, node: &Node) -> Asked {
        let mut http = match self.receive_bytes {
            None => Http::connect(node.address()).await,
            Some(bytes) => Http::connect_narrow(node.address(), bytes).await,
        };
        let cursor = self.last_event_id.as_deref().map(|cursor| ("Last-Event-ID", cursor));
        let given = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let headers: Vec<_> = cursor.into_iter().chain(given).collect();
        match self.transport {
            Transport::Sse => Blocks::ask(&mut http, &self.path(), &headers).await,
            Transport::WebSocket => Frames::ask(&mut http, &self.path(), &headers).await,
        }
        Asked { wanted: self.clone(), http }
    }

    /// A client on a socket on which the request was sent by other means.
    pub async fn taken_over(&self, http: Http) -> Client {
        Asked { wanted: self.clone(), http }.welcome().await
    }

    async fn open(&self, node: &Node) -> Result<Client, Answer> {
        self.ask(node).await.open().await
    }
}

/// A client that has sent its request.
pub struct Asked {
    wanted: Wanted,
    http: Http,
}

impl Asked {
    /// Expects to be welcome.
    pub async fn welcome(self) -> Client {
        let mut client = self.open().await.unwrap_or_else(|answer| panic!("refused: {answer:?}"));
        match client.greeting().await {
            None => client,
            Some(said) => panic!("not welcome: {said:?}"),
        }
    }

    async fn open(self) -> Result<Client, Answer> {
        let Asked { wanted, http } = self;
        let wire = match wanted.transport {
            Transport::Sse => Wire::Sse(Blocks::open(http).await?),
            Transport::WebSocket => Wire::WebSocket(Frames::open(http).await?),
        };
        let bare = wanted.streams.len() == 1 && !wanted.parameters.iter().any(|(name, _)| name == "envelope");
        Ok(Client::new(wire, bare.then(|| wanted.streams[0].clone())))
    }
}
