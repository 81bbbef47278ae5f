//! Requests in JSON, taken apart strictly: what is wrong is named by its field.
//!
//! [`json`] reads values; [`media`] and [`files`] read the pictures, sounds and files of every
//! API's messages, and [`remote`] those that a message has by their address.

pub mod cut_off;
pub mod files;
mod invalid;
pub mod json;
pub mod media;
mod remote;

pub use invalid::Invalid;
