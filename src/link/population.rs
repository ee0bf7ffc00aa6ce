//! How well links are chosen, for a population that is made up: devices that come, send mostly to their
//! favourites, and go; favourites that change, and receivers that move.
//!
//! Seen from one node with fewer links than there are nodes, three rules choose the links: *last used*, which
//! keeps what was used last; *traffic*, which is `plan` by what the node sent; and *prediction*, which is `plan` by
//! that and by what the devices sent that come.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::counts::Counts;
use super::plan::{Standing, plan};
use super::prediction::predict;
use crate::model::NodeId;

const NODES: usize = 64;
const LINKS: usize = 16;
const DEVICES: usize = 250;
const RECEIVERS: usize = 5000;
const SECONDS: u64 = 3 * 3600;
const SESSION: std::ops::Range<u64> = 120..900;
const PAUSE: std::ops::Range<u64> = 900..7200;
/// Of how many events one is sent by a device that is connected, each second.
const EVERY: u32 = 15;
/// How the events of a device divide among its favourites; the rest goes anywhere.
const SHARES: [f64; 3] = [0.6, 0.2, 0.1];
const IDLE: u64 = 60;

struct Device {
    favourites: [usize; 3],
    /// When it comes or goes next.
    turn: u64,
    connected: bool,
    sent_in_session: u32,
    send_history: Counts,
}

#[derive(Debug, Default)]
struct Score {
    events: u32,
    hits: u32,
    firsts: u32,
    first_hits: u32,
    opened: u32,
    unused: u32,
}

impl Score {
    fn hit_share(&self) -> f64 {
        f64::from(self.hits) / f64::from(self.events)
    }

    fn first_hit_share(&self) -> f64 {
        f64::from(self.first_hits) / f64::from(self.firsts)
    }

    fn opened_per_event(&self) -> f64 {
        f64::from(self.opened) / f64::from(self.events)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    LastUsed,
    Traffic,
    Prediction,
}

/// The links of the node: when each was used last, and whether it ever was.
struct Chooser {
    rule: Rule,
    open: HashMap<NodeId, (u64, bool)>,
    traffic: Counts,
    expected: Counts,
    score: Score,
}

impl Chooser {
    fn new(rule: Rule) -> Self {
        let counts = || Counts::new(Duration::from_secs(30), 1024);
        Chooser { rule, open: HashMap::new(), traffic: counts(), expected: counts(), score: Score::default() }
    }

    fn close(&mut self, node: &NodeId) {
        self.score.unused += u32::from(!self.open.remove(node).is_some_and(|(_, used)| used));
    }

    fn open(&mut self, node: NodeId, now: u64, used: bool) {
        self.open.insert(node, (now, used));
        self.score.opened += 1;
    }

    fn device_came(&mut self, send_history: &[(NodeId, f64)], now: u64) {
        if self.rule == Rule::Prediction {
            predict(send_history).for_each(|(node, amount)| self.expected.add(node, amount, now * 1000));
            self.round(now);
        }
    }

    fn sent(&mut self, node: &NodeId, first: bool, now: u64) {
        let hit = self.open.contains_key(node);
        self.score.events += 1;
        self.score.hits += u32::from(hit);
        self.score.firsts += u32::from(first);
        self.score.first_hits += u32::from(first && hit);
        self.traffic.add(node, 1.0, now * 1000);
        if let Some(link) = self.open.get_mut(node) {
            *link = (now, true);
        } else if self.rule == Rule::LastUsed {
            if self.open.len() >= LINKS {
                let oldest = self.open.iter().min_by(|(a, (x, _)), (b, (y, _))| (x, a.as_str()).cmp(&(y, b.as_str())));
                let oldest = oldest.map(|(node, _)| node.clone());
                oldest.iter().for_each(|node| self.close(node));
            }
            self.open(node.clone(), now, false);
        }
        self.round(now);
    }

