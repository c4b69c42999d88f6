//! How known senders sign: a new one is a variant and an entry here, and a vector in the tests.
//!
//! Not here: the settings that override an entry (`verify/config`), the engine that reads it (`verify/template`).

use serde::{Deserialize, Serialize};

use super::config::{Encoding, TimestampUnit};
use super::handshake::Asks;
use super::hmac::KeyForm;

/// Senders whose way of signing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names of the senders")]
pub enum Preset {
    StandardWebhooks,
    Svix,
    Github,
    Stripe,
    Slack,
    Zoom,
    Shopify,
    Hookdeck,
    Polyswarm,
    Vileanalyziz,
}

impl Preset {
    /// How it signs with a shared secret.
    pub(super) const fn rules(self) -> Rules {
        match self {
            Self::StandardWebhooks => STANDARD_WEBHOOKS,
            Self::Svix => Rules { headers: SVIX, ..STANDARD_WEBHOOKS },
            Self::Github => Rules {
                headers: &[(&["x-hub-signature-256"], "", "x-github-delivery")],
                prefix: "sha256=",
                ..SPELLED_OUT
            },
            Self::Stripe => Rules { headers: &[(&["stripe-signature"], "", "")], ..PARTS_T_V1 },
            Self::Slack => Rules {
                headers: &[(&["x-slack-signature"], "x-slack-request-timestamp", "")],
                asks: Some(Asks::Slack),
                ..V0
            },
            // <https://developers.zoom.us/docs/api/webhooks/>
            Self::Zoom => {
                Rules { headers: &[(&["x-zm-signature"], "x-zm-request-timestamp", "")], asks: Some(Asks::Zoom), ..V0 }
            }
            Self::Shopify => Rules {
                headers: &[
                    (&["x-shopify-hmac-sha256"], "", "x-shopify-webhook-id"),
                    (&["shopify-hmac-sha256"], "", "shopify-webhook-id"),
                ],
                encoding: Encoding::Base64,
                ..SPELLED_OUT
            },
            // The second header is there while a secret is rolled.
            Self::Hookdeck => Rules {
                headers: &[(&["x-hookdeck-signature", "x-hookdeck-signature-2"], "", "x-hookdeck-eventid")],
                encoding: Encoding::Base64,
                ..SPELLED_OUT
            },
            Self::Polyswarm => Rules {
                headers: &[(&["x-polyswarm-signature"], "", "x-polyswarm-delivery")],
                asks: Some(Asks::Ping("x-polyswarm-event", "ping")),
                ..SPELLED_OUT
            },
            Self::Vileanalyziz => Rules { headers: &[(&["x-signature"], "", "")], ..PARTS_T_V1 },
        }
    }

    /// How it signs with an Ed25519 key, if it does.
    pub(super) const fn rules_of_ed25519(self) -> Option<Rules> {
        match self {
            Self::StandardWebhooks => Some(Rules { prefix: "v1a,", ..STANDARD_WEBHOOKS }),
            Self::Svix => Some(Rules { headers: SVIX, prefix: "v1a,", ..STANDARD_WEBHOOKS }),
            _ => None,
        }
    }
}

/// A sender's way of signing, before the config's own settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) headers: &'static [Form],
    pub(super) encoding: Encoding,
    pub(super) prefix: &'static str,
    pub(super) shape: RuleShape,
    pub(super) signed: &'static str,
    pub(super) timestamp_unit: TimestampUnit,
    pub(super) key_form: KeyForm,
    /// How it asks for an answer instead of sending news.
    pub(super) asks: Option<Asks>,
}

/// The headers of one form of a sender's requests: those with signatures, of which one or several are there; time; id. Empty where there
/// is none.
pub(super) type Form = (&'static [&'static str], &'static str, &'static str);

#[derive(Debug, Clone, Copy)]
pub(super) enum RuleShape {
    Single,
    SpaceList,
    Parts { timestamp: &'static str, signature: &'static str },
}

/// What is not set where no preset is named.
pub(super) const SPELLED_OUT: Rules = Rules {
    headers: &[(&[], "", "")],
    encoding: Encoding::Hex,
    prefix: "",
    shape: RuleShape::Single,
    signed: "{body}",
    timestamp_unit: TimestampUnit::S,
    key_form: KeyForm::Text,
    asks: None,
};

/// Standard Webhooks 1.0.0.
const STANDARD_WEBHOOKS: Rules = Rules {
    headers: &[(&["webhook-signature"], "webhook-timestamp", "webhook-id")],
    encoding: Encoding::Base64,
    prefix: "v1,",
    shape: RuleShape::SpaceList,
    signed: "{id}.{timestamp}.{body}",
    key_form: KeyForm::Whsec,
    ..SPELLED_OUT
};

/// Svix falls back to the names of the standard that it began.
const SVIX: &[Form] =
    &[(&["svix-signature"], "svix-timestamp", "svix-id"), (&["webhook-signature"], "webhook-timestamp", "webhook-id")];

/// `t=1700000000,v1=5f…`, as Stripe began it.
const PARTS_T_V1: Rules =
    Rules { shape: RuleShape::Parts { timestamp: "t", signature: "v1" }, signed: "{timestamp}.{body}", ..SPELLED_OUT };

/// `v0=5f…` with the time in a header of its own, as Slack began it.
const V0: Rules = Rules { prefix: "v0=", signed: "v0:{timestamp}:{body}", ..SPELLED_OUT };

/// RSA with SHA-256 over time, tenant, URL and body. `{tenant}` is put in from the config.
/// After `examples/verify-callback.ts` of widdix/attachmentav-sdk-ts.
pub(super) const ATTACHMENT_AV: Rules = Rules {
    headers: &[(&["x-signature"], "x-timestamp", "")],
    signed: "{timestamp}.{tenant}.{url}.{body}",
    timestamp_unit: TimestampUnit::Ms,
    ..SPELLED_OUT
};
