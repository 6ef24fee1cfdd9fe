#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| w3c_trace_context_fuzz::tracestate(bytes));
