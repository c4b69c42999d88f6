//! What is valid and yet probably not meant: told as warnings.
//!
//! Not here: what is wrong (`config`).

use crate::config::{Config, Plan, PollPlan};
use crate::event::Verdict;
use crate::setting::Problem;
use crate::sink::SinkConfig;
use crate::verify::{GridProof, Scheme, TokenPlace};

/// Everything odd, in the order of the config.
pub(super) fn of(config: &Config, plan: &Plan) -> Vec<Problem> {
    let mut odd = Vec::new();
    listener(plan, &mut odd);
    for source in &plan.sources {
        let key = format!("sources.{}", source.id);
        if matches!(source.scheme, Scheme::Network { .. }) && source.poll.is_none() {
            let words = "anybody in these networks can report anything; its events say auth = none, and gates do not trust them: add confirm where the platform can be asked";
            odd.push(Problem::new(format!("{key}.verify.scheme"), words));
        }
        if let Some(poll) = &source.poll {
            platform(&key, poll, &mut odd);
        }
        if source.scheme.shows_its_secret() && is_open(plan) {
            let words = "the token travels without TLS: whoever sees one request can send any";
            odd.push(Problem::new(format!("{key}.verify.scheme"), words));
        }
        event_grid(&key, &source.scheme, &mut odd);
        if source.allow_short_secret {
            let words = "secrets under 24 bytes can be guessed from one signed message";
            odd.push(Problem::new(format!("{key}.verify.allow_short_secret"), words));
        }
    }
    for (name, sink) in &config.sinks {
        sink_alone(&format!("sinks.{name}"), sink, &mut odd);
    }
    flows(plan, &mut odd);
    odd
}

/// What is odd about how a platform is asked.
fn platform(key: &str, poll: &PollPlan, odd: &mut Vec<Problem>) {
    if poll.is_in_the_clear() {
        let words = "its API key travels without TLS: whoever sees one request can ask with it";
        odd.push(Problem::new(key, words));
    }
    if poll.skips_verify() {
        let words = "any certificate of its API is taken, so anyone on the way can read the key and forge reports: only for trying things out";
        odd.push(Problem::new(key, words));
    }
}

/// Proofs of Event Grid that hold, and could hold better.
fn event_grid(key: &str, scheme: &Scheme, odd: &mut Vec<Problem>) {
    let Scheme::EventGrid { proof, .. } = scheme else { return };
    match proof {
        GridProof::Secret(TokenPlace::Query { .. }) => {
            let words = "the secret stands in the URL, which proxies and portals like to write down: keep it out of their logs, or use issuer and audience";
            odd.push(Problem::new(format!("{key}.verify.secret_query"), words));
        }
        GridProof::Issuer(jwt) if !jwt.pins_applications() => {
            let words = "every application that can get a token for the audience may send: name Event Grid's own, like [\"4962773b-9cdb-44cf-a8bf-237846a00ab7\"]";
            odd.push(Problem::new(format!("{key}.verify.applications"), words));
        }
        GridProof::Secret(_) | GridProof::Issuer(_) => {}
    }
}

fn listener(plan: &Plan, odd: &mut Vec<Problem>) {
    if is_open(plan) {
        let words = "senders reach this address without TLS: set receiver.tls, or listen on loopback behind a proxy that has TLS and set receiver.public_url";
        odd.push(Problem::new("receiver.listen", words));
    }
    if plan.receiver.public_url.is_empty() && !plan.receiver.listen.ip().is_loopback() {
        let words = "not set, so the URLs shown are those of this machine: set it to what senders reach";
        odd.push(Problem::new("receiver.public_url", words));
    }
    if plan.receiver.trusted_proxies.iter().any(|network| network.prefix_len() == 0) {
        let words = "everybody is believed to be a proxy, so a sender can claim any address";
        odd.push(Problem::new("receiver.trusted_proxies", words));
    }
    if !plan.api.listen.ip().is_loopback() && plan.api.tokens.is_empty() {
        let words = "off loopback nobody may read without a token, and there is none but the command line's own";
        odd.push(Problem::new("api.tokens", words));
    }
    if plan.api.metrics_open && !plan.api.listen.ip().is_loopback() {
        odd.push(Problem::new("api.metrics_open", "the names of sources and sinks can be read by everybody"));
    }
}

