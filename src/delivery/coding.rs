//! Compressed bodies: what a Content-Encoding means, and reading it within bounds.
//!
//! Invariant: no more is ever held than the caller's limit, and no more than [`RATIO_MAX`] times what was sent.

use std::io::Read as _;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// gzip (RFC 1952), of one or several members.
    Gzip,
}

/// Why a body could not be decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undecoded {
    /// It becomes larger than the limit, or than any honest message.
    TooLarge,
    /// It is not what its encoding says.
    Broken,
}

impl Coding {
    /// The coding that a Content-Encoding names (RFC 9110, 8.4.1); none for one that is not known here.
    pub fn named(name: &[u8]) -> Option<Self> {
        let is_gzip = name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip");
        is_gzip.then_some(Self::Gzip)
    }

    /// What the body says, if it is no more than `bytes_max`.
    pub fn decode(self, body: &[u8], bytes_max: usize) -> Result<Bytes, Undecoded> {
        let Self::Gzip = self;
        let bytes_max = bytes_max.min(body.len().saturating_mul(RATIO_MAX).max(SMALL_BYTES));
        let mut decoded = Vec::with_capacity(body.len().saturating_mul(4).min(bytes_max));
        // One byte more than may come tells apart what fits from what does not.
        let mut reader = MultiGzDecoder::new(body).take(bytes_max as u64 + 1);
        reader.read_to_end(&mut decoded).map_err(|_| Undecoded::Broken)?;
        if decoded.len() > bytes_max { Err(Undecoded::TooLarge) } else { Ok(decoded.into()) }
    }
}

/// JSON of real reports shrinks to a tenth, the most repetitive lists to a fiftieth; gzip itself could reach a thousandth.
const RATIO_MAX: usize = 100;

/// Up to here the ratio does not matter.
const SMALL_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn bombs_stop_at_the_limit_and_at_the_ratio() {
        let zeros = |bytes: usize| gzip(&vec![0; bytes]);
        assert_eq!(Coding::Gzip.decode(&zeros(SMALL_BYTES), 1 << 20).map(|bytes| bytes.len()), Ok(SMALL_BYTES));
        assert_eq!(Coding::Gzip.decode(&zeros(1 << 20), 1 << 30), Err(Undecoded::TooLarge), "the ratio");
        let honest: Vec<String> = (0..20_000).map(|number| format!("{{\"engine\":{number}}}")).collect();
        let honest = honest.join(",");
        let sent = gzip(honest.as_bytes());
        assert_eq!(Coding::Gzip.decode(&sent, honest.len()), Ok(Bytes::from(honest.clone())));
        assert_eq!(Coding::Gzip.decode(&sent, honest.len() - 1), Err(Undecoded::TooLarge));
    }

    #[test]
    fn broken_streams_and_what_follows_them_are_refused() {
        let good = gzip(b"{}");
        assert_eq!(Coding::Gzip.decode(&[good.clone(), gzip(b"[]")].concat(), 10), Ok(Bytes::from_static(b"{}[]")));
        for bad in [&b""[..], b"{}", &good[..good.len() - 1], &[good.as_slice(), b"x"].concat()] {
            assert_eq!(Coding::Gzip.decode(bad, 10), Err(Undecoded::Broken), "{bad:?}");
        }
        for (name, coding) in
            [("gzip", Some(Coding::Gzip)), ("X-GZIP", Some(Coding::Gzip)), ("br", None), ("gzip, gzip", None)]
        {
            assert_eq!(Coding::named(name.as_bytes()), coding, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600), flip in any::<proptest::sample::Index>()) {
            let _answer = Coding::Gzip.decode(&bytes, 1 << 20);
            let mut sent = gzip(&bytes);
            prop_assert_eq!(Coding::Gzip.decode(&sent, 1 << 20), Ok(Bytes::from(bytes)));
            let at = flip.index(sent.len());
            sent[at] ^= 1;
            let _answer = Coding::Gzip.decode(&sent, 1 << 20);
        }
    }
}
