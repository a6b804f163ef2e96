//! Tests of the real program with repositories on servers, which the tests start themselves.

#[path = "remote/faults.rs"]
mod faults;
#[path = "remote/s3.rs"]
mod s3;
#[path = "remote/scenario.rs"]
mod scenario;
