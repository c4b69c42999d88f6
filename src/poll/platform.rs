//! What each platform's API looks like: its header for the key, where a report lies, where recent analyses are listed.
//!
//! Sources: VirusTotal API v3 reference; CAPEv2 web/apiv2; Assemblyline 4 REST API; the Triage client of Hatching; MetaDefender Core and
//! Cloud API v4; Vile Analyziz quickstart (which names the list and no path of one file: that one is assumed).
//!
//! Invariant: paths are fixed here; an id only ever fills one segment of one.
//!
//! Not here: what an answer means (`answer`), VirusTotal's streams (`virustotal`).

use jiff::Timestamp;
use serde::Deserialize;

use crate::adapter::FetchId;
use crate::event::Sha256;

/// A platform that this version can ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Platform {
    VirusTotal,
    Cape,
    Assemblyline,
    Triage,
    VileAnalyziz,
    MetaDefender,
}

/// One GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// Segments of the path, unescaped; an empty one at the end is a slash.
    pub(super) path: Vec<String>,
    pub(super) query: Vec<(&'static str, String)>,
    /// Most bytes of the answer.
    pub(super) bytes_max: usize,
}

/// One page of recent analyses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// Finished analyses whose reports lie elsewhere.
    pub(super) reports: Vec<FetchId>,
    /// Whether the reports are this page itself.
    pub(super) is_whole: bool,
    /// Whether everything on the page is older than what was asked for.
    pub(super) is_old: bool,
    /// How to ask for the next page.
    pub(super) next: Option<String>,
}

impl Platform {
    const ALL: [Self; 6] =
        [Self::VirusTotal, Self::Cape, Self::Assemblyline, Self::Triage, Self::VileAnalyziz, Self::MetaDefender];

