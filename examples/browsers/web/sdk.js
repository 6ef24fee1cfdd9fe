// The page with OpenTelemetry's SDK, which traces every fetch.

import { askWith } from "./page.js";
// ANCHOR: sdk
import { context, propagation, trace } from "@opentelemetry/api";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { registerInstrumentations } from "@opentelemetry/instrumentation";
import { FetchInstrumentation } from "@opentelemetry/instrumentation-fetch";
import {
  BatchSpanProcessor, StackContextManager, TracerProvider,
} from "@opentelemetry/sdk-trace";

const gateway = document.querySelector("meta[name=gateway]").content;
const exporter = new OTLPTraceExporter({ url: `${gateway}/v1/traces` });

context.setGlobalContextManager(new StackContextManager().enable());
propagation.setGlobalPropagator(new W3CTraceContextPropagator());
trace.setGlobalTracerProvider(new TracerProvider({
  spanProcessors: [new BatchSpanProcessor({ exporter, scheduledDelayMillis: 1000 })],
}));
registerInstrumentations({
  instrumentations: [new FetchInstrumentation({
    // A string must be the whole URL. Other origins get no traceparent.
    propagateTraceHeaderCorsUrls: [`${gateway}/api/query`],
    ignoreUrls: [`${gateway}/v1/traces`],
  })],
});
// ANCHOR_END: sdk

// The SDK has replaced `fetch`.
askWith(fetch);
