//! What the requests of a command were, in its result and with `--verbose`.

use cairn_engine::store::traffic::{RequestKind, Requests, Traffic};
use serde_json::{Map, Value, json};

use super::App;
use crate::ui::format;

/// The requests as JSON, where the store counts them; tells them with `--verbose`.
#[must_use]
pub fn tell(app: &App) -> Option<Value> {
    let traffic = app.store.get()?.traffic()?;
    for line in lines(&traffic) {
        app.printer.detail(&line);
    }
    Some(report_of(&traffic))
}

/// The requests so far, line by line; none where the store does not count them.
#[must_use]
pub fn lines_of(app: &App) -> Vec<String> {
    let traffic = app.store.get().and_then(|store| store.traffic());
    traffic.map(|traffic| lines(&traffic)).unwrap_or_default()
}

fn report_of(traffic: &Traffic) -> Value {
    let of = |requests: Requests| {
        json!({
            "sent": requests.sent,
            "failed": requests.failed,
            "bytes_sent": requests.bytes_sent,
            "bytes_received": requests.bytes_received,
        })
    };
    let kinds =
        RequestKind::ALL.into_iter().map(|kind| (kind.name().to_owned(), of(traffic.of(kind))));
    let mut all: Map<String, Value> = kinds.collect();
    all.insert("total".to_owned(), of(traffic.total()));
    Value::Object(all)
}

/// One line for each kind of which there were any.
fn lines(traffic: &Traffic) -> Vec<String> {
    let kinds = RequestKind::ALL.into_iter().map(|kind| (kind.name(), traffic.of(kind)));
    let all = kinds.chain([("total", traffic.total())]);
    all.filter(|(_, requests)| requests.sent > 0)
        .map(|(name, requests)| {
            format!(
                "requests, {name}: {} sent, {} failed, {} out, {} in",
                format::count(requests.sent),
                format::count(requests.failed),
                format::bytes(requests.bytes_sent),
                format::bytes(requests.bytes_received),
            )
        })
        .collect()
}
