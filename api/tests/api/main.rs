//! The API in one process: a real kernel, a real audit log, a sleeping mesh, and no network except
//! where a test is about sockets.

mod access;
mod agents;
mod audit;
mod holes;
mod limits;
mod message;
mod network;
mod node;
mod redact;
mod served;
mod socket;
mod surface;
mod tlog;
