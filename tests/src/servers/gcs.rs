//! As much of Google Cloud Storage's JSON interface as a repository needs: objects with
//! generations, writes and deletes on conditions, ranges, and listings in short pages.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use opendal::raw::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Target;
use super::http::{Message, read_request};

/// The one bucket.
const BUCKET: &str = "bucket";
/// Entries on a page of a listing: few, so that every listing has many pages.
const PAGE: usize = 3;

#[derive(Clone)]
struct Object {
    data: Vec<u8>,
    generation: u64,
}

/// A write in pieces.
#[derive(Clone, Default)]
struct Session {
    name: String,
    condition: Option<String>,
    data: Vec<u8>,
}

#[derive(Default)]
struct Bucket {
    settings: Value,
    objects: BTreeMap<String, Object>,
    generation: u64,
    sessions: BTreeMap<String, Session>,
    /// What every request is refused with, while there is something.
    refusal: Option<Refusal>,
}

/// Status, reason and text, as Google has them.
pub type Refusal = (u16, &'static str, &'static str);

/// Status, further fields of the head, and body.
type Answer = (u16, String, Vec<u8>);

/// A server that ends when it is dropped.
pub struct Gcs {
    port: u16,
    ended: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
    bucket: Arc<Mutex<Bucket>>,
    asked: Arc<AtomicUsize>,
}

impl Gcs {
    /// Starts one.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(json!({}))
    }

    /// The same with settings of the bucket, as its resource has them.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start_with(settings: Value) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let ended = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&ended);
        let bucket = Arc::new(Mutex::new(Bucket { settings, ..Bucket::default() }));
        let asked = Arc::new(AtomicUsize::new(0));
        let (served, counted) = (Arc::clone(&bucket), Arc::clone(&asked));
        let listener = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (bucket, asked) = (Arc::clone(&served), Arc::clone(&counted));
                thread::spawn(move || serve(&stream, &bucket, &asked));
            }
        });
        Self { port, ended, listener: Some(listener), bucket, asked }
    }

    /// Refuses every request from now on, or none any more.
    pub fn refuse(&self, refusal: Option<Refusal>) {
        self.bucket.lock().refusal = refusal;
    }

    /// How many requests there were so far.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Where a repository can be made, and how it is reached.
    #[must_use]
    pub fn target(&self) -> Target {
        Self::target_at(self.port)
    }

    /// The same at a port where there may be no server.
    #[must_use]
    pub fn target_at(port: u16) -> Target {
        Target {
            url: format!("gcs://{BUCKET}/some/prefix"),
            environment: vec![("STORAGE_EMULATOR_HOST", format!("127.0.0.1:{port}").into())],
            port,
        }
    }
}

impl Drop for Gcs {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(listener) = self.listener.take() {
            let _ended = listener.join();
        }
    }
}

fn serve(mut stream: &TcpStream, bucket: &Mutex<Bucket>, asked: &AtomicUsize) {
    let mut reader = io::BufReader::new(stream);
    while let Ok(Some(message)) = read_request(&mut reader) {
        asked.fetch_add(1, Ordering::SeqCst);
        let (status, fields, body) = answer(&message, &mut bucket.lock());
        let length = body.len();
        // Whoever asks what time the service has is told by every answer.
        let date = Timestamp::now().format_http_date();
        let head = format!(
            "HTTP/1.1 {status} Answer\r\n{fields}Date: {date}\r\nContent-Length: {length}\r\n\r\n"
        );
        if stream.write_all(&[head.as_bytes(), &body].concat()).is_err() {
            break;
        }
    }
    let _cut = stream.shutdown(Shutdown::Both);
}

fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        plain.push(match byte {
            b'%' => digit()
                .zip(digit())
                .and_then(|(high, low)| u8::try_from(high * 16 + low).ok())
                .unwrap_or(b'%'),
            byte => byte,
        });
    }
    String::from_utf8_lossy(&plain).into_owned()
}

fn found(body: Vec<u8>) -> Answer {
    (200, String::new(), body)
}

fn refused(status: u16, reason: &str, text: &str) -> Answer {
    let error = json!({ "code": status, "message": text, "errors": [{ "reason": reason }] });
    (status, String::new(), json!({ "error": error }).to_string().into_bytes())
}

fn described(name: &str, object: &Object) -> Value {
    json!({
        "name": name,
        "size": object.data.len().to_string(),
        "etag": format!("tag-{}", object.generation),
        "generation": object.generation.to_string(),
        "updated": "2033-05-18T03:33:20.000Z",
    })
}

