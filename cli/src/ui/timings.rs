//! Where the time of an operation went, as a table and as an object.

use cairn_engine::timings::{Limit, Measured, Resource, StageTime, Timings};
use serde_json::{Value, json};

use super::errors::CliError;
use super::printer::Printer;
use super::table::{Align, Table};

const NS_PER_MS: u64 = 1_000_000;

/// Shows what was measured: a table on standard error, an object with `--json`. Nothing when nothing
/// was.
///
/// # Errors
/// When standard output cannot be written.
pub fn show(printer: &Printer, timings: &Timings) -> Result<(), CliError> {
    let Some(measured) = timings.measured() else { return Ok(()) };
    for line in table(&measured).lines() {
        printer.asked(&line);
    }
    printer.asked(&verdict(&measured));
    printer.event(&object(&measured))
}

fn seconds(ns: u64) -> String {
    format!("{:.2}", ns as f64 / 1e9)
}

fn table(measured: &Measured) -> Table {
    let right = Align::Right;
    let mut table = Table::new(&[
        ("stage", Align::Left),
        ("busy s", right),
        ("waiting s", right),
        ("GB", right),
        ("GB/s", right),
    ]);
    for time in &measured.stages {
        let gigabytes = time.bytes as f64 / 1e9;
        let speed = gigabytes / (time.busy_ns.max(1) as f64 / 1e9);
        let moved = time.bytes > 0;
        table.row(vec![
            time.stage.name().to_owned(),
            seconds(time.busy_ns),
            seconds(time.waiting_ns),
            if moved { format!("{gigabytes:.3}") } else { String::new() },
            if moved { format!("{speed:.2}") } else { String::new() },
        ]);
    }
    table
}

fn name(limit: Limit) -> &'static str {
    match limit {
        Limit::Resource(Resource::Processor) => "processor",
        Limit::Resource(Resource::Disk) => "disk",
        Limit::Resource(Resource::Store) => "store",
        Limit::Latency => "latency",
    }
}

fn verdict(measured: &Measured) -> String {
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let limit = match measured.limit {
        Limit::Resource(Resource::Processor) => "the processors",
        Limit::Resource(Resource::Disk) => "the disk that is read or restored to",
        Limit::Resource(Resource::Store) => "the disk or network of the repository",
        Limit::Latency => "nothing for long; stages waited for one another",
    };
    format!(
        "in {} s: processors computed {} of the time, disk in use {}, store {}; the limit: {limit}",
        seconds(measured.elapsed_ns),
        percent(measured.processor_share),
        percent(measured.disk_share),
        percent(measured.store_share),
    )
}

fn object(measured: &Measured) -> Value {
    let stage = |time: &StageTime| {
        json!({
            "stage": time.stage.name(),
            "busy_ms": time.busy_ns / NS_PER_MS,
            "waiting_ms": time.waiting_ns / NS_PER_MS,
            "bytes": time.bytes,
        })
    };
    json!({
        "type": "timings",
        "elapsed_ms": measured.elapsed_ns / NS_PER_MS,
        "processor_share": measured.processor_share,
        "disk_share": measured.disk_share,
        "store_share": measured.store_share,
        "limit": name(measured.limit),
        "stages": measured.stages.iter().map(stage).collect::<Vec<_>>(),
    })
}
