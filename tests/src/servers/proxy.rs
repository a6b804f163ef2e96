//! A proxy on loopback between `cairn` and a server, that answers badly when it is told to.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use opendal::raw::Timestamp;

use super::http::{Message, exchange, read_request, request};

/// How far what is signed may be from a server's clock, as S3 has it.
const SKEW_MAX: Duration = Duration::from_secs(15 * 60);

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It does not reach the server, and the connection is cut.
    DropBefore,
    /// The server carries it out, and the connection is cut without an answer.
    DropAfter,
    /// The server gets half of the request's body, then the connection is cut.
    Cut,
    /// The answer comes after this many milliseconds.
    Delay(u64),
    /// The answer comes byte after byte, each after this many milliseconds.
    Drip(u64),
    /// Half of the answer comes, then the connection is cut.
    Truncate,
    /// So many bytes of the answer come, its head counted, then the connection is cut.
    CutAnswer(usize),
    /// The server gets so many bytes of the request, its head counted, then the connection is cut.
    CutRequest(usize),
    /// The server's clock is ahead by so many milliseconds: its answers are dated by it, and what is
    /// signed for a time a quarter of an hour from it is refused, as S3 does.
    Clock(i64),
    /// One bit of the answer's body is another.
    CorruptAnswer,
    /// One bit of the request's body is another when it reaches the server.
    CorruptRequest,
    /// The proxy answers itself with this status, and code where services have codes.
    Answer(u16, &'static str),
    /// The proxy says that all is well, and the server does not hear of it.
    Lie,
}

/// One request as faults are chosen by it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// How many came before, on all connections.
    pub number: u64,
    /// `GET`, `PUT`, ...
    pub method: String,
    /// Path and query.
    pub uri: String,
    /// By what the client proves who it is; empty where it does not.
    pub authorization: String,
    /// How long it is, its head counted.
    pub bytes: usize,
}

type Choice = Arc<dyn Fn(&Asked) -> Fault + Send + Sync>;

/// A proxy that ends when it is dropped.
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    ended: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy before the server at `server_port`, with faults as `choice` says.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start(
        server_port: u16,
        choice: impl Fn(&Asked) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let ended = Arc::new(AtomicBool::new(false));
        let choice: Choice = Arc::new(choice);
        let number = Arc::new(AtomicU64::new(0));
        let stop = Arc::clone(&ended);
        let listener = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (choice, number) = (Arc::clone(&choice), Arc::clone(&number));
                // Ends when its client does.
                thread::spawn(move || serve(&stream, server_port, &choice, &number));
            }
        });
        Self { port, ended, listener: Some(listener) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(listener) = self.listener.take() {
            let _ended = listener.join();
        }
    }
}

/// Serves one connection until it ends or is to be cut.
fn serve(stream: &TcpStream, server_port: u16, choice: &Choice, number: &AtomicU64) {
    let mut reader = io::BufReader::new(stream);
    while let Ok(Some(message)) = read_request(&mut reader) {
        let line = message.first_line();
        let mut words = line.split(' ').map(str::to_owned);
        let asked = Asked {
            number: number.fetch_add(1, Ordering::SeqCst),
            method: words.next().unwrap_or_default(),
            uri: words.next().unwrap_or_default(),
            authorization: message.field("authorization").unwrap_or_default(),
            bytes: encoded(&message).bytes().len(),
        };
        if pass(stream, server_port, &message, &asked, choice(&asked)).is_err() {
            break;
        }
    }
    let _cut = stream.shutdown(Shutdown::Both);
}

/// The same request with slashes in its query encoded, as signatures are made over them: moto
/// takes the query as it comes.
fn encoded(message: &Message) -> Message {
    let line = message.first_line();
    let Some((path, query)) = line.split_once('?') else { return message.clone() };
    let (query, version) = query.rsplit_once(' ').unwrap_or((query, "HTTP/1.1"));
    let line_encoded = format!("{path}?{} {version}", query.replace('/', "%2F"));
    let rest = message.head.get(line.len()..).unwrap_or_default();
    Message { head: [line_encoded.as_bytes(), rest].concat(), body: message.body.clone() }
}

fn flip(body: &mut [u8]) {
    let middle = body.len() / 2;
    if let Some(byte) = body.get_mut(middle) {
        *byte ^= 0x10;
    }
}

