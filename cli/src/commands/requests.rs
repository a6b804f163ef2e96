//! What the requests of a command were, in its result and with `--verbose`; what those of the last
//! month were.

use cairn_engine::context::{Clock as _, SystemClock};
use cairn_engine::store::traffic::{RequestKind, Requests, Traffic};
use serde_json::{Map, Value, json};

use super::App;
use crate::ledger::{Ledger, Remembered, Sum};
use crate::prices::Prices;
use crate::session;
use crate::settings;
use crate::ui::format;
use crate::ui::table::{Align, Table};

/// How many requests of each kind, and what they moved.
const COLUMNS: [(&str, Align); 11] = [
    ("REQUESTS", Align::Left),
    ("COMMANDS", Align::Right),
    ("READ", Align::Right),
    ("WRITE", Align::Right),
    ("LOOK", Align::Right),
    ("LIST", Align::Right),
    ("DELETE", Align::Right),
    ("OTHER", Align::Right),
    ("FAILED", Align::Right),
    ("SENT", Align::Right),
    ("RECEIVED", Align::Right),
];

/// The requests as JSON, where the store counts them; tells them with `--verbose`.
#[must_use]
pub fn tell(app: &App) -> Option<Value> {
    let traffic = traffic(app)?;
    for line in lines(&traffic) {
        app.printer.detail(&line);
    }
    Some(report_of(&traffic))
}

fn traffic(app: &App) -> Option<Traffic> {
    app.store.get()?.traffic()
}

/// Where this host remembers the requests to the place that the options name.
fn ledger(app: &App) -> Option<Ledger> {
    let folder = settings::cache_dir(&app.global, &app.environment).ok()?;
    let place = session::place(&session::location(app).ok()?)?;
    Some(Ledger::new(&folder, &place))
}

/// Remembers what a command sent that is over.
pub fn remember(app: &App, command: &str) {
    let Some(traffic) = traffic(app).filter(|traffic| traffic.total().sent > 0) else { return };
    let Some(ledger) = ledger(app) else { return };
    if let Err(error) = ledger.add(SystemClock.now_ms(), command, &Sum::of(&traffic)) {
        app.printer.detail(&format!("the requests of this command are not remembered: {error}"));
    }
}

/// What this host sent before, and this command so far; nothing where the store does not count.
#[must_use]
pub fn history(app: &App) -> Option<History> {
    let now = Sum::of(&traffic(app)?);
    let remembered = ledger(app)?.remembered(SystemClock.now_ms());
    let prices = app
        .config()
        .ok()
        .zip(session::location(app).ok())
        .and_then(|(config, location)| Prices::of(&config.prices, &location).cloned());
    Some(History { now, remembered, prices })
}

/// The requests of a month.
pub struct History {
    now: Sum,
    remembered: Remembered,
    prices: Option<Prices>,
}

impl History {
    /// As a table.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut columns = COLUMNS.to_vec();
        columns.extend(self.prices.as_ref().map(|_| ("COST", Align::Right)));
        let mut table = Table::new(&columns);
        let mut row = |name: &str, sum: &Sum| {
            let kinds = RequestKind::ALL.into_iter().map(|kind| format::count(sum.of_kind(kind)));
            let mut cells = vec![name.to_owned(), format::count(sum.commands)];
            cells.extend(kinds);
            cells.push(format::count(sum.failed));
            cells.extend([format::bytes(sum.bytes_sent), format::bytes(sum.bytes_received)]);
            cells.extend(self.prices.as_ref().map(|prices| amount(prices, sum)));
            table.row(cells);
        };
        row("this command", &self.now);
        for (name, sum) in &self.remembered.periods {
            row(&format!("last {name}"), sum);
        }
        for (command, sum) in &self.remembered.commands {
            row(&format!("  {command}"), sum);
        }
        table.lines()
    }

    /// As JSON.
    #[must_use]
    pub fn report(&self) -> Value {
        let periods = self.remembered.periods.iter();
        let periods = periods.map(|(name, sum)| (name.replace(' ', "_"), json!(sum)));
        let commands = self.remembered.commands.iter().map(|(command, sum)| {
            let mut entry = json!(sum);
            if let Some(entry) = entry.as_object_mut() {
                entry.insert("command".to_owned(), json!(command));
            }
            entry
        });
        json!({
            "last": periods.collect::<Map<String, Value>>(),
            "commands": commands.collect::<Vec<_>>(),
            "cost": self.prices.as_ref().map(|prices| self.cost(prices)),
        })
    }

    fn cost(&self, prices: &Prices) -> Value {
        let periods = self.remembered.periods.iter();
        let periods = periods.map(|(name, sum)| (name.replace(' ', "_"), json!(prices.cost(sum))));
        let commands = self.remembered.commands.iter();
        let commands = commands.map(|(command, sum)| (command.clone(), json!(prices.cost(sum))));
        json!({
            "currency": prices.currency,
            "last": periods.collect::<Map<String, Value>>(),
            "commands": commands.collect::<Map<String, Value>>(),
        })
    }
}

/// What requests cost, to be read: a single command may cost a fraction of the smallest coin.
fn amount(prices: &Prices, sum: &Sum) -> String {
    let cost = prices.cost(sum);
    let few = if cost > 0.0 && cost < 0.0001 { "<0.0001".to_owned() } else { format!("{cost:.4}") };
    format!("{few} {}", prices.currency)
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