    /// The platform of an adapter.
    pub(super) fn of(adapter: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|platform| platform.adapter() == adapter)
    }

    const fn adapter(self) -> &'static str {
        match self {
            Self::VirusTotal => "virustotal",
            Self::Cape => "cape",
            Self::Assemblyline => "assemblyline",
            Self::Triage => "triage",
            Self::VileAnalyziz => "vileanalyziz",
            Self::MetaDefender => "metadefender",
        }
    }

    /// The adapters whose platforms can be asked.
    pub(super) fn names() -> String {
        Self::ALL.map(|platform| format!("\"{}\"", platform.adapter())).join(", ")
    }

    /// As users know it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::VirusTotal => "VirusTotal",
            Self::Cape => "CAPE",
            Self::Assemblyline => "Assemblyline",
            Self::Triage => "Triage",
            Self::VileAnalyziz => "Vile Analyziz",
            Self::MetaDefender => "MetaDefender",
        }
    }

    /// The headers that carry the key.
    pub(super) fn headers(self, key: &[u8], user: Option<&str>) -> Vec<(&'static str, Vec<u8>)> {
        let key = key.trim_ascii();
        match self {
            Self::VirusTotal => vec![("x-apikey", key.to_vec())],
            Self::Cape => vec![("authorization", [b"Token ", key].concat())],
            Self::Assemblyline => {
                vec![("x-user", user.unwrap_or_default().as_bytes().to_vec()), ("x-apikey", key.to_vec())]
            }
            Self::Triage | Self::VileAnalyziz => vec![("authorization", [b"Bearer ", key].concat())],
            Self::MetaDefender => vec![("apikey", key.to_vec())],
        }
    }

    /// Where the report of this id lies; none for a kind that the platform does not have.
    pub(super) fn report(self, fetch: &FetchId) -> Option<Question> {
        let id = fetch.id();
        Some(match (self, fetch.kind()) {
            (Self::VirusTotal, "file") => report(&["api", "v3", "files", id]),
            (Self::VirusTotal, "url") => report(&["api", "v3", "urls", id]),
            (Self::VirusTotal, "domain") => report(&["api", "v3", "domains", id]),
            (Self::VirusTotal, "ip_address") => report(&["api", "v3", "ip_addresses", id]),
            (Self::VirusTotal, "analysis") => report(&["api", "v3", "analyses", id]),
            // A private analysis holds no verdict; the file that it is about does.
            (Self::VirusTotal, "private_analysis") => report(&["api", "v3", "private", "analyses", id, "item"]),
            (Self::Cape, "task") => report(&["apiv2", "tasks", "get", "report", id, "json", ""]),
            (Self::Assemblyline, "submission") => report(&["api", "v4", "submission", id, ""]),
            (Self::Triage, "sample") => report(&["v0", "samples", id, "overview.json"]),
            (Self::VileAnalyziz, "file") => report(&["v1", "files", id]),
            (Self::MetaDefender, "data") => report(&["file", id]),
            _ => return None,
        })
    }

    /// Kind of the report of an analysis that is known by its id alone.
    pub(super) const fn analysis_kind(self) -> &'static str {
        match self {
            Self::VirusTotal => "analysis",
            Self::Cape => "task",
            Self::Assemblyline => "submission",
            Self::Triage => "sample",
            Self::VileAnalyziz => "file",
            Self::MetaDefender => "data",
        }
    }

    /// Where the platform tells what it knows of a file; none where only a list can be read.
    pub(super) fn by_hash(self, hash: Sha256) -> Option<Question> {
        let hash = hash.to_string();
        match self {
            Self::VirusTotal => Some(report(&["api", "v3", "files", &hash])),
            Self::MetaDefender => Some(report(&["hash", &hash])),
            Self::Cape | Self::Assemblyline | Self::Triage | Self::VileAnalyziz => None,
        }
    }

    /// Whether it lists recent analyses.
    pub(super) const fn lists(self) -> bool {
        matches!(self, Self::Cape | Self::Assemblyline | Self::Triage | Self::VileAnalyziz)
    }

    /// A page of what finished since then, latest first; `cursor` as the page before gave it.
    pub(super) fn list(self, since: Timestamp, cursor: Option<&str>) -> Option<Question> {
        let offset = cursor.unwrap_or("0");
        let (path, query): (Vec<&str>, Vec<(&'static str, String)>) = match self {
            Self::Cape => (
                vec!["apiv2", "tasks", "list", PAGE, offset, ""],
                vec![
                    ("status", "reported".to_owned()),
                    ("completed_after", since.as_second().to_string()),
                    ("ids", "1".to_owned()),
                ],
            ),
            Self::Assemblyline => (
                vec!["api", "v4", "submission", "list", "group", "ALL", ""],
                vec![
                    ("offset", offset.to_owned()),
                    ("rows", PAGE.to_owned()),
                    ("query", format!("state:completed AND times.completed:[{since:.3} TO *]")),
                ],
            ),
            Self::Triage => (vec!["v0", "samples"], vec![("subset", "owned".to_owned()), ("limit", PAGE.to_owned())]),
            Self::VileAnalyziz => (vec!["v1", "files"], vec![("limit", PAGE.to_owned())]),
            Self::VirusTotal | Self::MetaDefender => return None,
        };
        let mut query = query;
        match (self, cursor) {
            (Self::Triage, Some(cursor)) => query.push(("offset", cursor.to_owned())),
            (Self::VileAnalyziz, Some(cursor)) => query.push(("cursor", cursor.to_owned())),
            _ => {}
        }
        Some(Question { path: path.into_iter().map(str::to_owned).collect(), query, bytes_max: LIST_BYTES_MAX })
    }

    /// What a page of the list says; `cursor` is how it was asked for.
    pub(super) fn read_list(self, body: &[u8], since: Timestamp, cursor: Option<&str>) -> Result<Page, String> {
        let odd = |error: serde_json::Error| format!("its list of analyses is not what this version reads ({error})");
        let offset: usize = cursor.and_then(|cursor| cursor.parse().ok()).unwrap_or_default();
        let next_offset = |count: usize| (count > 0).then(|| (offset + count).to_string());
        match self {
            Self::Cape => {
                let list: CapeList = serde_json::from_slice(body).map_err(odd)?;
                let reports = list.data.iter().filter_map(|task| FetchId::new("task", &task.id.to_string())).collect();
                Ok(Page { reports, next: next_offset(list.data.len()), ..Page::default() })
            }
            Self::Assemblyline => {
                let list: AssemblylineList = serde_json::from_slice(body).map_err(odd)?;
                let items = &list.api_response.items;
                let finished = items.iter().filter(|item| item.state == "completed");
                let id = |item: &AssemblylineItem| FetchId::new("submission", item.sid.as_ref().or(item.id.as_ref())?);
                let reports = finished.filter_map(id).collect();
                let next = next_offset(items.len()).filter(|_| offset + items.len() < list.api_response.total);
                Ok(Page { reports, next, ..Page::default() })
            }
            Self::Triage => {
                let list: TriageList = serde_json::from_slice(body).map_err(odd)?;
                let finished = list.data.iter().filter(|sample| sample.status == "reported");
                let reports = finished.filter_map(|sample| FetchId::new("sample", &sample.id)).collect();
                let is_old = |sample: &TriageSample| sample.completed.or(sample.submitted).is_some_and(|at| at < since);
                let is_old = !list.data.is_empty() && list.data.iter().all(is_old);
                Ok(Page { reports, is_old, next: list.next.filter(|next| !next.is_empty()), ..Page::default() })
            }
            Self::VileAnalyziz => {
                let list: VileList = serde_json::from_slice(body).map_err(odd)?;
                let is_old = |file: &VileFile| file.analyzed_at.is_some_and(|at| at < since);
                let is_old = !list.files.is_empty() && list.files.iter().all(is_old);
                let next = list.next_cursor.filter(|next| !next.is_empty());
                Ok(Page { is_whole: true, is_old, next, ..Page::default() })
            }
            Self::VirusTotal | Self::MetaDefender => Ok(Page::default()),
        }
    }

    /// A small question whose answer says whether the key is good, without changing anything. `key` is only for VirusTotal, whose quotas
    /// are asked for by it.
    pub(super) fn probe(self, key: &[u8], now: Timestamp) -> Question {
        match self {
            Self::VirusTotal => quotas(key),
            Self::MetaDefender => report(&["apikey", ""]),
            _ => self.list(now, None).unwrap_or_else(|| report(&[])),
        }
    }
}

