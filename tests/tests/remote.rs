//! Tests of the real program with repositories on servers, which the tests start themselves.

#[path = "remote/azblob.rs"]
mod azblob;
#[path = "remote/by_name.rs"]
mod by_name;
#[path = "remote/cut.rs"]
mod cut;
#[path = "remote/faults.rs"]
mod faults;
#[path = "remote/gcs.rs"]
mod gcs;
#[path = "remote/places.rs"]
mod places;
#[path = "remote/policies.rs"]
mod policies;
#[path = "remote/s3.rs"]
mod s3;
#[path = "remote/scenario.rs"]
mod scenario;
#[path = "remote/sftp.rs"]
mod sftp;
#[path = "remote/trouble.rs"]
mod trouble;
#[path = "remote/webdav.rs"]
mod webdav;
