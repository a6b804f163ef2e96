//! What requests to places cost, as the configuration file says: providers differ and change their
//! prices, so none is known here.
//!
//! ```toml
//! [[price]]
//! url = "s3://backups"              # and all that lies below it
//! currency = "USD"
//! per-thousand = { write = 0.005, list = 0.005, read = 0.0004, look = 0.0004 }
//! per-gb-received = 0.09            # of 10^9 bytes
//! ```

use std::collections::BTreeMap;
use std::ffi::OsStr;

use cairn_engine::store::location::Location;
use cairn_engine::store::traffic::RequestKind;
use serde::Deserialize;

use crate::ledger::Sum;

/// Requests that a price of requests is of.
const REQUESTS: f64 = 1_000.0;
/// Bytes that a price of bytes is of.
const BYTES: f64 = 1e9;
/// Letters of a currency at most.
const CURRENCY_BYTES_MAX: usize = 8;

/// As it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Entry {
    url: String,
    currency: String,
    #[serde(default)]
    per_thousand: BTreeMap<String, f64>,
    #[serde(default)]
    per_gb_sent: f64,
    #[serde(default)]
    per_gb_received: f64,
}

/// The prices of one place. What is not named costs nothing.
#[derive(Clone, Debug)]
pub struct Prices {
    /// As it is written down.
    url: String,
    location: Location,
    /// What the provider bills in.
    pub currency: String,
    per_thousand: BTreeMap<String, f64>,
    per_gb_sent: f64,
    per_gb_received: f64,
}

/// Takes the prices of a configuration file.
///
/// # Errors
/// What is wrong with it; values are not repeated.
pub(crate) fn understand(entries: Vec<Entry>) -> Result<Vec<Prices>, String> {
    let mut all: Vec<Prices> = Vec::new();
    for entry in entries {
        let prices = Prices::understand(entry)?;
        let is_same = |known: &&Prices| {
            known.location.is_within(&prices.location) && prices.location.is_within(&known.location)
        };
        if let Some(known) = all.iter().find(is_same) {
            return Err(format!("two tables of prices have the url {}", known.url));
        }
        all.push(prices);
    }
    Ok(all)
}

impl Prices {
    fn understand(entry: Entry) -> Result<Self, String> {
        let url = entry.url;
        let location = Location::parse(OsStr::new(&url)).map_err(|error| error.to_string())?;
        if !matches!(location, Location::Remote { .. }) {
            return Err(format!("the place {url} is not reached over a network"));
        }
        let problem = |problem: &str| Err(format!("the prices of {url}: {problem}"));
        let is_letter = |letter: char| letter.is_alphanumeric() || "€$£¥".contains(letter);
        let bytes = entry.currency.len();
        if bytes == 0 || bytes > CURRENCY_BYTES_MAX || !entry.currency.chars().all(is_letter) {
            return problem("the currency is a short word, as USD");
        }
        let kinds = RequestKind::ALL.map(RequestKind::name);
        if !entry.per_thousand.keys().all(|kind| kinds.contains(&kind.as_str())) {
            return problem(&format!("there are requests of the kinds {}", kinds.join(", ")));
        }
        let (sent, received) = (entry.per_gb_sent, entry.per_gb_received);
        let is_sound = |amount: &f64| amount.is_finite() && *amount >= 0.0;
        if !entry.per_thousand.values().chain([&sent, &received]).all(is_sound) {
            return problem("a price is 0 or more");
        }
        Ok(Self {
            location,
            currency: entry.currency,
            per_thousand: entry.per_thousand,
            per_gb_sent: sent,
            per_gb_received: received,
            url,
        })
    }

    /// Those of a place: of several the ones that say most of where it is.
    #[must_use]
    pub fn of<'a>(all: &'a [Self], location: &Location) -> Option<&'a Self> {
        let around = all.iter().filter(|prices| location.is_within(&prices.location));
        // All of them lie within each other.
        around.reduce(|one, other| match other.location.is_within(&one.location) {
            true => other,
            false => one,
        })
    }

    /// What these requests cost, in the currency. Discounts, free quotas, taxes and what is stored are not
    /// in it.
    #[must_use]
    pub fn cost(&self, sum: &Sum) -> f64 {
        let price = |kind: RequestKind| self.per_thousand.get(kind.name()).copied();
        let requests = RequestKind::ALL
            .into_iter()
            .map(|kind| price(kind).unwrap_or_default() * sum.of_kind(kind) as f64 / REQUESTS);
        requests.sum::<f64>()
            + self.per_gb_sent * sum.bytes_sent as f64 / BYTES
            + self.per_gb_received * sum.bytes_received as f64 / BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::parse;

    fn sum(kinds: &[(&str, u64)], sent: u64, received: u64) -> Sum {
        Sum {
            sent: kinds.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
            bytes_sent: sent,
            bytes_received: received,
            ..Sum::default()
        }
    }

    #[test]
    fn what_requests_cost_is_the_sum_of_kinds_and_bytes() {
        let text = "[[price]]\nurl = 's3://b'\ncurrency = 'USD'\n\
             per-thousand = { write = 0.005, read = 0.0004 }\nper-gb-received = 0.09\n\
             [[price]]\nurl = 's3://b/cold'\ncurrency = 'EUR'\nper-thousand.write = 1\n";
        let prices = parse(text).unwrap().prices;
        let of = |url: &str| {
            let location = Location::parse(OsStr::new(url)).unwrap();
            Prices::of(&prices, &location).map(|prices| {
                let sum = sum(
                    &[("write", 2_000), ("read", 10_000), ("delete", 7)],
                    5_000_000_000,
                    2_000_000_000,
                );
                (prices.currency.clone(), (prices.cost(&sum) * 1e6).round() as i64)
            })
        };
        assert_eq!(of("s3://b/crm"), Some(("USD".to_owned(), 194_000)));
        assert_eq!(of("s3://b/cold/crm"), Some(("EUR".to_owned(), 2_000_000)));
        assert_eq!(of("s3://b-two"), None);
    }

    #[test]
    fn what_is_wrong_with_prices_is_said() {
        let table = |rest: &str| format!("[[price]]\nurl = 's3://b'\ncurrency = 'USD'\n{rest}\n");
        for (text, told) in [
            ("[[price]]\nurl = 's3://b'\n".to_owned(), "currency"),
            ("[[price]]\nurl = '/folder'\ncurrency = 'USD'\n".to_owned(), "over a network"),
            (table("per-thousand.reads = 1"), "read, write, look"),
            (table("per-thousand.read = -1"), "0 or more"),
            (table("per-gb-sent = nan"), "0 or more"),
            (table("per-gb = 1"), "per-gb"),
            (table("").replace("USD", "U S D"), "short word"),
            (table("").replace("USD", "currencies"), "short word"),
            (table("") + &table(""), "two tables"),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
