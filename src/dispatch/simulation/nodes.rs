//! What is done for nodes in the simulated world, where tasks do it for a real one: carry questions to the store and
//! answers back, and let time pass.

use std::sync::Arc;
use std::time::Duration;

use super::super::dispatcher::{Detach, Dispatcher, FollowUp};
use super::super::flush::Flush;
use super::super::merge::Question;
use super::super::repairs::{Asking, Next};
use super::actions::Fate;
use super::node::{Node, SYNC_INTERVAL, UnderWay};
use super::world::{CLIENTS, World};
use crate::model::Page;
use crate::store::StoreError;

impl World {
    pub(super) fn deliver(&mut self, node: usize, which: usize, again: bool) {
        let (this, time) = (&mut self.nodes[node], self.time);
        if this.channel.is_empty() {
            return;
        }
        let which = which % this.channel.len();
        let event = if again { this.channel[which].clone() } else { this.channel.remove(which) };
        match this.dispatcher.clone() {
            Some(dispatcher) => {
                let step = dispatcher.message(event, time, &mut Flush::default());
                self.carry_out(node, &dispatcher, step);
            }
            // A stray route.
            None => self.log.detach(&self.nodes[node].id.clone(), None),
        }
    }

    /// What a node does when its channel was interrupted.
    pub(super) fn mark(&mut self, node: usize) {
        self.nodes[node].repairs.mark_all(self.time);
    }

    pub(super) fn carry_out(&mut self, node: usize, dispatcher: &Arc<Dispatcher>, follow_up: FollowUp) {
        self.nodes[node].repairs.see_to(dispatcher, follow_up.need, self.time);
        for (subscriber, chain) in follow_up.overflowed {
            self.catch_up(subscriber.sink.number(), dispatcher.clone(), chain);
        }
    }

    /// One of the questions that are under way goes a step further, or the node goes on.
    pub(super) fn work(&mut self, node: usize, which: usize, fate: Fate) {
        let under_way = &mut self.nodes[node].under_way;
        let which = which % (under_way.len() + 1);
        match under_way.remove(which) {
            None => {
                self.go_on(node, SYNC_INTERVAL * 2);
            }
            Some(UnderWay { asking, answer: None }) => {
                let answer = Some(self.ask_store(node, &asking, fate));
                self.nodes[node].under_way.push_back(UnderWay { asking, answer });
            }
            Some(UnderWay { asking, answer: Some(answer) }) => self.answered(node, &asking, &answer),
        }
    }

    /// Does all that is under way, and what is due within a minute. True if there was something.
    pub(super) fn work_off(&mut self, node: usize) -> bool {
        let mut busy = self.go_on(node, Duration::from_secs(60));
        while !self.nodes[node].under_way.is_empty() {
            busy = true;
            self.work(node, 0, Fate::Done);
        }
        busy
    }

    /// The node asks what is due, or sleeps until something is, if that is not for longer than this.
    fn go_on(&mut self, node: usize, longest: Duration) -> bool {
        match self.nodes[node].repairs.next(self.time) {
            Next::Ask(asking) => {
                let asking = asking.into_iter().map(|asking| UnderWay { asking, answer: None });
                self.nodes[node].under_way.extend(asking);
                true
            }
            Next::Sleep(Some(until)) if until <= self.time + longest => {
                self.time = self.time.max(until);
                true
            }
            Next::Sleep(_) => false,
        }
    }

    fn ask_store(&mut self, node: usize, asking: &Asking, fate: Fate) -> Result<Page, StoreError> {
        let dispatcher = &asking.dispatcher;
        match &asking.question {
            Question::Attach => self.ask(fate, |world| world.sync_in_store(node, dispatcher, None)),
            Question::Sync { head } => self.ask(fate, |world| world.sync_in_store(node, dispatcher, Some(*head))),
            Question::Recover { head, epoch, seen } => {
                let number = dispatcher.registration();
                self.ask(fate, |world| world.recover_in_store(number, *head, *epoch, seen))
            }
        }
    }

    fn answered(&mut self, node: usize, asking: &Asking, answer: &Result<Page, StoreError>) {
        let time = self.time;
        let step = self.nodes[node].repairs.answered(asking, answer.as_ref(), time, &mut Flush::default());
        self.carry_out(node, &asking.dispatcher, step);
        if asking.question == Question::Attach && answer.is_err() {
            self.nodes[node].dispatcher = None;
            self.close_all(node);
        }
    }

    pub(super) fn detach(&mut self, node: usize) {
        let Some(dispatcher) = self.nodes[node].dispatcher.clone() else { return };
        if let Some(Detach::Now) = dispatcher.start_detach(Duration::ZERO) {
            self.log.detach(&self.nodes[node].id.clone(), Some(dispatcher.registration()));
            dispatcher.detached();
            self.nodes[node].dispatcher = None;
        }
    }

    pub(super) fn kill(&mut self, node: usize) {
        self.close_all(node);
        self.numbers += 1;
        self.nodes[node] = Node::new(node, self.numbers, self.settings.ring, self.time);
    }

    /// The node's dispatcher, attaching if there was none.
    pub(super) fn dispatcher(&mut self, node: usize) -> Arc<Dispatcher> {
        self.numbers += 1;
        let (number, time) = (self.numbers, self.time);
        let (stream, metrics) = (self.stream.clone(), self.metrics.clone());
        let Node { dispatcher, repairs, memory, .. } = &mut self.nodes[node];
        let dispatcher = dispatcher.get_or_insert_with(|| {
            let dispatcher = Arc::new(Dispatcher::attaching(stream, number, memory.clone(), metrics));
            repairs.attach(&dispatcher, time);
            dispatcher
        });
        dispatcher.clone()
    }

    fn close_all(&mut self, node: usize) {
        for client in 0..CLIENTS {
            if self.clients[client].1.as_ref().is_some_and(|connection| connection.node == node) {
                self.disconnect(client);
            }
        }
    }
}
