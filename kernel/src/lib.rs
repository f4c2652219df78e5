//! Agents, the turn, tools, model drivers and memory of one node.
