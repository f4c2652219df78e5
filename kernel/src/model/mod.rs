//! Language models behind servers that speak the OpenAI chat protocol.
//!
//! [`route::find`] settles which server is asked with which key; [`Client::ask`] asks it and gives
//! the answer piece by piece. A request is repeated only while nothing of an answer has been given
//! out. Neither keys nor prompts are logged, or kept in errors.

mod assembly;
mod client;
mod error;
mod failure;
pub(crate) mod route;
mod sse;
mod wire;

pub(crate) use client::{Client, Step};
pub use error::ModelError;
use failure::{Failure, clean};
pub(crate) use route::Route;

use crate::tool::Tool;
use crate::turn::Message;

/// What a model is asked.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// What it is told before anything else; may be empty.
    pub(crate) system_prompt: &'a str,
    /// The conversation.
    pub(crate) messages: &'a [Message],
    /// The tools it may call.
    pub(crate) tools: &'a [Tool],
}
