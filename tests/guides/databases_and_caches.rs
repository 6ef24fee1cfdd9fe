//! Statements, waits for a connection and commands for a cache are spans in the trace of their request, and hold no values.

use std::pin::pin;

use course::services::Service;
use lab::diagnose::diagnose;
use lab::receiver;
use lab::span::{Span, SpanKind};
use lab::store::{Limits, Store};
use lab::tree::Tree;
use reqwest::RequestBuilder;
use serde_json::json;
use sqlx::Connection as _;

use super::databases::{Database, Redis};
use super::example::{binaries, in_order, sent, shapes};
use support::recording::{check_named, figures, recorded};
use support::{Log, arrived, client, has, has_attributes, lacks, plan, serve, span, within_reason};

/// A part of each value that the tests send.
const VALUE: &str = "48151";

const ORDER: &str = "\
POST /orders SERVER order-service http 201
  acquire connection INTERNAL order-service
  place order INTERNAL order-service
    BEGIN CLIENT order-service
    UPDATE products CLIENT order-service
    INSERT orders CLIENT order-service
    COMMIT CLIENT order-service
";

/// A running shop, with what it has logged and exported.
struct Shop {
    service: Service,
    store: Store,
    log: Log,
}

/// A shop that has stopped: its spans and its log.
struct Closed {
    store: Store,
    log: Log,
}

impl Shop {
    async fn open(database: &Database, settings: &[(&str, &str)]) -> Shop {
        let (store, log) = (Store::new(Limits::default()), Log::default());
        let backend = serve(receiver::routes(store.clone())).await;
        let plan = plan(&binaries().await, "order-service", backend)
            .with("DATABASE_URL", &database.url)
            .with("POOL_TIMEOUT_MS", 60_000)
            .with("RUST_LOG", "info,databases_and_caches=debug");
        let plan = settings.iter().fold(plan, |plan, (key, value)| plan.with(key, value));
        let service = Service::start(plan, log.sink()).await.expect("the shop starts");
        Shop { service, store, log }
    }

    /// An order whose id and address contain [`VALUE`].
    fn order(&self, id: &str, product: i64) -> RequestBuilder {
        let email = format!("ada-{VALUE}@example.com");
        let order = json!({ "id": format!("{id}-{VALUE}"), "product": product, "email": email });
        client().post(format!("http://{}/orders", self.service.address)).json(&order)
    }

    fn product(&self, id: &str) -> RequestBuilder {
        client().get(format!("http://{}/products/{id}", self.service.address))
    }

    /// Stops the shop, which sends its spans. Fails if one of them, or a line of the log, contains a value.
    async fn close(self) -> Closed {
        self.service.stop().await;
        let closed = Closed { store: self.store, log: self.log };
        for text in closed.trees().iter().map(sent).chain([closed.log.lines().join("\n")]) {
            lacks(&text, [VALUE, "ada-", "Key ("]);
        }
        closed
    }
}

impl Closed {
    fn trees(&self) -> Vec<Tree> {
        in_order(self.store.trees())
    }

    fn shapes(&self) -> String {
        shapes(&self.trees())
    }

    fn compare(&self, figure: &str, expected: &str) -> Vec<Tree> {
        let trees = self.trees();
        assert_eq!(shapes(&trees), expected);
        check_named(figure, &figures(&trees));
        assert_eq!(diagnose(&trees, &[]), []);
        trees
    }
}

/// Sends a request and returns the status and the body of its answer.
async fn answer(request: RequestBuilder) -> (u16, String) {
    let response = within_reason(request.send()).await.expect("an answer");
    (response.status().as_u16(), response.text().await.expect("a body"))
}

/// A span of a statement: its attributes, and that its text has parameters where it has values.
fn is_statement(span: &Span, database: &Database, text: &str) {
    assert_eq!(span.attribute("db.query.text").as_deref(), Some(text));
    assert_eq!(span.attribute("db.query.summary").as_deref(), Some(span.name()));
    let place = match database.system {
        "sqlite" => "db.namespace=shop.db server.address=(none) server.port=(none)".to_owned(),
        _ => {
            let port = database.url.rsplit_once(':').expect("a port").1;
            let port = port.trim_end_matches("/shop");
            format!("db.namespace=shop server.address=127.0.0.1 server.port={port}")
        }
    };
    has_attributes(span, &format!("db.system.name={} {place}", database.system));
}

