// Sends one trace and its log records, which pino writes, with OpenTelemetry's JavaScript SDK. Prints the trace's id.
//
// The variables of the OpenTelemetry specification say where to and how: OTEL_EXPORTER_OTLP_ENDPOINT,
// OTEL_EXPORTER_OTLP_PROTOCOL (http/json, http/protobuf or grpc), OTEL_EXPORTER_OTLP_COMPRESSION (gzip). send.py sends
// the same trace, and an integer that no number of JavaScript can hold.

import { createRequire } from 'node:module';

// An import would look for the packages in the folders above this file; install.sh has put them under target/.
const require = createRequire(new URL('../../target/sdks/', import.meta.url));
const { ROOT_CONTEXT, SpanKind, SpanStatusCode, TraceFlags, context, trace } = require('@opentelemetry/api');
const { logs } = require('@opentelemetry/api-logs');
const { AsyncLocalStorageContextManager } = require('@opentelemetry/context-async-hooks');
const { PinoInstrumentation } = require('@opentelemetry/instrumentation-pino');
const { defaultResource, resourceFromAttributes } = require('@opentelemetry/resources');
const { BatchLogRecordProcessor, LoggerProvider } = require('@opentelemetry/sdk-logs');
const { BasicTracerProvider, BatchSpanProcessor } = require('@opentelemetry/sdk-trace-base');

// Of the variables, this one alone is not read by the exporters: each protocol is a package of its own.
const name = { 'http/json': 'http', 'http/protobuf': 'proto', grpc: 'grpc' }[process.env.OTEL_EXPORTER_OTLP_PROTOCOL];
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${name}`);
const { OTLPLogExporter } = require(`@opentelemetry/exporter-logs-otlp-${name}`);

const resource = defaultResource().merge(
  resourceFromAttributes({ 'service.name': 'nodejs-service', 'service.version': '1.2.3' }),
);
const loggerProvider = new LoggerProvider({
  resource,
  processors: [new BatchLogRecordProcessor({ exporter: new OTLPLogExporter() })],
});
logs.setGlobalLoggerProvider(loggerProvider);
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());

// It has to be there before pino is loaded. Pino's own lines go nowhere.
new PinoInstrumentation();
const logger = require('pino')({ name: 'orders' }, { write() {} });

const provider = new BasicTracerProvider({
  resource,
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())],
});
const tracer = provider.getTracer('send.mjs', '0.1.0');

// A span of another trace, which nobody exports: the example of the W3C's Trace Context.
const elsewhere = {
  traceId: '4bf92f3577b34da6a3ce929d0e0e4736',
  spanId: '00f067aa0ba902b7',
  isRemote: true,
  traceFlags: TraceFlags.SAMPLED,
};

const attributes = {
  'http.request.method': 'GET',
  'http.response.status_code': 500,
  'order.gift': true,
  'order.total': 19.5,
  'order.items': ['tea', 'cups'],
};

// The clock is read once. The SDK starts a span by one clock and ends it by another: where the first is set in between, a child
// starts after its parent's end.
const began = Date.now();
const at = milliseconds => began + milliseconds;
const server = tracer.startSpan('GET /orders/{id}', { kind: SpanKind.SERVER, attributes, startTime: at(0) }, ROOT_CONTEXT);
const inServer = trace.setSpan(ROOT_CONTEXT, server);

const charge = tracer.startSpan('charge card', { startTime: at(1) }, inServer);
charge.addEvent('retry', { attempt: 2 }, at(2));
charge.recordException(new RangeError('card expired'), at(2));
charge.setStatus({ code: SpanStatusCode.ERROR, message: 'the card was declined' });
context.with(trace.setSpan(inServer, charge), () => {
  logger.error({ err: new RangeError('card expired') }, 'order %d was not charged', 7);
});
charge.end(at(3));

const links = [{ context: elsewhere, attributes: { reason: 'first attempt' } }];
tracer.startSpan('publish order', { kind: SpanKind.PRODUCER, links, startTime: at(4) }, inServer).end(at(5));
server.end(at(6));

logger.warn('logged outside of a span');

await loggerProvider.shutdown();
await provider.shutdown(); // sends what is still in the batch
console.log(server.spanContext().traceId);
