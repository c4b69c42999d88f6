//! By which id VirusTotal can be asked once more for what a finding says.
//!
//! Invariant: an analysis is asked for by itself, because the entity may have been analysed again since.
//!
//! Not here: the request (`poll`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{is_address, is_domain};
use crate::adapter::FetchId;
use crate::event::{Finding, SubjectId};

/// The id of the analysis, else of the file, URL, domain or address.
pub(super) fn id_of(finding: &Finding) -> Option<FetchId> {
    let event_id = finding.event_id.as_deref().unwrap_or_default();
    if let Some(analysis) = event_id.strip_prefix("analysis:") {
        return FetchId::new("analysis", analysis);
    }
    if event_id.starts_with("private_file:") {
        // Under the id of a file others would be asked about, and the owner's file is not among them.
        return None;
    }
    match finding.subject.id() {
        SubjectId::Sha256(hash) => FetchId::new("file", &hash.to_string()),
        SubjectId::Sha1(hash) => FetchId::new("file", &hash.to_string()),
        SubjectId::Md5(hash) => FetchId::new("file", &hash.to_string()),
        SubjectId::Url(url) if url.contains("://") => {
            let given = event_id.strip_prefix("url:").and_then(|rest| rest.rsplit_once(':'));
            let given = given.and_then(|(id, _)| FetchId::new("url", id));
            // Where VirusTotal gave none: it also takes the URL itself, in base64 without padding.
            given.or_else(|| FetchId::new("url", &URL_SAFE_NO_PAD.encode(url)))
        }
        SubjectId::Url(host) if is_address(host) => FetchId::new("ip_address", host),
        SubjectId::Url(host) if is_domain(host) => FetchId::new("domain", host),
        SubjectId::Url(_) | SubjectId::Object { .. } | SubjectId::Message(_) => None,
    }
}
