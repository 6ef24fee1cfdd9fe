//! The statements of order-service. Each value is a parameter.

use crate::query::Statement;

pub const FIND_PRODUCT: Statement = Statement {
    summary: "SELECT products",
    text: "SELECT name, cents FROM products WHERE id = $1",
};

pub const TAKE_PRODUCT: Statement = Statement {
    summary: "UPDATE products",
    text: "UPDATE products SET stock = stock - 1 WHERE id = $1 AND stock > 0",
};

pub const ADD_ORDER: Statement = Statement {
    summary: "INSERT orders",
    text: "INSERT INTO orders (id, product, email) VALUES ($1, $2, $3)",
};

pub const BEGIN: Statement = Statement {
    summary: "BEGIN",
    text: "BEGIN",
};

pub const COMMIT: Statement = Statement {
    summary: "COMMIT",
    text: "COMMIT",
};

pub const ROLLBACK: Statement = Statement {
    summary: "ROLLBACK",
    text: "ROLLBACK",
};