/// VirusTotal's quotas of a key; the id of the user may be the key itself.
pub(super) fn quotas(key: &[u8]) -> Question {
    let key = String::from_utf8_lossy(key.trim_ascii()).into_owned();
    let path = ["api", "v3", "users", &key, "overall_quotas"].map(str::to_owned).into();
    Question { path, query: Vec::new(), bytes_max: LIST_BYTES_MAX }
}

fn report(path: &[&str]) -> Question {
    let path = path.iter().map(|segment| (*segment).to_owned()).collect();
    Question { path, query: Vec::new(), bytes_max: REPORT_BYTES_MAX }
}

#[derive(Deserialize)]
struct CapeList {
    #[serde(default)]
    data: Vec<CapeTask>,
}

#[derive(Deserialize)]
struct CapeTask {
    id: u64,
}

#[derive(Deserialize)]
struct AssemblylineList {
    api_response: AssemblylineItems,
}

#[derive(Deserialize)]
struct AssemblylineItems {
    items: Vec<AssemblylineItem>,
    #[serde(default)]
    total: usize,
}

#[derive(Deserialize)]
struct AssemblylineItem {
    #[serde(default)]
    sid: Option<String>,
    /// The same, as an index calls it.
    #[serde(default)]
    id: Option<String>,
    state: String,
}

#[derive(Deserialize)]
struct TriageList {
    data: Vec<TriageSample>,
    #[serde(default)]
    next: Option<String>,
}

#[derive(Deserialize)]
struct TriageSample {
    id: String,
    status: String,
    #[serde(default)]
    completed: Option<Timestamp>,
    #[serde(default)]
    submitted: Option<Timestamp>,
}

#[derive(Deserialize)]
struct VileList {
    files: Vec<VileFile>,
    #[serde(default, rename = "nextCursor", alias = "next_cursor")]
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct VileFile {
    #[serde(default, rename = "analyzedAt", alias = "analyzed_at")]
    analyzed_at: Option<Timestamp>,
}

/// Entries of one page.
const PAGE: &str = "100";
/// A report of a sandbox has some MiB; the largest fit one journal file of the default size with room to spare.
pub(super) const REPORT_BYTES_MAX: usize = 32 << 20;
/// A page of a list: 40 whole objects of VirusTotal have some 2 MiB.
pub(super) const LIST_BYTES_MAX: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn since() -> Timestamp {
        "2026-03-23T12:00:00Z".parse().expect("a time")
    }

    #[test]
    fn every_kind_of_report_has_its_path_and_no_other_platform_takes_it() {
        for (platform, kind, path) in [
            (Platform::VirusTotal, "file", "api/v3/files/1"),
            (Platform::VirusTotal, "url", "api/v3/urls/1"),
            (Platform::VirusTotal, "domain", "api/v3/domains/1"),
            (Platform::VirusTotal, "ip_address", "api/v3/ip_addresses/1"),
            (Platform::VirusTotal, "analysis", "api/v3/analyses/1"),
            (Platform::VirusTotal, "private_analysis", "api/v3/private/analyses/1/item"),
            (Platform::Cape, "task", "apiv2/tasks/get/report/1/json/"),
            (Platform::Assemblyline, "submission", "api/v4/submission/1/"),
            (Platform::Triage, "sample", "v0/samples/1/overview.json"),
            (Platform::VileAnalyziz, "file", "v1/files/1"),
            (Platform::MetaDefender, "data", "file/1"),
        ] {
            let id = FetchId::new(kind, "1").expect("an id");
            assert_eq!(platform.report(&id).expect(kind).path.join("/"), path);
            let takes = |other: &Platform| other.report(&id).is_some();
            let others = Platform::ALL.iter().filter(|other| **other != platform && takes(other)).count();
            assert_eq!(others, usize::from(kind == "file"), "{kind}");
        }
        for platform in Platform::ALL {
            assert_eq!(Platform::of(platform.adapter()), Some(platform));
            let id = FetchId::new(platform.analysis_kind(), "1").expect("an id");
            assert!(platform.report(&id).is_some(), "an announced analysis can be asked for");
        }
    }

