//! Runs the seeds and everything that ever was a finding.
