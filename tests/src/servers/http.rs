//! As much of HTTP as the tests need: one request on one connection.

use std::io::{self, Read, Write as _};
use std::net::{Ipv4Addr, TcpStream};

/// Longest head of a message, bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A request or an answer.
#[derive(Clone, Debug)]
pub struct Message {
    /// First line and fields, to the empty line, with it.
    pub head: Vec<u8>,
    /// What follows.
    pub body: Vec<u8>,
}

impl Message {
    /// The first line.
    #[must_use]
    pub fn first_line(&self) -> String {
        let line = self.head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        String::from_utf8_lossy(line).into_owned()
    }

    /// The value of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<String> {
        let head = String::from_utf8_lossy(&self.head).into_owned();
        head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }

    /// The status of an answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.first_line().split(' ').nth(1)?.parse().ok()
    }

    /// The same without fields of this name, and with one of this value instead.
    #[must_use]
    pub fn with_field(&self, name: &str, value: &str) -> Self {
        let head = String::from_utf8_lossy(&self.head).into_owned();
        let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
        let mut text = lines.next().unwrap_or_default().to_owned();
        for line in lines {
            let key = line.split(':').next().unwrap_or_default();
            if !key.eq_ignore_ascii_case(name) {
                text.push_str("\r\n");
                text.push_str(line);
            }
        }
        text.push_str(&format!("\r\n{name}: {value}\r\n\r\n"));
        Self { head: text.into_bytes(), body: self.body.clone() }
    }

    /// Head and body.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        [self.head.as_slice(), self.body.as_slice()].concat()
    }
}

/// Reads the head of a message; `None` at the end of the stream.
///
/// # Errors
/// Those of the stream, and when the head is cut or too long.
pub fn read_head(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte)? {
            0 if head.is_empty() => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if head.len() == HEAD_BYTES_MAX => return Err(io::ErrorKind::InvalidData.into()),
            _ => head.extend(byte),
        }
    }
    Ok(Some(head))
}

/// Reads a request whose body has a stated length or none.
///
/// # Errors
/// Those of the stream, and when it ends too soon.
pub fn read_request(stream: &mut impl Read) -> io::Result<Option<Message>> {
    let Some(head) = read_head(stream)? else { return Ok(None) };
    let mut message = Message { head, body: Vec::new() };
    let length = message.field("content-length").and_then(|text| text.parse().ok());
    message.body.resize(length.unwrap_or(0), 0);
    stream.read_exact(&mut message.body)?;
    Ok(Some(message))
}

/// Sends a request to a port of loopback and reads the answer to the end of the connection.
///
/// # Errors
/// Those of the connection, and when the answer has no head.
pub fn exchange(port: u16, request: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(&request.with_field("Connection", "close").bytes())?;
    let head = read_head(&mut stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut body = Vec::new();
    // What came before a connection broke is still an answer to pass on.
    let _end = stream.read_to_end(&mut body);
    Ok(Message { head, body })
}

/// A request with a body.
#[must_use]
pub fn request(line: &str, fields: &[(&str, &str)], body: &[u8]) -> Message {
    let mut head = format!("{line} HTTP/1.1\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    Message { head: head.into_bytes(), body: body.to_vec() }
}
