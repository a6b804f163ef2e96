//! Tests of restoring whole trees.
