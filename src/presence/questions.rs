//! Questions of this node to others, and where the answers go: both are control messages, with JSON behind the word.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::store::Control;

/// A message about `word`.
pub(super) fn message(word: &str, content: &impl Serialize) -> Control {
    Control::new(word, serde_json::to_vec(content).expect("it holds only strings and numbers"))
}

/// What a message holds; a line of the log where that makes no sense.
pub(super) fn read<T: DeserializeOwned>(control: &Control) -> Option<T> {
    serde_json::from_slice(&control.rest)
        .inspect_err(|error| tracing::warn!(?control, %error, "a message on the node's channel makes no sense"))
        .ok()
}

/// Who waits for answers of type `T`, by request.
pub(super) struct Waiting<T>(Mutex<HashMap<Uuid, mpsc::Sender<T>>>);

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Waiting(Mutex::default())
    }
}

impl<T> Waiting<T> {
    /// A new request that takes so many answers; `None` where as many as `most` wait already.
    pub(super) fn begin(&self, answers: usize, most: usize) -> Option<Request<'_, T>> {
        let (sender, answers) = mpsc::channel(answers.max(1));
        let id = Uuid::new_v4();
        let mut waiting = self.0.lock();
        if waiting.len() >= most {
            return None;
        }
        waiting.insert(id, sender);
        Some(Request { waiting: self, id, answers })
    }

    /// An answer came in. It is dropped where nobody waits for it any more, or more came than nodes were asked.
    pub(super) fn answered(&self, request: Uuid, answer: T) {
        if let Some(asker) = self.0.lock().get(&request) {
            let _ = asker.try_send(answer);
        }
    }
}

/// A request that waits for answers until this is dropped.
pub(super) struct Request<'a, T> {
    waiting: &'a Waiting<T>,
    /// By which its answers are recognised.
    pub(super) id: Uuid,
    /// The answers.
    pub(super) answers: mpsc::Receiver<T>,
}

impl<T> Drop for Request<'_, T> {
    fn drop(&mut self) {
        self.waiting.0.lock().remove(&self.id);
    }
}