    #[test]
    fn a_key_stands_in_the_header_of_its_platform() {
        let told = |platform: Platform| -> Vec<String> {
            let headers = platform.headers(b"KEY\n", Some("alice")).into_iter();
            headers.map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(&value))).collect()
        };
        assert_eq!(told(Platform::VirusTotal), ["x-apikey: KEY"]);
        assert_eq!(told(Platform::Cape), ["authorization: Token KEY"]);
        assert_eq!(told(Platform::Assemblyline), ["x-user: alice", "x-apikey: KEY"]);
        assert_eq!(told(Platform::Triage), ["authorization: Bearer KEY"]);
        assert_eq!(told(Platform::VileAnalyziz), ["authorization: Bearer KEY"]);
        assert_eq!(told(Platform::MetaDefender), ["apikey: KEY"]);
    }

    #[test]
    fn lists_give_what_is_finished_and_how_to_go_on() {
        let read = |platform: Platform, body: &str, cursor: Option<&str>| {
            let page = platform.read_list(body.as_bytes(), since(), cursor).expect("readable");
            let ids: Vec<String> = page.reports.iter().map(|id| id.id().to_owned()).collect();
            (ids, page.is_old, page.next)
        };
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let cape = r#"{"data": [{"id": 7}, {"id": 6, "status": "reported"}], "config": "Limit: 100", "buf": 0}"#;
        assert_eq!(read(Platform::Cape, cape, Some("100")), (ids(&["7", "6"]), false, Some("102".to_owned())));
        assert_eq!(read(Platform::Cape, r#"{"data": []}"#, None), (ids(&[]), false, None));
        let assemblyline = r#"{"api_response": {"total": 3, "offset": 0, "items": [
            {"id": "4fX", "sid": "4fX", "state": "completed"}, {"sid": "5gY", "state": "submitted"}]}, "api_status_code": 200}"#;
        assert_eq!(read(Platform::Assemblyline, assemblyline, None), (ids(&["4fX"]), false, Some("2".to_owned())));
        assert_eq!(read(Platform::Assemblyline, assemblyline, Some("1")), (ids(&["4fX"]), false, None));
        let triage = r#"{"data": [
            {"id": "260323-b", "status": "running", "submitted": "2026-03-23T12:01:00Z"},
            {"id": "260323-a", "status": "reported", "submitted": "2026-03-23T11:00:00Z", "completed": "2026-03-23T11:04:00Z"}],
            "next": "2026-03-23T11:00:00Z"}"#;
        let next = Some("2026-03-23T11:00:00Z".to_owned());
        assert_eq!(read(Platform::Triage, triage, None), (ids(&["260323-a"]), false, next.clone()));
        let old = triage.replace("12:01", "11:01");
        assert_eq!(read(Platform::Triage, &old, None), (ids(&["260323-a"]), true, next));
        let vile = include_str!("../../tests/payloads/vileanalyziz/files_list_poll.json");
        assert_eq!(read(Platform::VileAnalyziz, vile, None), (ids(&[]), false, None));
        assert!(Platform::Cape.read_list(b"<html>", since(), None).is_err());
    }

    #[test]
    fn a_list_is_asked_for_with_its_bounds() {
        let asked = |platform: Platform, cursor: Option<&str>| {
            let question = platform.list(since(), cursor)?;
            let query: Vec<String> = question.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
            Some(format!("{}?{}", question.path.join("/"), query.join("&")))
        };
        assert_eq!(
            asked(Platform::Cape, Some("200")).as_deref(),
            Some("apiv2/tasks/list/100/200/?status=reported&completed_after=1774267200&ids=1")
        );
        assert_eq!(
            asked(Platform::Assemblyline, None).as_deref(),
            Some(
                "api/v4/submission/list/group/ALL/?offset=0&rows=100&query=state:completed AND times.completed:[2026-03-23T12:00:00.000Z TO *]"
            )
        );
        assert_eq!(asked(Platform::Triage, Some("x")).as_deref(), Some("v0/samples?subset=owned&limit=100&offset=x"));
        assert_eq!(asked(Platform::VileAnalyziz, Some("c")).as_deref(), Some("v1/files?limit=100&cursor=c"));
        assert_eq!(asked(Platform::MetaDefender, None), None);
    }
}
