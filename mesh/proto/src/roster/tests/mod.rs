//! Tests of the roster: a few states on a bus, without a network in between.

mod attacks;
mod bus;
mod dialing;
mod evidence;
mod frames;
mod ghosts;
mod heads;
mod liveness;
mod merge;
mod own;
mod proven;
mod records;
mod sync;

pub(super) use bus::{Bus, ad, addr, keys, record, sign, told};
