//! What a store said, as a person needs it: what failed, why in few words, and what mends it. Never a
//! credential.

use std::error::Error as _;
use std::io::ErrorKind;

use object_store::Error;
use obyra_evidence::{Code, Failure, Message, scrub, scrub_credentials, text};
use secrecy::{ExposeSecret as _, SecretString};

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Write,
    Read,
    List,
    Delete,
}

/// An error of a store, looked through.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The words of all its causes.
    words: String,
    /// The HTTP status, if one came.
    status: Option<u16>,
    /// The code in the answer, such as `AccessDenied`.
    code: Option<String>,
    /// The message in the answer.
    message: Option<String>,
    /// What the operating system said, for folders.
    system: Option<ErrorKind>,
}

impl Refusal {
    pub(super) fn of(error: &Error) -> Refusal {
        let mut words = error.to_string();
        let mut system = None;
        let mut cause = error.source();
        while let Some(next) = cause {
            let said = next.to_string();
            if !words.contains(&said) {
                words = format!("{words}: {said}");
            }
            if let Some(io) = next.downcast_ref::<std::io::Error>() {
                system = system.or(Some(io.kind()));
            }
            cause = next.source();
        }
        let status = words.split("status code: ").nth(1).and_then(|rest| rest.get(..3)?.parse().ok());
        let code = element(&words, "Code").or_else(|| json_code(&words));
        Refusal { status, code, message: element(&words, "Message"), system, words }
    }

    /// Whether the same request may well succeed in a moment.
    pub(super) fn is_transient(&self) -> bool {
        const CODES: [&str; 9] = [
            "InternalError",
            "SlowDown",
            "ServiceUnavailable",
            "RequestTimeout",
            "BadDigest",
            "XAmzContentSHA256Mismatch",
            "XAmzContentChecksumMismatch",
            "IncompleteBody",
            "OperationAborted",
        ];
        const WORDS: [&str; 11] = [
            "timed out",
            "timeout",
            "connection reset",
            "connection closed",
            "connection refused",
            "broken pipe",
            "end of file before message length",
            "incomplete message",
            "error reading a body",
            "dns error",
            "request or response body error",
        ];
        let lower = self.words.to_lowercase();
        let busy = self.status.is_some_and(|status| status >= 500 && status != 501)
            || matches!(self.status, Some(408 | 429));
        let code = self.code.as_deref().is_some_and(|code| CODES.contains(&code));
        let unanswered = self.status.is_none() && WORDS.iter().any(|word| lower.contains(word));
        busy || code || (unanswered && self.certificate().is_none())
    }

    /// Whether nobody answers at that address: a server that is being started, or a wrong address.
    pub(super) fn is_away(&self) -> bool {
        let lower = self.words.to_lowercase();
        self.status.is_none() && ["connection refused", "dns error"].iter().any(|word| lower.contains(word))
    }

    /// Whether the bucket itself is missing: then nothing can be said of an object.
    pub(super) fn no_bucket(&self) -> bool {
        const CODES: [&str; 3] = ["NoSuchBucket", "ContainerNotFound", "notFound.bucket"];
        self.code.as_deref().is_some_and(|code| CODES.contains(&code))
    }

    /// Whether the store keeps the object by its retention.
    pub(super) fn is_locked(&self) -> bool {
        let lower = self.words.to_lowercase();
        let denied = matches!(self.status, Some(403 | 409 | 400));
        denied
            && ["retention", "object lock", "objectlock", "legal hold", "immutab", "worm"]
                .iter()
                .any(|word| lower.contains(word))
    }

    /// Whether the credentials are known, and may not do this.
    pub(super) fn is_denied(&self) -> bool {
        match self.code.as_deref() {
            Some("AccessDenied" | "Forbidden" | "AuthorizationPermissionMismatch") => true,
            Some(_) => false,
            None => self.status == Some(403),
        }
    }

    /// The part that speaks of a certificate.
    fn certificate(&self) -> Option<&str> {
        ["invalid peer certificate", "certificate", "UnknownIssuer"]
            .into_iter()
            .find(|word| self.words.contains(word))
    }

    /// Why, in few words, without a secret.
    pub(super) fn why(&self, secrets: &[SecretString]) -> String {
        let said = match (self.status, &self.code) {
            (status, Some(code)) => {
                let status = status.map(|status| format!("{status} ")).unwrap_or_default();
                let message = self.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
                format!("{status}{code}{message}")
            }
            _ => without_queries(&self.words),
        };
        let secrets: Vec<&str> = secrets.iter().map(|secret| secret.expose_secret()).collect();
        scrub_credentials(&scrub(&said, &secrets))
    }

