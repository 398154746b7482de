//! Prometheus registry: counters read at scrape time.
