//! The kernel through its public face: real model servers on loopback, two kernels joined in memory,
//! a database on disk.

mod audit;
mod durability;
mod life;
mod mesh;
mod model;
mod support;
mod turns;