fn answer(message: &Message, bucket: &mut Bucket) -> Answer {
    if let Some((status, reason, text)) = bucket.refusal {
        return refused(status, reason, text);
    }
    let line = message.first_line();
    let mut words = line.split(' ');
    let (method, uri) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let query: BTreeMap<&str, String> = query
        .split('&')
        .filter_map(|part| part.split_once('='))
        .map(|(name, value)| (name, decoded(value)))
        .collect();
    let path = path.strip_prefix("/upload").unwrap_or(path);
    let Some(rest) = path.strip_prefix("/storage/v1/b/") else {
        return refused(400, "invalid", "no such request");
    };
    if method == "GET" && rest == BUCKET {
        return found(bucket.settings.to_string().into_bytes());
    }
    let Some(name) = rest.strip_prefix(BUCKET).and_then(|rest| rest.strip_prefix("/o")) else {
        return refused(404, "notFound", "The specified bucket does not exist.");
    };
    let name = decoded(name.trim_start_matches('/'));
    match (method, name.as_str()) {
        ("POST", "") if query.get("uploadType").is_some_and(|kind| kind == "resumable") => {
            begin(bucket, &query, &message.field("host").unwrap_or_default())
        }
        ("POST", "") => {
            let name = query.get("name").cloned().unwrap_or_default();
            insert(bucket, &name, query.get("ifGenerationMatch"), &message.body)
        }
        ("PUT", "") => {
            let id = query.get("upload_id").cloned().unwrap_or_default();
            go_on(bucket, &id, &message.field("content-range").unwrap_or_default(), &message.body)
        }
        ("GET", "") => list(bucket, &query),
        ("GET", name) => read(bucket, name, &query, message.field("range")),
        ("DELETE", name) => match bucket.objects.remove(name) {
            Some(_) => (204, String::new(), Vec::new()),
            None => refused(404, "notFound", "No such object"),
        },
        _ => refused(400, "invalid", "no such request"),
    }
}

/// Begins a write in pieces.
fn begin(bucket: &mut Bucket, query: &BTreeMap<&str, String>, host: &str) -> Answer {
    let id = bucket.sessions.len().to_string();
    let session = Session {
        name: query.get("name").cloned().unwrap_or_default(),
        condition: query.get("ifGenerationMatch").cloned(),
        data: Vec::new(),
    };
    bucket.sessions.insert(id.clone(), session);
    let path = format!("/upload/storage/v1/b/{BUCKET}/o?uploadType=resumable&upload_id={id}");
    (200, format!("Location: http://{host}{path}\r\n"), Vec::new())
}

/// Takes one piece, `bytes FROM-TO/TOTAL`, where only the last one knows the total.
fn go_on(bucket: &mut Bucket, id: &str, range: &str, piece: &[u8]) -> Answer {
    let Some(session) = bucket.sessions.get_mut(id) else {
        return refused(404, "notFound", "no such upload");
    };
    session.data.extend(piece);
    let total = range.rsplit_once('/').and_then(|(_, total)| total.parse().ok());
    if total != Some(session.data.len()) {
        let last = session.data.len().saturating_sub(1);
        return (308, format!("Range: bytes=0-{last}\r\n"), Vec::new());
    }
    let session = session.clone();
    insert(bucket, &session.name, session.condition.as_ref(), &session.data)
}

fn insert(bucket: &mut Bucket, name: &str, condition: Option<&String>, data: &[u8]) -> Answer {
    let present = bucket.objects.get(name).map_or(0, |object| object.generation);
    let wanted = condition.map(|text| text.parse::<u64>());
    if wanted.is_some_and(|wanted| wanted != Ok(present)) {
        return refused(412, "conditionNotMet", "At least one condition did not hold.");
    }
    bucket.generation += 1;
    let object = Object { data: data.to_vec(), generation: bucket.generation };
    let text = described(name, &object).to_string().into_bytes();
    bucket.objects.insert(name.to_owned(), object);
    found(text)
}

fn read(
    bucket: &Bucket,
    name: &str,
    query: &BTreeMap<&str, String>,
    range: Option<String>,
) -> Answer {
    let Some(object) = bucket.objects.get(name) else {
        return refused(404, "notFound", "No such object");
    };
    if query.get("alt").is_none_or(|alt| alt != "media") {
        return found(described(name, object).to_string().into_bytes());
    }
    let Some(range) = range else { return found(object.data.clone()) };
    let bounds = range.strip_prefix("bytes=").and_then(|text| text.split_once('-'));
    let bounds = bounds.and_then(|(from, to)| {
        let last = object.data.len().checked_sub(1)?;
        let to = if to.is_empty() { last } else { to.parse::<usize>().ok()?.min(last) };
        Some((from.parse::<usize>().ok()?, to))
    });
    match bounds.and_then(|(from, to)| object.data.get(from..=to)) {
        Some(part) => (206, String::new(), part.to_vec()),
        None => refused(416, "requestedRangeNotSatisfiable", "no such range"),
    }
}

fn list(bucket: &Bucket, query: &BTreeMap<&str, String>) -> Answer {
    let text = |name: &str| query.get(name).cloned().unwrap_or_default();
    let (prefix, delimiter, after) = (text("prefix"), text("delimiter"), text("pageToken"));
    let (mut items, mut prefixes): (Vec<Value>, Vec<String>) = (Vec::new(), Vec::new());
    let mut last = String::new();
    for (name, object) in &bucket.objects {
        let Some(rest) = name.strip_prefix(&prefix) else { continue };
        let folder = rest.split_once(&delimiter).filter(|_| !delimiter.is_empty());
        let shown = folder
            .map_or_else(|| name.clone(), |(folder, _)| format!("{prefix}{folder}{delimiter}"));
        if shown <= after || prefixes.contains(&shown) {
            continue;
        }
        if items.len() + prefixes.len() == PAGE {
            let page = json!({ "items": items, "prefixes": prefixes, "nextPageToken": last });
            return found(page.to_string().into_bytes());
        }
        last.clone_from(&shown);
        match folder {
            Some(_) => prefixes.push(shown),
            None => items.push(described(name, object)),
        }
    }
    found(json!({ "items": items, "prefixes": prefixes }).to_string().into_bytes())
}
