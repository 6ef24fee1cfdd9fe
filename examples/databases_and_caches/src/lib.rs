//! A service with a database and a cache. Statements and commands are spans in the
//! trace of their request.

pub mod cache;
pub mod codes;
pub mod commands;
pub mod database;
pub mod error;
pub mod order;
pub mod pool;
pub mod product;
pub mod query;
pub mod schema;
pub mod shop;
pub mod spans;
pub mod statements;
