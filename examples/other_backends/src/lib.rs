//! What changes in the services for another backend, where variables alone do not do.

pub mod honeyhive;
pub mod telemetry;
