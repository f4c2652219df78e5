//! The libp2p driver of the OFP state machines.
