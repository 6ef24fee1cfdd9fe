//! Every guide shows what its example does: each module here runs the example of one page, asserts the traces, and
//! compares them with the figures of the page.

mod action;
pub mod brokers;
mod collector;
pub mod component;
mod databases;
pub mod example;
mod form;
mod kafka;
mod phoenix;
mod tls;

mod add_tracing;
mod agents_and_tools;
mod assert_traces_in_ci;
mod browsers;
mod compose_and_kubernetes;
mod databases_and_caches;
mod diagnose;
mod grpc;
mod logs_and_metrics;
mod message_queues;
mod more_than_one_machine;
mod other_backends;
mod own_telemetry;
pub mod polyglot;
mod production;
mod proxy;
mod real_llm;
mod roll_out;
mod sampling;
pub mod service_mesh;
mod slow_requests;
mod streams_jobs_processes;
mod symptoms;
mod tasks_and_threads;
mod test_propagation;
mod timeouts_and_retries;
mod trust_boundaries;
mod with_tracing;