    fn round(&mut self, now: u64) {
        let now_ms = now * 1000;
        if self.rule == Rule::LastUsed {
            let idle: Vec<_> =
                self.open.iter().filter(|(_, (used, _))| now - used >= IDLE).map(|(node, _)| node.clone()).collect();
            idle.iter().for_each(|node| self.close(node));
            return;
        }
        let worth = |node: &NodeId| self.traffic.of(node, now_ms) + self.expected.of(node, now_ms);
        let standing = |(node, (used, _)): (&NodeId, &(u64, bool))| Standing {
            node: node.clone(),
            worth: worth(node),
            idle: now - used >= IDLE,
        };
        let mut open: Vec<_> = self.open.iter().map(standing).collect();
        let known: HashSet<_> =
            self.traffic.all(now_ms).chain(self.expected.all(now_ms)).map(|(node, _)| node.clone()).collect();
        let mut candidates: Vec<_> = known.into_iter().map(|node| (node.clone(), worth(&node))).collect();
        // Maps have no order of their own, and the outcome must be the same each time.
        open.sort_by(|a, b| a.node.as_str().cmp(b.node.as_str()));
        candidates.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        let plan = plan(&open, &HashSet::new(), &candidates, LINKS);
        for node in plan.close {
            self.traffic.forget(&node);
            self.expected.forget(&node);
            self.close(&node);
        }
        plan.evict.iter().for_each(|node| self.close(node));
        plan.open.into_iter().for_each(|node| self.open(node, now, false));
    }
}

fn simulate(seed: u64) -> HashMap<&'static str, Score> {
    let mut random = StdRng::seed_from_u64(seed);
    let nodes: Vec<_> = (0..NODES).map(|number| NodeId::from(format!("n{number}"))).collect();
    let mut place: Vec<usize> = (0..RECEIVERS).map(|_| random.random_range(0..NODES)).collect();
    let mut devices: Vec<_> = (0..DEVICES)
        .map(|_| Device {
            favourites: std::array::from_fn(|_| random.random_range(0..RECEIVERS)),
            turn: random.random_range(0..PAUSE.end),
            connected: false,
            sent_in_session: 0,
            send_history: Counts::new(Duration::from_secs(6 * 3600), 16),
        })
        .collect();
    let mut choosers = [Rule::LastUsed, Rule::Traffic, Rule::Prediction].map(Chooser::new);
    for now in 0..SECONDS {
        // Every receiver moves to another node every two hours or so.
        if random.random_ratio(RECEIVERS as u32, 7200) {
            let receiver = random.random_range(0..RECEIVERS);
            place[receiver] = random.random_range(0..NODES);
        }
        // The first hour is for getting to know everybody.
        if now == 3600 {
            choosers.iter_mut().for_each(|chooser| chooser.score = Score::default());
        }
        for device in &mut devices {
            if device.turn == now {
                device.connected = !device.connected;
                device.turn = now + random.random_range(if device.connected { SESSION } else { PAUSE });
                if device.connected {
                    device.sent_in_session = 0;
                    // One in ten has found somebody new.
                    if random.random_ratio(1, 10) {
                        device.favourites.rotate_right(1);
                        device.favourites[0] = random.random_range(0..RECEIVERS);
                    }
                    let send_history: Vec<_> =
                        device.send_history.all(now * 1000).map(|(node, amount)| (node.clone(), amount)).collect();
                    choosers.iter_mut().for_each(|chooser| chooser.device_came(&send_history, now));
                }
            }
            if device.connected && random.random_ratio(1, EVERY) {
                let mut at = random.random::<f64>();
                let favourite = SHARES.iter().position(|share| {
                    at -= share;
                    at < 0.0
                });
                let receiver = favourite.map_or_else(|| random.random_range(0..RECEIVERS), |at| device.favourites[at]);
                let node = &nodes[place[receiver]];
                let first = device.sent_in_session == 0;
                device.sent_in_session += 1;
                device.send_history.add(node, 1.0, now * 1000);
                choosers.iter_mut().for_each(|chooser| chooser.sent(node, first, now));
            }
        }
    }
    choosers
        .into_iter()
        .map(|chooser| {
            let name = match chooser.rule {
                Rule::LastUsed => "last used",
                Rule::Traffic => "traffic",
                Rule::Prediction => "prediction",
            };
            (name, chooser.score)
        })
        .collect()
}

#[test]
fn habits_choose_better_links_than_keeping_what_was_used_last() {
    let scores = simulate(1);
    for (name, score) in &scores {
        println!(
            "{name}: {:.1}% over links, {:.1}% of first events, {:.3} links opened an event, {} unused of {}",
            100.0 * score.hit_share(),
            100.0 * score.first_hit_share(),
            score.opened_per_event(),
            score.unused,
            score.opened,
        );
    }
    let (last_used, prediction) = (&scores["last used"], &scores["prediction"]);
    assert!(prediction.hit_share() > last_used.hit_share(), "{scores:?}");
    assert!(prediction.first_hit_share() > last_used.first_hit_share(), "{scores:?}");
    assert!(prediction.opened_per_event() < last_used.opened_per_event(), "{scores:?}");
}
