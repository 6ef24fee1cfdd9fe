// Sends one request, with the headers that OpenTelemetry's JavaScript SDK writes, to the URL that is its argument.

import { request } from 'node:http';
import { createRequire } from 'node:module';

// install.sh has put the packages under target/, where an import doesn't look for them.
const require = createRequire(new URL('../../target/sdks/', import.meta.url));
const { ROOT_CONTEXT, SpanKind, defaultTextMapSetter, trace } = require('@opentelemetry/api');
const { W3CTraceContextPropagator } = require('@opentelemetry/core');
const { BasicTracerProvider } = require('@opentelemetry/sdk-trace-base');

const tracer = new BasicTracerProvider().getTracer('call.mjs');
const span = tracer.startSpan('POST', { kind: SpanKind.CLIENT }, ROOT_CONTEXT);
const headers = {};
new W3CTraceContextPropagator().inject(trace.setSpan(ROOT_CONTEXT, span), headers, defaultTextMapSetter);
request(process.argv[2], { method: 'POST', headers }, answer => answer.resume()).end('{}');
