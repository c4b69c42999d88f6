//! How known senders sign: a new one is a variant and an entry here, and a vector in the tests.
//!
//! Not here: the settings that override an entry (`verify/config`), the engine that reads it (`verify/hmac`).

use serde::{Deserialize, Serialize};

use super::config::{Algorithm, Encoding};
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
    Shopify,
    Polyswarm,
    Vileanalyziz,
}

impl Preset {
    pub(super) const fn rules(self) -> Rules {
        match self {
            Self::StandardWebhooks => STANDARD_WEBHOOKS,
            Self::Svix => Rules {
                headers: &[
                    ["svix-signature", "svix-timestamp", "svix-id"],
                    ["webhook-signature", "webhook-timestamp", "webhook-id"],
                ],
                ..STANDARD_WEBHOOKS
            },
            Self::Github => {
                Rules { headers: &[["x-hub-signature-256", "", "x-github-delivery"]], prefix: "sha256=", ..SPELLED_OUT }
            }
            Self::Stripe => Rules { headers: &[["stripe-signature", "", ""]], ..PARTS_T_V1 },
            Self::Slack => Rules {
                headers: &[["x-slack-signature", "x-slack-request-timestamp", ""]],
                prefix: "v0=",
                signed: "v0:{timestamp}:{body}",
                ..SPELLED_OUT
            },
            Self::Shopify => Rules {
                headers: &[
                    ["x-shopify-hmac-sha256", "", "x-shopify-webhook-id"],
                    ["shopify-hmac-sha256", "", "shopify-webhook-id"],
                ],
                encoding: Encoding::Base64,
                ..SPELLED_OUT
            },
            Self::Polyswarm => Rules {
                headers: &[["x-polyswarm-signature", "", "x-polyswarm-delivery"]],
                ping: Some(("x-polyswarm-event", "ping")),
                ..SPELLED_OUT
            },
            Self::Vileanalyziz => Rules { headers: &[["x-signature", "", ""]], ..PARTS_T_V1 },
        }
    }
}

/// A sender's way of signing, before the config's own settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Signature, time and id header of each form; empty where there is none.
    pub(super) headers: &'static [[&'static str; 3]],
    pub(super) algorithm: Algorithm,
    pub(super) encoding: Encoding,
    pub(super) prefix: &'static str,
    pub(super) shape: RuleShape,
    pub(super) signed: &'static str,
    pub(super) key_form: KeyForm,
    /// Header and value of a message that only tries whether we are there.
    pub(super) ping: Option<(&'static str, &'static str)>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum RuleShape {
    Single,
    SpaceList,
    Parts { timestamp: &'static str, signature: &'static str },
}

/// What is not set where no preset is named.
pub(super) const SPELLED_OUT: Rules = Rules {
    headers: &[["", "", ""]],
    algorithm: Algorithm::Sha256,
    encoding: Encoding::Hex,
    prefix: "",
    shape: RuleShape::Single,
    signed: "{body}",
    key_form: KeyForm::Text,
    ping: None,
};

/// Standard Webhooks 1.0.0.
const STANDARD_WEBHOOKS: Rules = Rules {
    headers: &[["webhook-signature", "webhook-timestamp", "webhook-id"]],
    encoding: Encoding::Base64,
    prefix: "v1,",
    shape: RuleShape::SpaceList,
    signed: "{id}.{timestamp}.{body}",
    key_form: KeyForm::Whsec,
    ..SPELLED_OUT
};

/// `t=1700000000,v1=5f…`, as Stripe began it.
const PARTS_T_V1: Rules =
    Rules { shape: RuleShape::Parts { timestamp: "t", signature: "v1" }, signed: "{timestamp}.{body}", ..SPELLED_OUT };
