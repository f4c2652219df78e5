//! Language models behind servers that speak the OpenAI chat protocol.

mod error;

pub use error::ModelError;