/// Whether requests reach the listener in the clear from another machine, as far as the config tells.
fn is_open(plan: &Plan) -> bool {
    let receiver = &plan.receiver;
    receiver.tls.is_none() && !receiver.listen.ip().is_loopback() && !receiver.public_url.starts_with("https://")
}

/// What is odd about a sink by itself.
fn sink_alone(key: &str, sink: &SinkConfig, odd: &mut Vec<Problem>) {
    let mut problem = |name: &str, words: &str| odd.push(Problem::new(format!("{key}.{name}"), words));
    let skips = match sink {
        SinkConfig::Syslog(syslog) => {
            let addresses = &syslog.address.0;
            if addresses.iter().any(|address| address.starts_with("udp://")) {
                problem(
                    "address",
                    "UDP loses messages without a word and takes 1,024 bytes of each event: use tls:// or tcp:// where the receiver can",
                );
            } else if addresses.iter().any(|address| address.starts_with("tcp://") && !is_local(address)) {
                problem(
                    "address",
                    "events travel in the clear, and anyone on the way can read and change them: use tls:// where the receiver can",
                );
            }
            syslog.tls.dangerous_skip_verify
        }
        SinkConfig::SplunkHec(hec) => {
            if hec.endpoints.iter().any(|endpoint| endpoint.starts_with("http://") && !is_local(endpoint)) {
                problem("endpoints", "the token travels without TLS: use https://");
            }
            hec.tls.dangerous_skip_verify
        }
        SinkConfig::Http(http) => {
            if http.url.starts_with("http://") && !is_local(&http.url) {
                problem("url", "events and a token travel without TLS: use https://");
            }
            http.tls.dangerous_skip_verify
        }
        SinkConfig::Kafka(kafka) => {
            let is_clear = kafka.tls.is_none() && !kafka.options.contains_key("security.protocol");
            if is_clear && !kafka.brokers.iter().all(|broker| is_local(broker)) {
                problem("tls", "events travel in the clear: add tls = {} where the brokers have it");
            }
            let has = |name: &str| kafka.options.contains_key(name);
            if has("sasl.password") && !has("sasl.mechanism") && !has("sasl.mechanisms") {
                problem("options", "sasl.password is asked of nobody: name the sasl.mechanism, like \"SCRAM-SHA-512\"");
            }
            false
        }
        SinkConfig::File(_) | SinkConfig::Console(_) => false,
    };
    if skips {
        problem(
            "tls.dangerous_skip_verify",
            "any certificate is taken, so anyone on the way can read and change what is sent: only for trying things out",
        );
    }
}

/// Whether an address is on this machine, where nobody listens in.
fn is_local(address: &str) -> bool {
    let host = address.split_once("://").map_or(address, |(_, host)| host);
    ["localhost", "127.0.0.1", "[::1]"]
        .iter()
        .any(|local| host.strip_prefix(local).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/'])))
}

/// Sources whose events reach nobody, sinks that nobody feeds.
fn flows(plan: &Plan, odd: &mut Vec<Problem>) {
    if plan.sources.is_empty() {
        odd.push(Problem::new("sources", "there is none, so every request is refused: add [sources.NAME]"));
    }
    if plan.sinks.is_empty() {
        odd.push(Problem::new("sinks", "there is none, so events are kept and go nowhere: add [sinks.NAME]"));
        return;
    }
    for source in &plan.sources {
        let unwanted =
            |verdict: &Verdict| plan.sinks.iter().all(|(_, sink)| !sink.route.may_pass(&source.id, *verdict));
        let lost: Vec<&str> = Verdict::ALL.into_iter().filter(unwanted).map(Verdict::word).collect();
        if !lost.is_empty() {
            let words = format!("no sink gets its events that are {}: see the sinks' where", lost.join(", "));
            odd.push(Problem::new(format!("sources.{}", source.id), words));
        }
    }
    for (name, sink) in &plan.sinks {
        let feeds = |verdict| plan.sources.iter().any(|source| sink.route.may_pass(&source.id, verdict));
        if !plan.sources.is_empty() && !Verdict::ALL.into_iter().any(feeds) {
            odd.push(Problem::new(format!("sinks.{name}.where"), "no event can pass it"));
        }
    }
}
