//! Seeded symptoms of broken tracing. Each module but the last two has a `broken`
//! way, and a `repaired` one that differs in what the module is about.

pub mod async_client;
pub mod baggage_not_copied;
pub mod exporter_traces_itself;
pub mod filtered_server;
pub mod grpc_shutdown;
pub mod guard_across_await;
pub mod high_cardinality;
pub mod layer_behind_reload;
pub mod line_without_ids;
pub mod log_filter;
pub mod missing_tls;
pub mod no_flush;
pub mod no_propagator;
pub mod number_as_text;
pub mod secret_recorded;
pub mod set_parent_too_late;
pub mod status_not_set;
pub mod wrong_parent;
pub mod wrong_path;

pub mod setup;
pub mod stock;
