//! Wire structs and error codes of the HTTP API.
