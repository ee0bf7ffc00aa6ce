//! Regions: which one is the home of a stream, and how to get there.
//!
//! ```text
//!   hub, dispatch -> RegionalStore --(replica: which region?)--> that region's RedisStore
//!                        ^   |                                        |
//!         corrections ---+   +--- unknown here: asks --------> directory (Redis)
//! ```
//!
//! The *directory* in Redis maps each stream to its home region, with a version that grows with every move.
//! [`replica`] holds all of it in this process, compactly; [`feed`] loads it and follows its changes.
//! [`region`] is another region as this node sees it: its store, opened when it is first needed, and whether
//! the node is a member there. [`regions`] puts these together; `homes` finds the way to a stream and corrects
//! itself where the way turns out wrong. `migration` moves streams between regions; `conflicts` puts
//! together what two regions have of one stream; `ending` ends homes with their streams; `follow` moves devices to where they
//! keep connecting. [`store`] is the outside of that: a [`Store`](crate::store::Store) over all regions, so that
//! nobody else needs to know how many there are; `routes` says where each operation goes.

mod conflicts;
mod ending;
pub mod feed;
mod follow;
mod homes;
mod ingress;
mod migration;
mod region;
mod regions;
pub mod replica;
mod revocations;
mod routes;
mod rules;
mod store;

pub use follow::{FollowRule, FollowRuleError};
pub use migration::{End, Migration, Step};
pub use region::{Region, RegionReport};
pub use regions::{Regions, RegionsError, RegionsSettings, count_of, known_region_of, region_of};
pub use rules::RegionRules;
pub use store::RegionalStore;