    /// What mends it, as far as that is known.
    pub(super) fn mend(&self, doing: Doing, url: &str) -> Option<Message> {
        let permission = || text::backup::STORE_DENIED_MEND.with("permission", permission(doing, url));
        match self.system {
            Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                return Some(text::backup::STORE_FULL_MEND.with("store", url));
            }
            Some(ErrorKind::PermissionDenied) => return Some(text::backup::STORE_FOLDER_MEND.message()),
            Some(ErrorKind::ReadOnlyFilesystem) => return Some(text::backup::STORE_READ_ONLY_MEND.message()),
            _ => {}
        }
        if doing == Doing::Write && self.is_locked() {
            return Some(text::backup::STORE_RETENTION_MEND.message());
        }
        if self.no_bucket() {
            return Some(text::backup::STORE_NO_BUCKET_MEND.with("store", url));
        }
        let by_code: Option<Code> = match self.code.as_deref() {
            Some("RequestTimeTooSkewed" | "AuthenticationFailed.Date") => {
                Some(text::backup::STORE_CLOCK_MEND)
            }
            Some(
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "InvalidClientTokenId"
                | "AuthenticationFailed",
            ) => Some(text::backup::STORE_KEYS_MEND),
            Some("ExpiredToken" | "TokenRefreshRequired") => Some(text::backup::STORE_EXPIRED_MEND),
            Some(
                "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException",
            ) => Some(text::backup::STORE_REGION_MEND),
            Some("NotImplemented") => Some(text::backup::STORE_NOT_IMPLEMENTED_MEND),
            Some(code) if code.starts_with("KMS") => Some(text::backup::STORE_KMS_MEND),
            _ if self.is_denied() => return Some(permission()),
            _ => None,
        };
        if let Some(code) = by_code {
            return Some(code.message());
        }
        let lower = self.words.to_lowercase();
        if lower.contains("169.254.") || lower.contains("metadata.google") || lower.contains("credential") {
            return Some(text::backup::STORE_NO_KEYS_MEND.message());
        }
        if self.certificate().is_some() {
            return Some(text::backup::STORE_TLS_MEND.message());
        }
        match self.status {
            Some(401) => Some(text::backup::STORE_KEYS_MEND.message()),
            Some(301 | 307) => Some(text::backup::STORE_REGION_MEND.message()),
            None if self.is_transient() => Some(text::backup::STORE_AWAY_MEND.message()),
            // Servers that cannot encrypt by themselves break at the request to do so.
            Some(500) if doing == Doing::Write => Some(text::backup::STORE_BROKEN_MEND.message()),
            Some(_) if self.is_transient() => Some(text::backup::STORE_BUSY_MEND.message()),
            _ if lower.contains("redirect") => Some(text::backup::STORE_REGION_MEND.message()),
            _ => None,
        }
    }

    /// The failure.
    pub(super) fn failure(
        &self,
        what: Message,
        doing: Doing,
        url: &str,
        secrets: &[SecretString],
    ) -> Failure {
        let failure = Failure::new(what).because(self.why(secrets));
        match self.mend(doing, url) {
            Some(mend) => failure.mended_by(mend),
            None => failure,
        }
    }
}

/// The permission that a provider asks for.
fn permission(doing: Doing, url: &str) -> &'static str {
    let scheme = url.split("://").next().unwrap_or_default();
    match (scheme, doing) {
        ("gs", Doing::Write) => "storage.objects.create",
        ("gs", Doing::Read) => "storage.objects.get",
        ("gs", Doing::List) => "storage.objects.list",
        ("gs", Doing::Delete) => "storage.objects.delete",
        ("az", _) => "Storage Blob Data Contributor",
        (_, Doing::Write) => "s3:PutObject",
        (_, Doing::Read) => "s3:GetObject, s3:ListBucket",
        (_, Doing::List) => "s3:ListBucket",
        (_, Doing::Delete) => "s3:DeleteObject",
    }
}

/// The text of an XML element, without its own elements.
fn element(words: &str, name: &str) -> Option<String> {
    let (_, rest) = words.split_once(&format!("<{name}>"))?;
    let (inside, _) = rest.split_once(&format!("</{name}>"))?;
    (!inside.contains('<')).then(|| inside.trim().to_owned()).filter(|inside| !inside.is_empty())
}

/// `"code": "…"` of a JSON answer, as token endpoints give it.
fn json_code(words: &str) -> Option<String> {
    let (_, rest) = words.split_once("\"code\":")?;
    let (_, rest) = rest.split_once('"')?;
    rest.split_once('"').map(|(code, _)| code.to_owned())
}

