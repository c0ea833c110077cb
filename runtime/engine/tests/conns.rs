//! What keeps a connection going, through whole runs and restarts: breaker, health, outbox, drain,
//! bulkhead, failover.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

mod conns {
    mod bounds;
    mod breaker;
    mod bulkhead;
    mod config;
    mod drain;
    mod failover;
    mod health;
    mod hedge;
    mod lines;
    mod outbox;
    mod stage;
    mod woken;
}
