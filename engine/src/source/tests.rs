//! Tests of walking and reading together.