/// Without what stands behind the question marks of addresses: signatures, tokens.
fn without_queries(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for (n, word) in words.split(' ').enumerate() {
        if n > 0 {
            out.push(' ');
        }
        match word.split_once('?') {
            Some((address, query)) if address.contains("://") => {
                out.push_str(address);
                // What closes around the address stays.
                out.push_str(&query[query.trim_end_matches(['"', '\'', ')', ',', ':', ';']).len()..]);
            }
            _ => out.push_str(word),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(status: u16, body: &str) -> Refusal {
        let said = format!(
            "Error performing PUT https://s3.example.com/b/o?X-Amz-Signature=abc in 3ms - Server returned non-2xx \
             status code: {status} Whatever: {body}"
        );
        Refusal::of(&Error::Generic { store: "S3", source: said.into() })
    }

    fn answer(code: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>In words.</Message><X>y</X></Error>"
        )
    }

    fn mend(refusal: &Refusal, doing: Doing, url: &str) -> Message {
        refusal.mend(doing, url).unwrap_or_else(|| panic!("no mend for {}", refusal.words))
    }

    #[test]
    fn what_a_store_answers_has_its_mend() {
        let s3 = "s3://bucket/prefix";
        for (status, code, mended) in [
            (403, "RequestTimeTooSkewed", text::backup::STORE_CLOCK_MEND),
            (403, "SignatureDoesNotMatch", text::backup::STORE_KEYS_MEND),
            (403, "InvalidAccessKeyId", text::backup::STORE_KEYS_MEND),
            (400, "ExpiredToken", text::backup::STORE_EXPIRED_MEND),
            (404, "NoSuchBucket", text::backup::STORE_NO_BUCKET_MEND),
            (301, "PermanentRedirect", text::backup::STORE_REGION_MEND),
            (400, "KMS.DisabledException", text::backup::STORE_KMS_MEND),
            (503, "SlowDown", text::backup::STORE_BUSY_MEND),
            (500, "InternalError", text::backup::STORE_BROKEN_MEND),
        ] {
            let refusal = http(status, &answer(code));
            assert_eq!(mend(&refusal, Doing::Write, s3).code(), mended, "{code}");
            assert_eq!(refusal.why(&[]), format!("{status} {code}: In words."));
        }
        let denied = http(403, &answer("AccessDenied"));
        assert_eq!(mend(&denied, Doing::Delete, s3).fields()["permission"], "s3:DeleteObject");
        assert_eq!(mend(&denied, Doing::List, "gs://b").fields()["permission"], "storage.objects.list");
        assert!(denied.is_denied() && !denied.is_transient() && !denied.is_locked());
        assert!(!http(403, &answer("SignatureDoesNotMatch")).is_denied());
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (status, code) in
            [(500, "InternalError"), (503, "SlowDown"), (400, "RequestTimeout"), (400, "BadDigest")]
        {
            assert!(http(status, &answer(code)).is_transient(), "{code}");
        }
        assert!(http(429, "").is_transient() && http(502, "<html>").is_transient());
        for (status, code) in
            [(403, "AccessDenied"), (404, "NoSuchKey"), (501, "NotImplemented"), (400, "InvalidRequest")]
        {
            assert!(!http(status, &answer(code)).is_transient(), "{code}");
        }
        let generic =
            |said: &str| Refusal::of(&Error::Generic { store: "S3", source: said.to_owned().into() });
        assert!(generic("HTTP error: error sending request: operation timed out").is_transient());
        assert!(generic("HTTP error: connection closed before message completed").is_transient());
        let tls = generic("HTTP error: connection closed: invalid peer certificate: UnknownIssuer");
        assert!(!tls.is_transient());
        assert_eq!(mend(&tls, Doing::Read, "s3://b").code(), text::backup::STORE_TLS_MEND);
        let nobody = generic(
            "Error performing PUT http://169.254.169.254/latest/api/token in 9s - HTTP error: timed out",
        );
        assert_eq!(mend(&nobody, Doing::Read, "s3://b").code(), text::backup::STORE_NO_KEYS_MEND);
    }

    #[test]
    fn a_full_disk_and_retention_have_their_words() {
        for (code, mended) in [
            (28, text::backup::STORE_FULL_MEND),
            (122, text::backup::STORE_FULL_MEND),
            (13, text::backup::STORE_FOLDER_MEND),
            (30, text::backup::STORE_READ_ONLY_MEND),
        ] {
            let source = Box::new(std::io::Error::from_raw_os_error(code));
            let refusal = Refusal::of(&Error::Generic { store: "LocalFileSystem", source });
            assert_eq!(mend(&refusal, Doing::Write, "file:///b").code(), mended, "{code}");
        }
        let gcs = "<Error><Code>AccessDenied</Code><Message>Object 'a' is subject to bucket's retention policy \
                   and cannot be deleted until 2027</Message></Error>";
        assert!(http(403, gcs).is_locked());
        assert_eq!(mend(&http(403, gcs), Doing::Write, "gs://b").code(), text::backup::STORE_RETENTION_MEND);
        assert!(http(409, &answer("BlobImmutableDueToPolicy")).is_locked());
    }

    #[test]
    fn no_secret_is_repeated() {
        let secret = SecretString::from("wJalrXUtnFEMI/K7MDENG");
        let refusal = http(400, "odd answer about wJalrXUtnFEMI/K7MDENG and wJalrXUtnFEMI%2FK7MDENG");
        let why = refusal.why(&[secret]);
        assert!(!why.contains("wJalr") && !why.contains("X-Amz-Signature"), "{why}");
        assert!(why.contains("https://s3.example.com/b/o "), "{why}");
        assert_eq!(without_queries("(https://h/p?sig=a&b=c): x? y"), "(https://h/p): x? y");
    }
}
