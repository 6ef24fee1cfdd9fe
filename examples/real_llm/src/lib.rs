//! A model whose answer comes piece by piece, under one span that ends with it.

pub mod answer;
pub mod error;
pub mod model;
pub mod protocol;
pub mod span;