/// Passes one request on, and its answer back; an error cuts the connection.
fn pass(
    mut stream: &TcpStream,
    server_port: u16,
    message: &Message,
    asked: &Asked,
    fault: Fault,
) -> io::Result<()> {
    let cut = || Err(io::ErrorKind::ConnectionAborted.into());
    let mut sent = encoded(message);
    match fault {
        Fault::DropBefore => return cut(),
        Fault::Cut => {
            let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port))?;
            server.write_all(&sent.head)?;
            server.write_all(sent.body.get(..sent.body.len() / 2).unwrap_or_default())?;
            return cut();
        }
        Fault::CutRequest(bytes) => {
            let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port))?;
            server.write_all(sent.bytes().get(..bytes).unwrap_or_default())?;
            server.shutdown(Shutdown::Write)?;
            server.set_read_timeout(Some(Duration::from_secs(10)))?;
            // It may carry out what it got, and does so before the client asks again.
            let _answer = io::copy(&mut server, &mut io::sink());
            return cut();
        }
        Fault::Clock(ahead_ms) if is_skewed(message, ahead_ms) => {
            let refused = refusal(403, "RequestTimeTooSkewed", &asked.method);
            stream.write_all(&refused.with_field("Date", &date(ahead_ms)).bytes())?;
            return Ok(());
        }
        Fault::Answer(status, code) => {
            stream.write_all(&refusal(status, code, &asked.method).bytes())?;
            return Ok(());
        }
        Fault::Lie => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
            return Ok(());
        }
        Fault::Delay(milliseconds) => thread::sleep(Duration::from_millis(milliseconds)),
        Fault::CorruptRequest => flip(&mut sent.body),
        Fault::None
        | Fault::DropAfter
        | Fault::CutAnswer(_)
        | Fault::Clock(_)
        | Fault::Drip(_)
        | Fault::Truncate
        | Fault::CorruptAnswer => {}
    }
    let mut answer = exchange(server_port, &sent)?;
    if fault == Fault::DropAfter {
        return cut();
    }
    if fault == Fault::CorruptAnswer {
        flip(&mut answer.body);
    }
    if let Fault::Clock(ahead_ms) = fault {
        answer = answer.with_field("Date", &date(ahead_ms));
    }
    let bytes = answer.bytes();
    if let Fault::CutAnswer(length) = fault {
        stream.write_all(bytes.get(..length).unwrap_or(&bytes))?;
        return cut();
    }
    if fault == Fault::Truncate {
        let half = bytes.len().min(answer.head.len() + answer.body.len() / 2);
        stream.write_all(bytes.get(..half).unwrap_or_default())?;
        return cut();
    }
    if let Fault::Drip(milliseconds) = fault {
        for byte in bytes {
            thread::sleep(Duration::from_millis(milliseconds));
            stream.write_all(&[byte])?;
        }
        return cut();
    }
    stream.write_all(&bytes)?;
    // The server's answer ends with its connection; so does this one, where it states no length.
    cut()
}

/// What a clock shows that is so much ahead.
fn shown(ahead_ms: i64) -> SystemTime {
    let ahead = Duration::from_millis(ahead_ms.unsigned_abs());
    let now = SystemTime::now();
    if ahead_ms < 0 { now - ahead } else { now + ahead }
}

/// The same as a field of an answer.
fn date(ahead_ms: i64) -> String {
    Timestamp::try_from(shown(ahead_ms)).expect("a date").format_http_date()
}

/// Whether a request is signed for a time too far from a clock that is so much ahead.
fn is_skewed(message: &Message, ahead_ms: i64) -> bool {
    // As in 20260131T235959Z.
    let Some(signed) = message.field("x-amz-date") else { return false };
    let part = |from: usize, to: usize| signed.get(from..to).unwrap_or_default();
    let day = format!("{}-{}-{}", part(0, 4), part(4, 6), part(6, 8));
    let text = format!("{day}T{}:{}:{}Z", part(9, 11), part(11, 13), part(13, 15));
    let signed = SystemTime::from(text.parse::<Timestamp>().expect("a date of a signature"));
    let shown = shown(ahead_ms);
    let apart = shown.duration_since(signed).or_else(|_| signed.duration_since(shown));
    apart.expect("one is before the other") > SKEW_MAX
}

/// An answer that something went wrong, as S3 and Azure write it.
fn refusal(status: u16, code: &str, method: &str) -> Message {
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code>\
         <Message>the proxy says so</Message></Error>"
    );
    let body = if method == "HEAD" { "" } else { xml.as_str() };
    let mut answer = request("", &[("Content-Type", "application/xml")], body.as_bytes());
    let head = String::from_utf8_lossy(&answer.head).into_owned();
    let fields = head.split_once("\r\n").map_or("", |(_, fields)| fields);
    answer.head = format!("HTTP/1.1 {status} Refused\r\n{fields}").into_bytes();
    answer
}
