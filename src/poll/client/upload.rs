//! Requests that carry something to a platform: a question with a body, and a file to the address that the platform named for it.
//!
//! Invariants: a file goes over TLS, or to this machine when the platform itself is configured there; our key and our client certificate
//! go to the configured origin, and for VirusTotal to its own hosts, and to nobody else; a file is read from disk while it is sent.
//!
//! Not here: which steps a submission has (`submit`).

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use reqwest::{Body, Method, RequestBuilder, Url};

use super::{AGENT, Base, Client, Failure, Raw, http_with, is_loopback};
use crate::poll::platform::{LIST_BYTES_MAX, Platform, Question};
use crate::tls::ClientTlsConfig;
use crate::upload::FileBody;

/// What is sent.
pub(in crate::poll) enum Content {
    /// A small text.
    Json(Vec<u8>),
    /// A file, alone or as a form, with its Content-Type and its length.
    File(FileBody, String, u64),
}

/// An address that a platform named for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::poll) struct Place {
    url: Url,
    /// Whether it belongs to the platform, so that it may have our key.
    is_own: bool,
}

impl Place {
    /// Checks what the platform at `base` named; why not, otherwise. The address itself is a secret for a while, so it is not told.
    pub(in crate::poll) fn parse(text: &str, base: &Base, platform: Platform) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| "which is no URL")?;
        if url.host_str().is_none_or(str::is_empty) || !url.username().is_empty() || url.password().is_some() {
            return Err("which has no host, or a user in it");
        }
        let same_origin = url.origin() == base.0.origin();
        let both_here = is_loopback(&url) && base.is_loopback();
        match url.scheme() {
            _ if same_origin => {}
            "https" if is_loopback(&url) && !both_here => return Err("which leads to this machine"),
            "https" => {}
            "http" if both_here => {}
            _ => return Err("which is not https"),
        }
        let host = url.host_str().unwrap_or_default();
        let is_virustotal = url.scheme() == "https" && (host == "virustotal.com" || host.ends_with(".virustotal.com"));
        let is_own = same_origin || (platform == Platform::VirusTotal && is_virustotal);
        let same_host = url.host_str() == base.0.host_str();
        if platform == Platform::VirusTotal && !(is_own || same_host || both_here) {
            return Err("which is on a host that is not VirusTotal's");
        }
        Ok(Self { url, is_own })
    }

    /// Scheme, host and port.
    fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

impl Client {
    /// The address that the platform named, if a file may go there.
    pub(in crate::poll) fn place(&self, text: &str) -> Result<Place, String> {
        Place::parse(text, &self.base, self.platform)
            .map_err(|why| format!("it names an address for the upload {why}: nothing was sent there"))
    }

    /// Posts something to the API.
    pub(in crate::poll) async fn post(
        &mut self,
        path: &[&str],
        key: &[u8],
        content: Content,
        now: Timestamp,
    ) -> Result<Raw, Failure> {
        let path = path.iter().map(|segment| (*segment).to_owned()).collect();
        let url = self.base.url_of(&Question { path, query: Vec::new(), bytes_max: LIST_BYTES_MAX });
        let headers = self.headers(key)?;
        let http = self.http()?;
        self.send(http.post(url).headers(headers), content, now).await
    }

    /// Hands a file over at the place that the platform named.
    pub(in crate::poll) async fn hand_over(
        &mut self,
        place: &Place,
        method_is_put: bool,
        key: &[u8],
        content: Content,
        now: Timestamp,
    ) -> Result<Raw, Failure> {
        let headers = if place.is_own {
            self.headers(key)?
        } else {
            let any = [(ACCEPT, HeaderValue::from_static("*/*")), (USER_AGENT, HeaderValue::from_static(AGENT))];
            HeaderMap::from_iter(any)
        };
        let is_ours = place.url.origin() == self.base.0.origin() || place.url.scheme() == "http";
        let http = if is_ours {
            self.http()?
        } else {
            // Another host: the same authorities may vouch for it, but neither our certificate nor a name we expect is for it.
            let tls = ClientTlsConfig { ca: self.tls.ca().map(ToOwned::to_owned), ..ClientTlsConfig::default() };
            let tls = tls.plan("tls").map_err(|problems| Failure::Tls(problems[0].to_string()))?;
            http_with(tls.load().map_err(|error| Failure::Tls(error.to_string()))?, self.timeout)?
        };
        let method = if method_is_put { Method::PUT } else { Method::POST };
        let request = http.request(method, place.url.clone()).headers(headers);
        self.send(request, content, now).await.map_err(|failure| match failure {
            // The words name the origin in the config.
            Failure::Unavailable(words) => Failure::Unavailable(words.replace(&self.base.origin(), &place.origin())),
            failure => failure,
        })
    }

    async fn send(&self, request: RequestBuilder, content: Content, now: Timestamp) -> Result<Raw, Failure> {
        let (body, kind, timeout) = match content {
            Content::Json(text) => (Body::from(text), "application/json".to_owned(), self.timeout),
            Content::File(body, kind, bytes) => (Body::wrap(body), kind, self.timeout + time_for(bytes)),
        };
        let request = request.header(CONTENT_TYPE, kind).timeout(timeout).body(body);
        let response = request.send().await.map_err(|error| self.failure(error))?;
        let mut raw = self.read(response, LIST_BYTES_MAX, now).await?;
        if (200..300).contains(&raw.status) {
            raw.status = 200;
        }
        Ok(raw)
    }
}

/// How long so much may take on a slow line: 128 KiB/s.
fn time_for(bytes: u64) -> Duration {
    Duration::from_secs(bytes / (128 << 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_a_key_go_only_where_they_may() {
        let place = |platform, base: &str, url: &str| {
            let base = Base::parse(base).expect("a URL");
            Place::parse(url, &base, platform).map(|place| place.is_own).ok()
        };
        let vt = "https://www.virustotal.com";
        for (url, is_own) in [
            ("https://www.virustotal.com/_ah/upload/AMmfu6b-", Some(true)),
            ("https://bigfiles.virustotal.com/x", Some(true)),
            ("http://www.virustotal.com/_ah/upload/x", None),
            ("https://www.virustotal.com.evil.example/x", None),
            ("https://evilvirustotal.com/x", None),
            ("https://storage.example/x", None),
            ("https://a:b@www.virustotal.com/x", None),
            ("http://127.0.0.1:8081/v1/reload", None),
            ("https://127.0.0.1/x", None),
            ("file:///etc/passwd", None),
            ("", None),
        ] {
            assert_eq!(place(Platform::VirusTotal, vt, url), is_own, "{url}");
        }
        let vile = "https://vile.example/api";
        for (url, is_own) in [
            ("https://vile.example/upload/1", Some(true)),
            ("https://bucket.s3.example/1?signature=x", Some(false)),
            ("http://bucket.s3.example/1", None),
            ("https://localhost/1", None),
            ("http://127.0.0.1:1/1", None),
        ] {
            assert_eq!(place(Platform::VileAnalyziz, vile, url), is_own, "{url}");
        }
        let here = "http://127.0.0.1:1";
        assert_eq!(place(Platform::VileAnalyziz, here, "http://127.0.0.1:2/1"), Some(false));
        assert_eq!(place(Platform::VirusTotal, here, "http://127.0.0.1:1/1"), Some(true));
        assert_eq!(place(Platform::VirusTotal, here, "https://storage.example/1"), None);
    }
}