/// The rules that hold for both databases. Each is started once, so its rules run one after the other.
async fn keeps_the_rules(database: Database) {
    a_transaction_is_a_span_in_the_trace_of_its_caller(&database).await;
    a_duplicate_key_is_a_code_without_a_value(&database).await;
    a_transaction_that_changes_nothing_is_rolled_back(&database).await;
    a_pool_that_is_empty_shows_as_a_wait(&database).await;
    a_wait_that_is_too_long_is_an_error_of_the_pool(&database).await;
    sqlx_logs_statements_without_values(&database).await;
    database.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_the_rules() {
    keeps_the_rules(Database::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_keeps_the_rules() {
    if let Some(database) = Database::postgresql().await {
        keeps_the_rules(database).await;
    }
}

async fn a_transaction_is_a_span_in_the_trace_of_its_caller(database: &Database) {
    let shop = Shop::open(database, &[]).await;
    let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = shop.order("first", 1).header("traceparent", caller);
    assert_eq!(answer(request).await.0, 201);
    let closed = shop.close().await;
    assert_eq!(closed.shapes(), ORDER);
    let tree = &closed.trees()[0];
    assert_eq!(tree.rows[0].span.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    for (name, text) in [
        ("BEGIN", "BEGIN"),
        ("UPDATE products", "UPDATE products SET stock = stock - 1 WHERE id = $1 AND stock > 0"),
        ("INSERT orders", "INSERT INTO orders (id, product, email) VALUES ($1, $2, $3)"),
        ("COMMIT", "COMMIT"),
    ] {
        is_statement(span(tree, name, SpanKind::Client), database, text);
    }
}

async fn a_duplicate_key_is_a_code_without_a_value(database: &Database) {
    let shop = Shop::open(database, &[]).await;
    assert_eq!(
        answer(shop.order("first", 1)).await,
        (409, r#"{"error":"The order exists"}"#.into())
    );
    let closed = shop.close().await;
    let code = if database.system == "sqlite" { "1555" } else { "23505" };
    let expected = format!(
        "POST /orders SERVER order-service http 409
  acquire connection INTERNAL order-service
  place order INTERNAL order-service error database
    BEGIN CLIENT order-service
    UPDATE products CLIENT order-service
    INSERT orders CLIENT order-service error {code}
    ROLLBACK CLIENT order-service
"
    );
    assert_eq!(closed.shapes(), expected);
    let trees = closed.trees();
    let failed = span(&trees[0], "INSERT orders", SpanKind::Client);
    has_attributes(failed, &format!("db.response.status_code={code}"));
    assert_eq!(failed.proto().status.as_ref().expect("a status").message, "");

    // The error that the span leaves out: PostgreSQL's detail, which `Debug` prints, holds the key.
    let mut connection = database.connect().await;
    let insert = sqlx::query("INSERT INTO orders (id, product, email) VALUES ($1, 1, '')");
    let error = insert.bind(format!("first-{VALUE}")).execute(&mut connection).await;
    let error = error.expect_err("the order exists");
    assert_eq!(format!("{error:?}").contains(VALUE), database.system == "postgresql");
    assert!(!error.to_string().contains(VALUE), "{error}");
    // Some messages hold a value themselves.
    if database.system == "postgresql" {
        let cast = sqlx::query("SELECT ($1::text)::int").bind(VALUE.to_owned() + "x");
        let error = cast.execute(&mut connection).await.expect_err("it isn't a number");
        assert!(error.to_string().contains(VALUE), "{error}");
    }
}

async fn a_transaction_that_changes_nothing_is_rolled_back(database: &Database) {
    let shop = Shop::open(database, &[]).await;
    assert_eq!(answer(shop.order("second", 2)).await.0, 404);
    let expected = "\
POST /orders SERVER order-service http 404
  acquire connection INTERNAL order-service
  place order INTERNAL order-service error sold_out
    BEGIN CLIENT order-service
    UPDATE products CLIENT order-service
    ROLLBACK CLIENT order-service
";
    assert_eq!(shop.close().await.shapes(), expected);
}

/// Two orders and one connection, while another program locks the products.
async fn a_pool_that_is_empty_shows_as_a_wait(database: &Database) {
    let settings = [("POOL_SIZE", "1"), ("OTEL_BSP_SCHEDULE_DELAY", "5")];
    let shop = Shop::open(database, &settings).await;
    let mut lock = database.lock().await;
    let fourth = async {
        // The third order has the connection once the span of its wait has ended.
        arrived(&shop.store, 1).await;
        answer(shop.order("fourth", 1)).await
    };
    let (third, fourth, ()) = tokio::join!(answer(shop.order("third", 1)), fourth, async {
        shop.log.wait_for("order-service", "all connections are in use").await;
        sqlx::query("ROLLBACK").execute(&mut lock).await.expect("the lock is released");
        lock.close().await.expect("it closes");
    });
    assert_eq!((third.0, fourth.0), (201, 201));
    let figure = recorded!("databases-and-caches/pool-wait.html");
    let trees = shop.close().await.compare(figure, &format!("{ORDER}\n{ORDER}"));
    let wait = |tree| span(tree, "acquire connection", SpanKind::Internal).clone();
    let (first, second) = (&trees[0], &trees[1]);
    let (first, second, tree) = match wait(first).duration() < wait(second).duration() {
        true => (first, wait(second), second),
        false => (second, wait(first), first),
    };
    // The second waits until the first has ended its transaction.
    let commit = span(first, "COMMIT", SpanKind::Client);
    assert!(second.end() >= commit.end() && second.start() <= commit.start());
    assert!(span(tree, "BEGIN", SpanKind::Client).start() >= second.end());
    has_attributes(&second, "one_trace.pool.size=1 one_trace.pool.idle=0");
}

async fn a_wait_that_is_too_long_is_an_error_of_the_pool(database: &Database) {
    let shop = Shop::open(database, &[("POOL_SIZE", "1"), ("POOL_TIMEOUT_MS", "50")]).await;
    let mut lock = database.lock().await;
    let (mut fifth, mut sixth) =
        (pin!(answer(shop.order("fifth", 1))), pin!(answer(shop.order("sixth", 1))));
    // One waits for the lock, and the other one for the connection.
    let (early, late) = tokio::select! {
        early = &mut fifth => (early, sixth),
        early = &mut sixth => (early, fifth),
    };
    assert_eq!(early, (503, r#"{"error":"The shop is busy"}"#.into()));
    sqlx::query("ROLLBACK").execute(&mut lock).await.expect("the lock is released");
    assert_eq!(late.await.0, 201);
    let expected = "\
POST /orders SERVER order-service http 503 error 503
  acquire connection INTERNAL order-service error pool_timeout
";
    let shapes = shop.close().await.shapes();
    assert!(shapes.contains(ORDER) && shapes.contains(expected), "{shapes}");
}

/// The page says what sqlx itself records: events in the log, and no spans.
async fn sqlx_logs_statements_without_values(database: &Database) {
    let shop = Shop::open(database, &[("RUST_LOG", "info,sqlx=debug")]).await;
    assert_eq!(answer(shop.order("seventh", 1)).await.0, 201);
    let closed = shop.close().await;
    assert_eq!(closed.shapes(), ORDER);
    let line = closed.log.find("order-service", "INSERT INTO orders").pop().expect("a line");
    has(&line, ["summary=", "db.statement=", "VALUES ($1, $2, $3)", "rows_affected=1", "elapsed="]);
    // SQLite's driver logs on a thread of its own, which has no context.
    assert_eq!(line.contains("trace_id="), database.system == "postgresql", "{line}");
}

/// The rules of the cache, all in one shop. Its database is SQLite.
#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_the_rules() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let database = Database::sqlite();
    let shop = Shop::open(&database, &[("REDIS_URL", &redis.url)]).await;
    let found = (200, r#"{"cents":4900,"name":"lamp"}"#.to_owned());
    // A miss and a hit.
    for _ in 0..2 {
        assert_eq!(answer(shop.product("1")).await, found);
    }
    let closed = shop.close().await;
    let miss = "\
GET /products/{id} SERVER order-service http 200
  GET CLIENT order-service
  acquire connection INTERNAL order-service
  SELECT products CLIENT order-service
  SET CLIENT order-service
";
    let hit = "\
GET /products/{id} SERVER order-service http 200
  GET CLIENT order-service
";
    let figure = recorded!("databases-and-caches/cache.html");
    let trees = closed.compare(figure, &format!("{miss}\n{hit}"));
    let text = "SELECT name, cents FROM products WHERE id = $1";
    is_statement(span(&trees[0], "SELECT products", SpanKind::Client), &database, text);
    let port = redis.url.rsplit_once(':').expect("a port").1;
    let server = format!("db.system.name=redis server.address=127.0.0.1 server.port={port}");
    for (tree, name, expected) in [
        (&trees[0], "GET", "db.operation.name=GET one_trace.cache.hit=false"),
        (&trees[0], "SET", "db.operation.name=SET"),
        (&trees[1], "GET", "db.operation.name=GET one_trace.cache.hit=true"),
    ] {
        let command = span(tree, name, SpanKind::Client);
        has_attributes(command, &format!("{server} {expected}"));
        let text = command.attribute("db.query.text").expect("a text");
        has(&text, ["product:?"]);
        lacks(&text, ["product:1", "lamp"]);
    }

    an_error_of_redis_is_its_code(&redis, &database).await;
    a_cache_that_is_down_costs_time_and_no_answer(redis, &database).await;
}

async fn an_error_of_redis_is_its_code(redis: &Redis, database: &Database) {
    let shop = Shop::open(database, &[("REDIS_URL", &redis.url)]).await;
    redis.send("DEL product:1").await;
    redis.send(&format!("RPUSH product:1 {VALUE}")).await;
    assert_eq!(answer(shop.product("1")).await.0, 200);
    let expected = "\
GET /products/{id} SERVER order-service http 200
  GET CLIENT order-service error WRONGTYPE
  acquire connection INTERNAL order-service
  SELECT products CLIENT order-service
  SET CLIENT order-service
";
    let closed = shop.close().await;
    assert_eq!(closed.shapes(), expected);
    let trees = closed.trees();
    let failed = span(&trees[0], "GET", SpanKind::Client);
    has_attributes(failed, "db.response.status_code=WRONGTYPE one_trace.cache.hit=(none)");
}

async fn a_cache_that_is_down_costs_time_and_no_answer(redis: Redis, database: &Database) {
    let shop = Shop::open(database, &[("REDIS_URL", &redis.url)]).await;
    redis.kill().await;
    assert_eq!(answer(shop.product("1")).await.0, 200);
    let expected = "\
GET /products/{id} SERVER order-service http 200
  GET CLIENT order-service error io
  acquire connection INTERNAL order-service
  SELECT products CLIENT order-service
  SET CLIENT order-service error io
";
    let figure = recorded!("databases-and-caches/cache-is-down.html");
    shop.close().await.compare(figure, expected);
}

/// The figure at the top of the page.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_touches_the_pool_the_database_and_the_cache() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let Some(database) = Database::postgresql().await else {
        return;
    };
    let shop = Shop::open(&database, &[("REDIS_URL", &redis.url)]).await;
    assert_eq!(answer(shop.order("first", 1)).await.0, 201);
    let expected = format!("{ORDER}  PIPELINE CLIENT order-service\n");
    let figure = recorded!("databases-and-caches/order.html");
    let trees = shop.close().await.compare(figure, &expected);
    let pipeline = span(&trees[0], "PIPELINE", SpanKind::Client);
    has_attributes(pipeline, "db.operation.name=PIPELINE db.operation.batch.size=2");
    let text = pipeline.attribute("db.query.text");
    assert_eq!(text.as_deref(), Some("DEL product:?; INCR orders ?"));

    let shop = Shop::open(&database, &[("REDIS_URL", &redis.url)]).await;
    assert_eq!(answer(shop.order("first", 1)).await.0, 409);
    let code = "23505";
    let expected = format!(
        "POST /orders SERVER order-service http 409
  acquire connection INTERNAL order-service
  place order INTERNAL order-service error database
    BEGIN CLIENT order-service
    UPDATE products CLIENT order-service
    INSERT orders CLIENT order-service error {code}
    ROLLBACK CLIENT order-service
"
    );
    let figure = recorded!("databases-and-caches/duplicate.html");
    shop.close().await.compare(figure, &expected);
    database.stop().await;
}
