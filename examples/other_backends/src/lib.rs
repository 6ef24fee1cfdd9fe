//! What changes in the services for another backend, where variables do not do.

pub mod honeyhive;
pub mod telemetry;
