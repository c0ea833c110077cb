//! The few headers of a message that tests ask for.

use super::Message;

impl Message {
    pub(super) fn read(mail_from: String, rcpt_to: Vec<String>, content: &[u8]) -> Self {
        let raw = String::from_utf8_lossy(content).into_owned();
        let message_id = header(&raw, "message-id").map(|id| bare_id(&id).to_owned());
        let (to, subject) = (header(&raw, "to"), header(&raw, "subject"));
        Self {
            mail_from,
            rcpt_to,
            message_id,
            to,
            subject,
            raw,
        }
    }
}

/// A Message-ID without its angle brackets.
pub(super) fn bare_id(id: &str) -> &str {
    let id = id.trim();
    id.strip_prefix('<')
        .and_then(|id| id.strip_suffix('>'))
        .unwrap_or(id)
}

/// The value of the first header called `name` (in lower case), with folded lines joined.
fn header(raw: &str, name: &str) -> Option<String> {
    let head = raw.split("\r\n\r\n").next().unwrap_or_default();
    let mut lines = head.split("\r\n").skip_while(|line| {
        let found = line
            .split_once(':')
            .map(|(found, _)| found.trim().to_ascii_lowercase());
        found.as_deref() != Some(name)
    });
    let mut value = lines.next()?.split_once(':')?.1.trim().to_owned();
    for line in lines.take_while(|line| line.starts_with([' ', '\t'])) {
        value.push(' ');
        value.push_str(line.trim());
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_whatever_their_case_and_unfolded() {
        let raw = "MESSAGE-id: <a@b>\r\nSubject: one\r\n two\r\nX-To: no\r\nTo: ada@example.com\r\n\r\nTo: body";
        let message = Message::read(String::new(), Vec::new(), raw.as_bytes());
        assert_eq!(message.message_id.as_deref(), Some("a@b"));
        assert_eq!(message.subject.as_deref(), Some("one two"));
        assert_eq!(message.to.as_deref(), Some("ada@example.com"));
        assert_eq!(header("A: b\r\n\r\nTo: body", "to"), None);
    }
}
